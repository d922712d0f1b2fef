"""Settings of the memory plan."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prospect_hf.errors import UsageError
from prospect_hf.training.memory.cards import CARDS

UNITS = {"": 2**30, "b": 1, "mib": 2**20, "gib": 2**30, "tib": 2**40, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass
class PlanArguments:
    """What a memory plan is made for.

    Args:
        gpu_memory: memory of the GPU: ``24GiB``, ``24GB``, or a plain number of GiB; none: the card's.
        card: the card for the time of an epoch: rtx_3090, rtx_4090, a10, l4, l40s, a100_40gb, a100_80gb or h100.
        utilisation: assumed share of the card's peak rate that training reaches, above 0 and at most 1.
        allowance: what is kept free for the CUDA context, the libraries' workspaces and fragmentation.
        text_tokens: tokens of text (plan, states, turns) for each frame of a clip.
        labelled: share of the text tokens that are learned (responses and states), 0 to 1.
        steps: steps of a clip's plan; the state head reads every step at every frame.
        frames_per_epoch: frames that an epoch reads; none: those of data.rows' manifest, or of ProAssist's training
            conversations.
        table: also print the table of the three published sizes at 1, 4, 9 and all tokens a frame.
    """

    gpu_memory: str | float | None = None
    card: str = "rtx_4090"
    utilisation: float = 0.35
    allowance: str | float = "2GiB"
    text_tokens: float = 0.5
    labelled: float = 0.6
    steps: int = 12
    frames_per_epoch: int | None = None
    table: bool = False

    def __post_init__(self) -> None:
        if self.card not in CARDS:
            raise UsageError(f"plan.card must be one of {', '.join(CARDS)}, not {self.card!r}.")
        if not 0 < self.utilisation <= 1:
            raise UsageError(f"plan.utilisation must be above 0 and at most 1, not {self.utilisation}.")
        if not 0 <= self.labelled <= 1:
            raise UsageError(f"plan.labelled must lie in [0, 1], not {self.labelled}.")
        if not 0 <= self.text_tokens <= 1000:
            raise UsageError(f"plan.text_tokens must lie in [0, 1000], not {self.text_tokens}.")
        if not 1 <= self.steps <= 100:
            raise UsageError(f"plan.steps must lie in [1, 100], not {self.steps}.")
        if self.frames_per_epoch is not None and self.frames_per_epoch < 1:
            raise UsageError(f"plan.frames_per_epoch must be 1 or more, not {self.frames_per_epoch}.")
        if self.memory_bytes <= self.allowance_bytes:
            raise UsageError(
                f"plan.allowance={self.allowance} leaves nothing of a GPU of {gibibytes(self.memory_bytes)}: lower it, "
                "or raise plan.gpu_memory."
            )

    @property
    def memory_bytes(self) -> int:
        """The GPU's memory in bytes."""
        return CARDS[self.card].memory if self.gpu_memory is None else parse_size(self.gpu_memory, "plan.gpu_memory")

    @property
    def allowance_bytes(self) -> int:
        """What is kept free, in bytes."""
        return parse_size(self.allowance, "plan.allowance", least=0)


def parse_size(size: str | float, name: str, least: float = 1) -> int:
    """A size in bytes: ``24GiB``, ``24GB``, ``512 MiB``, or a plain number of GiB.

    Args:
        name: the setting, for the message.
        least: the smallest size in bytes.

    Raises:
        UsageError: no size, or one that is too small.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", str(size).lower())
    if found is None or found[2] not in UNITS:
        raise UsageError(f"{name} must be a size such as 24GiB, 24GB or 24 (GiB), not {size!r}.")
    size_in_bytes = float(found[1]) * UNITS[found[2]]
    if not least <= size_in_bytes < 2**60:
        raise UsageError(f"{name}={size} is no size that a GPU has: give one such as 24GiB.")
    return int(size_in_bytes)


def gibibytes(size: float) -> str:
    """Bytes for people: ``3.2 GiB``, or ``12 MiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 0.95 * 2**30 else f"{size / 2**20:.0f} MiB"
