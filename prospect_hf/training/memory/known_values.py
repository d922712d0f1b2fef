"""Fake tensors whose values are known where they come from the batch: ids, labels, masks and positions.

A training step reads values in few places (how many labels are there, is a row padded), and all of them follow from
the batch's integers. This mode computes what depends on them alone with real numbers beside the fake ones, so that the
real step can be traced although its weights and activations have no values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Asked for by every operation on a fake tensor.
DEVICE = torch.ops.prim.device.default
# The attribute of a fake tensor that holds its values.
VALUES = "known_values"
# A causal mask over a long stream has more values than this; nothing reads them.
MOST_VALUES = 2**26
# Their results hold what was in memory before, or random numbers.
WITHOUT_VALUES = (
    torch.ops.aten.empty,
    torch.ops.aten.empty_like,
    torch.ops.aten.empty_strided,
    torch.ops.aten.new_empty,
    torch.ops.aten.new_empty_strided,
)
# Take a list of indices as their second argument, masks among them.
INDEXED = (
    torch.ops.aten.index,
    torch.ops.aten.index_put,
    torch.ops.aten.index_put_,
    torch.ops.aten._index_put_impl_,
)


class KnownValues(TorchDispatchMode):
    """While it is active, fake tensors that are computed from known ones are known too.

    Args:
        fake: the mode of the fake tensors.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake = fake

    def know(self, values: Tensor) -> FakeTensor:
        """A fake tensor with known ``values``."""
        fake = self.fake.from_tensor(values)
        vars(fake)[VALUES] = values
        return fake

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` on fake tensors, and on the values where all are known.

        Raises:
            RuntimeError: a value is read that does not follow from the batch.
        """
        if func is DEVICE:
            return func(*args, **(kwargs or {}))
        kwargs = kwargs or {}
        known = self._known(args, kwargs)
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            if known is not None:
                with unset_fake_temporarily():
                    values = func(*known[0], **known[1])
                return tree_map(lambda one: self.know(one) if isinstance(one, Tensor) else one, values)
            if func is not torch.ops.aten.index.Tensor:
                raise RuntimeError(f"{func} reads a value that does not follow from the batch.")
        if func.overloadpacket in INDEXED and known is None:
            args = (args[0], self._as_places(args[1]), *args[2:])
        result = func(*args, **kwargs)
        if known is None:
            if func._schema.is_mutable:  # what was written into a known tensor is not known
                for one in tree_leaves(args):
                    if isinstance(one, FakeTensor):
                        vars(one).pop(VALUES, None)
        elif self._worth_it(func, result):
            with unset_fake_temporarily():
                values = func(*known[0], **known[1])
            for fake, value in zip(tree_leaves(result), tree_leaves(values), strict=True):
                if isinstance(fake, FakeTensor):
                    vars(fake)[VALUES] = value
        return result

    def _known(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """The arguments with values in place of fake tensors; None where one is not known."""
        for one in args:  # most operations end here
            if isinstance(one, FakeTensor) and VALUES not in vars(one):
                return None
        if any(isinstance(one, FakeTensor) and VALUES not in vars(one) for one in tree_leaves((args, kwargs))):
            return None
        known: tuple[Any, Any] = tree_map(
            lambda one: vars(one)[VALUES] if isinstance(one, FakeTensor) else one, (args, kwargs)
        )
        return known

    def _worth_it(self, func: Any, result: Any) -> bool:
        if func.overloadpacket in WITHOUT_VALUES or torch.Tag.nondeterministic_seeded in func.tags:
            return False
        return all(one.numel() <= MOST_VALUES for one in tree_leaves(result) if isinstance(one, Tensor))

    def _as_places(self, indices: Any) -> list[Any]:
        """Indices with the places of a mask in its stead, whose number is the size of the result."""
        places: list[Any] = []
        for index in indices:
            if isinstance(index, FakeTensor) and index.dtype == torch.bool:
                if VALUES not in vars(index):
                    raise RuntimeError("A mask that does not follow from the batch selects places.")
                with unset_fake_temporarily():
                    found = vars(index)[VALUES].nonzero().unbind(1)
                places.extend(self.know(one) for one in found)
            else:
                places.append(index)
        return places
