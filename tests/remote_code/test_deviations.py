"""What deviates from the plan: one rule over tables, the same for a stream, a saved stream and a whole session."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import picture, small_processor
from stream_fixtures import PLAN, talkative_model

from events_dst_smolvlm import StreamRow
from prospect_hf.streaming import DSTStream, restore_stream, save_stream
from tracking_dst_smolvlm import (
    DEVIATIONS,
    LEGAL_MOVES,
    Deviation,
    Deviations,
    StateTable,
    Tracking,
    session_deviations,
)

Found = set[tuple[int, str, int]]


@st.composite
def legal_tables(draw: st.DrawFn) -> list[list[int]]:
    """Successive tables; every step moves by the rule ``reopen``, several steps on a frame."""
    steps = draw(st.integers(1, 5))
    states = [0] * steps
    tables = []
    for _ in range(draw(st.integers(0, 14))):
        for step in range(steps):
            after = draw(st.integers(0, 2))
            if (states[step], after) in LEGAL_MOVES["reopen"] and draw(st.booleans()):
                states[step] = after
        tables.append(list(states))
    return tables


def by_definition(tables: list[list[int]]) -> Found:
    """The four kinds as they are defined, each looked up in the whole session."""
    found: Found = set()
    if not tables:
        return found
    before = [[0] * len(tables[0]), *tables]
    last = len(tables) - 1
    for step in range(len(tables[0])):
        for frame, table in enumerate(tables):
            old = before[frame]
            if old[step] == 0 and table[step] > 0 and min(table[: step + 1]) == 0:
                found.add((frame, "out_of_order", step))
            if old[step] == 2 and table[step] == 1:
                found.add((frame, "repeated", step))
        known = [frame for frame, table in enumerate(tables) if table[step] == 0 and 2 in table[step + 1 :]]
        if known:
            found.add((known[0], "skipped", step))
        elif tables[-1][step] == 0 and any(tables[-1][step + 1 :]):
            found.add((last, "skipped", step))
        if tables[-1][step] == 1:
            found.add((last, "unfinished", step))
    return found


@given(legal_tables())
def test_the_rule_is_its_definition_and_finds_each_occurrence_once(tables: list[list[int]]) -> None:
    whole = session_deviations(tables, len(tables[0]) if tables else 3)
    assert len(whole) == len({(frame, one.kind, one.step) for frame, one in whole})
    assert {(frame, one.kind, one.step) for frame, one in whole} == by_definition(tables)
    assert [frame for frame, _ in whole] == sorted(frame for frame, _ in whole)
    assert all(one.kind in DEVIATIONS for _, one in whole)


@given(legal_tables(), st.data())
def test_table_by_table_with_breaks_it_finds_what_the_whole_session_shows(
    tables: list[list[int]], data: st.DataObject
) -> None:
    """A stream is saved and restored anywhere, and asked how it would end anywhere."""
    steps = len(tables[0]) if tables else 3
    table = StateTable([0] * steps, Tracking())
    found = []
    for frame, states in enumerate(tables):
        table.propose({k: state for k, state in enumerate(states) if state != table.states[k]}, update=True)
        found += [(frame, one) for one in table.deviations.see(table.states)]
        if data.draw(st.booleans()):
            table = StateTable.load(json.loads(json.dumps(table.save())))
        if data.draw(st.booleans()):
            assert session_deviations(tables[: frame + 1], steps) == found + [
                (frame, one) for one in table.deviations.at_end()
            ]
    last = max(len(tables) - 1, 0)
    assert found + [(last, one) for one in table.deviations.at_end()] == session_deviations(tables, steps)


def test_a_swap_a_skip_a_repeat_and_a_step_that_is_left() -> None:
    tables = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [1, 2, 0, 0], [2, 2, 0, 1], [2, 1, 0, 1], [2, 1, 0, 1]]
    assert session_deviations(tables, 4) == [
        (1, Deviation("out_of_order", 1, 0)),
        (2, Deviation("skipped", 0, 1)),
        (4, Deviation("out_of_order", 3, 2)),
        (5, Deviation("repeated", 1)),
        (6, Deviation("unfinished", 1)),
        (6, Deviation("skipped", 2)),
        (6, Deviation("unfinished", 3)),
    ]
    assert [str(one) for _, one in session_deviations(tables, 4)] == [
        "step 2 out of order: step 1 is not started",
        "step 1 skipped: step 2 is completed",
        "step 4 out of order: step 3 is not started",
        "step 2 repeated",
        "step 2 unfinished",
        "step 3 skipped",
        "step 4 unfinished",
    ]


@pytest.mark.parametrize("tables", [[[1, 0], [2, 0], [2, 1], [2, 2]], [[0, 0]], [[2, 2]], [[1, 1], [2, 2]], []])
def test_a_session_that_keeps_to_its_plan_has_no_deviation(tables: list[list[int]]) -> None:
    assert session_deviations(tables, 2) == []


def test_what_was_not_reached_is_not_skipped() -> None:
    assert session_deviations([[1, 0, 0], [2, 0, 0]], 3) == []
    assert session_deviations([[0, 0, 0]], 3) == []


def test_a_step_that_is_completed_again_shows_no_second_skip() -> None:
    found = session_deviations([[0, 2], [0, 1], [0, 2]], 2)
    assert [one.kind for _, one in found] == ["skipped", "out_of_order", "repeated"]


def test_what_the_first_states_show_is_not_told_again() -> None:
    rule = Deviations([0, 2, 1, 0])
    assert rule.see([0, 2, 2, 0]) == () and rule.at_end() == ()
    assert rule.see([0, 2, 2, 1]) == (Deviation("out_of_order", 3, 0),)


TABLES = [[0, 0, 0], [0, 1, 0], [0, 2, 0], [0, 1, 0], [0, 2, 0], [1, 2, 0], [2, 2, 0], [2, 2, 0], [1, 2, 0]]


def forced(stream: DSTStream) -> DSTStream:
    """``stream`` with a state head that shows ``TABLES``."""
    decide = stream.batch.turns.decide

    def decided(row: StreamRow, p_speak: float, p_update: float, rows: Sequence[Sequence[float]]) -> None:
        decide(row, p_speak, 1.0, [[float(state == wanted) for state in range(3)] for wanted in TABLES[row.frame]])

    stream.batch.turns.decide = decided  # type: ignore[method-assign]
    return stream


def new_stream() -> DSTStream:
    return forced(DSTStream(talkative_model(), small_processor(), PLAN))


def test_a_stream_tells_what_its_tables_show_and_can_be_asked_how_it_would_end() -> None:
    stream, found = new_stream(), []
    for frame in range(len(TABLES)):
        event = stream.step(picture("v", frame))
        assert event.states == tuple(TABLES[frame])
        found += [(frame, one) for one in event.deviations]
        assert session_deviations(TABLES[: frame + 1], 3) == found + [
            (frame, one) for one in stream.deviations_at_end()
        ]
    assert [one.kind for _, one in found] == ["out_of_order", "skipped", "repeated", "repeated"]
    assert stream.deviations_at_end() == (Deviation("unfinished", 0),)


def test_a_restored_stream_tells_no_skip_twice_and_misses_none(tmp_path: Path) -> None:
    whole = new_stream()
    expected = [whole.step(picture("v", frame)).deviations for frame in range(len(TABLES))]
    stream, found = new_stream(), []
    for frame in range(len(TABLES)):
        found.append(stream.step(picture("v", frame)).deviations)
        save_stream(stream, tmp_path / "stream")
        stream = forced(restore_stream(tmp_path / "stream", talkative_model(), small_processor()))
    assert found == expected and any(expected)
