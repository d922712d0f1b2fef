"""Few frames of many sessions: what a model that is trained from scratch learns to see with.

A batch of whole sessions shows hundreds of frames of a handful of scenes, each nearly the same as the one before. A
vision tower learns far sooner from the same number of frames of many scenes. A glimpse is the plan without its states
and a few frames of the session in their order; only the states are labelled, since what was said or changed between two
glimpses is not in them.

The plan's lines are shuffled. People mostly follow a plan, so that a count of the finished parts and a step's place in
the plan already tell most states, and a model that has found that out stops looking at which part is which.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from processing_dst_smolvlm import DSTSmolVLMProcessor, FrameItem
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.sessions import IGNORE


class GlimpseDataset(Dataset[dict[str, torch.Tensor]]):
    """One glimpse of each session that has state labels; other frames and another order of the plan in every epoch.

    Items are as of ``ClipDataset``.

    Args:
        sessions: the sessions of a split.
        processor: the sequence builder.
        reader: where the pictures come from.
        frames: frames of a glimpse; a shorter session is shown whole.
        seed: of the choice of frames and of the order of the plan.

    Raises:
        DataError: no session has state labels.
    """

    def __init__(
        self,
        sessions: Sequence[SessionRows],
        processor: DSTSmolVLMProcessor,
        reader: FrameReader,
        frames: int,
        seed: int = 0,
    ) -> None:
        self.processor, self.reader, self.frames = processor, reader, frames
        self.seed, self.epoch = seed, 0
        self.sessions = [session for session in sessions if session.labelled]
        if not self.sessions:
            raise DataError("No training session has state labels: set training.look_steps=0, there is nothing to see.")

    def __len__(self) -> int:
        return len(self.sessions)

    def set_epoch(self, epoch: int) -> None:
        """Choose other frames than in another epoch; the trainer says when one begins."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        session = self.sessions[index]
        rng = random.Random(f"{self.seed} {self.epoch} {index}")
        chosen = sorted(rng.sample(range(len(session)), min(self.frames, len(session))))
        order = rng.sample(range(len(session.steps)), len(session.steps))
        plan = [session.steps[step] for step in order]
        stream = self.processor.build(session.goal, plan, None, [FrameItem() for _ in chosen])
        nothing = torch.full((len(chosen),), IGNORE)
        pictures = [self.reader.read(session, frame, frame + 1)[0] for frame in chosen]
        return {
            "input_ids": torch.tensor(stream.input_ids),
            "labels": torch.tensor(stream.labels),
            "frame_positions": torch.tensor(stream.frame_positions),
            "step_positions": torch.tensor(stream.step_positions),
            "speaking_labels": nothing,
            "dst_update_labels": nothing.clone(),
            "dst_state_labels": torch.from_numpy(session.states_after[chosen][:, order]),
            "pixel_values": self.processor.pixel_values(pictures),
        }
