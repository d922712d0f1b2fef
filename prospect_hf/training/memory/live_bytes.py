"""Counts the bytes that live tensors take while code runs, and what they were at the peak.

Each storage is counted once, from the operation that makes it until its last reference is gone. So views, operations in
place, tied weights and tensors that autograd keeps are all counted as an allocator would. It works on fake tensors,
which have sizes and no memory, as well as on real ones.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, QUANTISED, ADAPTERS, GRADIENTS = "weights", "quantisation state", "adapters", "gradients"
OPTIMISER, COPIES, INPUTS = "optimiser", "copies of weights", "inputs"
ACTIVATIONS, LOGITS = "activations", "logits"
PARTS = (WEIGHTS, QUANTISED, ADAPTERS, GRADIENTS, OPTIMISER, COPIES, INPUTS, ACTIVATIONS, LOGITS)
# What a parameter is stored as; a cast of one of these is a copy of a weight.
STORED = (WEIGHTS, QUANTISED, ADAPTERS)
CASTS = (torch.ops.aten._to_copy.default, torch.ops.aten.clone.default)
# Asked for by every operation on a fake tensor; it makes nothing.
DEVICE = torch.ops.prim.device.default
# The caching allocator of CUDA hands out multiples of this many bytes.
CUDA_BLOCK = 512


class LiveBytes(TorchDispatchMode):
    """While it is active, every new storage is counted until it is freed.

    Args:
        vocabulary: size of the vocabulary: floating-point tensors whose last dimension has this size are logits.
        block: allocations are rounded up to a multiple of this many bytes; 512 on CUDA.
        workspace: bytes that an operation takes beside its results while it runs, by its name (``bitsandbytes.name``),
            from its arguments.

    Attributes:
        live: bytes of each part that are alive.
        peak: the largest sum of ``live`` so far, in bytes.
        at_peak: bytes of each part at that moment.
    """

    def __init__(
        self,
        vocabulary: int = 0,
        block: int = 1,
        workspace: Mapping[str, Callable[..., int]] | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary, self.block, self.workspace = vocabulary, block, dict(workspace or {})
        self.live: Counter[str] = Counter()
        self.total = self.peak = 0
        self.at_peak: dict[str, int] = {}
        self._storages: dict[int, tuple[str, int, weakref.ref[Any]]] = {}
        self._part: str | None = None

    def add(self, tensors: Iterable[Tensor], part: str) -> None:
        """Count tensors that are there already, or give those that are counted another part."""
        for tensor in tensors:
            self._count(tensor, part)
            self._move(tensor, part)

    def add_model(self, model: nn.Module) -> None:
        """Count a model's weights and buffers by what they are, and its gradients from when they are accumulated."""
        for name, weight in model.named_parameters():
            self.add([weight], ADAPTERS if "lora_" in name else WEIGHTS)
            state = vars(weight).get("quant_state")
            if state is not None:  # of bitsandbytes' 4-bit weights
                inner = state.state2 if state.nested else None
                found = [state.absmax, state.code, *([state.offset, inner.absmax, inner.code] if inner else [])]
                self.add(found, QUANTISED)
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(self._gradient)
        self.add(model.buffers(), WEIGHTS)

    def _gradient(self, weight: Tensor) -> None:
        if weight.grad is not None:
            self.add([weight.grad], GRADIENTS)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is made meanwhile as ``name``."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def reset_peak(self) -> None:
        """Forget the peak so far."""
        self.peak, self.at_peak = self.total, dict(self.live)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and count the storages of its results."""
        if func is DEVICE:
            return func(*args, **(kwargs or {}))
        beside = self.workspace.get(str(func._overloadpacket))
        result = func(*args, **(kwargs or {}))
        if beside is not None:
            self._raise_peak(self.total + beside(*args, **(kwargs or {})), COPIES)
        for tensor in [result] if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor, self._part or self._part_of(func, args, tensor))
        return result

    def _part_of(self, func: Any, args: tuple[Any, ...], made: Tensor) -> str:
        if func in CASTS:
            source = self._storages.get(args[0].untyped_storage()._cdata)
            if source is not None and source[0] in STORED:
                return COPIES
        if str(func._overloadpacket) == "bitsandbytes.dequantize_4bit":
            return COPIES
        if self.vocabulary and made.dim() > 1 and made.shape[-1] == self.vocabulary and made.is_floating_point():
            return LOGITS
        return ACTIVATIONS

    def _count(self, tensor: Tensor, part: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // self.block) * self.block
        self._storages[key] = part, size, weakref.ref(storage, lambda _: self._freed(key))
        self.live[part] += size
        self.total += size
        if self.total > self.peak:
            self.peak, self.at_peak = self.total, dict(self.live)

    def _move(self, tensor: Tensor, part: str) -> None:
        key = tensor.untyped_storage()._cdata
        before, size, reference = self._storages[key]
        self._storages[key] = part, size, reference
        self.live[before] -= size
        self.live[part] += size

    def _freed(self, key: int) -> None:
        part, size, _ = self._storages.pop(key)
        self.live[part] -= size
        self.total -= size

    def _raise_peak(self, total: int, part: str) -> None:
        """Where an operation needed more than its results, the peak was higher while it ran."""
        if total > self.peak:
            at_peak = Counter(self.live)
            at_peak[part] += total - self.total
            self.peak, self.at_peak = total, dict(at_peak)
