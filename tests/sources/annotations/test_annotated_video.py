"""An annotated video becomes a session: the plan, the spans, the length, and every repair counted by its name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.dataset.row_maker import session_table
from prospect_hf.errors import DataError
from prospect_hf.labels.segments import NEGATIVE, NO_INTERVAL, NO_TEXT, NO_VALID_TIME, NOT_AFTER_START
from prospect_hf.labels.spans import JOINED, ONE_SPAN, REOPENED, STATE_RULES
from prospect_hf.sessions import SOURCES, Mistake, Session, Turn
from prospect_hf.sources.annotations.video import (
    BEFORE_START,
    BEYOND_END,
    DIALOGUE,
    MISSING_END,
    MISTAKE_CUT,
    MISTAKE_NO_INTERVAL,
    MISTAKE_OUTSIDE,
    OUTSIDE,
    OVERLAP,
    UNSORTED,
    AnnotatedSegment,
    AnnotatedVideo,
    session,
)
from prospect_hf.sources.report import SessionsReport, start_report

REOPENING, ONCE = "assembly101", "ego4d"  # a source of each state rule


def make(
    *segments: tuple[Any, Any, str], source: str = REOPENING, stored: int | None = None, **changes: Any
) -> tuple[Session, SessionsReport]:
    report = start_report(source, "train", "raise")
    listed = [AnnotatedSegment(*segment) for segment in segments]
    video = AnnotatedVideo("v1", "Make tea", listed, origin="test", **changes)
    return session(video, source, report, stored_frames=stored), report


def spans(made: Session) -> list[tuple[str, float, float]]:
    """(text, start, end) of each time that a step is in progress."""
    assert made.events is not None
    found = []
    for step, text in enumerate(made.steps):
        events = sorted((event.time, event.transition) for event in made.events if event.step == step)
        starts = [time for time, transition in events if transition == "start"]
        ends = [time for time, transition in events if transition == "complete"]
        found += [(text.text, *pair) for pair in zip(starts, ends, strict=True)]
    return found


def test_the_plan_is_the_distinct_texts_by_first_start() -> None:
    made, report = make((20, 30, "pour"), (0, 10, "Fill the  kettle"), (12, 15, "fill the kettle"))
    assert [(step.id, step.text) for step in made.steps] == [("S1", "Fill the kettle"), ("S2", "pour")]
    assert (report.segments, report.steps, report.labelled_steps) == (3, 2, 2)
    assert report.sessions == [made]


@pytest.mark.parametrize(
    ("source", "expected", "kind"),
    [
        (REOPENING, [("a", 0, 4), ("a", 9, 12), ("b", 4, 9)], REOPENED),
        (ONCE, [("a", 0, 12), ("b", 4, 9)], ONE_SPAN),
    ],
)
def test_a_repeated_step_follows_the_state_rule_of_its_source(source: str, expected: Any, kind: str) -> None:
    made, report = make((0, 4, "a"), (4, 9, "b"), (9, 12, "a"), source=source)
    assert spans(made) == expected and made.state_rule == STATE_RULES[source]
    assert dict(report.repairs) == {kind: 1}
    assert set(session_table(made)["state_rule"].to_pylist()) == {STATE_RULES[source]}


REPAIRS: list[tuple[str, list[tuple[Any, Any, str]], dict[str, Any], list[tuple[str, float, float]]]] = [
    (UNSORTED, [(4, 9, "b"), (0, 3, "a")], {}, [("a", 0, 3), ("b", 4, 9)]),
    (MISSING_END, [(0, None, "a"), (4, 9, "b")], {}, [("a", 0, 4), ("b", 4, 9)]),
    (MISSING_END, [(0, 3, "a"), (4, None, "b")], {"duration": 20.0}, [("a", 0, 3), ("b", 4, 20)]),
    (OVERLAP, [(0, 5, "a"), (4, 9, "b")], {}, [("a", 0, 5), ("b", 4, 9)]),
    (OVERLAP, [(0, 9, "a"), (1, 2, "b"), (9, 10, "c")], {}, [("a", 0, 9), ("b", 1, 2), ("c", 9, 10)]),
    (JOINED, [(0, 5, "a"), (3, 9, "a")], {}, [("a", 0, 9)]),
    (JOINED, [(0, 5, "a"), (5, 9, "a")], {}, [("a", 0, 9)]),
    (JOINED, [(0, 5, "a"), (5.4, 9, "a")], {}, [("a", 0, 9)]),  # less than a frame between them
    (BEYOND_END, [(0, 50, "a")], {"duration": 20.0}, [("a", 0, 20)]),
    (BEFORE_START, [(1, 9, "a")], {"start": 2.0}, [("a", 2, 9)]),
    (MISTAKE_CUT, [(0, 9, "a")], {"duration": 9.0, "mistakes": [Mistake(5, 12, "m")]}, [("a", 0, 9)]),
]


@pytest.mark.parametrize(("kind", "segments", "changes", "expected"), REPAIRS)
def test_a_fault_is_repaired_by_its_named_rule(kind: str, segments: Any, changes: Any, expected: Any) -> None:
    made, report = make(*segments, **changes)
    assert spans(made) == expected
    assert dict(report.repairs) == {kind: 1} and not report.left_out_lines


def test_each_segment_that_overlaps_another_step_is_counted_once() -> None:
    _, report = make((0, 100, "a"), (10, 20, "b"), (15, 30, "c"), (40, 50, "a"), (60, 70, "d"), (100, 110, "e"))
    assert report.repairs == {OVERLAP: 3, JOINED: 1}


LEFT_OUT: list[tuple[str, tuple[Any, Any, str], dict[str, Any]]] = [
    (NOT_AFTER_START, (9, 5, "b"), {}),
    (NOT_AFTER_START, (9, 9, "b"), {}),
    (NO_TEXT, (5, 9, " \n"), {}),
    (NO_VALID_TIME, (math.nan, 9, "b"), {}),
    (NO_VALID_TIME, (math.nan, None, "b"), {"duration": 20.0}),
    (NO_VALID_TIME, (5, math.inf, "b"), {}),
    (NEGATIVE, (-5, 9, "b"), {}),
    (NEGATIVE, (5, -9, "b"), {}),
    (NO_INTERVAL, (5, None, "b"), {}),
    (OUTSIDE, (30, 40, "b"), {"duration": 20.0}),
    (OUTSIDE, (0.5, 1, "b"), {"start": 1.0}),
    (MISTAKE_OUTSIDE, (1, 2, "a"), {"duration": 20.0, "mistakes": [Mistake(30, 40, "m")]}),
    (MISTAKE_NO_INTERVAL, (1, 2, "a"), {"mistakes": [Mistake(9, 9, "m")]}),
    (MISTAKE_NO_INTERVAL, (1, 2, "a"), {"mistakes": [Mistake(math.nan, 9, "m")]}),
]


@pytest.mark.parametrize(("reason", "segment", "changes"), LEFT_OUT)
def test_what_cannot_be_repaired_is_left_out_and_counted(reason: str, segment: Any, changes: Any) -> None:
    made, report = make((1, 3, "a"), segment, **changes)
    assert {step.text for step in made.steps} == {"a"} and not made.mistakes
    assert report.left_out_lines == {reason: 1}


REFUSED: list[tuple[str, dict[str, Any], list[tuple[Any, Any, str]]]] = [
    (r"no usable segment \(left out: the end is not after the start: 1\)", {}, [(3, 3, "a")]),
    ("no usable segment", {}, []),
    ("milliseconds", {}, [(0, 90_000, "a")]),
    ("the duration is nan", {"duration": math.nan}, [(0, 3, "a")]),
    ("the duration is inf", {"duration": math.inf}, [(0, 3, "a")]),
    ("the duration is -1", {"duration": -1.0}, [(0, 3, "a")]),
    ("annotated part is nan", {"start": math.nan}, [(0, 3, "a")]),
    (r"turns\[0\].time is nan", {"turns": [Turn("user", math.nan, "hi")]}, [(0, 3, "a")]),
    ("end at 60 s", {"stored": 100}, [(0, 60, "a")]),
    ("covers no frame|no usable segment", {"duration": 0.0}, [(0, 3, "a")]),
]


@pytest.mark.parametrize(("words", "changes", "segments"), REFUSED)
def test_a_video_that_cannot_be_right_is_refused_and_counts_nothing(words: str, changes: Any, segments: Any) -> None:
    report = start_report(ONCE, "train", "raise")
    fields = {key: value for key, value in changes.items() if key != "stored"}
    video = AnnotatedVideo("v1", "g", [AnnotatedSegment(*one) for one in segments], origin="here", **fields)
    with pytest.raises(DataError, match=f"here.*({words})"):
        session(video, ONCE, report, stored_frames=changes.get("stored"))
    assert report == start_report(ONCE, "train", "raise")


def test_a_session_is_as_long_as_the_stored_frames_the_stated_video_or_its_last_label() -> None:
    assert make((0, 10, "a"))[0].num_frames == 20
    assert make((0, 10, "a"), mistakes=[Mistake(11, 12, "m")])[0].num_frames == 24
    assert make((0, 10, "a"), turns=[Turn("assistant", 15, "hi")], user_type=DIALOGUE)[0].num_frames == 30
    assert make((0, 10, "a"), duration=30.7)[0].num_frames == 61
    assert make((0, 10, "a"), duration=30.7, stored=64)[0].num_frames == 64
    assert make((0, 10, "a"), stored=19)[0].num_frames == 19  # the last part of a second is not sampled
    late = make((600, 700, "a"), start=531.9)[0]
    assert (late.first_frame, late.num_frames) == (1063, 1400)


def test_two_videos_of_one_id_are_not_told_apart_and_the_second_counts_nothing() -> None:
    report = start_report(ONCE, "train", "raise")
    video = AnnotatedVideo("v1", "g", [AnnotatedSegment(5, 3, "b"), AnnotatedSegment(0, 3, "a")], origin="here")
    session(video, ONCE, report)
    with pytest.raises(DataError, match=r"session id 'ego4d\.v1\.annotation' belongs to here"):
        session(video, ONCE, report)
    assert report.segments == 1 and report.left_out_lines == {NOT_AFTER_START: 1} and report.repairs == {UNSORTED: 1}


number = st.one_of(st.integers(-2, 60), st.floats(0, 60), st.sampled_from([math.nan, math.inf, -math.inf, 1e300]))
segment = st.builds(AnnotatedSegment, number, st.one_of(st.none(), number), st.sampled_from(["a", "A ", "b", "c", " "]))
length = st.sampled_from([None, 0.0, 20.0, 59.9, 1e5, math.nan])


@given(st.lists(segment, max_size=8), length, st.sampled_from([0.0, 3.3]), st.sampled_from(SOURCES))
def test_every_segment_is_in_the_session_or_counted(
    segments: list[AnnotatedSegment], duration: float | None, start: float, source: str
) -> None:
    report = start_report(source, "train", "raise")
    video = AnnotatedVideo("v1", "g", segments, duration=duration, start=start, origin="test")
    try:
        made = session(video, source, report)
    except DataError:
        assert report == start_report(source, "train", "raise")
        return
    assert report.segments + report.left_out_lines.total() == len(segments)
    assert all(count > 0 for count in report.repairs.values())
    assert session_table(made).num_rows == made.num_frames - made.first_frame
    assert len(spans(made)) == report.segments - report.repairs[JOINED] - report.repairs[ONE_SPAN]
    for _, begin, end in spans(made):
        assert start <= begin < end <= (made.num_frames + 1) / made.fps
