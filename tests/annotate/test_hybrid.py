"""Labels by meaning and by a language model: which videos are asked about, and whose answer a line follows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_fixtures import Reply, fake_server
from model_task_fixtures import STEPS, segment, task_of, tasks, told

from prospect_hf.align.alignment import Alignment, Task, Visit
from prospect_hf.annotate.hybrid import ASK_BELOW, SURE, Calls, combine, needs_model
from prospect_hf.annotate.model_answers import alignment_from
from prospect_hf.annotate.model_questions import questions
from prospect_hf.annotate.validation import Bounds, validate
from prospect_hf.annotate.visits import Assigned, visits_of
from prospect_hf.annotate.windows import has_number, rows
from prospect_hf.labels.spans import Span
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.client import LLMClient

# Six segments of ten seconds, one after the other.
SIX = task_of([segment(10.0 * number, 10.0 * number + 10.0) for number in range(6)])


def semantic(task: Task, confidence: float, *visits: tuple[int, tuple[int, ...], float]) -> Alignment:
    """An alignment by meaning, of visits as (step, lines, confidence)."""
    lines = task.annotation.lines
    made = [Visit(Span(step, lines[of[0]].start, lines[of[-1]].end), of, sure, "semantic") for step, of, sure in visits]
    return Alignment(tuple(made), {}, confidence)


def by_model(task: Task, owners: Mapping[int, int], confidence: float = 0.7) -> Alignment:
    """A model's alignment, which gives each line the step in ``owners``."""
    visits = visits_of(task, rows(task.annotation), {line: Assigned(step, confidence) for line, step in owners.items()})
    left = [index for index, line in enumerate(task.annotation.lines) if line.kind == "segment" and index not in owners]
    return Alignment(visits, dict.fromkeys(left, "the model gave it to no step"), confidence)


def owners_of(alignment: Alignment) -> dict[int, int]:
    return {line: visit.span.step for visit in alignment.visits for line in visit.lines}


@pytest.mark.parametrize(("confidence", "asked"), [(0.0, True), (0.69, True), (0.7, False), (1.0, False)])
def test_the_model_is_asked_where_meaning_is_not_sure(confidence: float, asked: bool) -> None:
    assert needs_model(semantic(SIX, confidence), 0.7) is asked
    assert ASK_BELOW == 0.7 and needs_model(semantic(SIX, confidence), ASK_BELOW) is asked


def test_the_model_is_asked_where_meaning_finds_nothing() -> None:
    assert needs_model(None, 0.0)
    assert not needs_model(semantic(SIX, 0.0), 0.0)  # below 0 is nothing else


def test_sure_lines_keep_their_step_and_all_others_follow_the_model() -> None:
    by_meaning = semantic(SIX, 0.5, (0, (0, 1), 0.5), (1, (2, 3), SURE), (2, (4, 5), SURE - 0.01))
    combined = combine(SIX, by_meaning, by_model(SIX, {0: 0, 1: 1, 2: 1, 3: 2, 4: 1}))
    assert owners_of(combined) == {0: 0, 1: 1, 2: 1, 3: 1, 4: 1}
    assert [(visit.span, visit.aligner) for visit in combined.visits] == [
        (Span(0, 0.0, 10.0), "llm"),
        (Span(1, 10.0, 50.0), "llm"),  # the model's lines and the sure ones are one visit
    ]
    assert combined.visits[1].confidence == pytest.approx((0.7 + 2 * SURE + 0.7) / 4)
    assert combined.abstained == {5: "the model gave it to no step"}
    assert combined.confidence == pytest.approx((10 * 0.7 + 40 * combined.visits[1].confidence) / 50)


def test_a_sure_line_cuts_the_visit_that_the_model_draws_through_it() -> None:
    combined = combine(SIX, semantic(SIX, 0.5, (2, (2, 3), 1.0)), by_model(SIX, dict.fromkeys(range(6), 0)))
    assert [(visit.span, visit.lines, visit.aligner) for visit in combined.visits] == [
        (Span(0, 0.0, 20.0), (0, 1), "llm"),
        (Span(2, 20.0, 40.0), (2, 3), "semantic"),
        (Span(0, 40.0, 60.0), (4, 5), "llm"),
    ]


def test_a_sure_line_that_the_model_leaves_out_has_a_step_and_no_reason_for_none() -> None:
    combined = combine(SIX, semantic(SIX, 0.5, (1, (5,), 1.0)), by_model(SIX, {0: 0}))
    assert owners_of(combined) == {0: 0, 5: 1}
    assert sorted(combined.abstained) == [1, 2, 3, 4]


