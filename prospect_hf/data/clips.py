"""Clips as model inputs, and batches of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem, Stream
from prospect_hf.data.clip_index import Clips
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.packing import Clip
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.sessions import IGNORE
from tracking_dst_smolvlm import STATE_NAMES


@dataclass
class ClipInputs:
    """Makes the model inputs of clips, including their frames.

    Args:
        processor: the sequence builder.
        frames: reader of pictures, or of encoded frames where the vision tower is frozen.
        text_dropout: each clip draws a share between 0 and this value, and leaves that share of its state texts and
            responses out of the stream. Reference texts reveal the state; without dropout the heads learn to read the
            texts and not the frames. The labels of the decisions stay. Use 0 for evaluation.
        seed: random seed of the draws. They depend on seed, epoch and number of the clip alone: they are the same in a
            resumed run, where data loaders had read ahead, and with any number of workers.
        late_start: share of the clips, drawn in each epoch, that start at a later frame with the states before
            that frame. A stream whose context was dropped starts in the same way, most often right after it has
            spoken, for words fill a context: where the clip has responses, half of these clips start on the frame
            after one. Use 0 for evaluation.
        negative_rate: share of the frames without a positive label of either decision that keep their labels of both
            decisions, 0 to 1; the others do not count in the losses of the decisions. A frame with a positive label
            keeps both labels: whether to speak on a frame where the state changes is the hardest of negatives. State
            labels and the stream are unchanged. ProAssist trains with 0.1. The frames are drawn anew in each epoch,
            from seed, epoch and session alone, so they do not depend on where clips begin. Use 1 for evaluation.
        state_noise: share of the state texts that say something wrong (``wrong_changes``), as texts that the model
            feeds back to itself may. They are read but not learned, and labels stay true. Drawn from seed, epoch,
            session and frame. The table in the prompt stays right: a wrong text can be seen to be wrong on the frame
            before it, while of what happened before a clip's first frame the table is the only witness, and a model
            that learned to doubt it could do no better than guess. Use 0 for evaluation.
        named: add the clip's name, for messages.
    """

    processor: DSTSmolVLMProcessor
    frames: FrameReader | FrameFeatures
    text_dropout: float = 0.0
    seed: int = 0
    late_start: float = 0.0
    negative_rate: float = 1.0
    state_noise: float = 0.0
    named: bool = False

    def started(self, clip: Clip, epoch: int, index: int) -> Clip:
        """Clip number ``index`` as it is in this epoch: complete, or shortened to start at a later frame."""
        rng = random.Random(f"late start {self.seed} {epoch} {index}")
        if clip.end - clip.begin < 2 or rng.random() >= self.late_start:
            return clip
        frames = range(clip.begin + 1, clip.end)
        spoken = [frame + 1 for frame, item in clip.session.items.items() if item.response and frame + 1 in frames]
        return replace(clip, begin=rng.choice(spoken if spoken and rng.random() < 0.5 else frames))

    def __call__(self, clip: Clip, epoch: int, index: int) -> dict[str, Any]:
        """The inputs of clip number ``index`` in this epoch."""
        clip = self.started(clip, epoch, index)
        session, span = clip.session, slice(clip.begin, clip.end)
        stream = clip.stream(self.processor, self._edit(session, epoch, index))
        kept = self._kept_decisions(session, epoch)[span]
        return {
            "input_ids": torch.tensor(stream.input_ids),
            "labels": torch.tensor(stream.labels),
            "frame_positions": torch.tensor(stream.frame_positions),
            "step_positions": torch.tensor(stream.step_positions),
            "speaking_labels": label_tensor(np.where(kept, session.speaking[span], IGNORE)),
            "dst_update_labels": label_tensor(np.where(kept, session.dst_update[span], IGNORE)),
            "dst_state_labels": label_tensor(session.states_after[span]),
            **self.frames.inputs(session, clip.begin, clip.end),
            **({"clip": f"{session.session_id} frames {clip.begin}-{clip.end - 1}"} if self.named else {}),
        }

    def _edit(self, session: SessionRows, epoch: int, index: int) -> Callable[[int, FrameItem], FrameItem] | None:
        """What text dropout and state noise make of a frame of clip ``index``; None: nothing."""
        if not self.text_dropout and not self.state_noise:
            return None
        rng = random.Random(f"{self.seed} {epoch} {index}")
        share = rng.random() * self.text_dropout

        def edit(frame: int, item: FrameItem) -> FrameItem:
            changes = {} if item.changes and self.text_dropout and rng.random() < share else item.changes
            response = "" if item.response and self.text_dropout and rng.random() < share else item.response
            wrong = self._wrong_changes(session, epoch, frame, changes) if changes and self.state_noise else None
            return FrameItem(changes if wrong is None else wrong, item.user_text, response, wrong=wrong is not None)

        return edit

    def _wrong_changes(
        self, session: SessionRows, epoch: int, frame: int, changes: Mapping[int, int]
    ) -> dict[int, int] | None:
        """What the state text of a frame says in place of ``changes`` in this epoch; None: the truth."""
        rng = random.Random(f"state noise {self.seed} {epoch} {session.session_id} {frame}")
        if rng.random() >= self.state_noise:
            return None
        return wrong_changes(changes, len(session.steps), self.processor, rng)

    def _kept_decisions(self, session: SessionRows, epoch: int) -> NDArray[np.bool_]:
        """``[frames]`` of the session: the labels of both decisions count."""
        positive = (session.speaking == 1) | (session.dst_update == 1)
        if self.negative_rate == 1.0:
            return np.ones_like(positive)
        rng = np.random.default_rng([*f"negatives {self.seed} {epoch} {session.session_id}".encode()])
        kept: NDArray[np.bool_] = positive | (rng.random(len(session)) < self.negative_rate)
        return kept


def wrong_changes(
    changes: Mapping[int, int], steps: int, processor: DSTSmolVLMProcessor, rng: random.Random
) -> dict[int, int] | None:
    """State changes that did not happen, in place of ``changes``: of one change, another step or another state.

    Args:
        changes: step -> state, at least one.
        steps: of the plan.
        processor: lays out the text; a wrong text is never longer than the right one, so that clips stay within
            ``max_seq_len``.
        rng: draws the wrong text.

    Returns:
        None where every wrong text would be longer.
    """

    def tokens(said: Mapping[int, int]) -> int:
        stream = Stream()
        processor.add_state(stream, said)
        return len(stream.input_ids)

    step = rng.choice(sorted(changes))
    rest = {other: state for other, state in changes.items() if other != step}
    candidates = [{**rest, other: changes[step]} for other in range(steps) if other not in changes]
    candidates += [{**rest, step: state} for state in range(len(STATE_NAMES)) if state != changes[step]]
    rng.shuffle(candidates)
    longest = tokens(changes)
    return next((candidate for candidate in candidates if tokens(candidate) <= longest), None)


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips as model inputs.

    Args:
        clips: of a split.
        inputs: makes the inputs of a clip.
    """

    def __init__(self, clips: Clips, inputs: ClipInputs) -> None:
        self.clips, self.inputs = clips, inputs
        # In shared memory, for data-loader workers that live on from one epoch to the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def epoch(self) -> int:
        """The epoch that seeds the draws."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, in worker processes too; the trainer calls this when an epoch begins."""
        self._epoch.fill_(epoch)

    def clip(self, index: int) -> Clip:
        """Clip ``index`` in this epoch: complete, or shortened to start at a later frame."""
        return self.inputs.started(self.clips[index], self.epoch, index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.inputs(self.clips[index], self.epoch, index)


def label_tensor(labels: NDArray[np.int8]) -> torch.Tensor:
    """Labels as the losses take them: int64."""
    return torch.from_numpy(labels.astype(np.int64))


@dataclass
class ClipCollator:
    """Pads clips to one batch: ids with ``pad_token_id``, labels with -100, positions with -1; frames are concatenated.

    Returns tensors ``input_ids``, ``attention_mask``, ``labels`` ``[batch, seq]``; ``frame_positions``,
    ``speaking_labels``, ``dst_update_labels`` ``[batch, frames]``; ``step_positions`` ``[batch, steps, 2]``;
    ``dst_state_labels`` ``[batch, frames, steps]``; ``pixel_values`` ``[all frames, 3, size, size]``, or
    ``frame_features`` ``[all frames, tokens, hidden]``; of named clips, ``clips``: the list of their names.
    """

    pad_token_id: int

    def __call__(self, clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
        fill = {
            "input_ids": self.pad_token_id,
            "labels": IGNORE,
            "frame_positions": -1,
            "step_positions": -1,
            "speaking_labels": IGNORE,
            "dst_update_labels": IGNORE,
        }
        batch: dict[str, Any] = {
            key: torch.nn.utils.rnn.pad_sequence([clip[key] for clip in clips], batch_first=True, padding_value=value)
            for key, value in fill.items()
        }
        lengths = torch.tensor([len(clip["input_ids"]) for clip in clips])
        # The mask follows from lengths, since the pad token may also occur in a text.
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        frames, steps = batch["frame_positions"].shape[1], batch["step_positions"].shape[1]
        states = torch.full((len(clips), frames, steps), IGNORE)
        for row, clip in enumerate(clips):
            labels = clip["dst_state_labels"]
            states[row, : labels.shape[0], : labels.shape[1]] = labels
        batch["dst_state_labels"] = states
        name = "pixel_values" if "pixel_values" in clips[0] else "frame_features"
        batch[name] = torch.cat([clip[name] for clip in clips])
        if "clip" in clips[0]:
            batch["clips"] = [clip["clip"] for clip in clips]
        return batch
