"""Figures of deviations: the reference scores 1, silence 0; matched one to one by kind and step, within 2 s."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import make_session
from score_fixtures import HALF, tally

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.evaluation.baselines import oracle, shifted, silent
from prospect_hf.evaluation.score import figures
from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.deviations import deviation_counts, deviation_figures, deviations

# Step 2 before step 1, which is left out till the end; step 2 again; step 3 is never completed.
SWAPPED = [[0, 0, 0]] * 4 + [[0, 1, 0]] * 4 + [[0, 2, 0]] * 8 + [[0, 1, 0]] * 2 + [[0, 2, 0]] * 8 + [[0, 2, 1]] * 8


def figures_of(predicted: list[list[int]], reference: list[list[int]], fps: float = 2.0) -> dict[str, float | None]:
    return plain(deviation_figures(deviation_counts(predicted, reference, fps)))


def session_of(rows: list[list[int]]) -> SessionRows:
    states = np.array(rows)
    session = make_session(8, len(rows), states.shape[1], event_rate=0.0, turn_rate=0.0)
    session.states_after[:], session.states_before[1:] = states, states[:-1]
    session.dst_update[:] = (session.states_after != session.states_before).any(1)
    return session


def test_where_a_table_deviates() -> None:
    assert deviations(SWAPPED) == [
        (4, 1, "out_of_order"),
        (8, 0, "skipped"),
        (16, 1, "repeated"),
        (26, 2, "out_of_order"),
        (33, 2, "unfinished"),
    ]


@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=12))
def test_the_reference_scores_one_and_silence_nothing(rows: list[list[int]]) -> None:
    session = session_of(rows)
    found = plain(figures(tally(session, oracle(session), 2.0, HALF)))
    expected = 1.0 if deviations(rows) else None
    assert all(found[f"deviation_{name}_2s"] == expected for name in ("precision", "recall", "f1"))
    found = plain(figures(tally(session, silent(session), 2.0, HALF)))
    assert found["deviation_precision_2s"] is None
    assert found["deviation_recall_2s"] == found["deviation_f1_2s"] == (0.0 if expected else None)


def test_within_two_seconds() -> None:
    """At 2 frames a second four frames late are right and five are wrong, but for what the end shows."""
    session = session_of(SWAPPED)
    shares = [
        plain(figures(tally(session, shifted(oracle(session), late), 2.0, HALF)))["deviation_f1_2s"] for late in (4, 5)
    ]
    assert shares == [1.0, 0.2]


def test_kind_and_step_must_be_right_and_one_prediction_finds_one() -> None:
    assert figures_of([[0, 1], [0, 2]], [[0, 1], [1, 1]])["deviation_recall_2s"] == pytest.approx(1 / 3)
    flicker = [[2], [1], [2], [1], [2]]
    found = figures_of(flicker, [[2], [1], [2], [2], [2]])
    assert (found["deviation_precision_2s"], found["deviation_recall_2s"]) == (0.5, 1.0)
    other = figures_of([[2, 0], [1, 0], [2, 0]], [[0, 2], [0, 1], [0, 2]])
    assert other["deviation_f1_2s"] == 0.0


def test_figures_pool_over_sessions_and_a_run_without_a_table_has_none() -> None:
    right, wrong = deviation_counts(SWAPPED, SWAPPED, 2.0), deviation_counts([[0, 0]], [[1, 0]], 2.0)
    assert plain(deviation_figures(total([right, wrong])))["deviation_recall_2s"] == pytest.approx(5 / 6)
    session = session_of(SWAPPED)
    forced = oracle(session)
    forced.table = None
    unlabelled = make_session(4, 60, 3, labelled=False)
    for one, made in ((session, forced), (unlabelled, oracle(unlabelled))):
        assert not any(name.startswith("deviation") for name in figures(tally(one, made, 2.0, HALF)))


@pytest.mark.parametrize(
    ("predicted", "reference", "named"),
    [
        ([[0, 3]], [[0, 1]], "a state is 0, 1 or 2"),
        ([[0, 1]], [[0, -100]], "without a label"),
        ([[0, 1]], [[0]], "both must be"),
        ([[0, 1]], [[0, 7]], "State labels are"),
    ],
)
def test_what_is_no_table_is_refused(predicted: list[list[int]], reference: list[list[int]], named: str) -> None:
    with pytest.raises(DataError, match=named):
        deviation_counts(predicted, reference, 2.0)
