"""The segmental model against a sum over every path, written out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prospect_hf.align.segmental import OFF_PLAN, Prices, Run, SegmentalModel, run_sums, runs

SEGMENTS, STEPS = 5, 3


def model(seed: int, longest: int = SEGMENTS, spread: float = 2.0) -> SegmentalModel:
    draws = np.random.default_rng(seed)
    prices = Prices(*draws.uniform(-1, 3, 3))
    return SegmentalModel(
        draws.normal(0, spread, (SEGMENTS, longest, STEPS)), draws.normal(0, spread, SEGMENTS), prices
    )


def ways(longest: int, first: int = 0) -> Iterator[list[Run]]:
    """Every way to cut the segments from ``first`` on into runs of a step or of none."""
    if first == SEGMENTS:
        yield []
    for length in range(1, min(longest, SEGMENTS - first) + 1):
        for step in range(OFF_PLAN, STEPS):
            for rest in ways(longest, first + length):
                yield [Run(first, length, step), *rest]


def worth(way: list[Run], made: SegmentalModel, off: np.ndarray) -> float:
    """The score of a way, by the words of the module's docstring."""
    total, reached = 0.0, -1
    for run in way:
        if run.step == OFF_PLAN:
            total += off[run.first : run.first + run.length].sum() - made.prices.off
            continue
        total += made.scores[run.first, run.length - 1, run.step]
        if run.step > reached:
            total -= made.prices.skip * (run.step - reached - 1)
            reached = run.step
        else:
            total -= made.prices.revisit
    return float(total - made.prices.skip * (STEPS - 1 - reached))


def all_ways(seed: int, longest: int) -> tuple[SegmentalModel, list[list[Run]], np.ndarray]:
    made = model(seed, longest)
    draws = np.random.default_rng(seed)
    draws.uniform(-1, 3, 3), draws.normal(0, 2.0, made.scores.shape)
    off = draws.normal(0, 2.0, SEGMENTS)
    found = list(ways(longest))
    return made, found, np.array([worth(way, made, off) for way in found])


def as_path(way: list[Run]) -> tuple[int, ...]:
    return tuple(run.step for run in way for _ in range(run.length))


@pytest.mark.parametrize("longest", [SEGMENTS, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_sums_are_those_over_every_way(seed: int, longest: int) -> None:
    made, found, scores = all_ways(seed, longest)
    assert made.log_total == pytest.approx(np.logaddexp.reduce(scores), abs=1e-9)
    weights = np.exp(scores - made.log_total)
    on, revisits = np.zeros(made.scores.shape), 0.0
    for way, weight in zip(found, weights, strict=True):
        reached = -1
        for run in way:
            if run.step != OFF_PLAN:
                on[run.first, run.length - 1, run.step] += weight
                revisits += weight * (run.step <= reached)
                reached = max(run.step, reached)
    found_on, found_revisits = made.run_probabilities()
    np.testing.assert_allclose(found_on, on, atol=1e-9)
    assert found_revisits == pytest.approx(revisits, abs=1e-9)


def test_score_is_that_of_the_longest_runs() -> None:
    made, found, scores = all_ways(2, SEGMENTS)
    for way, score in zip(found[::7], scores[::7], strict=True):
        if way == runs(np.array(as_path(way))):
            assert made.score(np.array(as_path(way))) == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("longest", [SEGMENTS, 2])
def test_paths_are_drawn_as_often_as_they_are_probable(longest: int) -> None:
    made, found, scores = all_ways(3, longest)
    expected: dict[tuple[int, ...], float] = {}
    for way, weight in zip(found, np.exp(scores - made.log_total), strict=True):
        expected[as_path(way)] = expected.get(as_path(way), 0.0) + weight
    count = 5_000
    drawn = made.sample(count, seed=1)
    for path, probability in expected.items():
        share = float((drawn == np.array(path)).all(1).mean())
        assert share == pytest.approx(probability, abs=5 * math.sqrt(probability * (1 - probability) / count) + 1e-3)


@settings(max_examples=20, deadline=None)
@given(
    segments=st.integers(1, 30), steps=st.integers(1, 8), longest=st.integers(1, 30), spread=st.sampled_from([1, 300])
)
def test_any_shape_and_size_of_scores(segments: int, steps: int, longest: int, spread: int) -> None:
    draws = np.random.default_rng(segments)
    longest = min(longest, segments)
    scores = draws.normal(0, spread, (segments, longest, steps))
    made = SegmentalModel(scores, draws.normal(0, spread, segments), Prices(1.0, 2.0, 3.0))
    assert math.isfinite(made.log_total)
    paths = made.sample(10)
    assert paths.shape == (10, segments)
    assert paths.min() >= OFF_PLAN and paths.max() < steps
    np.testing.assert_array_equal(paths, made.sample(10))
    on, _ = made.run_probabilities()
    in_runs = (on.sum(2) * (1 + np.arange(longest))).sum()
    assert 0 <= in_runs <= segments * (1 + 1e-6)


def test_runs_are_as_long_as_they_can_be() -> None:
    assert runs(np.array([0, 0, -1, 2, 2, 2, 0])) == [Run(0, 2, 0), Run(2, 1, -1), Run(3, 3, 2), Run(6, 1, 0)]


def test_sums_of_runs_end_with_the_last_segment() -> None:
    values = np.array([[1.0], [10.0], [100.0]])
    assert run_sums(values, 3)[:, :, 0].tolist() == [[1, 11, 111], [10, 110, 110], [100, 100, 100]]
