"""Events in time: matchings against the Hungarian algorithm, oracle = 1, silence = 0, delays with their sign."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.events import event_counts, event_figures, match_events, match_transitions

frames = st.lists(st.integers(0, 30), max_size=12)
Session = tuple[Sequence[int], Sequence[int]]


def scores_of(sessions: Sequence[Session], tolerance: int) -> dict[str, float | None]:
    """Figures of sessions at one frame a second, so that frames are seconds."""
    counts = [
        event_counts({tolerance: match_events(ours, theirs, tolerance)}, len(ours), len(theirs), 1.0, "event")
        for ours, theirs in sessions
    ]
    found = plain(event_figures(total(counts), [tolerance], "event"))
    return {name.removeprefix("event_").removesuffix(f"_{tolerance}s"): value for name, value in found.items()}


def best_assignment(predicted: list[int], reference: list[int], tolerance: int) -> tuple[int, int]:
    """(number of pairs, total distance) of the best matching, by the Hungarian algorithm."""
    distance = np.abs(np.subtract.outer(predicted, reference))
    far = (tolerance + 1) * (len(predicted) + len(reference) + 1)
    gain = np.where(distance <= tolerance, far - distance, 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    paired = distance[rows, columns] <= tolerance
    return int(paired.sum()), int(distance[rows, columns][paired].sum())


@settings(deadline=None, max_examples=300)
@given(frames, frames, st.integers(0, 6))
def test_matching_is_maximum_and_closest(predicted: list[int], reference: list[int], tolerance: int) -> None:
    pairs = match_events(predicted, reference, tolerance)
    count, distance = best_assignment(predicted, reference, tolerance) if predicted and reference else (0, 0)
    assert len(pairs) == count
    assert sum(abs(guess - truth) for guess, truth in pairs) == distance
    assert all(abs(guess - truth) <= tolerance for guess, truth in pairs)
    assert pairs == sorted(pairs)
    # One to one: no event is used more often than it occurs.
    for side, events in enumerate((predicted, reference)):
        used = [pair[side] for pair in pairs]
        assert all(used.count(frame) <= events.count(frame) for frame in used)


def test_matching_brute_force_on_all_small_cases() -> None:
    for predicted in itertools.combinations(range(5), 2):
        for reference in itertools.combinations_with_replacement(range(5), 2):
            straight = sum(abs(p - r) <= 1 for p, r in zip(predicted, reference, strict=True))
            crossed = sum(abs(p - r) <= 1 for p, r in zip(predicted, reversed(reference), strict=True))
            assert len(match_events(predicted, reference, 1)) == max(straight, crossed)


def test_a_spare_prediction_does_not_bend_the_delay() -> None:
    assert match_events([8, 9, 10], [10], 2) == [(10, 10)]
    assert scores_of([([8, 9, 10], [10])], 2) | {} == {
        "precision": pytest.approx(1 / 3),
        "recall": 1.0,
        "f1": 0.5,
        "delay_s": 0.0,
        "abs_delay_s": 0.0,
    }


@given(st.lists(st.tuples(frames, frames), max_size=3), st.integers(0, 5))
def test_scores_count_every_event_once(sessions: list[tuple[list[int], list[int]]], tolerance: int) -> None:
    scores = scores_of(sessions, tolerance) if sessions else {}
    predictions, references = sum(len(p) for p, _ in sessions), sum(len(r) for _, r in sessions)
    if not sessions:
        return
    matched = sum(len(match_events(p, r, tolerance)) for p, r in sessions)
    assert scores["precision"] == (pytest.approx(matched / predictions) if predictions else None)
    assert scores["recall"] == (pytest.approx(matched / references) if references else None)
    both = predictions + references
    assert scores["f1"] == (pytest.approx(2 * matched / both) if both else None)
    assert (scores["delay_s"] is None) == (not matched)
    swapped = scores_of([(theirs, ours) for ours, theirs in sessions], tolerance)
    assert (swapped["precision"], swapped["recall"]) == (scores["recall"], scores["precision"])
    oracle = scores_of([(theirs, theirs) for _, theirs in sessions], tolerance)
    silence = scores_of([([], theirs) for _, theirs in sessions], tolerance)
    assert oracle["f1"] == (1.0 if references else None) and oracle["delay_s"] == (0.0 if references else None)
    assert (silence["f1"], silence["recall"]) == ((0.0, 0.0) if references else (None, None))
    assert silence["precision"] is None


def test_events_of_different_sessions_never_match() -> None:
    assert scores_of([([5], []), ([], [5])], 10)["f1"] == 0.0


def test_delay_is_positive_when_late() -> None:
    scores = scores_of([([12, 19], [10, 20])], 2)
    assert scores["delay_s"] == 0.5 and scores["abs_delay_s"] == 1.5
    with pytest.raises(DataError, match="tolerance"):
        match_events([1], [1], -1)


def test_tolerances_and_delays_are_in_seconds() -> None:
    """At 2 frames a second, 3 frames late is within 2 s and not within 1 s, and late by 1.5 s."""
    within = {seconds: match_events([13], [10], int(seconds * 2.0)) for seconds in (0, 1, 2, 5)}
    found = plain(event_figures(event_counts(within, 1, 1, 2.0, "event"), (0, 1, 2, 5), "event"))
    assert [found[f"event_f1_{seconds}s"] for seconds in (0, 1, 2, 5)] == [0.0, 0.0, 1.0, 1.0]
    assert found["event_delay_s"] == found["event_abs_delay_s"] == 1.5


def test_always_speaking_costs_no_time() -> None:
    everywhere, some = list(range(5000)), list(range(3, 5000, 20))
    scores = scores_of([(everywhere, some)], 2)
    assert scores["recall"] == 1.0 and scores["precision"] == pytest.approx(len(some) / 5000)
    assert scores["abs_delay_s"] == 0


def test_transitions_match_only_their_own_step_and_state() -> None:
    reference = [(10, 0, 1), (20, 0, 2), (20, 1, 1)]
    assert len(match_transitions(reference, reference, 0)) == 3
    assert match_transitions([], reference, 2) == match_transitions([], [], 2) == []
    assert match_transitions([(frame, step + 5, state) for frame, step, state in reference], reference, 2) == []
    assert match_transitions([(10, 0, 2), (20, 0, 1), (20, 1, 2)], reference, 2) == []
    late = [(frame + 2, step, state) for frame, step, state in reference]
    assert match_transitions(late, reference, 1) == []
    assert sorted(match_transitions(late, reference, 2)) == [(12, 10), (22, 20), (22, 20)]
    # A reference is matched at most once.
    assert len(match_transitions([(5, 0, 1)] * 2, [(5, 0, 1)], 2)) == 1
