"""What a language model is shown: every line once, in the order of time, in windows that overlap."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from model_task_fixtures import segment, task_of, tasks

from prospect_hf.align.alignment import Task
from prospect_hf.annotate.windows import MOST_TEXT, Limits, Window, has_number, rows, shown, windows


def test_rows_stand_in_the_order_of_time_with_their_parts_below() -> None:
    task = task_of(
        [
            segment(50.4, 60.0, "attach roof"),
            segment(51.0, None, "take roof", kind="child", parent=0),
            segment(0.0, 9.6, "attach wheel"),
            segment(4.0, 5.0, "Like this?", kind="user", parent=2),
            segment(2.0, None, "take wheel", kind="child", parent=2),
            segment(20.0, 30.0, "attach door", remark="mistake", remark_text="too early"),
            segment(40.0, 41.0, "detach door", remark="correction"),
            segment(12.0, None, "Well done.", kind="assistant"),
        ]
    )
    assert [row.text for row in rows(task.annotation)] == [
        '1 0-10 "attach wheel"',
        ' 2 2 "take wheel"',
        ' user 4-5 "Like this?"',
        'assistant 12 "Well done."',
        'mistake 20-30 "attach door" "too early"',
        'correction 40-41 "detach door"',
        '3 50-60 "attach roof"',
        ' 4 51 "take roof"',
    ]


@settings(max_examples=40)
@given(tasks())
def test_every_line_is_a_row_and_the_numbers_count_up(task: Task) -> None:
    made = rows(task.annotation)
    assert sorted(row.index for row in made) == list(range(len(task.annotation.lines)))
    numbers = [row.number for row in made if row.number is not None]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {row.index for row in made if row.number} == {
        index for index, line in enumerate(task.annotation.lines) if has_number(line)
    }
    for row in made:
        above = None if row.above is None else made[row.above].index
        assert above == task.annotation.lines[row.index].parent


@settings(max_examples=60)
@given(tasks(40), st.integers(2, 12), st.integers(160, 400), st.integers(0, 8))
def test_windows_show_all_numbers_within_their_limits(task: Task, most: int, characters: int, overlap: int) -> None:
    made = rows(task.annotation)
    limits = Limits(most, characters, overlap)
    cut = windows(made, limits)
    shown_numbers = set()
    for window in cut:
        inside = made[window.start : window.end]
        assert 0 < len(inside) <= most and sum(len(row.text) + 1 for row in inside) <= characters
        numbers = [row.number for row in inside if row.number is not None]
        assert (window.first, window.last) == (numbers[0], numbers[-1])
        shown_numbers.update(numbers)
    assert shown_numbers == {row.number for row in made if row.number is not None}
    assert all(one.start < other.start and one.end < other.end for one, other in pairwise(cut))


def test_neighbours_share_the_rows_of_the_overlap() -> None:
    made = rows(task_of([segment(time, time + 1.0) for time in range(12)]).annotation)
    assert windows(made, Limits(5, 1000, 2)) == [
        Window(0, 5, 1, 5),
        Window(3, 8, 4, 8),
        Window(6, 11, 7, 11),
        Window(9, 12, 10, 12),
    ]
    assert windows(made, Limits(12, 1000, 2)) == [Window(0, 12, 1, 12)]
    # At most half of a window is shared, in rows and in characters, so that each window has something new.
    assert windows(made, Limits(4, 1000, 100))[:2] == [Window(0, 4, 1, 4), Window(2, 6, 3, 6)]
    row = len(made[0].text) + 1
    assert [window.start for window in windows(made, Limits(100, 5 * row, 4))][:3] == [0, 3, 6]


def test_a_window_of_speech_alone_asks_nothing() -> None:
    said = [segment(10.0 + time, None, "Hm?", kind="user", parent=0) for time in range(20)]
    made = rows(task_of([segment(0.0, 5.0), *said, segment(90.0, 95.0)]).annotation)
    assert [(window.first, window.last) for window in windows(made, Limits(5, 1000, 1))] == [(1, 1), (2, 2)]


def test_a_long_text_is_shortened() -> None:
    assert json.loads(shown("x" * MOST_TEXT)) == "x" * MOST_TEXT
    assert json.loads(shown("x" * 10_000)) == "x" * MOST_TEXT + "…"
    assert json.loads(shown("\u202e" * 10_000)) == ""  # nothing of it is shown


def test_a_row_of_the_worst_text_leaves_room_in_a_window() -> None:
    worst = segment(0.0, 9.0, "<" * 10_000, remark="mistake", remark_text=">" * 10_000)
    assert len(rows(task_of([worst]).annotation)[0].text) < Limits().characters // 2
