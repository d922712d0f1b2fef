"""Annotated segments to plan steps, by their words."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prospect_hf.align.alignment import Alignment, Task
from prospect_hf.align.by_words import NO_MATCH, OUT_OF_ORDER, UNDOES, WordAligner, _monotone, matches, similarity
from prospect_hf.errors import DataError
from prospect_hf.labels.annotation_lines import parse_annotation
from prospect_hf.labels.spans import span_events
from prospect_hf.sessions import Step
from prospect_hf.sources.knowledge import parse_steps

STEPS = tuple(
    Step(f"S{k}", text)
    for k, text in enumerate(
        ["Fill the kettle with water.", "Boil the water in the kettle.", "Put a tea bag into the cup.", "Pour it."], 1
    )
)


def align(text: str, steps: tuple[Step, ...]) -> Alignment:
    return WordAligner()(Task("here", "Make tea", steps, parse_annotation(text)))


def aligned_spans(text: str, steps: tuple[Step, ...]) -> list[tuple[int, float, float | None]]:
    return [(visit.span.step, visit.span.start, visit.span.end) for visit in align(text, steps).visits]


def steps_of(text: str, steps: tuple[Step, ...]) -> tuple[int | None, ...]:
    """The step of each line, or None."""
    alignment = align(text, steps)
    owner = {line: visit.span.step for visit in alignment.visits for line in visit.lines}
    assert not owner.keys() & alignment.abstained.keys()
    return tuple(owner.get(line) for line in sorted(owner.keys() | alignment.abstained.keys()))


@given(
    hnp.arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 3)), elements=st.sampled_from([-1, 0, 0.25, 0.5, 1]))
)
def test_the_assignment_is_monotone_and_no_other_gains_more(gain: np.ndarray) -> None:
    rows, columns = gain.shape

    def total(choice: tuple[int | None, ...]) -> float:
        return float(sum(gain[row, column] for row, column in enumerate(choice) if column is not None))

    def monotone(choice: tuple[int | None, ...]) -> bool:
        used = [column for column in choice if column is not None]
        return used == sorted(used)

    assigned = tuple(_monotone(gain))
    assert monotone(assigned)
    choices = itertools.product([None, *range(columns)], repeat=rows)
    assert total(assigned) == max(total(choice) for choice in choices if monotone(choice))


def test_several_segments_make_one_span_and_a_step_without_one_has_none() -> None:
    text = (
        "[1s-2s] fill kettle\n[3s-4s] filling the kettle again\n[5s-9s] boiling water\n[10s-12s] sneeze\n[13s-14s] pour"
    )
    assert aligned_spans(text, STEPS) == [(0, 1, 4), (1, 5, 9), (3, 13, 14)]
    assert steps_of(text, STEPS) == (0, 0, 1, None, 3)
    assert [visit.lines for visit in align(text, STEPS).visits] == [(0, 1), (2,), (4,)]
    events = span_events([visit.span for visit in align(text, STEPS).visits])
    assert {(event.time, event.step, event.transition) for event in events} >= {(1.0, 0, "start"), (4.0, 0, "complete")}


def test_a_mistake_is_no_progress() -> None:
    assert steps_of("[1s-2s] fill kettle\n[3s-4s] fill kettle (mistake: wrong order)", STEPS) == (0, None)


@given(st.permutations(["[1s-2s] fill kettle", "[3s-4s] boil water", "[5s-6s] tea bag into cup", "[7s-8s] pour"]))
def test_the_order_of_the_lines_changes_nothing(lines: list[str]) -> None:
    assert [step for step, _, _ in aligned_spans("\n".join(lines), STEPS)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "text", ["[1s-2s] sneeze\n[3s-4s] yawn", "Summary: tea", "", "[1s-2s] fill kettle (mistake: no)"]
)
def test_no_aligned_step_is_a_failure(text: str) -> None:
    """Pitfall 17: labels with no usable step are no success."""
    with pytest.raises(DataError, match="here"):
        align(text, STEPS)


def test_similarity_lies_between_nothing_and_sameness() -> None:
    table = similarity(["Fill the kettle with water.", "sneeze"], STEPS)
    assert table[0].argmax() == 0 and table[0, 0] == pytest.approx(1.15)
    assert (table[1] == 0).all()


def test_a_real_record_gives_the_spans_that_its_author_meant(shared_data: Path) -> None:
    record = json.loads((shared_data / "dst/assembly101_9011-c03f_annotation_and_spans.json").read_text())
    steps = parse_steps(record["inferred_knowledge"], "here")
    found = [(f"S{step + 1}", start, end) for step, start, end in aligned_spans(record["all_step_descriptions"], steps)]
    assert found == [tuple(span) for span in record["dst_plan_doc"]]
    # The language model's spans differ in one boundary: it ends S1 before the screwing that S1's text names.
    model = [(span["id"], span["start_ts"], span["end_ts"]) for span in record["dst_hybrid_llm"]]
    assert sum(ours == theirs for ours, theirs in zip(found, model, strict=True)) == 4


# --- segments out of order ---


def plan(*texts: str) -> tuple[Step, ...]:
    return tuple(Step(f"S{number}", text) for number, text in enumerate(texts, start=1))


TOY = plan("Attach the wheels to the body.", "Attach the roof to the body.", "Paint the body.")


def aligned_steps(work: list[str], steps: tuple[Step, ...]) -> tuple[int | None, ...]:
    lines = (f"[{number}.0s-{number}.9s] {text}" for number, text in enumerate(work, start=1))
    return steps_of("\n".join(lines), steps)


@pytest.mark.parametrize(
    ("work", "assigned"),
    [
        (["attach roof", "attach wheels", "paint"], (None, 0, 2)),
        (["attach roof to body", "attach wheel to body", "paint body"], (None, 0, 2)),
        (["paint body", "attach roof to body", "attach wheel to body"], (None, None, 0)),
        # Of two segments that exclude each other and fit equally well, one abstains; neither takes the other's step.
        (["attach wheel", "paint body", "attach roof"], (0, 2, None)),
        (["attach wheel", "attach roof", "attach wheel", "paint"], (0, None, 0, 2)),
        (["attach wheel", "attach wheel", "attach roof"], (0, 0, 1)),
        (["attach wheel", "sneeze", "attach roof"], (0, None, 1)),
    ],
)
def test_a_segment_that_fits_no_step_in_order_abstains(work: list[str], assigned: tuple[int | None, ...]) -> None:
    assert aligned_steps(work, TOY) == assigned


@given(st.permutations(range(5)), st.sampled_from(["Attach the {} to the body.", "Screw the {}.", "Use the {} now."]))
def test_no_order_of_work_labels_a_part_as_another(order: list[int], words: str) -> None:
    parts = ["wheel", "roof", "door", "lamp", "seat"]
    steps = plan(*(words.format(part) for part in parts))
    found = aligned_steps([words.format(parts[part]).lower() for part in order], steps)
    assert all(step is None or step == part for step, part in zip(found, order, strict=True))
    assert any(step is not None for step in found)


def test_words_that_several_steps_have_leave_the_choice_to_the_order() -> None:
    steps = plan("Clean the knife.", "Cut the bread.", "Clean the knife.")
    assert aligned_steps(["clean knife", "cut bread", "clean knife"], steps) == (0, 1, 2)
    # "chassis" is most similar to the second step alone, but the first one has all the words, too.
    steps = plan("Assemble the chassis by attaching and screwing its parts.", "Attach wheels to the chassis.")
    assert aligned_steps(["attach chassis", "screw chassis", "attach wheel to chassis"], steps) == (0, 0, 1)


def test_a_step_that_lacks_a_word_of_the_closest_step_cannot_be_meant() -> None:
    texts = ["attach roof to body", "body", "attach body", "sneeze"]
    table = similarity(texts, TOY)
    assert table[0, 0] > 0.5  # the words in common alone would be enough
    assert matches(texts, TOY, table).tolist() == [
        [False, True, False],
        [True, True, True],
        [True, True, False],
        [False, False, False],
    ]


def test_each_segment_without_a_step_has_a_reason() -> None:
    found = align(
        " - [0.5s] look\n[1s-2s] attach roof\n[3s-4s] attach wheels\n[5s-6s] paint (mistake: too early)\n"
        "[7s-8s] sneeze\n[9s-9.5s] paint\n[-1s-2s] paint",
        TOY,
    )
    assert found.abstained == {1: OUT_OF_ORDER, 3: UNDOES, 4: NO_MATCH}
    assert sorted(line for visit in found.visits for line in visit.lines) == [2, 5]


def test_confidence_falls_with_what_is_not_assigned_and_with_words_that_differ() -> None:
    sure = align("[1s-3s] fill the kettle with water\n[5s-7s] pour it", STEPS)
    less = align("[1s-3s] fill pot\n[5s-7s] pour it\n[8s-10s] sneeze", STEPS)
    assert 0 < less.confidence < sure.confidence == sure.visits[0].confidence < 1
    assert 0 < less.visits[0].confidence < sure.visits[0].confidence


@pytest.mark.parametrize(
    ("plan", "work"),
    [
        (("安装车轮", "粉刷屋顶"), ("车轮", "屋顶")),
        (("ใส่ล้อ", "ทาสีหลังคา"), ("ล้อ", "หลังคา")),
        (("прикрути колесо", "покрась крышу"), ("колесо", "крышу")),
    ],
)
def test_segments_in_any_script_find_their_step(plan: tuple[str, str], work: tuple[str, str]) -> None:
    steps = parse_steps(f"1. {plan[0]}\n2. {plan[1]}", "test")
    assert similarity(work[::-1], steps).argmax(1).tolist() == [1, 0]
    assert steps_of(f"[0.0s-2.0s] {work[0]}\n[3.0s-4.0s] {work[1]}", steps) == (0, 1)


def test_a_failure_says_what_the_lines_were() -> None:
    with pytest.raises(DataError, match=r"no valid segment line .*\(left out: a negative time: 2\)"):
        align("[-1s-2s] attach roof\n[-3s-4s] paint", TOY)
    with pytest.raises(DataError, match=r"none of the 2 .*matches no step: 2"):
        align("[1s-2s] sneeze\n[3s-4s] yawn", TOY)
