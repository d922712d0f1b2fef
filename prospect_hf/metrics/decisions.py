"""Metrics of a yes/no decision per frame: precision, recall, F1, balanced accuracy, average precision, best threshold.

Frames with label -100 are ignored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import Counts, Figures, Sums, plain, precision_recall, ratio
from prospect_hf.sessions import IGNORE


def decision_counts(scores: ArrayLike, labels: ArrayLike, threshold: float, name: str) -> Counts:
    """Frames by decision and label: ``{name}_yes_yes`` (decision, label), ``_yes_no``, ``_no_yes`` and ``_no_no``.

    Args:
        scores: any shape, the probability of "yes"; the decision is "yes" where ``score >= threshold``.
        labels: the same shape, 1, 0 or -100.
        threshold: decision threshold.
        name: prefix of the counts, "speaking" or "dst_update".

    Raises:
        DataError: shapes differ, a label is not 1, 0 or -100, or a labelled score is NaN.
    """
    score, truth = labelled_scores(scores, labels)
    decided = score >= threshold
    return {
        f"{name}_yes_yes": float(np.sum(decided & truth)),
        f"{name}_yes_no": float(np.sum(decided & ~truth)),
        f"{name}_no_yes": float(np.sum(~decided & truth)),
        f"{name}_no_no": float(np.sum(~decided & ~truth)),
    }


def decision_figures(sums: Sums, name: str) -> Figures:
    """``{name}_precision``, ``_recall``, ``_f1`` and ``_balanced_accuracy``, the mean recall of the classes that occur.

    Undefined (NaN): precision without a "yes" decision, recall without a "yes" label, F1 without both.
    """
    hits, extra, missed, rest = (
        np.asarray(sums[f"{name}_{kind}"], np.float64) for kind in ("yes_yes", "yes_no", "no_yes", "no_no")
    )
    recalls = np.stack(np.broadcast_arrays(ratio(hits, hits + missed), ratio(rest, rest + extra)))
    occur = np.sum(~np.isnan(recalls), axis=0)
    return precision_recall(name, hits, hits + extra, hits + missed) | {
        f"{name}_balanced_accuracy": ratio(np.nansum(recalls, axis=0), occur)
    }


def binary_metrics(
    scores: ArrayLike, labels: ArrayLike, threshold: float = 0.5, name: str = "decision"
) -> dict[str, float | None]:
    """All metrics of one decision, None where undefined.

    Args:
        scores, labels, threshold, name: as in :func:`decision_counts`.

    Returns:
        ``{name}_precision``, ``_recall``, ``_f1``, ``_balanced_accuracy``, ``_average_precision``, ``_best_threshold``,
        ``_best_f1`` (F1 at the best threshold), ``_positives`` ("yes" labels) and ``_predicted`` ("yes" decisions).

    Raises:
        DataError: as in :func:`decision_counts`.
    """
    counts = decision_counts(scores, labels, threshold, name)
    best, best_f1 = best_threshold(scores, labels)
    return plain(decision_figures(counts, name)) | {
        f"{name}_average_precision": average_precision(scores, labels),
        f"{name}_best_threshold": best,
        f"{name}_best_f1": best_f1,
        f"{name}_positives": counts[f"{name}_yes_yes"] + counts[f"{name}_no_yes"],
        f"{name}_predicted": counts[f"{name}_yes_yes"] + counts[f"{name}_yes_no"],
    }


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Average precision: the sum over distinct scores of precision x increase in recall; None without a positive label.

    Defined as in scikit-learn, without interpolation. Arguments and errors as in :func:`decision_counts`.
    """
    hit, found, _ = running_counts(*labelled_scores(scores, labels))
    if not len(hit) or not hit[-1]:
        return None
    return float(np.sum(hit / found * np.diff(hit, prepend=0)) / hit[-1])


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float | None]:
    """The threshold with the highest F1, and that F1; (0.5, None) without a positive label.

    Of several such thresholds, the highest. It lies halfway between two scores, so that rounding differences do not
    change decisions. Arguments and errors as in :func:`decision_counts`.
    """
    score, truth = labelled_scores(scores, labels)
    positives = int(truth.sum())
    if not positives:
        return 0.5, None
    return best_running(*running_counts(score, truth), positives)


def best_running(
    hit: NDArray[np.int64], found: NDArray[np.int64], thresholds: NDArray[np.float64], wanted: int
) -> tuple[float, float]:
    """As :func:`best_threshold`, from :func:`running_counts` and the number of "yes" labels."""
    f1 = 2 * hit / (found + wanted)
    best = int(np.argmax(f1))
    threshold = float(thresholds[best])
    if best + 1 < len(thresholds):
        below = float(thresholds[best + 1])
        between = below + (threshold - below) / 2
        threshold = between if between > below else threshold
    return threshold, float(f1[best])


def precision_recall_curve(scores: ArrayLike, labels: ArrayLike, points: int = 200) -> dict[str, list[float]]:
    """At most ``points`` points of the curve, by falling threshold; empty lists without a positive label.

    Points are spaced evenly in recall. Arguments and errors as in :func:`decision_counts`.

    Returns:
        ``precision``, ``recall`` and ``threshold``, lists of equal length.
    """
    score, truth = labelled_scores(scores, labels)
    return running_curve(*running_counts(score, truth), int(truth.sum()), points)


def running_curve(
    hit: NDArray[np.int64], found: NDArray[np.int64], thresholds: NDArray[np.float64], positives: int, points: int
) -> dict[str, list[float]]:
    """As :func:`precision_recall_curve`, from :func:`running_counts` and the number of "yes" labels."""
    if not len(hit) or not hit[-1]:
        return {"precision": [], "recall": [], "threshold": []}
    wanted = np.linspace(max(hit[0], 1), hit[-1], points)  # the curve starts at the first hit
    kept = np.unique(np.searchsorted(hit, wanted).clip(max=len(hit) - 1))
    return {
        "precision": np.round(hit[kept] / found[kept], 4).tolist(),
        "recall": np.round(hit[kept] / positives, 4).tolist(),
        "threshold": np.round(thresholds[kept], 4).tolist(),
    }


def labelled_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The scores of labelled frames, and whether each label is 1, both ``[labelled]``; errors as `decision_counts`."""
    score, label = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if score.shape != label.shape:
        raise DataError(f"Scores {score.shape} and labels {label.shape} differ in shape.")
    if not np.isin(label, (0, 1, IGNORE)).all():
        raise DataError(f"Labels are {np.unique(label).tolist()}, but a decision is 1, 0 or {IGNORE}.")
    labelled = label != IGNORE
    if np.isnan(score[labelled]).any():
        raise DataError(f"{int(np.isnan(score[labelled]).sum())} scores are NaN; the model's logits are broken.")
    return score[labelled], label[labelled] == 1


def running_counts(
    score: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """``[distinct]`` hits, "yes" decisions and threshold, with each distinct score as threshold, by falling score."""
    order = np.argsort(-score, kind="stable")
    score, truth = score[order], truth[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], np.ones(min(len(score), 1), dtype=bool)))
    return np.cumsum(truth, dtype=np.int64)[last], last.astype(np.int64) + 1, score[last]
