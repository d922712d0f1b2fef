"""Answers of a language model: only right numbers are accepted, and the alignment says what the answers say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_task_fixtures import SMALL, STEPS, oracle, segment, task_of, tasks, told

from prospect_hf.align.alignment import Alignment, Task
from prospect_hf.annotate.model_answers import (
    CERTAINTY,
    DISPUTED,
    NOT_GIVEN,
    ONLY_BELOW,
    UNDOES,
    AnswerCheck,
    alignment_from,
    answer_schema,
)
from prospect_hf.annotate.visits import LONGEST_PAUSE_S
from prospect_hf.annotate.windows import Limits, rows, windows
from prospect_hf.errors import DataError
from prospect_hf.llm.answers import mismatch

CHECK = AnswerCheck(first=1, last=43, whole=True)
FAULTS: dict[str, tuple[Mapping[str, Any], str]] = {
    "beyond the last": (told(3, {0: [(57, 57)]}), "in S1, line 57 does not exist: the lines are 1 to 43"),
    "zero": (told(3, {1: [(0, 4)]}), "in S2, line 0 does not exist: the lines are 1 to 43"),
    "both ends": (
        told(3, {1: [(-3, 10**30)]}),
        f"in S2, line -3 does not exist: the lines are 1 to 43; "
        f"in S2, line {10**30} does not exist: the lines are 1 to 43",
    ),
    "backwards": (told(3, {2: [(9, 5)]}), "in S3, the lines 9 to 5 end before they begin"),
    "two steps": (
        told(3, {0: [(1, 4)], 1: [(4, 6)]}),
        "line 4 is given to S1 and to S2, but a line belongs to one step at most",
    ),
    "three steps": (
        told(3, {0: [(1, 9)], 1: [(4, 5)], 2: [(5, 40)]}),
        "line 4 is given to S1 and to S2, but a line belongs to one step at most; "
        "line 5 is given to S1 and to S2 and to S3, but a line belongs to one step at most; "
        "lines 6, 7, 8, 9 are given to S1 and to S3, but a line belongs to one step at most",
    ),
    "everything twice": (
        told(3, {0: [(1, 43)], 1: [(1, 43)]}),
        "lines 1, 2, 3, 4, 5, 6, 7, 8, ... (43 in all) are given to S1 and to S2, "
        "but a line belongs to one step at most",
    ),
    "nothing": (told(3, {}), "no line is given to any step, but at least one must be: the lines are 1 to 43"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_answer_is_told_exactly(name: str) -> None:
    answer, fault = FAULTS[name]
    assert mismatch(answer, answer_schema(task_of([]).steps), "the answer") is None
    assert CHECK(answer) == fault


def test_many_faults_are_told_in_a_short_message() -> None:
    fault = CHECK(told(3, {0: [(number, number) for number in range(44, 10_000)]}))
    assert fault is not None and fault.count("does not exist") == 5 and len(fault) < 400


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param({0: [(1, 43)]}, id="all in one step"),
        pytest.param({2: [(1, 10)], 1: [(11, 20)], 0: [(21, 43)]}, id="in reverse"),
        pytest.param({0: [(1, 4), (3, 6)]}, id="a line twice in its step"),
    ],
)
def test_an_unlikely_answer_is_no_wrong_one(runs: dict[int, list[tuple[int, int]]]) -> None:
    assert CHECK(told(3, runs)) is None


def test_a_part_of_an_annotation_may_have_no_step() -> None:
    assert AnswerCheck(20, 43, whole=False)(told(3, {})) is None
    fault = AnswerCheck(20, 43, whole=False)(told(3, {0: [(19, 21)]}))
    assert fault == "in S1, line 19 does not exist: the lines are 20 to 43"


def spans(alignment: Alignment) -> list[tuple[int, float, float | None]]:
    """The visits as (step, start, end)."""
    return [(visit.span.step, visit.span.start, visit.span.end) for visit in alignment.visits]


def test_lines_of_a_step_make_visits() -> None:
    times = [(0, 5), (6, 9), (10, 12), (13, 15), (40, 45), (46, 50)]
    task = task_of([segment(float(start), float(end)) for start, end in times])
    alignment = alignment_from(task, [told(3, {0: [(1, 2), (4, 5)], 1: [(3, 3)], 2: [(6, 6)]})])
    assert spans(alignment) == [(0, 0.0, 9.0), (1, 10.0, 12.0), (0, 13.0, 45.0), (2, 46.0, 50.0)]
    assert [visit.lines for visit in alignment.visits] == [(0, 1), (2,), (3, 4), (5,)]
    assert {visit.aligner for visit in alignment.visits} == {"llm"} and not alignment.abstained


def test_a_line_of_no_step_does_not_end_a_visit_but_a_mistake_does() -> None:
    lines = [segment(0.0, 5.0), segment(6.0, 7.0), segment(8.0, 9.0), segment(12.0, 20.0)]
    answer = told(3, {0: [(1, 1), (3, 4)]})
    assert spans(alignment_from(task_of(lines), [answer])) == [(0, 0.0, 20.0)]
    undone = task_of([*lines, segment(10.0, 11.0, remark="mistake")])
    assert spans(alignment_from(undone, [answer])) == [(0, 0.0, 9.0), (0, 12.0, 20.0)]


def test_a_long_pause_ends_a_visit() -> None:
    lines = [segment(0.0, 5.0), segment(65.0, 70.0), segment(130.1, 140.0)]
    alignment = alignment_from(task_of(lines), [told(3, {0: [(1, 3)]})])
    assert spans(alignment) == [(0, 0.0, 70.0), (0, 130.1, 140.0)]


def test_a_step_inside_another_interrupts_nothing() -> None:
    lines = [segment(0.0, 10.0), segment(5.0, 8.0), segment(12.0, 15.0), segment(14.0, 17.0), segment(18.0, 20.0)]
    alignment = alignment_from(task_of(lines), [told(3, {0: [(1, 1), (3, 3), (5, 5)], 1: [(2, 2), (4, 4)]})])
    # The second line of S2 lasts into the pause of S1 from 15 to 18 s.
    assert spans(alignment) == [(0, 0.0, 15.0), (1, 5.0, 8.0), (1, 14.0, 17.0), (0, 18.0, 20.0)]


def test_a_line_inside_another_of_its_step_shortens_no_visit() -> None:
    lines = [segment(0.0, 50.0), segment(5.0, 9.0), segment(20.0, 30.0), segment(40.0, 45.0)]
    alignment = alignment_from(task_of(lines), [told(3, {0: [(1, 2), (4, 4)], 1: [(3, 3)]})])
    assert spans(alignment) == [(0, 0.0, 50.0), (1, 20.0, 30.0)]


def test_a_point_in_time_gets_an_end() -> None:
    lines = [
        segment(0.0, 95.0),
        segment(1.0, None, kind="child", parent=0),  # until the next line
        segment(4.0, None, kind="child", parent=0),  # for 30 s
        segment(90.0, None, kind="child", parent=0),  # until its segment ends
        segment(100.0, None, kind="child", parent=0),  # after its segment: until the next one
        segment(90.0, None, "Well done.", kind="user", parent=0),
        segment(110.0, None, kind="child"),
    ]
    task = task_of(lines, [f"step {number}" for number in range(6)])
    alignment = alignment_from(task, [told(6, {step: [(step + 1, step + 1)] for step in range(6)})])
    assert spans(alignment) == [
        (0, 0.0, 95.0), (1, 1.0, 4.0), (2, 4.0, 34.0), (3, 90.0, 95.0), (4, 100.0, 110.0), (5, 110.0, 140.0)
    ]  # fmt: skip


def test_each_segment_without_a_step_has_a_reason() -> None:
    lines = [
        segment(0.0, 5.0),
        segment(1.0, 2.0, kind="child", parent=0),
        segment(6.0, 9.0, remark="mistake"),
        segment(10.0, 12.0),
        segment(13.0, 15.0),
        segment(14.0, None, "Good.", kind="assistant", parent=4),
    ]
    alignment = alignment_from(task_of(lines), [told(3, {0: [(2, 2)], 1: [(4, 4)]})])
    assert alignment.abstained == {0: ONLY_BELOW, 2: UNDOES, 3: NOT_GIVEN}


@pytest.mark.parametrize(
    ("answer", "confidence"),
    [
        pytest.param(told(4, {0: [(1, 2)], 1: [(3, 4)]}), 0.9, id="sure"),
        pytest.param(told(4, {0: [(1, 2)], 1: [(3, 4)]}, "likely"), 0.7, id="likely"),
        pytest.param(told(4, {0: [(1, 2)], 1: [(3, 4)]}, "guess"), 0.4, id="guess"),
        pytest.param(told(4, {3: [(1, 1)], 2: [(2, 2)], 1: [(3, 3)], 0: [(4, 4)]}), 0.45, id="in reverse"),
        pytest.param(told(4, {1: [(1, 1)], 0: [(2, 2)], 2: [(3, 3)]}), 0.9 * (1 + 2 / 3) / 2, id="one pair turned"),
        pytest.param(told(8, {5: [(1, 4)]}), 0.9 * 0.625, id="all in one of eight steps"),
        pytest.param(told(1, {0: [(1, 4)]}), 0.9, id="a plan of one step"),
    ],
)
def test_confidence_follows_from_certainty_and_plausibility(answer: dict[str, Any], confidence: float) -> None:
    task = task_of([segment(float(time), time + 1.0) for time in range(4)], ["do it"] * len(answer))
    alignment = alignment_from(task, [answer])
    assert alignment.confidence == pytest.approx(confidence)
    assert [visit.confidence for visit in alignment.visits] == pytest.approx([confidence] * len(alignment.visits))


@pytest.mark.parametrize(
    ("runs", "busy", "summed"),
    [
        pytest.param({0: [(1, 2)], 1: [(3, 4)]}, 40, 40, id="one after the other"),
        pytest.param({0: [(1, 1), (4, 4)], 1: [(2, 3)]}, 40, 60, id="around another step"),
        pytest.param({0: [(1, 1), (3, 3)], 1: [(2, 2), (4, 4)]}, 40, 60, id="in turn"),
        pytest.param({0: [(1, 1), (4, 4)], 1: [(2, 2)], 2: [(3, 3)]}, 40, 60, id="around two steps"),
        pytest.param({0: [(1, 1)], 1: [(4, 4)]}, 20, 20, id="with a pause"),
    ],
)
def test_steps_in_progress_at_once_lower_the_confidence(
    runs: dict[int, list[tuple[int, int]]], busy: float, summed: float
) -> None:
    task = task_of([segment(10.0 * time, 10.0 * time + 10.0) for time in range(4)])
    assert alignment_from(task, [told(3, runs)]).confidence == pytest.approx(0.9 * busy / summed)


def test_the_record_weighs_its_visits_by_their_seconds() -> None:
    task = task_of([segment(0.0, 30.0), segment(30.0, 40.0)], STEPS[:2])
    answer = told(2, {0: [(1, 1)], 1: [(2, 2)]})
    answer["S2"]["certain"] = "guess"
    assert alignment_from(task, [answer]).confidence == pytest.approx((30 * 0.9 + 10 * 0.4) / 40)


def test_where_windows_differ_the_one_that_shows_more_around_decides() -> None:
    task = task_of([segment(float(time), time + 1.0) for time in range(12)], STEPS[:2])
    limits = Limits(rows=8, characters=1000, overlap=4)
    assert [(cut.first, cut.last) for cut in windows(rows(task.annotation), limits)] == [(1, 8), (5, 12)]
    # Lines 5 to 8 are in both: the first window decides 5 and 6, the second one 7 and 8.
    alignment = alignment_from(task, [told(2, {0: [(1, 8)]}), told(2, {1: [(5, 12)]})], limits)
    assert [visit.lines for visit in alignment.visits] == [(0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11)]
    mean = CERTAINTY["sure"] * (4 + 2 * DISPUTED) / 6
    assert [visit.confidence for visit in alignment.visits] == pytest.approx([mean, mean])
    # Whoever decides may also say that a line belongs to no step.
    alignment = alignment_from(task, [told(2, {0: [(1, 8)]}), told(2, {})], limits)
    assert [visit.lines for visit in alignment.visits] == [(0, 1, 2, 3, 4, 5)]
    # Without a dispute no confidence is lost.
    alignment = alignment_from(
        task, [told(2, {0: [(1, 6)], 1: [(7, 8)]}), told(2, {0: [(5, 6)], 1: [(7, 12)]})], limits
    )
    assert alignment.confidence == pytest.approx(CERTAINTY["sure"])


TASK = task_of([segment(0.0, 5.0), segment(6.0, 7.0)])


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        pytest.param([], "record 7: there are 0 answers to 1 questions", id="none"),
        pytest.param([told(3, {0: [(1, 1)]})] * 2, "there are 2 answers to 1 questions", id="two"),
        pytest.param([told(3, {0: [(1, 3)]})], "record 7: the model's answer is wrong: in S1, line 3", id="line"),
        pytest.param([told(2, {0: [(1, 1)]})], "the answer must have the keys S1, S2, S3", id="step missing"),
        pytest.param([told(3, {0: [(1, 1)]}, "very")], "certain is not one of", id="certainty"),
        pytest.param([told(3, {})], "no line is given to any step", id="nothing"),
        pytest.param([{"dst": []}], "must have the keys", id="another schema"),
    ],
)  # fmt: skip
def test_what_the_client_should_have_refused_is_refused(answers: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        alignment_from(TASK, answers)


def test_parts_without_any_step_are_a_failure_together() -> None:
    task = task_of([segment(float(time), time + 1.0) for time in range(12)])
    count = len(windows(rows(task.annotation), SMALL))
    assert count > 1
    with pytest.raises(DataError, match="the model gave no line of the annotation to any step"):
        alignment_from(task, [told(3, {})] * count, SMALL)
    wrong = [*[told(3, {})] * (count - 1), told(3, {0: [(1, 1)]})]
    with pytest.raises(
        DataError, match=rf"record 7 \(part {count} of {count}\): the model's answer is wrong: in S1, line 1"
    ):
        alignment_from(task, wrong, SMALL)


@st.composite
def assigned_tasks(draw: st.DrawFn) -> tuple[Task, dict[int, int | None]]:
    """A task with a numbered line, and any step or none for each index."""
    task = draw(tasks().filter(lambda one: any(row.number for row in rows(one.annotation))))
    steps = st.none() | st.integers(0, len(task.steps) - 1)
    return task, {index: draw(steps) for index in range(len(task.annotation.lines))}


@given(assigned_tasks(), st.sampled_from([SMALL, Limits(), Limits(9, 10_000, 4)]))
def test_the_oracle_gets_exactly_its_lines(assigned: tuple[Task, dict[int, int | None]], limits: Limits) -> None:
    task, truth = assigned
    all_rows, lines = rows(task.annotation), task.annotation.lines
    answers = oracle(task, limits, lambda row: truth[row.index])
    wanted = {row.index: truth[row.index] for row in all_rows if row.number and truth[row.index] is not None}
    if not wanted:
        with pytest.raises(DataError, match="no line"):
            alignment_from(task, answers, limits)
        return
    alignment = alignment_from(task, answers, limits)
    assert {index: visit.span.step for visit in alignment.visits for index in visit.lines} == wanted
    assert sum(len(visit.lines) for visit in alignment.visits) == len(wanted)
    for visit in alignment.visits:
        assert visit.span.end is not None and visit.span.start < visit.span.end and 0 < visit.confidence < 0.91
        assert visit.span.start == min(lines[index].start for index in visit.lines)
        assert visit.span.end >= max(lines[index].end or lines[index].start for index in visit.lines)
        assert [lines[index].start for index in visit.lines] == sorted(lines[index].start for index in visit.lines)
    starts = [visit.span.start for visit in alignment.visits]
    assert starts == sorted(starts)
    for one, other in pairs_of_a_step(alignment):
        assert interrupted(task, wanted, alignment, one, other)
    segments = {index for index, line in enumerate(lines) if line.kind == "segment"}
    assert alignment.abstained.keys() == segments - wanted.keys()


def pairs_of_a_step(alignment: Alignment) -> list[tuple[int, int]]:
    """The places of neighbouring visits of one step."""
    found, last = [], dict[int, int]()
    for place, visit in enumerate(alignment.visits):
        if visit.span.step in last:
            found.append((last[visit.span.step], place))
        last[visit.span.step] = place
    return found


def interrupted(task: Task, wanted: Mapping[int, int | None], alignment: Alignment, one: int, other: int) -> bool:
    """Whether a line of another step, a mistake or a correction lies between two visits of a step, or much time."""
    step, begin = alignment.visits[one].span.step, alignment.visits[one].span.end
    end = alignment.visits[other].span.start
    assert begin is not None and begin < end
    if end - begin > LONGEST_PAUSE_S:
        return True
    for visit in alignment.visits:
        if visit.span.step != step and visit.span.start < end and (visit.span.end or 0.0) > begin:
            return True
    return any(line.remark and line.start < end and (line.end or line.start) > begin for line in task.annotation.lines)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["sure", "S1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["S1", "S2", "S3", "lines", "certain", "first", "last"]), inner, max_size=3)
    ),
    max_leaves=12,
)
RUN = st.fixed_dictionaries({"first": st.integers(-1, 4), "last": st.integers(-1, 4)})
STEP = st.fixed_dictionaries({"lines": st.lists(RUN, max_size=3), "certain": st.sampled_from(sorted(CERTAINTY))})


@given(ANY_JSON | st.fixed_dictionaries({"S1": STEP, "S2": STEP, "S3": STEP | ANY_JSON}))
def test_any_answer_is_refused_or_names_lines_that_exist(answer: Any) -> None:
    try:
        alignment = alignment_from(TASK, [answer])
    except DataError:
        return
    given_lines = [index for visit in alignment.visits for index in visit.lines]
    assert given_lines and len(given_lines) == len(set(given_lines)) and set(given_lines) <= {0, 1}
    assert all(0 <= visit.span.step < 3 for visit in alignment.visits)
