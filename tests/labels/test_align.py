"""Annotated segments to plan steps."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prospect_hf.errors import DataError
from prospect_hf.labels.align import NO_MATCH, OUT_OF_ORDER, UNDOES, _monotone, align, matches, similarity
from prospect_hf.labels.segments import BELOW_SEGMENT, NOT_AFTER_START, START_OR_DONE, parse_segments
from prospect_hf.labels.spans import span_events
from prospect_hf.sessions import Step
from prospect_hf.sources.knowledge import parse_steps

STEPS = tuple(
    Step(f"S{k}", text)
    for k, text in enumerate(
        ["Fill the kettle with water.", "Boil the water in the kettle.", "Put a tea bag into the cup.", "Pour it."], 1
    )
)


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


def test_lines_that_are_no_segments_are_left_out() -> None:
    segments, left_out = parse_segments(
        "- [0.5s] start\n"
        "[4.0s-6.0s] boil water (ERROR: the kettle is empty)\n"
        "[1.0s-2.5s] fill kettle\n"
        " - [1.0s-1.5s] open tap\n"
        '- [2.0s] assistant: "good"\n'
        "7s-9.5s pour tea\n"
        "[9.0s-9.0s] nothing\n"
        "[9.6s-9.9s] Done\n"
        "Summary: The user made tea.\n"
    )
    assert [(one.start, one.end, one.text, one.undoes) for one in segments] == [
        (1.0, 2.5, "fill kettle", False),
        (4.0, 6.0, "boil water", True),
        (7.0, 9.5, "pour tea", False),
    ]
    assert left_out == {BELOW_SEGMENT: 3, START_OR_DONE: 1, NOT_AFTER_START: 1}


def test_several_segments_make_one_span_and_a_step_without_one_has_none() -> None:
    text = (
        "[1s-2s] fill kettle\n[3s-4s] filling the kettle again\n[5s-9s] boiling water\n[10s-12s] sneeze\n[13s-14s] pour"
    )
    aligned = align(text, STEPS, "here")
    assert [(span.step, span.start, span.end) for span in aligned.spans] == [(0, 1, 4), (1, 5, 9), (3, 13, 14)]
    assert aligned.assigned == (0, 0, 1, None, 3)
    assert {(event.time, event.step, event.transition) for event in span_events(aligned.spans)} >= {
        (1.0, 0, "start"),
        (4.0, 0, "complete"),
    }


def test_a_mistake_is_no_progress() -> None:
    aligned = align("[1s-2s] fill kettle\n[3s-4s] fill kettle (mistake: wrong order)", STEPS, "here")
    assert aligned.assigned == (0, None)


@given(st.permutations(["[1s-2s] fill kettle", "[3s-4s] boil water", "[5s-6s] tea bag into cup", "[7s-8s] pour"]))
def test_the_order_of_the_lines_changes_nothing(lines: list[str]) -> None:
    assert [span.step for span in align("\n".join(lines), STEPS, "here").spans] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "text", ["[1s-2s] sneeze\n[3s-4s] yawn", "Summary: tea", "", "[1s-2s] fill kettle (mistake: no)"]
)
def test_no_aligned_step_is_a_failure(text: str) -> None:
    """Pitfall 17: labels with no usable step are no success."""
    with pytest.raises(DataError, match="here"):
        align(text, STEPS, "here")


def test_similarity_lies_between_nothing_and_sameness() -> None:
    table = similarity(["Fill the kettle with water.", "sneeze"], STEPS)
    assert table[0].argmax() == 0 and table[0, 0] == pytest.approx(1.15)
    assert (table[1] == 0).all()


def test_a_real_record_gives_the_spans_that_its_author_meant(shared_data: Path) -> None:
    record = json.loads((shared_data / "dst/assembly101_9011-c03f_annotation_and_spans.json").read_text())
    steps = parse_steps(record["inferred_knowledge"], "here")
    spans = align(record["all_step_descriptions"], steps, "here").spans
    found = [(f"S{span.step + 1}", span.start, span.end) for span in spans]
    assert found == [tuple(span) for span in record["dst_plan_doc"]]
    # The language model's spans differ in one boundary: it ends S1 before the screwing that S1's text names.
    model = [(span["id"], span["start_ts"], span["end_ts"]) for span in record["dst_hybrid_llm"]]
    assert sum(ours == theirs for ours, theirs in zip(found, model, strict=True)) == 4
