"""The metric functions against scikit-learn, brute force, and their two fixed points: oracle = 1, silence = 0."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from prospect_hf.errors import DataError
from prospect_hf.evaluation.metrics import (
    best_threshold,
    binary_metrics,
    event_scores,
    joint_state_accuracy,
    match_events,
    state_metrics,
    text_scores,
    transition_scores,
)

# Few distinct scores, so that ties are common; the labels include ignored ones.
decisions = st.lists(st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.sampled_from([0, 0, 1, -100])), max_size=40)
frames = st.lists(st.integers(0, 30), max_size=12)
tables = st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(0, 10_000))


def table(spec: tuple[int, int, int], states: tuple[int, ...] = (0, 1, 2, -100)) -> NDArray[np.int64]:
    rows, steps, seed = spec
    return np.random.default_rng(seed).choice(states, size=(rows, steps))


# ---- binary decisions


@settings(deadline=None)
@given(decisions, st.integers(0, 8).map(lambda n: n / 8))
def test_binary_metrics_equal_scikit_learn(rows: list[tuple[float, int]], threshold: float) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    ours = binary_metrics([score for score, _ in rows], [label for _, label in rows], threshold)
    kept = [(score, label) for score, label in rows if label != -100]
    truth, guess = [label for _, label in kept], [int(score >= threshold) for score, _ in kept]
    assert ours["positives"] == sum(truth) and ours["predicted"] == sum(guess)
    if not kept:
        assert set(ours.values()) == {0}
        return
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        truth, guess, average="binary", zero_division=0
    )
    assert [ours["precision"], ours["recall"], ours["f1"]] == pytest.approx([precision, recall, f1])
    recalls = [np.mean([g == t for g, t in zip(guess, truth, strict=True) if t == kind]) for kind in set(truth)]
    assert ours["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    if sum(truth):
        exact = sklearn_metrics.average_precision_score(truth, [score for score, _ in kept])
        assert ours["average_precision"] == pytest.approx(exact)
    else:
        assert ours["average_precision"] == 0.0


@given(decisions)
def test_best_threshold_is_best_and_reproducible(rows: list[tuple[float, int]]) -> None:
    scores, labels = [score for score, _ in rows], [label for _, label in rows]
    threshold, f1 = best_threshold(scores, labels)
    assert binary_metrics(scores, labels, threshold)["f1"] == pytest.approx(f1)
    for other in {*scores, 0.0, math.inf}:
        assert binary_metrics(scores, labels, other)["f1"] <= f1 + 1e-12
    # Rounding noise on the scores turns no decision, unless the threshold must let the lowest score through.
    if 1 in labels and threshold > min(score for score, label in rows if label != -100):
        noisy = [score - 1e-6 for score in scores]
        assert binary_metrics(noisy, labels, threshold)["f1"] == pytest.approx(f1)


def test_binary_oracle_silence_and_bad_input() -> None:
    labels = np.array([0, 1, -100, 0, 1, 1])
    oracle = binary_metrics(labels == 1, labels)
    for name in ("precision", "recall", "f1", "average_precision", "balanced_accuracy"):
        assert oracle[name] == 1.0
    silence = binary_metrics(np.zeros(6), labels)
    assert silence["f1"] == silence["precision"] == silence["predicted"] == 0.0
    assert silence["balanced_accuracy"] == 0.5
    assert best_threshold([0.1, 0.9], [0, -100]) == (0.5, 0.0)
    assert best_threshold([-np.inf, np.inf, 0.0], [0, 1, 1])[1] == 1.0
    with pytest.raises(DataError, match="NaN"):
        binary_metrics([0.1, math.nan], [0, 1])
    binary_metrics([0.1, math.nan], [0, -100])
    with pytest.raises(DataError, match="shape"):
        binary_metrics([0.1], [0, 1])
    with pytest.raises(DataError, match="decision is"):
        binary_metrics([0.1, 0.2], [0, 2])


# ---- events in time


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


def test_spare_prediction_does_not_bend_the_delay() -> None:
    assert match_events([8, 9, 10], [10], 2) == [(10, 10)]
    scores = event_scores([([8, 9, 10], [10])], 2)
    assert scores["mean_delay_frames"] == 0 and scores["extra"] == 2


@given(st.lists(st.tuples(frames, frames), max_size=4), st.integers(0, 6))
def test_event_scores_count_everything_once(sessions: list[tuple[list[int], list[int]]], tolerance: int) -> None:
    scores = event_scores(sessions, tolerance)
    references = sum(len(reference) for _, reference in sessions)
    predictions = sum(len(predicted) for predicted, _ in sessions)
    assert scores["matched"] + scores["missed"] == scores["references"] == references
    assert scores["matched"] + scores["extra"] == scores["predictions"] == predictions
    assert 0 <= scores["f1"] <= 1
    assert abs(scores["mean_delay_frames"]) <= scores["mean_abs_delay_frames"] <= tolerance
    # A wider window never finds less, and swapping the sides swaps precision and recall.
    assert event_scores(sessions, tolerance + 1)["matched"] >= scores["matched"]
    swapped = event_scores([(reference, predicted) for predicted, reference in sessions], tolerance)
    assert (swapped["precision"], swapped["recall"]) == (scores["recall"], scores["precision"])
    oracle = event_scores([(reference, reference) for _, reference in sessions], tolerance)
    silence = event_scores([([], reference) for _, reference in sessions], tolerance)
    assert oracle["f1"] == float(references > 0) and oracle["mean_delay_frames"] == 0
    assert silence["f1"] == silence["precision"] == silence["recall"] == 0


def test_events_of_different_sessions_never_match() -> None:
    assert event_scores([([5], []), ([], [5])], 10)["matched"] == 0


def test_delay_is_positive_when_late() -> None:
    scores = event_scores([([12, 19], [10, 20])], 2)
    assert scores["mean_delay_frames"] == 0.5 and scores["mean_abs_delay_frames"] == 1.5
    with pytest.raises(DataError, match="tolerance"):
        match_events([1], [1], -1)


def test_always_speaking_costs_no_time() -> None:
    everywhere, some = list(range(5000)), list(range(3, 5000, 20))
    scores = event_scores([(everywhere, some)], 2)
    assert scores["recall"] == 1.0 and scores["precision"] == pytest.approx(len(some) / 5000)
    assert scores["mean_abs_delay_frames"] == 0


# ---- states and transitions


@given(st.lists(tables, max_size=4))
def test_state_metrics_oracle_and_frame_by_frame(specs: list[tuple[int, int, int]]) -> None:
    reference = [table(spec) for spec in specs]
    predicted = [table((rows, steps, seed + 1), (0, 1, 2)) for rows, steps, seed in specs]
    scores = state_metrics(predicted, reference)
    right = counted = cells = right_cells = 0
    for guess, truth in zip(predicted, reference, strict=True):
        for guess_row, truth_row in zip(guess, truth, strict=True):
            pairs = [(g, t) for g, t in zip(guess_row, truth_row, strict=True) if t != -100]
            counted += bool(pairs)
            right += bool(pairs) and all(g == t for g, t in pairs)
            cells += len(pairs)
            right_cells += sum(g == t for g, t in pairs)
    assert scores["state_frames"] == counted
    assert scores["joint_state_accuracy"] == pytest.approx(right / max(counted, 1))
    assert scores["step_accuracy"] == pytest.approx(right_cells / max(cells, 1))
    assert scores["joint_state_accuracy"] <= scores["step_accuracy"] + 1e-12 or counted < cells
    oracle = state_metrics([np.where(truth == -100, 0, truth) for truth in reference], reference)
    for name in ("joint_state_accuracy", "step_accuracy", "state_macro_f1"):
        assert oracle[name] == float(counted > 0)
    assert oracle["joint_state_accuracy_at_updates"] == float(oracle["state_update_frames"] > 0)


@settings(deadline=None)
@given(tables)
def test_macro_f1_equals_scikit_learn(spec: tuple[int, int, int]) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    truth, guess = table(spec), table((spec[0], spec[1], spec[2] + 1), (0, 1, 2))
    kept = truth != -100
    if kept.any():
        exact = sklearn_metrics.f1_score(truth[kept], guess[kept], average="macro")
        assert state_metrics([guess], [truth])["state_macro_f1"] == pytest.approx(exact)


@given(tables)
def test_padding_changes_nothing(spec: tuple[int, int, int]) -> None:
    truth, guess = table(spec), table((spec[0], spec[1], spec[2] + 1), (0, 1, 2))
    padded_truth = np.pad(truth, ((0, 3), (0, 2)), constant_values=-100)
    padded_guess = np.pad(guess, ((0, 3), (0, 2)), constant_values=1)
    assert state_metrics([padded_guess], [padded_truth]) == state_metrics([guess], [truth])
    assert joint_state_accuracy(padded_guess, padded_truth) == joint_state_accuracy(guess, truth)
    assert joint_state_accuracy(guess, truth) == state_metrics([guess], [truth])["joint_state_accuracy"]


def test_update_frames_are_those_that_change() -> None:
    truth = np.array([[1, 0], [1, 0], [2, 0], [2, 1], [2, 1]])
    late = np.array([[1, 0], [1, 0], [1, 0], [2, 0], [2, 1]])  # every change seen one frame late
    scores = state_metrics([late], [truth])
    assert scores["state_update_frames"] == 2
    assert scores["joint_state_accuracy_at_updates"] == 0.0
    assert scores["joint_state_accuracy"] == pytest.approx(3 / 5)
    assert state_metrics([np.zeros((5, 2), int)], [truth])["joint_state_accuracy"] == 0.0


def test_wrong_state_tables_are_named() -> None:
    good = np.zeros((2, 2), int)
    with pytest.raises(DataError, match="frames, steps"):
        state_metrics([good], [good[:1]])
    with pytest.raises(DataError, match="a state is"):
        state_metrics([good], [good + 3])
    with pytest.raises(DataError, match="a state is"):
        state_metrics([good + 3], [good])
    with pytest.raises(DataError, match="stand against"):
        state_metrics([good], [])


def test_transitions_match_only_their_own_step_and_kind() -> None:
    reference = [(10, 0, "start"), (20, 0, "complete"), (20, 1, "start")]
    assert transition_scores([(reference, reference)], 0)["f1"] == 1.0
    assert transition_scores([([], reference)], 2)["f1"] == 0.0
    assert transition_scores([([], [])], 2)["f1"] == 0.0
    other_step = [(frame, step + 1, kind) for frame, step, kind in reference]
    assert transition_scores([(other_step, reference)], 2)["matched"] == 0
    other_kind = [(10, 0, "complete"), (20, 0, "start"), (20, 1, "complete")]
    assert transition_scores([(other_kind, reference)], 2)["matched"] == 0
    late = [(frame + 2, step, kind) for frame, step, kind in reference]
    assert transition_scores([(late, reference)], 1)["matched"] == 0
    scores = transition_scores([(late, reference), ([(5, 0, "start")] * 2, [(5, 0, "start")])], 2)
    assert (scores["matched"], scores["extra"], scores["missed"]) == (4, 1, 0)
    assert scores["mean_delay_frames"] == 6 / 4


# ---- texts


@given(st.lists(st.text(alphabet="ab c", min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_text_oracle_and_silence(texts: list[str]) -> None:
    oracle, silence = text_scores(texts, texts), text_scores([""] * len(texts), texts)
    assert oracle["exact_match"] == 1.0 and oracle["bleu"] == pytest.approx(100.0) and oracle["bleu"] <= 100.0
    assert silence["exact_match"] == 0.0 and silence["bleu"] == 0.0


def test_texts_of_two_words_and_none() -> None:
    assert text_scores(["Well done."], ["Well done. "]) == {"exact_match": 1.0, "bleu": 100.0, "texts": 1}
    assert text_scores([], []) == {"exact_match": 0.0, "bleu": 0.0, "texts": 0}
    half = text_scores(["take the red wheel now", "stop"], ["take the red wheel now", "pick up the blue bolt"])
    assert half["exact_match"] == 0.5 and 0 < half["bleu"] < 100
    with pytest.raises(DataError, match="stand against"):
        text_scores(["a"], [])
