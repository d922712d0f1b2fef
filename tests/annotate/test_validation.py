"""The rules that labels pass before they are written: what each repairs, refuses or notes, and what none may do."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.align.alignment import Visit
from prospect_hf.annotate.records import Repair
from prospect_hf.annotate.validation import (
    CHANGES,
    NO_SPAN,
    NOTES,
    ON_NO_FRAME,
    OUT_OF_ORDER,
    REMOVES,
    SAME_TIMES,
    TRIMMED_END,
    TRIMMED_START,
    Bounds,
    Policy,
    Validated,
    validate,
)
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.annotation_lines import AnnotationLine
from prospect_hf.labels.label_files import parse_spans
from prospect_hf.labels.segments import NEGATIVE, NO_VALID_TIME, NOT_AFTER_START
from prospect_hf.labels.spans import JOINED, ONE_SPAN, STATE_RULES, Span, merge_spans, overlaps, span_events
from prospect_hf.sessions import COMPLETED, LONGEST_S, MONOTONE, REOPEN, Session, Step
from prospect_hf.sources.annotations.video import BEFORE_START, BEYOND_END, OUTSIDE, OVERLAP
from prospect_hf.timeline import build_timeline

STEPS = tuple(Step(f"S{number}", f"do part {number}") for number in range(1, 5))
VIDEO = Bounds(10.0, 100.0)
KEEP, TRIM = Policy(), Policy(overlaps="trim")


def visit(step: int, start: float, end: float | None, confidence: float = 0.5) -> Visit:
    return Visit(Span(step, start, end), (), confidence, "semantic")


def as_visits(labels: Validated) -> list[Visit]:
    pairs = zip(labels.spans, labels.confidences, strict=True)
    return [Visit(span, (), confidence, "semantic") for span, confidence in pairs]


def times(labels: Validated) -> list[tuple[int, float, float | None]]:
    return [(span.step, span.start, span.end) for span in labels.spans]


def line(start: float, end: float | None, kind: str = "segment", remark: str | None = None) -> AnnotationLine:
    return AnnotationLine(1, start, end, "do it", kind, None, remark)  # type: ignore[arg-type]


def record(labels: Validated) -> dict[str, object]:
    entries = [
        {"type": "step", "id": f"S{span.step + 1}", "start_ts": span.start, "end_ts": span.end, "name": "n"}
        for span in labels.spans
    ]
    value: dict[str, object] = json.loads(json.dumps({"dst": entries}, allow_nan=False))
    return value


def session(spans: Sequence[Span], state_rule: str, seconds: float) -> Session:
    return Session(
        session_id="s",
        source="wtag",
        video_uid="v",
        recording="v",
        user_type="annotation",
        goal="g",
        steps=STEPS,
        turns=(),
        events=span_events(spans),
        fps=2.0,
        first_frame=0,
        num_frames=int(2 * seconds) + 2,
        frames_file="frames/v.arrow",
        origin="test",
        state_rule=state_rule,
    )


def test_sound_labels_are_left_as_they_are() -> None:
    labels = validate([visit(1, 50.0, 60.0, 0.8), visit(0, 20.0, 40.0, 0.9), visit(1, 70.0, None, 0.7)], STEPS, VIDEO)
    assert times(labels) == [(0, 20.0, 40.0), (1, 50.0, 60.0), (1, 70.0, None)]  # in plan order
    assert labels.confidences == (0.9, 0.8, 0.7)
    assert labels.repairs == ()
    assert labels.notes == {OVERLAP: 0, OUT_OF_ORDER: 0, ON_NO_FRAME: 0, NO_SPAN: 2}


@pytest.mark.parametrize(
    ("start", "end", "rule"),
    [
        (math.nan, 30.0, NO_VALID_TIME),
        (20.0, math.nan, NO_VALID_TIME),
        (20.0, math.inf, NO_VALID_TIME),
        (-math.inf, None, NO_VALID_TIME),
        (math.nan, None, NO_VALID_TIME),
        (-1.0, 30.0, NEGATIVE),
        (-1.0, None, NEGATIVE),
        (30.0, 20.0, NOT_AFTER_START),
        (30.0, 30.0, NOT_AFTER_START),
        (100.0, 110.0, OUTSIDE),
        (100.0, None, OUTSIDE),
        (2.0, 10.0, OUTSIDE),
    ],
)
def test_a_span_without_valid_times_is_removed_and_recorded(start: float, end: float | None, rule: str) -> None:
    labels = validate([visit(0, 20.0, 40.0), visit(1, start, end)], STEPS, VIDEO)
    assert times(labels) == [(0, 20.0, 40.0)]
    (repair,) = labels.repairs
    assert (repair.rule, repair.step, repair.after) == (rule, 1, None)
    assert repr(repair.before) == repr((start, end))


@pytest.mark.parametrize(
    ("before", "after", "rules"),
    [
        ((5.0, 40.0), (10.0, 40.0), [BEFORE_START]),
        ((90.0, 130.0), (90.0, 100.0), [BEYOND_END]),
        ((0.0, 130.0), (10.0, 100.0), [BEFORE_START, BEYOND_END]),
        ((0.0, None), (10.0, None), [BEFORE_START]),
    ],
)
def test_a_span_is_cut_to_the_video(
    before: tuple[float, float | None], after: tuple[float, float | None], rules: list[str]
) -> None:
    labels = validate([visit(2, *before)], STEPS, VIDEO)
    assert times(labels) == [(2, *after)]
    assert [repair.rule for repair in labels.repairs] == rules
    assert labels.repairs[0].before == before and labels.repairs[-1].after == after


def test_a_video_of_unknown_length_cuts_nothing() -> None:
    assert times(validate([visit(0, 0.0, 80_000.0)], STEPS, Bounds())) == [(0, 0.0, 80_000.0)]


def test_visits_of_one_step_are_joined_where_no_frame_lies_between_them() -> None:
    visits = [visit(0, 20.0, 30.0, 0.9), visit(0, 30.5, 40.0, 0.6), visit(0, 22.0, 25.0, 0.8), visit(0, 40.6, 50.0)]
    labels = validate(visits, STEPS, VIDEO)
    assert times(labels) == [(0, 20.0, 40.0), (0, 40.6, 50.0)]
    assert labels.confidences == (0.6, 0.5)  # right only where all parts are
    assert [(one.rule, one.before, one.after) for one in labels.repairs] == [
        (JOINED, (20.0, 30.0), (20.0, 40.0)),
        (JOINED, (22.0, 25.0), (20.0, 40.0)),
        (JOINED, (30.5, 40.0), (20.0, 40.0)),
    ]


def test_a_span_that_is_given_twice_is_one_and_leaves_a_repair() -> None:
    labels = validate([visit(0, 20.0, 30.0), visit(0, 20.0, 30.0)], STEPS, VIDEO)
    assert times(labels) == [(0, 20.0, 30.0)]
    assert labels.repairs == (Repair(JOINED, 0, (20.0, 30.0), (20.0, 30.0)),)


def test_visits_stay_apart_or_become_one_span_as_the_state_rule_says() -> None:
    visits = [visit(0, 20.0, 30.0, 0.9), visit(1, 40.0, 50.0), visit(0, 60.0, 70.0, 0.3)]
    assert times(validate(visits, STEPS, VIDEO)) == [(0, 20.0, 30.0), (0, 60.0, 70.0), (1, 40.0, 50.0)]
    labels = validate(visits, STEPS, VIDEO, Policy(state_rule=MONOTONE))
    assert times(labels) == [(0, 20.0, 70.0), (1, 40.0, 50.0)]
    assert labels.confidences == (0.3, 0.5)
    assert [(one.rule, one.before, one.after) for one in labels.repairs] == [
        (ONE_SPAN, (20.0, 30.0), (20.0, 70.0)),
        (ONE_SPAN, (60.0, 70.0), (20.0, 70.0)),
    ]


def test_the_state_rule_can_be_that_of_the_source() -> None:
    policy = Policy(overlaps="trim", state_rule="source")
    for source, rule in STATE_RULES.items():
        assert policy.of(source) == Policy(overlaps="trim", state_rule=rule)
        assert Policy(state_rule=REOPEN).of(source) == Policy(state_rule=REOPEN)  # a rule that is given stays
    with pytest.raises(ValueError, match=r"validate with policy\.of\(source\)"):
        validate([visit(0, 20.0, 30.0)], STEPS, VIDEO, policy)


OVERLAPPING = [visit(0, 20.0, 40.0, 0.9), visit(1, 30.0, 50.0, 0.8)]


def test_overlaps_of_steps_are_kept_and_noted_by_default() -> None:
    labels = validate(OVERLAPPING, STEPS, VIDEO)
    assert times(labels) == [(0, 20.0, 40.0), (1, 30.0, 50.0)]
    assert labels.notes[OVERLAP] == 1 and labels.repairs == ()


def test_overlaps_of_steps_are_refused_by_policy() -> None:
    refuse = Policy(overlaps="refuse")
    with pytest.raises(DataError, match="1 of 2 spans begin while another step is in progress"):
        validate(OVERLAPPING, STEPS, VIDEO, refuse)
    assert validate([visit(0, 20.0, 30.0), visit(1, 30.0, 50.0)], STEPS, VIDEO, refuse).notes[OVERLAP] == 0


@pytest.mark.parametrize(
    ("spans", "expected", "rules"),
    [
        ([(0, 20, 40), (1, 30, 50)], [(0, 20, 30), (1, 30, 50)], [TRIMMED_END]),
        ([(0, 20, 60), (1, 30, 40)], [(0, 20, 30), (1, 30, 40)], [TRIMMED_END]),  # nested
        ([(0, 20, None), (1, 30, 40)], [(0, 20, 30), (1, 30, 40)], [TRIMMED_END]),
        ([(1, 20, 40), (0, 20, 30)], [(0, 20, 30), (1, 30, 40)], [TRIMMED_START]),
        ([(0, 20, 40), (1, 20, 30), (2, 25, 35)], [(0, 30, 40), (1, 20, 25), (2, 25, 30)], None),
        ([(0, 20, 30), (1, 20, 30)], [(0, 20, 30)], [SAME_TIMES]),
        ([(0, 20, None), (1, 20, None)], [(0, 20, None)], [SAME_TIMES]),
        ([(0, 20, 30), (1, 30, 50)], [(0, 20, 30), (1, 30, 50)], []),
    ],
)
def test_overlaps_of_steps_are_trimmed_by_policy(
    spans: list[tuple[int, float, float | None]],
    expected: list[tuple[int, float, float | None]],
    rules: list[str] | None,
) -> None:
    labels = validate([visit(*span) for span in spans], STEPS, VIDEO, TRIM)
    assert times(labels) == expected
    assert rules is None or [repair.rule for repair in labels.repairs] == rules


def test_of_two_steps_with_the_same_times_the_more_certain_one_stays() -> None:
    labels = validate([visit(0, 20.0, 30.0, 0.2), visit(1, 20.0, 30.0, 0.7)], STEPS, VIDEO, TRIM)
    assert times(labels) == [(1, 20.0, 30.0)] and labels.confidences == (0.7,)
    assert labels.repairs == (Repair(SAME_TIMES, 0, (20.0, 30.0), None),)


@pytest.mark.parametrize(("confidence", "expected"), [(0.2, (0, 20.0, 100.0)), (0.7, (1, 20.0, None))])
def test_a_step_that_never_ends_cannot_start_where_the_video_ends(
    confidence: float, expected: tuple[int, float, float | None]
) -> None:
    labels = validate([visit(0, 20.0, 100.0, 0.5), visit(1, 20.0, None, confidence)], STEPS, VIDEO, TRIM)
    assert times(labels) == [expected]
    assert [repair.rule for repair in labels.repairs] == [SAME_TIMES]


def test_a_step_out_of_order_is_noted_and_no_fault() -> None:
    visits = [visit(1, 20.0, 30.0), visit(2, 30.0, 35.0), visit(0, 40.0, 50.0), visit(3, 40.0, 45.0)]
    labels = validate(visits, STEPS, VIDEO)
    assert labels.notes == {OVERLAP: 1, OUT_OF_ORDER: 2, ON_NO_FRAME: 0, NO_SPAN: 0}  # S4 starts with S1, not before it
    assert labels.repairs == ()


def test_coming_back_to_a_step_is_not_out_of_order() -> None:
    labels = validate([visit(0, 20.0, 30.0), visit(1, 30.0, 35.0), visit(0, 60.0, 70.0)], STEPS, VIDEO)
    assert labels.notes[OUT_OF_ORDER] == 0 and labels.notes[OVERLAP] == 0


def test_a_span_within_a_frame_is_kept_and_noted() -> None:
    visits = [visit(0, 20.1, 20.3), visit(1, 20.4, 20.6)]
    labels = validate(visits, STEPS, VIDEO)
    assert times(labels) == [(0, 20.1, 20.3), (1, 20.4, 20.6)] and labels.notes[ON_NO_FRAME] == 1
    assert labels.repairs == ()
    states = build_timeline(session(labels.spans, REOPEN, 100)).states_after[-1]
    assert states.tolist() == [COMPLETED, COMPLETED, 0, 0]  # without its span, the step would never be completed


def test_the_first_frames_of_a_video_decide_together() -> None:
    # Decision frames are never before the first frame of the video, 20, which also decides what happens in frame 21.
    assert validate([visit(0, 10.0, 10.9)], STEPS, VIDEO).notes[ON_NO_FRAME] == 1
    assert validate([visit(0, 10.0, 11.0)], STEPS, VIDEO).notes[ON_NO_FRAME] == 0


def test_no_step_of_a_record_is_a_failure_with_a_reason() -> None:
    with pytest.raises(DataError, match=r"No step has a span \(the aligner found none\)"):
        validate([], STEPS, VIDEO)
    removed = r"removed: no valid time: 2, lies outside the video: 1"
    with pytest.raises(DataError, match=removed):
        validate([visit(0, math.nan, 1.0), visit(1, math.nan, 1.0), visit(0, 200.0, 210.0)], STEPS, VIDEO)


def test_a_plan_without_steps_is_refused() -> None:
    with pytest.raises(DataError, match="plan has no step"):
        validate([visit(0, 20.0, 30.0)], (), VIDEO)


@pytest.mark.parametrize("step", [-1, 4])
def test_a_step_outside_the_plan_is_refused(step: int) -> None:
    with pytest.raises(DataError, match=f"to step {step + 1}; the plan has the steps S1 to S4"):
        validate([visit(step, 20.0, 30.0)], STEPS, VIDEO)


@pytest.mark.parametrize("confidence", [math.nan, -0.1, 1.1, math.inf])
def test_a_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    with pytest.raises(DataError, match=r"A visit to S1 has the confidence .*, not 0 to 1"):
        validate([visit(0, 20.0, 30.0, confidence)], STEPS, VIDEO)


@pytest.mark.parametrize(("start", "end"), [(97_200.0, 116_500.0), (20.0, 97_200.0), (97_200.0, None)])
def test_times_in_another_unit_are_refused(start: float, end: float | None) -> None:
    with pytest.raises(DataError, match=r"of step S1 is 97200 s, .*not in milliseconds"):
        validate([visit(0, start, end)], STEPS, Bounds())


def test_min_coverage_refuses_a_partial_result() -> None:
    visits = [visit(0, 20.0, 30.0), visit(0, 40.0, 50.0)]
    assert validate(visits, STEPS, VIDEO, Policy(min_coverage=0.25)).notes[NO_SPAN] == 3
    with pytest.raises(DataError, match=r"Only 1 of 4 steps have a span, which is under min_coverage 0\.3"):
        validate(visits, STEPS, VIDEO, Policy(min_coverage=0.3))


def test_annotated_seconds_outside_all_spans_are_unexplained() -> None:
    lines = [
        line(0.0, 20.0),  # 10 s of it in the video
        line(2.0, 12.0),  # within
        line(15.0, 40.0),  # 15 to 20 counts once; 20 to 40 has a step
        line(50.0, 56.0),
        line(60.0, 80.0, remark="mistake"),
        line(60.0, 80.0, kind="child"),
        line(60.0, None),
        line(0.0, 5.0),  # before the video
        line(110.0, 120.0),  # after it
        line(95.0, 120.0),  # 5 s in the video, with a step that never ends
    ]
    visits = [visit(0, 20.0, 40.0), visit(1, 90.0, None)]
    labels = validate(visits, STEPS, VIDEO, lines=lines)
    assert labels.unexplained_s == 16.0
    assert validate(visits, STEPS, VIDEO, Policy(max_unexplained=0.0)).unexplained_s == 0.0
    assert validate(visits, STEPS, VIDEO, Policy(max_unexplained=16 / 41), lines).unexplained_s == 16.0
    with pytest.raises(DataError, match=r"16\.0 of 41\.0 annotated seconds .* over max_unexplained 0\.35"):
        validate(visits, STEPS, VIDEO, Policy(max_unexplained=0.35), lines)


pieces = st.lists(st.tuples(st.integers(20, 60), st.integers(1, 15)), max_size=6)


@given(pieces, pieces.filter(bool))
def test_unexplained_seconds_are_those_in_a_line_and_in_no_span(
    annotated: list[tuple[int, int]], labelled: list[tuple[int, int]]
) -> None:
    lines = [line(float(start), float(start + length)) for start, length in annotated]
    visits = [visit(0, float(start), float(start + length)) for start, length in labelled]
    inside, explained = (
        {second for start, length in parts for second in range(start, start + length)}
        for parts in (annotated, labelled)
    )
    assert validate(visits, STEPS, VIDEO, lines=lines).unexplained_s == len(inside - explained)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"overlaps": "cut"}, "overlaps is 'cut'; it must be keep, trim, refuse"),
        ({"state_rule": "once"}, "state_rule is 'once'"),
        ({"min_coverage": 1.2}, "min_coverage is 1.2"),
        ({"min_coverage": math.nan}, "min_coverage is nan"),
        ({"max_unexplained": -0.1}, "max_unexplained is -0.1"),
    ],
)
def test_a_wrong_policy_is_a_usage_error(setting: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Policy(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (10.0, 10.0, "ends at 10 s, which is not after its start at 10 s"),
        (math.nan, None, "start of the video is nan"),
        (0.0, math.inf, "end of the video is inf"),
        (-1.0, 5.0, "must not be negative"),
    ],
)
def test_wrong_bounds_are_refused(start: float, end: float | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Bounds(start, end)


odd_times = st.one_of(
    st.integers(-4, 60).map(lambda half: half / 2),
    st.floats(-10, 50),
    st.sampled_from([math.nan, math.inf, -math.inf, LONGEST_S]),
)
odd_visits = st.lists(
    st.builds(visit, st.integers(0, 3), odd_times, st.one_of(st.none(), odd_times), st.floats(0, 1)), max_size=12
)
some_bounds = st.builds(
    lambda start, length: Bounds(start, None if length is None else start + length),
    st.sampled_from([0.0, 2.25]),
    st.sampled_from([None, 1.0, 20.0]),
)
policies = st.builds(Policy, st.sampled_from(["keep", "trim"]), st.sampled_from([REOPEN, MONOTONE]))


@given(odd_visits, some_bounds, policies)
def test_whatever_the_visits_the_result_keeps_the_label_rules(
    visits: list[Visit], bounds: Bounds, policy: Policy
) -> None:
    try:
        labels = validate(visits, STEPS, bounds, policy)
    except DataError as error:
        removed = "No step has a span" in str(error)
        assert removed or not visits  # nothing else refuses these
        return
    # The reader of label files takes them, its joining changes nothing, and a session can be made of them.
    assert parse_spans(record(labels), STEPS, "test") == labels.spans
    assert merge_spans(labels.spans, policy.state_rule, pause=0.5)[0] == labels.spans
    last = max(span.start if span.end is None else span.end for span in labels.spans)
    build_timeline(session(labels.spans, policy.state_rule, min(last, 200.0)))
    assert policy.overlaps == "keep" or overlaps(sorted(labels.spans, key=lambda span: span.start)) == 0
    # No time is invented.
    given_times = {bounds.start_s, bounds.end_s, None}
    given_times |= {time for one in visits for time in (one.span.start, one.span.end)}
    assert {time for span in labels.spans for time in (span.start, span.end)} <= given_times
    assert set(labels.confidences) <= {one.confidence for one in visits}
    # Everything inside the video.
    assert all(bounds.start_s <= span.start for span in labels.spans)
    assert bounds.end_s is None or all(span.end is None or span.end <= bounds.end_s for span in labels.spans)
    # Known rules only.
    assert set(labels.notes) == set(NOTES)
    for repair in labels.repairs:
        assert repair.rule in (REMOVES if repair.after is None else CHANGES)


@given(odd_visits, some_bounds, policies)
def test_no_span_is_lost_without_a_repair(visits: list[Visit], bounds: Bounds, policy: Policy) -> None:
    try:
        labels = validate(visits, STEPS, bounds, policy)
    except DataError:
        return
    ends = set()
    for one in visits:
        place: tuple[int, str] | None = (one.span.step, repr((one.span.start, one.span.end)))
        for repair in labels.repairs:
            if (repair.step, repr(repair.before)) == place:
                place = None if repair.after is None else (repair.step, repr(repair.after))
        ends.add(place)
    # Following the repairs, each visit ends as a span or as removed, and each span comes from a visit.
    assert ends - {None} == {(span.step, repr((span.start, span.end))) for span in labels.spans}


@given(odd_visits, some_bounds, policies)
def test_validating_valid_labels_changes_nothing(visits: list[Visit], bounds: Bounds, policy: Policy) -> None:
    lines = [line(0.0, 4.0), line(3.0, 20.0)]
    try:
        once = validate(visits, STEPS, bounds, policy, lines)
    except DataError:
        return
    again = validate(as_visits(once), STEPS, bounds, policy, lines)
    assert again.repairs == ()
    assert again == Validated(once.spans, once.confidences, (), once.notes, once.unexplained_s)


def test_the_default_keeps_what_the_sources_have() -> None:
    # Steps of every source overlap, are repeated, nested and out of order: none of it may cost a span.
    visits = [visit(1, 12.0, 60.0), visit(0, 20.0, 30.0), visit(0, 40.0, 50.0), visit(3, 41.0, 42.0)]
    for state_rule in set(STATE_RULES.values()):
        labels = validate(visits, STEPS, VIDEO, Policy(state_rule=state_rule))
        assert {span.step for span in labels.spans} == {0, 1, 3}
        assert labels.notes[OVERLAP] > 0 and labels.notes[OUT_OF_ORDER] == 1
