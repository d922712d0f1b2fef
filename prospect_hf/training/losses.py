"""The losses of the four heads: focal loss for the rare decisions, cross-entropy for states and text.

Both take *logits*, not probabilities. A batch without any label has a loss of zero that can still be back-propagated:
with several heads, a micro-batch often contains no label for one of them.

No package is used for the focal loss: ``focal-loss`` on PyPI is TensorFlow code, and the torch packages give NaN
gradients for ``0 < gamma < 1`` at saturated logits, or clip the loss, which removes the gradient of the worst samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from prospect_hf.errors import DataError, UsageError

Reduction = Literal["sum", "mean", "none"]


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float,
    alpha: Sequence[float] | Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Multi-class focal loss ``-alpha[y] * (1 - p_y)**gamma * log(p_y)``, with ``p = softmax(logits)``.

    Source: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), equation 5, with a softmax over classes.

    It is computed from one number per label, the log odds against the target ``a = logsumexp(other logits) - logit_y``:
    ``-log(p_y) = softplus(a)`` and ``log(1 - p_y) = -softplus(-a)``, so the loss is
    ``alpha[y] * exp(-gamma * softplus(-a)) * softplus(a)``. No power of ``1 - p_y`` is ever formed, so its derivative
    (``0**(gamma - 1)``, infinite for gamma < 1) is not either: every factor and every derivative stays in [0, 1] or
    grows like ``|a|``, and nothing has to be clipped. It also keeps its digits where ``p_y`` rounds to 1.

    Args:
        logits: ``[..., classes]``, two classes or more. Half precision is computed in float32.
        targets: ``[...]`` integer class indices, or ``ignore_index``.
        gamma: focusing exponent, 0 or more; 0 is plain cross-entropy.
        alpha: one weight per class, or None for 1. The mean is not divided by it.
        ignore_index: targets with this value have no loss and no gradient.
        reduction: "mean" over the targets that are not ignored (0 without any), "sum", or "none" for ``[...]`` with 0
            at ignored places.

    Returns:
        A scalar, or ``[...]`` for "none"; float32, or float64 for float64 logits.

    Raises:
        UsageError: gamma is negative or not finite, alpha does not fit the classes, an unknown reduction.
        DataError: shapes do not fit, or (checked on CPU tensors only) a target is no class index.
    """
    if not (math.isfinite(gamma) and gamma >= 0):
        raise UsageError(f"focal_loss: gamma is {gamma}; give a finite number of 0 or more.")
    labelled = _labelled(logits, targets, ignore_index, reduction)
    kept = _full_precision(logits[labelled])
    index = targets[labelled].unsqueeze(-1)
    others = kept.masked_fill(F.one_hot(index.squeeze(-1), kept.shape[-1]).bool(), -math.inf)
    against = torch.logsumexp(others, dim=-1) - kept.gather(-1, index).squeeze(-1)
    losses = torch.exp(-gamma * F.softplus(-against)) * F.softplus(against)
    if alpha is not None:
        losses = losses * _class_weights(alpha, kept)[index.squeeze(-1)]
    if reduction == "none":
        return losses.new_zeros(targets.shape).masked_scatter(labelled, losses)
    total = losses.sum()
    return total / max(losses.numel(), 1) if reduction == "mean" else total


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, ignore_index: int = -100, reduction: Reduction = "mean"
) -> Tensor:
    """Cross-entropy over any leading shape, zero (and not NaN, as ``F.cross_entropy`` has it) without any label.

    Args:
        logits: ``[..., classes]``, two classes or more. Half precision is computed in float32.
        targets: ``[...]`` integer class indices, or ``ignore_index``.
        ignore_index: targets with this value have no loss and no gradient (their logits must be finite).
        reduction: as in :func:`focal_loss`.

    Raises:
        UsageError: an unknown reduction.
        DataError: shapes do not fit, or (checked on CPU tensors only) a target is no class index.
    """
    labelled = _labelled(logits, targets, ignore_index, reduction)
    # Logits over a vocabulary are large: no copy of the labelled rows is made.
    rows = _full_precision(logits).reshape(-1, logits.shape[-1])
    losses = F.cross_entropy(rows, targets.reshape(-1), ignore_index=ignore_index, reduction="none")
    if reduction == "none":
        return losses.view(targets.shape)
    total = losses.sum()
    return total / labelled.sum().clamp(min=1) if reduction == "mean" else total


def _labelled(logits: Tensor, targets: Tensor, ignore_index: int, reduction: Reduction) -> Tensor:
    """``[...]`` bool: true where there is a label. Checks the arguments of both losses."""
    if reduction not in ("sum", "mean", "none"):
        raise UsageError(f'reduction is {reduction!r}; give "sum", "mean" or "none".')
    if logits.shape[:-1] != targets.shape or logits.ndim == 0:
        raise DataError(
            f"Logits {tuple(logits.shape)} do not fit targets {tuple(targets.shape)}: "
            "logits need the targets' shape and one last dimension of classes."
        )
    classes = logits.shape[-1]
    if classes < 2:
        raise DataError(f"Logits {tuple(logits.shape)} hold {classes} class; a classification needs two or more.")
    labelled = targets != ignore_index
    # On an accelerator, reading values would wait for it; there the check inside gather stops a wrong target.
    if targets.device.type == "cpu":
        wrong = labelled & ((targets < 0) | (targets >= classes))
        if bool(wrong.any()):
            raise DataError(
                f"Target {int(targets[wrong][0])} is no class: use 0 to {classes - 1}, or {ignore_index} to ignore."
            )
    return labelled


def _full_precision(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _class_weights(alpha: Sequence[float] | Tensor, logits: Tensor) -> Tensor:
    weights = torch.as_tensor(alpha, dtype=logits.dtype, device=logits.device)
    if weights.shape != logits.shape[-1:]:
        raise UsageError(f"focal_loss: alpha has shape {tuple(weights.shape)}; give {logits.shape[-1]} class weights.")
    return weights
