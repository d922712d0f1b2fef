"""Agreement between the votes of a judge."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from prospect_hf.evaluation.judge.judge import Judgement
from prospect_hf.metrics.catalogue import MARKS


def agreement(judgements: Sequence[Judgement]) -> dict[str, float | None]:
    """Agreement of the votes on the same session and mark; None where that is undefined.

    ``exact`` and ``within_one``: share of pairs of votes that are equal, and that are at most 1 apart, over all marks.
    ``alpha_<mark>``: Krippendorff's alpha, computed for each mark alone: with all marks pooled, the differences between
    the marks would count as agreement.
    """
    units = {mark: [[vote[mark] for vote in judgement.votes] for judgement in judgements] for mark in MARKS}
    every = [unit for of_mark in units.values() for unit in of_mark]
    apart = [abs(one - other) for unit in every for one, other in combinations(unit, 2)]
    return {
        "exact": sum(distance == 0 for distance in apart) / len(apart) if apart else None,
        "within_one": sum(distance <= 1 for distance in apart) / len(apart) if apart else None,
        **{f"alpha_{mark}": krippendorff_alpha(units[mark]) for mark in MARKS},
    }


def krippendorff_alpha(units: Sequence[Sequence[int]]) -> float | None:
    """Krippendorff's alpha with squared distances (interval data): 1 agreement, 0 chance, below 0 worse than chance.

    With n values in units of m > 1 values each, alpha is ``1 - observed / expected``: observed is the sum over units of
    ``sum of squared distances of ordered pairs / (m - 1)``, divided by n; expected is the sum over all ordered pairs,
    divided by ``n (n - 1)`` (Krippendorff, Content Analysis, chapter on reliability).

    Returns:
        None where no unit has two values, or all values are the same.
    """
    paired = [unit for unit in units if len(unit) > 1]
    values = [value for unit in paired for value in unit]
    total = _squares(values)
    if total == 0:
        return None
    within = sum(_squares(unit) / (len(unit) - 1) for unit in paired)
    return 1 - within * (len(values) - 1) / total


def _squares(values: Sequence[int]) -> int:
    """The sum of squared distances of all ordered pairs: ``2 (m sum of squares - squared sum)``."""
    return 2 * (len(values) * sum(value * value for value in values) - sum(values) ** 2)
