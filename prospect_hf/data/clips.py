"""Clips as model inputs, and batches of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.clip_index import Clips
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.packing import Clip
from prospect_hf.data.reader import FrameReader
from prospect_hf.sessions import IGNORE


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
            that frame. A stream whose context was dropped starts in the same way. Use 0 for evaluation.
    """

    processor: DSTSmolVLMProcessor
    frames: FrameReader | FrameFeatures
    text_dropout: float = 0.0
    seed: int = 0
    late_start: float = 0.0

    def started(self, clip: Clip, epoch: int, index: int) -> Clip:
        """Clip number ``index`` as it is in this epoch: complete, or shortened to start at a later frame."""
        rng = random.Random(f"late start {self.seed} {epoch} {index}")
        if clip.end - clip.begin < 2 or rng.random() >= self.late_start:
            return clip
        return replace(clip, begin=rng.randrange(clip.begin + 1, clip.end))

    def __call__(self, clip: Clip, epoch: int, index: int) -> dict[str, torch.Tensor]:
        """The inputs of clip number ``index`` in this epoch."""
        clip = self.started(clip, epoch, index)
        session, span = clip.session, slice(clip.begin, clip.end)
        drop: Callable[[], bool] | None = None
        if self.text_dropout:
            rng = random.Random(f"{self.seed} {epoch} {index}")
            share = rng.random() * self.text_dropout

            def drop() -> bool:
                return rng.random() < share

        stream = clip.stream(self.processor, drop)
        return {
            "input_ids": torch.tensor(stream.input_ids),
            "labels": torch.tensor(stream.labels),
            "frame_positions": torch.tensor(stream.frame_positions),
            "step_positions": torch.tensor(stream.step_positions),
            "speaking_labels": label_tensor(session.speaking[span]),
            "dst_update_labels": label_tensor(session.dst_update[span]),
            "dst_state_labels": label_tensor(session.states_after[span]),
            **self.frames.inputs(session, clip.begin, clip.end),
        }


class ClipDataset(Dataset[dict[str, torch.Tensor]]):
    """Clips as model inputs.

    Args:
        clips: of a split.
        inputs: makes the inputs of a clip.
    """

    def __init__(self, clips: Clips, inputs: ClipInputs) -> None:
        self.clips, self.inputs, self.epoch = clips, inputs, 0

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which seeds the draws; the trainer calls this when an epoch begins."""
        self.epoch = epoch

    def clip(self, index: int) -> Clip:
        """Clip ``index`` in this epoch: complete, or shortened to start at a later frame."""
        return self.inputs.started(self.clips[index], self.epoch, index)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
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
    ``frame_features`` ``[all frames, tokens, hidden]``.
    """

    pad_token_id: int

    def __call__(self, clips: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        fill = {
            "input_ids": self.pad_token_id,
            "labels": IGNORE,
            "frame_positions": -1,
            "step_positions": -1,
            "speaking_labels": IGNORE,
            "dst_update_labels": IGNORE,
        }
        batch = {
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
        return batch
