"""Bootstrap intervals of figures, by resampling recordings with replacement.

Each draw sums the counts of the drawn sessions; a figure's interval is the central 95 % of its values over the draws.
The sessions of one recording (several conversations over one video, several cameras) are drawn together, since they
are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
# A figure that is defined on fewer recordings gets no interval. Intervals from few recordings are too narrow;
# benchmarks/coverage.py measures by how much.
FEWEST = 6


def draw_weights(recordings: Sequence[str], draws: int, seed: int = 0) -> NDArray[np.float64]:
    """``[draws, sessions]``: how often each draw contains each session; a draw has as many recordings as the data.

    Args:
        recordings: the recording of each session.
        draws: number of draws.
        seed: random seed.
    """
    names, group = np.unique(np.asarray(recordings), return_inverse=True)
    chosen = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return chosen[:, group].astype(np.float64)


def drawn_sums(counts: Sequence[Mapping[str, float]], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The sum ``[draws]`` of each count in every draw; a count that a session lacks is 0.

    Args:
        counts: the counts of each session.
        weights: ``[draws, sessions]``, from :func:`draw_weights`.
    """
    names = sorted({name for of_session in counts for name in of_session})
    table = np.array([[of_session.get(name, 0.0) for name in names] for of_session in counts], np.float64)
    return dict(zip(names, (weights @ table.reshape(len(counts), len(names))).T, strict=True))


def recording_sums(counts: Sequence[Mapping[str, float]], recordings: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The sum ``[recordings]`` of each count in every recording; they tell on which recordings a figure is defined."""
    names = np.asarray(recordings)
    return drawn_sums(counts, (np.unique(names)[:, None] == names).astype(np.float64))


def interval(values: NDArray[np.float64], showing: int) -> tuple[float, float] | None:
    """The central 95 % of a figure's draws; draws in which it is undefined are left out.

    Args:
        values: ``[draws]``, NaN where the figure is undefined.
        showing: number of recordings on which the figure alone is defined.

    Returns:
        (low, high); None where the figure is undefined in at least half of the draws, or ``showing`` < ``FEWEST``.
    """
    defined = values[~np.isnan(values)]
    if showing < FEWEST or 2 * len(defined) <= len(values):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
