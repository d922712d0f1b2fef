"""From frame rows to sessions: each row once and in order, in any pieces that they come in; else they are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from model_fixtures import make_session
from stored_fixtures import assert_equal, dataset, rows_of
from worker_fixtures import as_a_worker_gets_it

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import Items, SessionRows, iter_sessions, sessions_of
from prospect_hf.dataset.row_maker import SCHEMA
from prospect_hf.errors import DataError


def test_rows_give_the_sessions_back() -> None:
    sessions = [make_session(0, 12, 3, first_frame=5), make_session(1, 1, 2), make_session(2, 9, 4, labelled=False)]
    found = list(iter_sessions(dataset([row for session in sessions for row in rows_of(session)])))
    assert len(found) == 3
    for ours, theirs in zip(found, sessions, strict=True):
        assert_equal(ours, theirs)
    assert [session.labelled for session in found] == [True, True, False]
    assert found[2].states_at(0) is None and found[0].states_at(0) == [0, 0, 0]


@pytest.mark.parametrize("order", ["reversed", "gap", "twice", "interleaved", "split in two"])
def test_rows_out_of_order_are_refused(order: str) -> None:
    a, b = rows_of(make_session(0, 6)), rows_of(make_session(1, 6))
    orders = {
        "reversed": a[::-1],
        "gap": a[:2] + a[3:],
        "twice": [a[0], *a],
        "interleaved": [row for pair in zip(a, b, strict=True) for row in pair],
        "split in two": a[:3] + b + a[3:],
    }
    with pytest.raises(DataError, match=r"session wtag\.v0\.talk_some_0"):
        list(iter_sessions(dataset(orders[order])))


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no frame rows"):
        list(iter_sessions(dataset(rows_of(make_session(0, 6))).select([])))


def test_a_session_in_which_nothing_happens_has_rows_too() -> None:
    session = make_session(1, 5, 2, event_rate=0.0, turn_rate=0.0)
    (found,) = iter_sessions(dataset(rows_of(session)))
    assert_equal(found, session)


def test_users_words_alone_and_single_changes_are_kept() -> None:
    session = make_session(1, 5, 2, event_rate=0.0, turn_rate=0.0)
    session.items = {1: FrameItem(user_text="hello"), 3: FrameItem({1: 1}), 4: FrameItem(response="yes")}
    (found,) = iter_sessions(dataset(rows_of(session)))
    assert found.items == session.items


SESSIONS = [
    make_session(0, 12, 3, first_frame=5),
    make_session(1, 1, 2),
    make_session(2, 30, 4, labelled=False),
    make_session(3, 9, 1, turn_rate=1.0, event_rate=1.0),
]


def table_of(sessions: list[SessionRows]) -> pa.Table:
    return pa.Table.from_pylist([row for session in sessions for row in rows_of(session)], SCHEMA)


@pytest.mark.parametrize("size", [1, 2, 5, 13, 1000])
def test_the_pieces_in_which_rows_come_do_not_matter(size: int) -> None:
    rows = table_of(SESSIONS)
    pieces = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    found = list(sessions_of([rows[:0], *pieces, rows[:0]]))
    assert len(found) == 4
    for ours, theirs in zip(found, SESSIONS, strict=True):
        assert_equal(ours, theirs)


def test_texts_as_dictionaries_are_the_same_texts() -> None:
    rows = table_of(SESSIONS)
    for name in ("session_id", "goal", "source"):
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, name, rows[name].dictionary_encode())
    for ours, theirs in zip(sessions_of([rows[:9], rows[9:]]), SESSIONS, strict=True):
        assert_equal(ours, theirs)


def test_a_streaming_dataset_gives_the_same_sessions() -> None:
    rows = dataset([row for session in SESSIONS for row in rows_of(session)]).to_iterable_dataset()
    for ours, theirs in zip(iter_sessions(rows), SESSIONS, strict=True):
        assert_equal(ours, theirs)


def other_type(rows: pa.Table) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index("speaking"), "speaking", rows["speaking"].cast(pa.int64()))


def test_another_width_of_numbers_is_read_and_what_does_not_fit_is_refused() -> None:
    rows = other_type(table_of(SESSIONS))
    assert_equal(next(sessions_of([rows])), SESSIONS[0])
    wide = pa.array([300] * len(rows))
    with pytest.raises(DataError, match=r"column speaking of type int64 .*300"):
        next(sessions_of([rows.set_column(rows.schema.get_field_index("speaking"), "speaking", wide)]))


def with_cells(name: str, cell: Any, row: int = 5) -> pa.Table:
    """Rows with ``cell`` in one column of one row."""
    rows = table_of(SESSIONS).to_pylist()
    rows[row][name] = cell
    return pa.Table.from_pylist(rows, SCHEMA)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (with_cells("session_id", None), "empty cells in column session_id"),
        (with_cells("states_after", [0, None, 1]), "empty cells in column states_after"),
        (with_cells("states_after", [0, 3, 1]), "a value in column states_after that is no label"),
        (with_cells("speaking", 2), "a value in column speaking that is no label"),
        (with_cells("dst_update", -1), "a value in column dst_update that is no label"),
        (with_cells("states_before", [0, 1]), "states_before has not one state for each of its 3 steps"),
        (with_cells("transitions", [{"step": 0, "transition": "undo"}]), "a transition other than start and complete"),
        (with_cells("transitions", [{"step": 3, "transition": "start"}]), "names a step beyond its 3"),
        (with_cells("transitions", [{"step": -1, "transition": "start"}]), "a transition without a step"),
        (with_cells("transitions", [{"step": None, "transition": "start"}]), "a transition without a step"),
        (with_cells("transitions", [{"step": 0, "transition": None}]), "a transition other than start and complete"),
        (with_cells("steps", [], row=0), "its plan has no steps"),
        (table_of(SESSIONS).drop_columns(["steps", "goal"]), "no column goal, steps"),
    ],
)
def test_values_that_no_rows_have_are_refused(rows: pa.Table, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(sessions_of([rows]))


def test_label_arrays_are_views_of_the_rows() -> None:
    rows = table_of(SESSIONS).combine_chunks()
    column = rows["states_after"].chunk(0).values.to_numpy()
    first = next(sessions_of([rows]))
    assert first.states_after.dtype == np.int8
    assert np.shares_memory(first.states_after, column)


def test_a_session_travels_alone() -> None:
    """To another process goes a session, and not the memory of all the rows that it was read from."""
    many = table_of([make_session(seed, 200, 4) for seed in range(30)])
    first = next(sessions_of([many]))
    received, size = as_a_worker_gets_it(first)
    assert size < 3 * 200 * 10 + 20_000 < many.nbytes / 3
    assert_equal(received, first)


def test_items_are_made_when_they_are_asked_for() -> None:
    items = next(sessions_of([table_of(SESSIONS[3:])])).items
    assert isinstance(items, Items) and "_made" not in vars(items)
    assert len(items) == 9 and "_made" not in vars(items)
    assert items == SESSIONS[3].items and Items.of(SESSIONS[3].items) == items and Items.of(items) is items
