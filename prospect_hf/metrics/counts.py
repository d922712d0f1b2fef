"""Figures as ratios of sums: what a session adds is counted once, and everything else follows from adding.

Each metric has two halves. Its *counts* of one session are numbers that may be added over sessions; its *figures* are
ratios of such sums. Pooling (micro average) is then a sum, and a bootstrap over sessions is a sum with weights: figures
take a scalar for each sum, or an array with one number a draw.

A ratio without a denominator is undefined: NaN inside arrays, None where a number is handed out, and never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = dict[str, float]
Sums = Mapping[str, ArrayLike]
Figures = dict[str, NDArray[np.float64]]


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """``part / whole``, NaN where ``whole`` is 0; any shapes that go together."""
    above, below = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def total(counts: Iterable[Mapping[str, float]]) -> Counts:
    """The sum of the counts of several sessions; one that a session does not have is 0 there."""
    sums: Counts = {}
    for of_session in counts:
        for name, value in of_session.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def plain(figures: Mapping[str, ArrayLike]) -> dict[str, float | None]:
    """Scalar figures as Python numbers, None for what is undefined."""
    values = {name: float(np.asarray(value)) for name, value in figures.items()}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def precision_recall(
    prefix: str, hits: ArrayLike, predicted: ArrayLike, wanted: ArrayLike, suffix: str = ""
) -> Figures:
    """Precision, recall and F1 = 2 hits / (predicted + wanted) as ``{prefix}_precision{suffix}`` and so on."""
    return {
        f"{prefix}_precision{suffix}": ratio(hits, predicted),
        f"{prefix}_recall{suffix}": ratio(hits, wanted),
        f"{prefix}_f1{suffix}": ratio(2 * np.asarray(hits, np.float64), np.asarray(predicted) + np.asarray(wanted)),
    }
