"""Floating-point operations of a training step, by formula, and the peak rates of known cards."""

from __future__ import annotations

from dataclasses import dataclass

from shapes import Shape

from prospect_hf.training.memory.cards import CARDS

# Cards of the memory plan by how the driver names them. The H200 has the H100's chip, with other memory.
DRIVER_NAMES = {
    "H100 80GB HBM3": "h100",
    "H200": "h100",
    "A100": "a100_80gb",
    "L40S": "l40s",
    "NVIDIA L4": "l4",
    "RTX 4090": "rtx_4090",
    "RTX 3090": "rtx_3090",
}


def peak_flops(name: str) -> float | None:
    """The peak rate of bfloat16 matrix products of a card, by the driver's name for it; None for an unknown one."""
    return next((CARDS[card].bf16_flops for part, card in DRIVER_NAMES.items() if part in name), None)


@dataclass(frozen=True)
class StepFlops:
    """Operations of one training step: of each part's forward pass, and of the whole step.

    Args:
        layers: the matrices of the text model's layers.
        attention: scores and weighted sums, half of them: each token reads those before it.
        lora: the LoRA matrices.
        lm_head: at the labelled places.
        heads: the heads of decisions and states.
    """

    layers: float
    attention: float
    lora: float
    lm_head: float
    heads: float

    @property
    def forward(self) -> float:
        """The forward pass."""
        return self.layers + self.attention + self.lora + self.lm_head + self.heads

    @property
    def model(self) -> float:
        """Forward and backward pass with frozen matrices, without what checkpoints compute twice.

        A matrix product ``x W`` of 2 n operations needs as many for the gradient of x, and as many again for that of W
        where W is trained. Attention has two operands, both with a gradient (PaLM, Chowdhery et al. 2022, appendix B,
        counts 6 operations a trained weight and token: 2 forward, 4 backward).
        """
        return self.forward + self.layers + self.lm_head + 2 * (self.attention + self.lora + self.heads)

    @property
    def hardware(self) -> float:
        """As ``model``, with the second forward pass of the layers (Korthikanti et al. 2022, hardware utilisation)."""
        return self.model + self.layers + self.attention + self.lora


def step_flops(shape: Shape, rows: int, positions: int, labelled: int, frames: int, steps: int, rank: int) -> StepFlops:
    """Operations of a step from cached features.

    Args:
        shape: of the model.
        rows, positions: streams, and tokens of each.
        labelled: places with a text label, of all rows.
        frames: of all rows.
        steps: of each row's plan.
        rank: of the LoRA matrices at q, k, v, o, gate, up and down.
    """
    hidden, kv = shape.hidden, shape.hidden * shape.kv_heads // shape.heads
    sizes = [(hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden)]  # q, k, v, o
    sizes += [(hidden, shape.intermediate), (hidden, shape.intermediate), (shape.intermediate, hidden)]
    tokens = rows * positions
    of_frame = 2 * hidden * hidden + 2 * hidden * 4 + steps * 2 * hidden * 3
    of_plan = 2 * steps * hidden * hidden + 2 * steps * positions * hidden
    return StepFlops(
        layers=2.0 * tokens * shape.layers * sum(a * b for a, b in sizes),
        attention=rows * shape.layers * 2.0 * positions**2 * hidden,
        lora=2.0 * tokens * shape.layers * rank * sum(a + b for a, b in sizes),
        lm_head=2.0 * labelled * hidden * shape.vocab,
        heads=float(frames * of_frame + rows * of_plan),
    )
