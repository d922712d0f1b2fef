"""Counts the floating-point operations of the matrix products that run, as ``torch.utils.flop_counter`` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

# Asked for several times by every operation on a fake tensor, which knows the answer: the modes below are spared it.
DEVICE = torch.ops.prim.device.default


class FlopCount(TorchDispatchMode):
    """While it is active, the operations of matrix products and of attention add up in ``total``."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and count its operations."""
        if func is DEVICE:
            return args[0].device
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            count: Callable[..., int] = flop_registry[packet]
            self.total += int(count(*args, **kwargs, out_val=result))
        elif str(packet) in OTHERS:
            self.total += OTHERS[str(packet)](*tree_map(_shape, args))
        return result


def _shape(one: Any) -> Any:
    return tuple(one.shape) if isinstance(one, torch.Tensor) else one


def _attention(query: tuple[int, ...], key: tuple[int, ...], *rest: Any) -> int:
    batch, heads, rows, width = query
    return 4 * batch * heads * rows * key[2] * width


def _attention_backward(gradient: Any, query: tuple[int, ...], key: tuple[int, ...], *rest: Any) -> int:
    # Five products of the size of the forward pass's two: the scores are computed again.
    return _attention(query, key) * 5 // 2


def _product_of_4_bits(rows: tuple[int, ...], packed: Any, shape: list[int], *rest: Any) -> int:
    count = 1
    for size in rows:
        count *= size
    return 2 * count * shape[0]


# What torch's own table lacks: attention on CPUs, and bitsandbytes' products.
OTHERS: dict[str, Callable[..., int]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "bitsandbytes.gemm_4bit": _product_of_4_bits,
}
