"""Whether an aligner's confidence means something: the accuracy of what it is more and less sure of.

A pair (``prospect_hf.metrics.calibration``) is a confidence and the accuracy that it promises: of a whole record, the
share of its frames on which all steps are right; of a visit, the share of its lines that belong to its step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from prospect_hf.align.alignment import Visit
from prospect_hf.errors import DataError
from prospect_hf.metrics.calibration import Floats, calibration_error, reliability, rising_pairs


@dataclass(frozen=True)
class Kept:
    """What is left to an aligner where a language model labels the videos below a threshold of confidence.

    Args:
        threshold: videos of a lower confidence go to the model.
        sent: share of the videos that go to the model, 0 to 1.
        accuracy: mean accuracy of the others.
        sent_accuracy: mean accuracy that the aligner would have had on those that go; None where none goes.
    """

    threshold: float
    sent: float
    accuracy: float
    sent_accuracy: float | None


def visit_accuracies(visits: Sequence[Visit], owners: Mapping[int, int]) -> list[float]:
    """For each visit the share of its lines that belong to its step; ``owners`` is the step of each line that has one.

    Raises:
        DataError: a visit has no line.
    """
    if not all(visit.lines for visit in visits):
        raise DataError("A visit has no line, so no share of its lines can be right.")
    return [sum(owners.get(line) == visit.span.step for line in visit.lines) / len(visit.lines) for visit in visits]


def rank_correlation(confidences: ArrayLike, accuracies: ArrayLike) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None where one side is constant.

    Errors as in ``prospect_hf.metrics.calibration.reliability``.
    """
    ranks = [_ranks(values) for values in rising_pairs(confidences, accuracies)]
    one, other = (values - values.mean() for values in ranks)
    norm = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / norm) if norm else None


def kept_curve(confidences: ArrayLike, accuracies: ArrayLike, thresholds: Sequence[float]) -> tuple[Kept, ...]:
    """What each threshold sends to a language model, and how accurate the rest is; thresholds that leave none are out.

    Errors as in ``prospect_hf.metrics.calibration.reliability``.
    """
    confidence, accuracy = rising_pairs(confidences, accuracies)
    curve = []
    for threshold in thresholds:
        sent = int(np.searchsorted(confidence, threshold))
        if sent < len(confidence):
            sent_accuracy = float(accuracy[:sent].mean()) if sent else None
            curve.append(Kept(threshold, sent / len(confidence), float(accuracy[sent:].mean()), sent_accuracy))
    return tuple(curve)


def reliability_table(
    confidences: ArrayLike, accuracies: ArrayLike, bins: int = 5, thresholds: Sequence[float] = ()
) -> str:
    """The bins, the calibration error and the rank correlation, and the curve over ``thresholds``, as Markdown.

    Errors as in ``prospect_hf.metrics.calibration.reliability``.
    """
    found = reliability(confidences, accuracies, bins)
    correlation = rank_correlation(confidences, accuracies)
    lines = ["| pairs | mean confidence | mean accuracy |", "|---|---|---|"]
    lines += [f"| {one.count} | {one.confidence:.3f} | {one.accuracy:.3f} |" for one in found]
    lines += [
        "",
        f"Expected calibration error {calibration_error(found):.3f}, rank correlation "
        f"{'undefined' if correlation is None else f'{correlation:.2f}'}.",
    ]
    curve = kept_curve(confidences, accuracies, thresholds)
    if curve:
        lines += ["", "| threshold | below it | accuracy of these | accuracy of the others |", "|---|---|---|---|"]
    for one in curve:
        sent = "" if one.sent_accuracy is None else f"{one.sent_accuracy:.3f}"
        lines.append(f"| {one.threshold:g} | {one.sent:.0%} | {sent} | {one.accuracy:.3f} |")
    return "\n".join(lines)


def _ranks(values: Floats) -> Floats:
    """The rank of each value, from 0; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[place], np.float64)
