"""Whether probabilities mean what they say, and the temperature that makes those of a decision mean it.

A pair is a confidence and what it promises, each 0 to 1: the probability of "yes" and whether the label is yes; the
confidence in a record and the share of it that is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import Counts, Figures, Sums, ratio
from prospect_hf.metrics.decisions import labelled_scores

Floats = NDArray[np.float64]

DECISION_BINS = 15
BIN_SUMS = ("frames", "probability", "yes")
# A temperature outside this range is the mark of probabilities that mean nothing, or of too few frames.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.1, 10.0
GOLDEN = (math.sqrt(5) - 1) / 2
TEMPERATURE_ERROR = 1e-6  # of the logarithm of the temperature


@dataclass(frozen=True)
class Bin:
    """Pairs of similar confidence: their number, their mean confidence and their mean accuracy."""

    count: int
    confidence: float
    accuracy: float


def reliability(confidences: ArrayLike, accuracies: ArrayLike, bins: int = 10) -> tuple[Bin, ...]:
    """The bins of rising confidence, with about as many pairs each; pairs of one confidence are in one bin.

    Args:
        confidences, accuracies: ``[pairs]``, each 0 to 1.
        bins: how many at most.

    Raises:
        DataError: there is no pair, the shapes differ, or a value is not 0 to 1.
    """
    confidence, accuracy = rising_pairs(confidences, accuracies)
    ends = _ends(confidence, bins).tolist()
    return tuple(
        Bin(end - start, float(confidence[start:end].mean()), float(accuracy[start:end].mean()))
        for start, end in zip([0, *ends], ends, strict=False)
    )


def _ends(rising: Floats, bins: int) -> NDArray[np.int64]:
    """``[bins]``, behind the last pair of each bin; ``rising`` are the confidences, at least one."""
    ideal = np.linspace(0, len(rising), bins + 1)[1:].round().astype(int)
    # A cut falls behind the last pair of its confidence.
    return np.unique(np.searchsorted(rising, rising[np.maximum(ideal, 1) - 1], side="right"))


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean over pairs of their bin's distance between confidence and accuracy.

    Naeini, Cooper and Hauskrecht, 2015; with bins of equal mass.
    """
    count, confidence, accuracy = np.array([(one.count, one.confidence, one.accuracy) for one in bins]).T
    return float(_error(count, count * confidence, count * accuracy))


def _error(counts: Floats, confidence_sums: Floats, accuracy_sums: Floats) -> Floats:
    """The error from the sums of each bin, ``[bins]`` or ``[bins, draws]``; NaN without a pair."""
    return ratio(np.abs(confidence_sums - accuracy_sums).sum(0), counts.sum(0))


def decision_reliability(scores: ArrayLike, labels: ArrayLike) -> tuple[Bin, ...]:
    """``DECISION_BINS`` bins of a yes/no decision: p(yes) and the share of "yes" labels; none without a labelled frame.

    Args:
        scores: any shape, probabilities of "yes".
        labels: the same shape, 1, 0 or -100.

    Raises:
        DataError: shapes differ, a label is not 1, 0 or -100, or a labelled score is not 0 to 1.
    """
    score, truth = labelled_scores(scores, labels)
    return reliability(score, truth, DECISION_BINS) if len(score) else ()


