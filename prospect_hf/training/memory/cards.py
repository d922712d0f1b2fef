"""What GPUs have and do, from their makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Card:
    """A GPU.

    Args:
        name: for people.
        memory: in bytes, as the driver shows it.
        bf16_flops: peak rate of dense bfloat16 matrix products with float32 sums, in operations a second.
    """

    name: str
    memory: int
    bf16_flops: float


# Sources: NVIDIA's data sheets and architecture papers (GA102, AD102, A10, L4, L40S, A100, H100 SXM); rates without
# sparsity. GeForce cards sum in float32 at half the rate of float16 sums.
CARDS = {
    "rtx_3090": Card("NVIDIA GeForce RTX 3090", 24_576 * MIB, 71.2e12),
    "rtx_4090": Card("NVIDIA GeForce RTX 4090", 24_564 * MIB, 165.2e12),
    "a10": Card("NVIDIA A10", 23_028 * MIB, 125e12),
    "l4": Card("NVIDIA L4", 23_034 * MIB, 121e12),
    "l40s": Card("NVIDIA L40S", 46_068 * MIB, 362e12),
    "a100_40gb": Card("NVIDIA A100 40 GB", 40_960 * MIB, 312e12),
    "a100_80gb": Card("NVIDIA A100 80 GB", 81_920 * MIB, 312e12),
    "h100": Card("NVIDIA H100 SXM", 81_559 * MIB, 989e12),
}
