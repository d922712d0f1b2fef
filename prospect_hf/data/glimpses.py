"""Training samples that teach a vision tower from scratch: pairs of frames of many sessions.

A batch of whole sessions has hundreds of frames of few scenes, and consecutive frames are nearly equal. A vision tower
learns much faster from the same number of frames of many scenes. A glimpse is the plan without states, followed by a
few pairs of consecutive frames in order. Every frame has state labels. The two decisions are labelled on the second
frame of each pair only, since the frames between two pairs are not shown.

The lines of the plan are shuffled. People mostly carry out a plan in order, so the number of finished parts and a
step's position in the plan predict most states; a model that learns this shortcut ignores which part is which.

A share of the glimpses ends with what the assistant says on its last frame: words name what no state needs, such as the
shape of a part, and what speaks for an utterance. What is said follows the order of the plan, so the plan keeps it
there, and the states of these glimpses have no labels, or they would teach the shortcut.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from prospect_hf.data.clips import label_tensor
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.sessions import IGNORE

# Share of the pairs whose second frame is drawn from the events, which are rare: from the state changes, or, as often,
# from the utterances without one. There are fewer of these, and what they answer to is harder to see.
EVENT_SHARE = 0.4


class GlimpseDataset(Dataset[dict[str, Any]]):
    """One glimpse per session with state labels; each epoch draws other frames and another order of the plan.

    Items have the keys of ``ClipDataset``, with ``pixel_values``; a clip's name is its session's id.

    Args:
        sessions: the sessions of a split.
        processor: the sequence builder.
        reader: reader of the pictures.
        pairs: largest number of frame pairs in a glimpse; a short session has fewer.
        seed: random seed of the frames and of the plan's order.
        utterances: share of the glimpses that end with an utterance, where their session has any.

    Raises:
        DataError: no session has state labels and two frames.
    """

    def __init__(
        self,
        sessions: Sequence[SessionRows],
        processor: DSTSmolVLMProcessor,
        reader: FrameReader,
        pairs: int,
        seed: int = 0,
        utterances: float = 0.0,
    ) -> None:
        self.processor, self.reader, self.pairs = processor, reader, pairs
        self.seed, self.utterances = seed, utterances
        # In shared memory, for data-loader workers that live on from one epoch to the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.sessions = sessions
        # Their numbers, and not the sessions, which need not all be in memory.
        self.usable = [number for number, one in enumerate(sessions) if one.labelled and len(one) > 1]
        if not self.usable:
            raise DataError(
                "No training session has state labels and two frames; set training.look_steps=0 to skip this stage."
            )

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def epoch(self) -> int:
        """The epoch that seeds the draws."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, in worker processes too; the trainer calls this when an epoch begins."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        session = self.sessions[self.usable[index]]
        rng = random.Random(f"{self.seed} {self.epoch} {index}")
        said = self._utterance(session, rng)
        ends = self._pair_ends(session, rng, said)
        chosen = [frame for end in ends for frame in (end - 1, end)]
        # The user's text on the first frame of a pair belongs to the decision on the second one.
        items = [item for end in ends for item in (FrameItem(user_text=session.item(end - 1).user_text), FrameItem())]
        order = list(range(len(session.steps)))
        states = label_tensor(session.states_after[chosen])
        if said is None:
            order = rng.sample(order, len(order))
            states = states[:, order]
        else:
            items[-1] = FrameItem(response=session.item(said).response)
            states = torch.full_like(states, IGNORE)
        stream = self.processor.build(session.goal, [session.steps[step] for step in order], None, items)
        pictures = [self.reader.read(session, frame, frame + 1)[0] for frame in chosen]
        return {
            "input_ids": torch.tensor(stream.input_ids),
            "labels": torch.tensor(stream.labels),
            "frame_positions": torch.tensor(stream.frame_positions),
            "step_positions": torch.tensor(stream.step_positions),
            "speaking_labels": _on_second_frames(session.speaking[ends]),
            "dst_update_labels": _on_second_frames(session.dst_update[ends]),
            "dst_state_labels": states,
            "pixel_values": self.processor.pixel_values(pictures),
            "clip": session.session_id,
        }

    def _utterance(self, session: SessionRows, rng: random.Random) -> int | None:
        """Position of the frame with whose utterance the glimpse ends; None: it ends with no utterance."""
        if not self.utterances or rng.random() >= self.utterances:
            return None
        frames = [frame for frame, item in session.items.items() if item.response and frame > 0]
        return rng.choice(frames) if frames else None

    def _pair_ends(self, session: SessionRows, rng: random.Random, last: int | None) -> list[int]:
        """Sorted positions in the session of the pairs' second frames; pairs do not overlap.

        Args:
            last: the greatest of them; None: any.
        """
        ends = [] if last is None else [last]
        free = list(range(1, len(session) if last is None else last - 1))
        while free and len(ends) < self.pairs:
            changes = [frame for frame in free if session.dst_update[frame] == 1]
            words = [frame for frame in free if session.speaking[frame] == 1 and session.dst_update[frame] != 1]
            events = [group for group in (changes, words) if group]
            end = rng.choice(rng.choice(events) if events and rng.random() < EVENT_SHARE else free)
            ends.append(end)
            free = [frame for frame in free if abs(frame - end) > 1]
        return sorted(ends)


def _on_second_frames(labels: np.ndarray) -> torch.Tensor:
    """Spread ``[pairs]`` labels over ``[2 * pairs]`` frames: -100 on the first frame of each pair."""
    both = torch.full((2 * len(labels),), IGNORE)
    both[1::2] = label_tensor(labels)
    return both
