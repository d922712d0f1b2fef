"""The sessions that the page of a run shows: the worst, the middle and the best of those that the model followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prospect_hf.evaluation.report.sessions import session_scores, view
from prospect_hf.evaluation.scored_run import ScoredRun

EXAMPLES = 6


def examples(run: ScoredRun, most: int = EXAMPLES) -> list[dict[str, Any]]:
    """What the timelines of at most ``most`` sessions show, from the lowest score to the highest.

    They have equal distances of rank. Sessions without a score come last.
    """
    scores, _ = session_scores(run)
    order = sorted(
        range(len(scores)),
        key=lambda at: (scores[at] is None, scores[at] or 0.0, run.sessions[at].session.session_id),
    )
    return [view(run.sessions[at], run.fps, scores[at]) for at in evenly(order, most)]


def evenly(items: Sequence[int], most: int) -> list[int]:
    """The first, the last, and others at equal distances between them, ``most`` in all."""
    if len(items) <= most:
        return list(items)
    return [items[number * (len(items) - 1) // (most - 1)] for number in range(most)]
