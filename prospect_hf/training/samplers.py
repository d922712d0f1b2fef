"""The order in which a run reads its clips."""

from __future__ import annotations

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class ByLength(LengthGroupedSampler):
    """Batches of clips of similar length, in an order that depends on seed and epoch alone.

    The library's sampler draws from the global generator, whose state differs in a resumed run.
    """

    def __init__(self, window: int, lengths: list[int], seed: int) -> None:
        super().__init__(window, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.generator.manual_seed(self.seed + epoch)
