"""Segments that last no time: the parser gives none, a task that is made by hand may have them."""

from __future__ import annotations

import pytest

from prospect_hf.align.alignment import Task
from prospect_hf.align.by_words import WordAligner
from prospect_hf.align.semantic import SemanticAligner
from prospect_hf.labels.annotation_lines import Annotation, AnnotationLine
from prospect_hf.sessions import Step
from tests.support.aligner_fixtures import WordHashEncoder

STEPS = (Step("S1", "Cut the bread."), Step("S2", "Stir the soup."))
ALIGNERS = {"words": WordAligner(), "semantic": SemanticAligner(WordHashEncoder("test"))}


@pytest.mark.parametrize("name", ALIGNERS)
@pytest.mark.parametrize("times", [(3.0, 3.0), (3.0, 5.0)], ids=["one moment", "two moments"])
def test_segments_without_a_length_have_a_confidence(name: str, times: tuple[float, float]) -> None:
    texts = ("cut bread", "stir soup")
    lines = tuple(AnnotationLine(n, at, at, text) for n, (at, text) in enumerate(zip(times, texts, strict=True)))
    found = ALIGNERS[name](Task("record 1", "lunch", STEPS, Annotation(lines)))
    assert [visit.span.step for visit in found.visits] == [0, 1]
    assert 0 < found.confidence <= 1