def decision_edges(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """The largest p(yes) in each bin of :func:`decision_reliability`, ``[bins]``; arguments and errors as there."""
    score, truth = labelled_scores(scores, labels)
    if not len(score):
        return np.zeros(0)
    rising, _ = rising_pairs(score, truth)
    return np.asarray(rising[_ends(rising, DECISION_BINS) - 1])


def calibration_counts(scores: ArrayLike, labels: ArrayLike, edges: Floats, name: str) -> Counts:
    """What one session has in each bin, as counts that add up over sessions.

    Args:
        scores, labels: as in :func:`decision_reliability`, none above the last edge.
        edges: ``[bins]`` of all sessions together, from :func:`decision_edges`.
        name: prefix of the counts, "speaking" or "dst_update".

    Returns:
        ``{name}_calibration_frames``, the labelled frames; and ``{name}_bin_{number}_{sum}`` for the bins that the
        session has frames in: ``frames``, ``probability`` (the sum of p(yes)) and ``yes`` (labels).

    Raises:
        DataError: as :func:`decision_reliability`.
    """
    score, truth = labelled_scores(scores, labels)
    counts = {f"{name}_calibration_frames": float(len(score))}
    place = np.searchsorted(edges, score)
    for number in np.unique(place).tolist():
        held = place == number
        sums = (float(held.sum()), float(score[held].sum()), float(truth[held].sum()))
        counts |= {f"{name}_bin_{number}_{kind}": value for kind, value in zip(BIN_SUMS, sums, strict=True)}
    return counts


def calibration_figures(sums: Sums, name: str) -> Figures:
    """``{name}_calibration_error`` from the sums of :func:`calibration_counts`; NaN without a labelled frame."""
    return {f"{name}_calibration_error": _error(*_bin_sums(sums, name))}


def counted_bins(sums: Mapping[str, float], name: str) -> tuple[Bin, ...]:
    """The bins of :func:`decision_reliability`, from the sums of :func:`calibration_counts`."""
    rows = np.stack(_bin_sums(sums, name)).T.tolist()
    return tuple(Bin(int(count), confidence / count, yes / count) for count, confidence, yes in rows if count)


def _bin_sums(sums: Sums, name: str) -> tuple[Floats, Floats, Floats]:
    """Frames, p(yes) and "yes" labels of each bin, ``[bins]`` or ``[bins, draws]``; a bin without sums is empty."""
    empty = np.zeros_like(np.asarray(sums[f"{name}_calibration_frames"], np.float64))
    frames, probability, yes = (
        np.stack([np.asarray(sums.get(f"{name}_bin_{n}_{kind}", empty), np.float64) for n in range(DECISION_BINS)])
        for kind in BIN_SUMS
    )
    return frames, probability, yes


def fit_temperature(margins: ArrayLike, labels: ArrayLike) -> float | None:
    """The temperature T at which ``sigmoid(margin / T)`` gives the labels their highest likelihood.

    After Guo et al., On Calibration of Modern Neural Networks, 2017. The mean negative log-likelihood is convex in
    1 / T; its lowest point is found by golden section, in float64 and to ``TEMPERATURE_ERROR``. Order and argmax of the
    probabilities stay as they are.

    Args:
        margins: any shape, the logit of "yes" minus the logit of "no".
        labels: the same shape, 1, 0 or -100.

    Returns:
        T, between ``LEAST_TEMPERATURE`` and ``MOST_TEMPERATURE``; None unless both labels occur.

    Raises:
        DataError: shapes differ, a label is not 1, 0 or -100, or a labelled margin is NaN.
    """
    margin, truth = labelled_scores(margins, labels)
    if not len(truth) or truth.all() or not truth.any():
        return None
    signed = np.where(truth, -margin, margin)

    def likelihood_loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, signed * math.exp(-log_temperature)).mean())

    low, high = math.log(LEAST_TEMPERATURE), math.log(MOST_TEMPERATURE)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = likelihood_loss(left), likelihood_loss(right)
    while high - low > TEMPERATURE_ERROR:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = likelihood_loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = likelihood_loss(right)
    return math.exp((low + high) / 2)


def rising_pairs(confidences: ArrayLike, accuracies: ArrayLike) -> tuple[Floats, Floats]:
    """The pairs as arrays by rising confidence; equal confidences by accuracy, so that no order matters.

    Errors as in :func:`reliability`.
    """
    confidence, accuracy = np.asarray(confidences, np.float64), np.asarray(accuracies, np.float64)
    if confidence.ndim != 1 or confidence.shape != accuracy.shape or not len(confidence):
        raise DataError(
            f"Confidences {confidence.shape} and accuracies {accuracy.shape} must be as many, at least one of each."
        )
    for name, values in (("confidence", confidence), ("accuracy", accuracy)):
        if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
            raise DataError(f"A value of {name} is not 0 to 1.")
    order = np.lexsort((accuracy, confidence))
    return confidence[order], accuracy[order]
