"""Counts and figures: each metric is computed from counts that add up over sessions, as ratios of their sums.

A metric has two functions. One gives the *counts* of one session, which can be added over sessions; the other gives
*figures*, ratios of such sums. Pooling (micro average) is then a sum, and a bootstrap over sessions a weighted sum:
figures accept a scalar per sum, or an array ``[draws]``.

A ratio with denominator 0 is undefined: NaN in arrays, None in plain results, never 0.
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
    """``part / whole``, NaN where ``whole`` is 0; shapes are broadcast."""
    numerator, denominator = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)


def total(counts: Iterable[Mapping[str, float]]) -> Counts:
    """The sums of the counts of several sessions; a count that a session lacks is 0."""
    sums: Counts = {}
    for of_session in counts:
        for name, value in of_session.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def plain(figures: Mapping[str, ArrayLike]) -> dict[str, float | None]:
    """Scalar figures as Python numbers, None where undefined."""
    values = {name: float(np.asarray(value)) for name, value in figures.items()}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def precision_recall(
    prefix: str, hits: ArrayLike, predicted: ArrayLike, wanted: ArrayLike, suffix: str = ""
) -> Figures:
    """``{prefix}_precision{suffix}``, ``_recall`` and ``_f1`` = 2 hits / (predicted + wanted), of equal shapes."""
    return {
        f"{prefix}_precision{suffix}": ratio(hits, predicted),
        f"{prefix}_recall{suffix}": ratio(hits, wanted),
        f"{prefix}_f1{suffix}": ratio(2 * np.asarray(hits, np.float64), np.asarray(predicted) + np.asarray(wanted)),
    }
