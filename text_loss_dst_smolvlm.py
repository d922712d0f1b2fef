"""The cross-entropy of the text in pieces, so that the logits of all labelled places never exist at once.

At a vocabulary of 49,280 the logits of 4,096 labelled places take 770 MiB in float32, and cross-entropy holds about
three times as much. Here the places are taken a piece at a time: logits, loss and gradients of a piece, then the next.
The gradients are found in the forward pass, so no product is computed twice, and the backward pass only scales them.

Two kernels that do the same were considered. ``torch.nn.functional.linear_cross_entropy`` (from torch 2.13 on) gives
its loss in the type of its input, so a sum over thousands of places in bfloat16 has three digits; it ignores autocast;
and its own choice of pieces has two rows at 205 places, which took 19 times as long as plain logits on a CPU. Liger's
fused linear cross-entropy needs Triton, and so a GPU. Both compute the three large products with the library for
matrices, as this module does; what a kernel could save is the work between the products.

Remote code of the Hub: it imports torch and nothing of the training package.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Logits of a piece: 64 MiB in float32. Where all fit in one piece, the plain loss is computed.
LOGITS_PER_PIECE = 2**24


def summed_cross_entropy(
    lm_head: nn.Module, rows: Tensor, targets: Tensor, logits_per_piece: int = LOGITS_PER_PIECE
) -> Tensor:
    """The cross-entropy of ``lm_head(rows)`` summed over the rows, with at most ``logits_per_piece`` logits at once.

    Without any row it is 0, and its backward pass still reaches every weight of the head. The loss in pieces can be
    followed back once, even with ``retain_graph``.

    In training, a head that is no plain ``nn.Linear`` (with adapters, quantised, with a bias, or cut up over processes
    by FSDP or DeepSpeed) is called once with all rows, so that its gradients are its own; all logits then exist.

    Args:
        lm_head: from ``[rows, hidden]`` to ``[rows, vocab]``.
        rows: ``[rows, hidden]``, the hidden states of the labelled places.
        targets: ``[rows]``, token ids.
        logits_per_piece: rows of a piece times the vocabulary.

    Returns:
        A scalar in float32, or float64 for float64 rows.
    """
    # A class below nn.Linear may compute something else, so isinstance would not do. DeepSpeed marks its weights; it
    # gathers one while its module is called, which must happen equally often in all processes.
    weights = dict(lm_head.named_parameters())
    plain = type(lm_head) is nn.Linear and "bias" not in weights and not hasattr(weights["weight"], "ds_id")
    if len(rows) == 0 or not plain:
        return _at_once(lm_head, rows, targets)
    pieces = math.ceil(len(rows) / max(1, logits_per_piece // len(weights["weight"])))
    if pieces == 1:
        return _at_once(lm_head, rows, targets)
    if torch.is_grad_enabled():
        return _InPieces.apply(rows, weights["weight"], targets, pieces)
    of_pieces = zip(rows.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
    return torch.stack([_at_once(lm_head, some, wanted) for some, wanted in of_pieces]).sum()


def _at_once(lm_head: nn.Module, rows: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(_full_precision(lm_head(rows)), targets, reduction="sum")


def _full_precision(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _InPieces(torch.autograd.Function):
    """Loss and gradients, piece by piece. The gradient of a logit is its probability, minus 1 at the target."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, targets: Tensor, pieces: int) -> Tensor:
        device = rows.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else rows.dtype
        grad_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), dtype=_full_precision(rows[:0]).dtype, device=rows.device)
        with torch.autocast(device, enabled=False):
            head, begin = weight.to(dtype), 0
            for given, wanted in zip(rows.tensor_split(pieces), targets.tensor_split(pieces), strict=True):
                some, end = given.to(dtype), begin + len(given)
                probabilities = _full_precision(some @ head.T).log_softmax(-1)
                total -= probabilities.gather(1, wanted[:, None]).sum()
                probabilities.exp_()[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
                grad_logits = probabilities.to(dtype)
                del probabilities  # before the products below take memory
                if grad_rows is not None:
                    grad_rows[begin:end] = grad_logits @ head
                if grad_weight is not None and grad_weight.dtype == dtype:
                    grad_weight.addmm_(grad_logits.T, some)
                elif grad_weight is not None:
                    grad_weight += grad_logits.T @ some
                begin = end
        ctx.save_for_backward(grad_rows, grad_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_rows, grad_weight = ctx.saved_tensors
        # In place, for a second gradient of the head's weights would double the peak. A second backward pass would
        # scale them twice: torch notices the change and raises a RuntimeError.
        return (
            None if grad_rows is None else grad_rows.mul_(grad),
            None if grad_weight is None else grad_weight.mul_(grad),
            None,
            None,
        )


__all__ = ["summed_cross_entropy"]