def test_lines_below_a_sure_line_do_not_go_to_another_step() -> None:
    lines = [segment(0.0, 10.0), segment(2.0, 4.0, kind="child", parent=0), segment(10.0, 20.0)]
    task = task_of(lines)
    combined = combine(task, semantic(task, 0.5, (0, (0,), 1.0)), by_model(task, {1: 1, 2: 2}))
    assert [(visit.span, visit.lines) for visit in combined.visits] == [
        (Span(0, 0.0, 10.0), (0,)),
        (Span(2, 10.0, 20.0), (2,)),
    ]


@given(tasks(), st.data())
def test_each_line_follows_one_aligner_and_the_result_is_valid(task: Task, data: st.DataObject) -> None:
    lines = task.annotation.lines
    steps = st.integers(0, len(task.steps) - 1)
    numbered = [index for index, line in enumerate(lines) if has_number(line)]
    told_owners = data.draw(st.dictionaries(st.sampled_from(numbered), steps) if numbered else st.just({}))
    segments = [index for index in numbered if lines[index].kind == "segment"]
    visits = [
        (data.draw(steps), (index,), data.draw(st.sampled_from([0.2, SURE, 1.0])))
        for index in segments
        if data.draw(st.booleans())
    ]
    by_meaning, model = semantic(task, 0.3, *visits), by_model(task, told_owners)
    sure = {of[0]: step for step, of, confidence in visits if confidence >= SURE}
    expected = {line: step for line, step in told_owners.items() if lines[line].parent not in sure} | sure
    if not expected:
        return
    combined = combine(task, by_meaning, model)
    named = [line for visit in combined.visits for line in visit.lines]
    assert len(named) == len(set(named))
    assert owners_of(combined) == expected
    assert not combined.abstained.keys() & expected.keys()
    assert all((visit.aligner == "semantic") == (set(visit.lines) <= set(sure)) for visit in combined.visits)
    labels = validate(combined.visits, task.steps, Bounds(), lines=lines)
    assert {span.step for span in labels.spans} == set(expected.values())
    # Without a sure visit, the model's answer is the answer.
    if told_owners:
        assert combine(task, None, model).visits == model.visits


def test_calls_are_counted_by_question() -> None:
    calls = Calls()
    assert calls.saved == 0.0
    for number, asked in ((1, False), (3, True), (2, False), (2, True)):
        calls.add(number, asked)
    assert calls == Calls(videos=4, asked_videos=2, calls=5, calls_of_all=8)
    assert calls.saved == pytest.approx(3 / 8)
    assert str(calls) == "asked about 2 of 4 videos: 5 calls instead of 8, 38% saved"


def test_a_hybrid_run_asks_about_the_unsure_videos_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="openai is not installed (extra llm)")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    truth = {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}
    # The model is right about even videos and turns the steps of odd ones round; meaning is wrong about all of them,
    # but for the last visit of each, of which it is sure.
    videos = [
        task_of([segment(line.start, line.end, f"work {number}") for line in SIX.annotation.lines], STEPS, f"{number}")
        for number in range(6)
    ]
    confidences = [0.3, 0.6, 0.9, 0.95, 0.69, 0.7]
    by_meaning = [
        semantic(task, confidence, (0, (0, 1, 2, 3), 0.4), (2, (4, 5), 0.99))
        for task, confidence in zip(videos, confidences, strict=True)
    ]
    right = told(3, {0: [(1, 2)], 1: [(3, 4)], 2: [(5, 6)]})
    wrong = told(3, {2: [(1, 2)], 1: [(3, 4)], 0: [(5, 6)]})

    def reply(request: dict[str, Any]) -> Reply:
        goal = json.loads(request["messages"][1]["content"].split("goal: ")[1].split("\n")[0])
        return Reply(right if int(goal) % 2 == 0 else wrong)

    asked, calls = [], Calls()
    for number, (task, alignment) in enumerate(zip(videos, by_meaning, strict=True)):
        calls.add(len(questions(task)), needs_model(alignment, ASK_BELOW))
        if needs_model(alignment, ASK_BELOW):
            asked.append(number)
    with fake_server(reply) as server:
        client = LLMClient(LLMArguments(model="m", base_url=server.url, cache_dir=str(tmp_path)))
        answered = client.answers(question for number in asked for question in questions(videos[number]))
        answers = {asked[one.index]: one.answer for one in answered}
        assert len(server.requests) == calls.calls == 3
    assert asked == [0, 1, 4] and str(calls) == "asked about 3 of 6 videos: 3 calls instead of 6, 50% saved"
    labels = [
        combine(task, alignment, alignment_from(task, [answers[number]])) if number in answers else alignment
        for number, (task, alignment) in enumerate(zip(videos, by_meaning, strict=True))
    ]
    assert owners_of(labels[0]) == owners_of(labels[4]) == truth
    assert owners_of(labels[1]) == {0: 2, 1: 2, 2: 1, 3: 1, 4: 2, 5: 2}  # the model's error, but for the sure visit
    assert [labels[number] for number in (2, 3, 5)] == [by_meaning[number] for number in (2, 3, 5)]
