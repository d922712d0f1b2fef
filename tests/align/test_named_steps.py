"""Annotations written in the words of the plan: a segment that names a step belongs to it, whatever the order."""

from __future__ import annotations

import pytest

from prospect_hf.align.alignment import Task
from prospect_hf.align.semantic import SemanticAligner, gather, run_features
from prospect_hf.align.similarity import named_steps
from prospect_hf.labels.annotation_lines import AnnotationLine, parse_annotation
from prospect_hf.sessions import Step
from tests.support.aligner_fixtures import WordHashEncoder

PLAN = ("Fold the green napkin.", "Fold the pink napkin.", "Fold the white napkin.", "Light the candle on the table.")


def visited(descriptions: str, plan: tuple[str, ...] = PLAN) -> list[tuple[int, float]]:
    steps = tuple(Step(f"S{number}", text) for number, text in enumerate(plan, start=1))
    alignment = SemanticAligner(WordHashEncoder("test"))(
        Task("record 1", "set a table", steps, parse_annotation(descriptions))
    )
    return [(visit.span.step, visit.span.start) for visit in alignment.visits]


def test_steps_done_in_another_order_keep_their_names() -> None:
    said = "[1s-4s] fold white napkin\n[5s-8s] fold green napkin\n[9s-12s] fold pink napkin\n[13s-15s] light candle"
    assert visited(said) == [(2, 1), (0, 5), (1, 9), (3, 13)]


def test_a_step_that_is_done_again_late_is_a_visit_of_its_own() -> None:
    said = (
        "[1s-4s] fold green napkin\n[5s-8s] fold pink napkin\n[9s-12s] fold white napkin\n[13s-15s] light candle\n"
        "[16s-20s] fold green napkin again"
    )
    assert visited(said) == [(0, 1), (1, 5), (2, 9), (3, 13), (0, 16)]


def test_a_name_counts_as_much_as_the_annotation_has_names() -> None:
    """Where hardly a segment is written in the plan's words, one that is may be a common phrase."""
    texts = ("fold green napkin", "sit down", "get up", "light candle")
    lines = [AnnotationLine(n, n, n + 1.0, text) for n, text in enumerate(texts)]
    feature = run_features(gather(lines, PLAN, WordHashEncoder("test")))["named"]
    assert feature[0, :, 0].tolist() == [0.5] * 4  # half of the lines name a step
    assert feature[0, :, 3].tolist() == [0, 0, 0, 0.5]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("folding the green napkins", 0),  # all words of a step, in other forms
        ("fold napkin", None),  # they are those of three steps
        ("light candle", 3),  # of a step alone
        ("candle", None),  # one word says too little
        ("fold green napkin beside pink napkin", None),  # two steps
        ("the", None),
        ("drink tea", None),
    ],
)
def test_which_step_a_text_names(text: str, step: int | None) -> None:
    assert named_steps([text], PLAN)[0].nonzero()[0].tolist() == ([] if step is None else [step])


@pytest.mark.parametrize(
    ("text", "plan", "step"),
    [
        ("stir soup", ["stir soup", "stir soup slowly"], 0),  # the very words
        ("serve", ["Serve.", "Serve the salad on a plate."], 0),
        ("stir soup slowly again", ["stir soup", "stir soup slowly"], 1),  # the longer of two
        ("serve salad", ["Serve.", "Serve the salad on a plate."], 1),  # what it says is all in one
        ("serve salad", ["Serve.", "Serve salad on plates.", "Serve salad in bowls."], None),
        ("clean knife", ["clean knife", "use knife", "clean the knife"], None),  # a step that stands twice
        ("clean knife well", ["clean knife", "clean the knife"], None),
        ("any", ["of the", "clean knife"], None),  # a step without a word
        ("the", ["of the", "clean knife"], None),
    ],
)
def test_which_of_several_steps_a_text_names(text: str, plan: list[str], step: int | None) -> None:
    assert named_steps([text], plan)[0].nonzero()[0].tolist() == ([] if step is None else [step])
