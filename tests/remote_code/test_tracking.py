"""The tracked table: legal moves only, debounce, hysteresis, state texts, all of it restored from JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing_dst_smolvlm import state_text
from tracking_dst_smolvlm import LEGAL_MOVES, StateTable, Tracking, Transition

POLICIES = st.sampled_from(sorted(LEGAL_MOVES))
STATES = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def test_the_legal_moves() -> None:
    moves = [(before, after) for before in range(3) for after in range(3) if before != after]
    assert {move for move in moves if move in LEGAL_MOVES["monotone"]} == {(0, 1), (1, 2), (0, 2)}
    assert {move for move in moves if move in LEGAL_MOVES["reopen"]} == {(0, 1), (1, 2), (0, 2), (2, 1)}


@given(POLICIES, STATES, st.data())
def test_only_legal_moves_are_made(policy: str, states: list[int], data: st.DataObject) -> None:
    table = StateTable(states, Tracking(policy=policy))
    for _ in range(5):
        before, rejected = list(table.states), table.rejected
        wanted = data.draw(st.lists(st.integers(0, 2), min_size=len(states), max_size=len(states)))
        proposals = {step: state for step, state in enumerate(wanted) if state != before[step]}
        moves = table.propose(proposals, update=True)
        assert [move.step for move in moves] == sorted(move.step for move in moves)
        for step, after in proposals.items():
            legal = (before[step], after) in LEGAL_MOVES[policy]
            assert (Transition(step, before[step], after) in moves) == legal
            assert table.states[step] == (after if legal else before[step])
        assert table.rejected - rejected == len(proposals) - len(moves)


def test_without_an_update_nothing_is_heard() -> None:
    table = StateTable([0, 1], Tracking())
    assert table.propose({0: 1, 1: 2}, update=False) == () and table.states == [0, 1]
    assert table.propose({0: 1, 1: 0}, update=False) == () and table.rejected == 0


def test_debounce_counts_frames_in_a_row() -> None:
    table = StateTable([0, 0], Tracking(debounce=3))
    assert table.propose({0: 1}, update=True) == ()
    assert table.propose({0: 1}, update=False) == ()  # it goes on standing without an update
    assert table.propose({0: 1, 1: 1}, update=False) == (Transition(0, 0, 1),)
    assert table.propose({1: 1}, update=True) == ()
    assert table.propose({}, update=True) == ()  # it fell
    assert table.propose({1: 1}, update=False) == ()
    assert table.propose({1: 1}, update=True) == ()
    assert table.propose({1: 2}, update=False) == ()  # another state: nothing new is heard without an update
    assert table.propose({1: 1}, update=False) == () and table.states == [1, 0]


def test_hysteresis_holds_the_tracked_state() -> None:
    rows = [[0.4, 0.5, 0.1], [0.1, 0.2, 0.7]]
    assert StateTable([0, 0], Tracking()).read_head(rows) == {0: 1, 1: 2}
    assert StateTable([0, 0], Tracking(hysteresis=0.3)).read_head(rows) == {1: 2}
    assert StateTable([1, 2], Tracking()).read_head(rows) == {}
    with pytest.raises(ValueError):
        StateTable([0], Tracking()).read_head(rows)


@given(STATES, STATES)
def test_a_state_text_is_read_as_it_was_written(before: list[int], after: list[int]) -> None:
    after = (after * len(before))[: len(before)]
    changes = {step: state for step, state in enumerate(after) if state != before[step]}
    table = StateTable(before, Tracking(source="text"))
    if changes:
        assert table.read_text(state_text(changes)) == changes and table.malformed == 0
        table.propose(changes, update=True)


@pytest.mark.parametrize(
    "text",
    ["", "hello", "1 done", "0 completed", "4 completed", "1 completed, 1 in progress", "1 completed,, 2 completed",
     "1 completed. 2 completed", "-1 completed", "1 completed, hello",
     "\u0661 completed", "9999999999999999999 completed"],
)  # fmt: skip
def test_a_state_text_that_cannot_be_read_proposes_nothing(text: str) -> None:
    table = StateTable([0, 0, 0], Tracking(source="text"))
    assert table.read_text(text) == {} and table.malformed == 1 and table.states == [0, 0, 0]


def test_a_state_text_that_tells_nothing_new() -> None:
    table = StateTable([1, 0], Tracking(source="text"))
    assert table.read_text("1 in progress, 2 in progress") == {1: 1} and table.malformed == 0


@given(st.lists(st.tuples(st.dictionaries(st.integers(0, 2), st.integers(0, 2)), st.booleans()), max_size=6))
def test_a_restored_table_goes_on_the_same(frames: list[tuple[dict[int, int], bool]]) -> None:
    table = StateTable([0, 1, 2], Tracking("monotone", "head", 2, 0.1))
    for proposals, update in frames:
        again = StateTable.load(json.loads(json.dumps(table.save())))
        changes = {step: state for step, state in proposals.items() if state != table.states[step]}
        assert again.propose(changes, update) == table.propose(changes, update)
        assert again.save() == table.save()


@pytest.mark.parametrize(
    ("key", "value"), [("policy", "any"), ("source", "both"), ("debounce", 0), ("hysteresis", 1.5)]
)
def test_tracking_refuses(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        Tracking(**{key: value})
    with pytest.raises(ValueError, match="0, 1 or 2"):
        StateTable([0, 3], Tracking())
