"""The filter ``bayes``: the likeliest state of a step given the head's answers so far and the order of the plan."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import picture, small_processor
from stream_fixtures import PLAN, talkative_model

from prospect_hf.streaming import DSTStream, Tracking, restore_stream, save_stream
from tracking_dst_smolvlm import AGAIN, AHEAD, AT_ONCE, COMPLETE, START, StateTable, bayes_filter

ROW = st.tuples(*[st.floats(0.001, 1)] * 3).map(lambda row: [value / sum(row) for value in row])
BAYES = Tracking(filter="bayes")
SURE = [[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]]


@given(st.lists(ROW, min_size=1, max_size=5))
def test_of_one_step_it_is_the_sum_over_all_paths(rows: list[list[float]]) -> None:
    """The forward algorithm against its definition: every path of states, by its chance."""
    move = [[1 - START - AT_ONCE, START, AT_ONCE], [0, 1 - COMPLETE, COMPLETE], [0, AGAIN, 1 - AGAIN]]
    ends = [0.0] * 3
    for path in itertools.product(range(3), repeat=len(rows)):
        chance = 1.0
        for before, after, row in zip((0, *path), path, rows, strict=False):
            chance *= move[before][after] * row[after]
        ends[path[-1]] += chance
    beliefs = [[1.0, 0.0, 0.0]]
    for row in rows:
        beliefs = bayes_filter(beliefs, [row], "reopen")
    assert beliefs[0] == pytest.approx([chance / sum(ends) for chance in ends])


@given(st.lists(st.lists(ROW, min_size=3, max_size=3), max_size=8), st.sampled_from(["reopen", "monotone"]))
def test_beliefs_are_chances_and_a_saved_table_goes_on_the_same(rows: list[Any], policy: str) -> None:
    table = StateTable([0, 1, 2], Tracking(policy=policy, filter="bayes"))
    for row in rows:
        again = StateTable.load(json.loads(json.dumps(table.save())))
        for one in (table, again):
            one.propose(one.read_head(row), update=False)
        assert again.save() == table.save()
        for belief, state in zip(table.beliefs, table.states, strict=True):
            assert sum(belief) == pytest.approx(1) and min(belief) >= 0
            assert belief.index(max(belief)) == state or table.rejected
        assert policy == "reopen" or table.states[2] == 2


def test_an_answer_that_rules_a_state_out_does_not_do_so_for_good() -> None:
    table = StateTable([0], BAYES)
    for answer in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]):
        table.read_head([answer])
        assert sum(table.beliefs[0]) == pytest.approx(1)


def test_a_step_is_likelier_to_start_when_the_earlier_ones_are_completed() -> None:
    doubtful = [0.5, 0.5, 0.0]
    for steps in (2, 4):
        ahead = bayes_filter([[1.0, 0.0, 0.0]] * steps, [doubtful] * steps, "reopen")[-1]
        turn = bayes_filter([[0.0, 0.0, 1.0]] * (steps - 1) + [[1.0, 0.0, 0.0]], [doubtful] * steps, "reopen")[-1]
        assert ahead[1] < turn[1]
        assert ahead[1] / ahead[0] == pytest.approx(START * AHEAD / (1 - START * AHEAD - AT_ONCE), rel=1e-3)
        assert turn[1] / turn[0] == pytest.approx(START / (1 - START - AT_ONCE), rel=1e-3)


def test_a_flicker_moves_nothing_and_a_change_is_seen_without_the_update_decision() -> None:
    bayes, plain = StateTable([0], BAYES), StateTable([0], Tracking())
    shown = [0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 2, 1, 2, 2, 2, 2]
    moves: dict[str, list[int]] = {"bayes": [], "plain": []}
    for state in shown:
        doubtful = [[0.15 + 0.55 * (state == other) for other in range(3)]]
        for name, table, update in (("bayes", bayes, False), ("plain", plain, True)):
            moves[name] += [move.after for move in table.propose(table.read_head(doubtful), update)]
    assert moves == {"bayes": [1, 2], "plain": [1, 2, 1, 2]}
    assert plain.rejected > bayes.rejected == 0


def test_a_completed_step_stays_so_unless_the_policy_lets_it_start_again() -> None:
    believed = {}
    for policy in ("monotone", "reopen"):
        table = StateTable([2], Tracking(policy, filter="bayes"))
        for _ in range(20):
            table.propose(table.read_head([SURE[1]]), update=False)
        believed[policy] = table.states, table.beliefs[0]
    assert believed["monotone"] == ([2], [0.0, 0.0, 1.0])
    assert believed["reopen"][0] == [1] and believed["reopen"][1][1] > 0.9


def test_one_sure_answer_is_enough() -> None:
    table = StateTable([0, 0], BAYES)
    for row, states in (([SURE[0], SURE[0]], [0, 0]), ([SURE[1], SURE[0]], [1, 0]), ([SURE[2], SURE[0]], [2, 0])):
        table.propose(table.read_head(row), update=False)
        assert table.states == states


def test_a_stream_filters_its_heads_answers_and_goes_on_after_a_restart(tmp_path: Any) -> None:
    stream, table = (DSTStream(talkative_model(), small_processor(), PLAN, tracking=BAYES), StateTable([0] * 3, BAYES))
    moved = 0
    for frame in range(12):
        if frame == 6:
            save_stream(stream, tmp_path / "stream")
            stream = restore_stream(tmp_path / "stream", talkative_model(), small_processor())
        event = stream.step(picture("v", frame))
        assert event.transitions == table.propose(table.read_head(event.probabilities), update=False)
        assert event.states == tuple(table.states)
        moved += len(event.transitions)
    assert stream.batch.rows[0].table.beliefs == table.beliefs and moved


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"filter": "kalman"}, "filter must be one of none, bayes, not 'kalman'"),
        ({"filter": None}, "filter must be one of"),
        ({"filter": ["bayes"]}, "filter must be one of"),
        ({"filter": "bayes", "debounce": 2}, "needs source head, debounce 1 and hysteresis 0, not head, 2 and"),
        ({"filter": "bayes", "hysteresis": 0.2}, "hysteresis 0, not head, 1 and 0.2"),
        ({"filter": "bayes", "source": "text"}, "not text, 1"),
    ],
)
def test_what_the_filter_cannot_be_is_one_sentence(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Tracking(**settings)
