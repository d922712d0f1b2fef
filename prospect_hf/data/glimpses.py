"""Pairs of frames of many sessions: what a model that is trained from scratch learns to see with.

A batch of whole sessions shows hundreds of frames of a handful of scenes, each nearly the same as the one before. A
vision tower learns far sooner from the same number of frames of many scenes. A glimpse is the plan without its states
and a few pairs of consecutive frames, in their order. States are labelled on every frame; the two decisions on the
second frame of a pair, since what happened between two pairs is not seen.

The plan's lines are shuffled. People mostly follow a plan, so that a count of the finished parts and a step's place in
the plan already tell most states, and a model that has found that out stops looking at which part is which.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.sessions import IGNORE

# Share of the pairs that end where the assistant speaks or the state changes, which few frames do.
EVENT_SHARE = 0.25


class GlimpseDataset(Dataset[dict[str, torch.Tensor]]):
    """One glimpse of each session that has state labels; other frames and another order of the plan in every epoch.

    Items are as of ``ClipDataset``, with pictures.

    Args:
        sessions: the sessions of a split.
        processor: the sequence builder.
        reader: where the pictures come from.
        pairs: pairs of frames of a glimpse at most; a short session has fewer.
        seed: of the choice of frames and of the order of the plan.

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
    ) -> None:
        self.processor, self.reader, self.pairs = processor, reader, pairs
        self.seed, self.epoch = seed, 0
        self.sessions = [session for session in sessions if session.labelled and len(session) > 1]
        if not self.sessions:
            raise DataError(
                "No training session has state labels and two frames: set training.look_steps=0, nothing can be seen."
            )

    def __len__(self) -> int:
        return len(self.sessions)

    def set_epoch(self, epoch: int) -> None:
        """Choose other frames than in another epoch; the trainer says when one begins."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        session = self.sessions[index]
        rng = random.Random(f"{self.seed} {self.epoch} {index}")
        ends = self._pair_ends(session, rng)
        chosen = [frame for end in ends for frame in (end - 1, end)]
        order = rng.sample(range(len(session.steps)), len(session.steps))
        plan = [session.steps[step] for step in order]
        # A question belongs to what the assistant decides on the frame after it.
        items = [item for end in ends for item in (FrameItem(user_text=session.item(end - 1).user_text), FrameItem())]
        stream = self.processor.build(session.goal, plan, None, items)
        pictures = [self.reader.read(session, frame, frame + 1)[0] for frame in chosen]
        return {
            "input_ids": torch.tensor(stream.input_ids),
            "labels": torch.full((len(stream.input_ids),), IGNORE),
            "frame_positions": torch.tensor(stream.frame_positions),
            "step_positions": torch.tensor(stream.step_positions),
            "speaking_labels": _on_second_frames(session.speaking[ends]),
            "dst_update_labels": _on_second_frames(session.dst_update[ends]),
            "dst_state_labels": torch.from_numpy(session.states_after[chosen][:, order]),
            "pixel_values": self.processor.pixel_values(pictures),
        }

    def _pair_ends(self, session: SessionRows, rng: random.Random) -> list[int]:
        """The second frames of pairs that do not overlap, in order (positions in the session)."""
        free = list(range(1, len(session)))
        ends: list[int] = []
        while free and len(ends) < self.pairs:
            events = [frame for frame in free if session.speaking[frame] == 1 or session.dst_update[frame] == 1]
            end = rng.choice(events if events and rng.random() < EVENT_SHARE else free)
            ends.append(end)
            free = [frame for frame in free if abs(frame - end) > 1]
        return sorted(ends)


def _on_second_frames(labels: np.ndarray) -> torch.Tensor:
    """``[pairs]`` labels to ``[2 * pairs]``, -100 on the first frame of each pair."""
    both = torch.full((2 * len(labels),), IGNORE)
    both[1::2] = torch.from_numpy(labels)
    return both
