"""The task score: a mean of three figures, undefined as soon as one of them is."""

from __future__ import annotations

import math

import pytest

from prospect_hf.metrics.task_score import task_score


def test_it_is_the_mean_of_the_three_figures() -> None:
    assert task_score(0.9, 0.6, 0.3) == pytest.approx(0.6)
    assert task_score(0.0, 0.0, 0.0) == 0.0


@pytest.mark.parametrize("undefined", [None, math.nan], ids=["none", "nan"])
@pytest.mark.parametrize("place", range(3))
def test_it_is_undefined_where_one_figure_is(undefined: float | None, place: int) -> None:
    figures: list[float | None] = [0.5, 0.5, 0.5]
    figures[place] = undefined
    assert task_score(*figures) is None
