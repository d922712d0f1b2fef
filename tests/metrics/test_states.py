"""State tables against scikit-learn and frame by frame: oracle = 1, padding changes nothing, undefined is None."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prospect_hf.errors import DataError
from prospect_hf.metrics.states import (
    illegal_transitions,
    per_step_accuracy,
    state_counts,
    state_metrics,
    transitions,
)
from tracking_dst_smolvlm import LEGAL_MOVES, StateTable, Tracking

tables = st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(0, 10_000))


def table(spec: tuple[int, int, int], states: tuple[int, ...] = (0, 1, 2, -100)) -> NDArray[np.int64]:
    rows, steps, seed = spec
    return np.random.default_rng(seed).choice(states, size=(rows, steps))


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
    assert scores["joint_state_accuracy"] == (pytest.approx(right / counted) if counted else None)
    assert scores["step_accuracy"] == (pytest.approx(right_cells / cells) if cells else None)
    oracle = state_metrics([np.where(truth == -100, 0, truth) for truth in reference], reference)
    for name in ("joint_state_accuracy", "step_accuracy", "state_macro_f1"):
        assert oracle[name] == (1.0 if counted else None)
    assert oracle["joint_state_accuracy_at_updates"] == (1.0 if oracle["state_updates"] else None)


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
    shares = per_step_accuracy(guess, truth)
    assert per_step_accuracy(padded_guess, padded_truth) == [*shares, None, None]
    cells = (truth != -100).sum(0)
    pooled = sum((share or 0.0) * count for share, count in zip(shares, cells, strict=True))
    wanted = state_metrics([guess], [truth])["step_accuracy"]
    assert wanted == (pytest.approx(pooled / cells.sum()) if cells.sum() else None)


def test_update_frames_are_those_that_change() -> None:
    truth = np.array([[1, 0], [1, 0], [2, 0], [2, 1], [2, 1]])
    late = np.array([[1, 0], [1, 0], [1, 0], [2, 0], [2, 1]])  # every change seen one frame late
    scores = state_metrics([late], [truth])
    assert scores["state_updates"] == 2
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
    with pytest.raises(DataError, match="give pairs"):
        state_metrics([good], [])


def test_the_first_frame_is_an_update_where_what_was_before_is_told() -> None:
    truth = np.array([[1, 0], [1, 0]])
    assert state_counts(truth, truth)["state_updates"] == 0
    assert state_counts(truth, truth, before=[0, 0])["state_updates"] == 1
    assert state_counts(truth, truth, before=[1, 0])["state_updates"] == 0
    assert state_counts(truth, truth, before=[-100, -100])["state_updates"] == 0


def test_transitions_begin_with_nothing_started() -> None:
    moves = np.array([[0, 1], [0, 1], [1, 2], [2, 1]])
    assert transitions(moves) == [(0, 1, 1), (2, 0, 1), (2, 1, 2), (3, 0, 2), (3, 1, 1)]
    with pytest.raises(DataError, match="without a label"):
        transitions(np.array([[0, -100]]))


@pytest.mark.parametrize("policy", sorted(LEGAL_MOVES))
@given(spec=tables)
def test_illegal_transitions_are_those_that_the_table_refuses(policy: str, spec: tuple[int, int, int]) -> None:
    states = table(spec, (0, 1, 2))
    moves = zip(np.vstack([np.zeros_like(states[:1]), states[:-1]]).ravel(), states.ravel(), strict=True)
    refused = 0
    for before, after in moves:
        if before == after:
            continue
        tracked = StateTable([int(before)], Tracking(policy=policy))
        tracked.propose({0: int(after)}, update=True)
        refused += tracked.rejected
    assert illegal_transitions(states, LEGAL_MOVES[policy]) == refused


def test_confusion_is_reference_then_prediction() -> None:
    counts = state_counts([[1, 2], [0, 2]], [[0, 2], [0, 1]])
    cells = {name: value for name, value in counts.items() if name[-2:].isdigit() and value}
    assert cells == {"state_01": 1, "state_22": 1, "state_00": 1, "state_12": 1}
