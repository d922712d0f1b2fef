"""The losses of the four heads: one of three losses for the rare decisions, cross-entropy for states and text.

They take *logits*, not probabilities. A batch without any label has a loss of zero that can still be back-propagated:
with several heads, a micro-batch often contains no label for one of them.

No package is used for the focal loss: ``focal-loss`` on PyPI is TensorFlow code, and the torch packages give NaN
gradients for ``0 < gamma < 1`` at saturated logits, or clip the loss, which removes the gradient of the worst samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from prospect_hf.errors import DataError, UsageError
from prospect_hf.sessions import IGNORE
from prospect_hf.training.loss_arguments import LossArguments

DECISIONS = ("speaking", "dst_update")
ClassWeights = Mapping[str, Sequence[float]]  # decision -> weights of (negative, positive)
Balance = Mapping[str, Mapping[str, int]]  # "SOURCE FORM SPLIT" -> label counts

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


# -- the losses of a batch ------------------------------------------------------------------------------------------


def label_counts(batch: Mapping[str, Tensor], args: LossArguments) -> Tensor:
    """Labels of each loss in a batch, ``[4, 2]``: rows in the order of ``LOSSES``, columns are groups of labels.

    The loss of a row is the sum over its groups of (loss sum / labels). The balanced loss has a group for each class,
    (negative, positive); every other loss has all its labels in the first group. Text labels are counted where they
    are predicted.
    """
    counts = []
    for name in DECISIONS:
        labels = batch[f"{name}_labels"]
        if args.decision_loss == "balanced":
            counts.append(torch.stack([(labels == 0).sum(), (labels == 1).sum()]))
        else:
            counts.append(_first_group((labels != IGNORE).sum()))
    for labels in (batch["dst_state_labels"], batch["labels"][:, 1:]):
        counts.append(_first_group((labels != IGNORE).sum()))
    return torch.stack(counts).float()


def head_losses(
    outputs: Any, batch: Mapping[str, Tensor], args: LossArguments, weights: ClassWeights | None = None
) -> Tensor:
    """The four losses of a batch, summed over their labels: ``[4, 2]``, as :func:`label_counts` has them.

    Args:
        outputs: of the model: the logits of three heads, and ``loss``, the mean cross-entropy of the text.
        batch: with the labels.
        args: which loss the decisions have.
        weights: of the two classes of each decision; None: 1, 1.
    """
    text_labels = (batch["labels"][:, 1:] != IGNORE).sum()
    return torch.stack(
        [
            *(
                _decision_loss(
                    outputs[f"{name}_logits"], batch[f"{name}_labels"], args, None if weights is None else weights[name]
                )
                for name in DECISIONS
            ),
            _first_group(masked_cross_entropy(outputs.dst_state_logits, batch["dst_state_labels"], IGNORE, "sum")),
            _first_group(outputs.loss.float() * text_labels),
        ]
    )


def mean_losses(sums: Tensor, counts: Tensor) -> Tensor:
    """The four losses, ``[4]``, from sums and counts ``[4, 2]`` over any number of batches.

    The counts are those of the whole accumulation window over all processes, so that a step does not depend on how its
    clips are divided into batches: a mean of the batches' means would.
    """
    return (sums / counts.to(sums.device).clamp(min=1)).sum(-1)


def _decision_loss(logits: Tensor, labels: Tensor, args: LossArguments, weights: Sequence[float] | None) -> Tensor:
    """``[2]``: the sums of the groups. Each class has half of the balanced loss, also where the other has no label."""
    if args.decision_loss == "balanced":
        of_class = [labels.masked_fill(labels != value, IGNORE) for value in (0, 1)]
        return torch.stack([masked_cross_entropy(logits, part, IGNORE, "sum") for part in of_class]) / 2
    gamma = args.focal_gamma if args.decision_loss == "focal" else 0.0
    assert gamma is not None
    return _first_group(focal_loss(logits, labels, gamma, weights, IGNORE, "sum"))


def _first_group(value: Tensor) -> Tensor:
    return torch.stack([value, torch.zeros_like(value)])


def decision_weights(args: LossArguments, balance: Balance | None) -> ClassWeights | None:
    """What ``args.class_weights`` gives each decision: weights of (negative, positive), or None for 1, 1.

    ``data`` gives a class ``labels / (2 * labels of the class)``: with these weights the mean of a loss is the average
    of its means over the two classes of the whole split. Source: King and Zeng, "Logistic Regression in Rare Events
    Data" (Political Analysis 2001), section 4.2, for a population share of one half; scikit-learn has it as
    ``class_weight="balanced"``. A decision without any label has weights 1, 1.

    Args:
        args: the settings.
        balance: label counts by ``"SOURCE FORM SPLIT"`` (``splits.label_balance_by_source``), for ``data``. They come
            from the manifests of the rows, so training rows that are streamed need no pass of their own.

    Raises:
        DataError: a decision has training labels of one class alone, or the label balance is not known.
    """
    if args.class_weights is None:
        return None
    if isinstance(args.class_weights, list):
        return dict.fromkeys(DECISIONS, args.class_weights)
    of_training = [
        counts for name, counts in (balance or {}).items() if name.startswith("all ") and name.endswith(" train")
    ]
    if not of_training:
        raise DataError("training.class_weights=data: the training rows have no label balance.")
    weights: dict[str, Sequence[float]] = {}
    for name in DECISIONS:
        negative, positive = (sum(counts[f"{name}_{label}"] for counts in of_training) for label in (0, 1))
        labels = negative + positive
        if labels and not (negative and positive):
            raise DataError(
                f"training.class_weights=data: the training split has {negative} negative and {positive} positive "
                f"labels of {name}, and a weight needs both; give the weights as numbers, or leave them out."
            )
        weights[name] = (labels / (2 * negative), labels / (2 * positive)) if labels else (1.0, 1.0)
    return weights
