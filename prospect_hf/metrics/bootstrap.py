"""How sure a figure is: intervals by a bootstrap over sessions, and paired differences of two results.

Sessions are drawn with replacement and their counts added anew; a figure's interval is the middle 95 % of what the
draws give. Sessions of one recording (several conversations over one video, several cameras) are drawn together, since
they are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
# A figure that fewer recordings show has no interval: what they have in common may be chance. Those of few are too
# narrow all the same; benchmarks/coverage.py says by how much.
FEWEST = 6


def draw_weights(recordings: Sequence[str], draws: int, seed: int = 0) -> NDArray[np.float64]:
    """``[draws, sessions]``, how often each session occurs in each draw of as many recordings as there are."""
    names, group = np.unique(np.asarray(recordings), return_inverse=True)
    chosen = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return chosen[:, group].astype(np.float64)


def drawn_sums(counts: Sequence[Mapping[str, float]], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Each count's sum in every draw, ``[draws]``; a count that a session does not have is 0 there.

    Args:
        counts: of each session.
        weights: ``[draws, sessions]``.
    """
    names = sorted({name for of_session in counts for name in of_session})
    table = np.array([[of_session.get(name, 0.0) for name in names] for of_session in counts], np.float64)
    return dict(zip(names, (weights @ table.reshape(len(counts), len(names))).T, strict=True))


def recording_sums(counts: Sequence[Mapping[str, float]], recordings: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Each count's sum in every recording alone, ``[recordings]``: a figure that is defined there is shown by it."""
    names = np.asarray(recordings)
    return drawn_sums(counts, (np.unique(names)[:, None] == names).astype(np.float64))


def interval(values: NDArray[np.float64], showing: int) -> tuple[float, float] | None:
    """The middle 95 % of a figure's draws; draws in which it is undefined are left out.

    Args:
        values: ``[draws]``.
        showing: recordings that show the figure at all: in which it is defined alone.

    Returns:
        None where it is undefined in half of the draws or more, or fewer than six recordings show it.
    """
    defined = values[~np.isnan(values)]
    if showing < FEWEST or 2 * len(defined) <= len(values):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
