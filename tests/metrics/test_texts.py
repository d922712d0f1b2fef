"""Text metrics: equal to the packages and formulas that they stand for, additive, oracle at the top, silence at 0."""

from __future__ import annotations

import math
import random
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from prospect_hf.errors import DataError, UsageError
from prospect_hf.metrics import texts
from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.texts import (
    DocumentFrequencies,
    distinct,
    document_frequencies,
    text_counts,
    text_figures,
)
from prospect_hf.words import words

pytest.importorskip("nltk")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

# Few words, so that n-grams match and repeat; inflections share stems; the last are no words for ROUGE.
TOKENS = ["cut", "Cutting", "cuts", "the", "onion", "onions", "now", "well", "done", "8", ".", ",", "don't", "…", "–"]
utterances = st.lists(st.sampled_from(TOKENS), max_size=9).map(" ".join)
pair_lists = st.lists(st.tuples(utterances, utterances), max_size=8)
FIGURES = {"text_bleu1", "text_bleu2", "text_bleu3", "text_bleu4", "text_rouge_l", "text_meteor", "text_cider_d"}


def counted(pairs: Sequence[tuple[str, str]], frequencies: DocumentFrequencies | None = None) -> dict[str, float]:
    predictions, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return text_counts(predictions, references, frequencies or document_frequencies(references))


def figures_of(pairs: Sequence[tuple[str, str]]) -> dict[str, float | None]:
    return plain(text_figures(counted(pairs)))


def spread(pairs: Sequence[tuple[str, str]]) -> DocumentFrequencies:
    """Frequencies in which every n-gram of the references has a weight: another text stands beside them."""
    return document_frequencies([*[reference for _, reference in pairs], "something else altogether"])


# ---- what each figure is


@settings(deadline=None)
@given(st.lists(pair_lists, min_size=1, max_size=4))
def test_bleu_of_the_sums_is_sacrebleu_of_the_texts(sessions: list[list[tuple[str, str]]]) -> None:
    frequencies = document_frequencies(["a text"])
    ours = plain(text_figures(total(counted(session, frequencies) for session in sessions)))
    pooled = [pair for session in sessions for pair in session]
    predictions, references = [pair[0] for pair in pooled], [pair[1] for pair in pooled]
    if not any(reference.split() for reference in references):
        assert [ours[f"text_bleu{order}"] for order in (1, 2, 3, 4)] == [None] * 4
        return
    for order in (1, 2, 3, 4):
        theirs = BLEU(max_ngram_order=order, effective_order=True).corpus_score(predictions, [references]).score
        assert ours[f"text_bleu{order}"] == pytest.approx(theirs, rel=1e-9)
    corpus = sacrebleu.corpus_bleu(predictions, [references], use_effective_order=True).score
    assert ours["text_bleu4"] == pytest.approx(corpus, rel=1e-9)


def test_bleu_smooths_orders_without_a_match() -> None:
    pairs = [("a b x c d", "a b c d")]  # one bigram, no longer match; sacrebleu halves once, then twice
    expected = math.exp(sum(math.log(p) for p in (4 / 5, 2 / 4, 1 / 2 / 3, 1 / 4 / 2)) / 4)
    assert figures_of(pairs)["text_bleu4"] == pytest.approx(100 * expected)


@settings(deadline=None)
@given(pair_lists)
def test_rouge_l_is_that_of_the_package(pairs: list[tuple[str, str]]) -> None:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    wordy = [pair for pair in pairs if words(pair[1])]
    expected = [scorer.score(reference, prediction)["rougeL"].fmeasure for prediction, reference in wordy]
    counts = counted(pairs)
    assert counts["text_word_pairs"] == len(wordy)
    assert counts["text_rouge_l_sum"] == pytest.approx(sum(expected))


@given(st.text(st.characters(codec="ascii")) | utterances)
def test_words_of_english_are_the_tokens_of_rouge(text: str) -> None:
    tokenize = pytest.importorskip("rouge_score.tokenize").tokenize
    assert words(text) == tokenize(text, None)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("Cutting onions!", "cut onion", 1 - 0.5 / 8),  # stems match
        ("large", "big", 0.0),  # and synonyms do not
        ("cut the onion", "the onion", (2 / 3) / (0.9 * 2 / 3 + 0.1) * (1 - 0.5 / 8)),  # P 2/3, R 1, one chunk
        ("onion the", "the onion", 0.5),  # two chunks of one word each
    ],
)
def test_meteor_by_hand(prediction: str, reference: str, score: float) -> None:
    assert figures_of([(prediction, reference)])["text_meteor"] == pytest.approx(score)


def slow_cider_d(prediction: list[str], reference: list[str], documents: list[list[str]]) -> float | None:
    """CIDEr-D with a dense vector over all n-grams there are, as it stands in the paper."""

    def grams(stems: list[str], n: int) -> list[tuple[str, ...]]:
        return [tuple(stems[i : i + n]) for i in range(len(stems) - n + 1)]

    scores = []
    for n in (1, 2, 3, 4):
        axis = sorted({gram for stems in (prediction, reference) for gram in grams(stems, n)})
        holders = [sum(gram in grams(stems, n) for stems in documents) for gram in axis]
        idf = np.log(len(documents)) - np.log(np.maximum(1, holders))
        guess, truth = (
            np.array([Counter(grams(stems, n))[gram] for gram in axis]) * idf for stems in (prediction, reference)
        )
        if np.linalg.norm(truth) > 1e-12:
            norms = float(np.linalg.norm(guess) * np.linalg.norm(truth))
            scores.append(float(np.minimum(guess, truth) @ truth) / norms if norms else 0.0)
    gauss = math.exp(-((len(prediction) - len(reference)) ** 2) / (2 * 36))
    return 10 * gauss * float(np.mean(scores)) if scores else None


@settings(deadline=None)
@given(pair_lists, st.lists(utterances, max_size=4))
def test_cider_d_is_the_formula(pairs: list[tuple[str, str]], others: list[str]) -> None:
    stem = pytest.importorskip("nltk.stem.porter").PorterStemmer().stem
    stems = {text: [stem(word) for word in words(text)] for pair in pairs for text in (*pair, *others)}
    corpus = [*[reference for _, reference in pairs], *others]
    counts = counted(pairs, document_frequencies(corpus))
    documents = [stems[text] for text in corpus] if pairs else []
    expected = [slow_cider_d(stems[prediction], stems[reference], documents) for prediction, reference in pairs]
    defined = [score for score in expected if score is not None]
    assert counts["text_cider_d_pairs"] == len(defined)
    assert counts["text_cider_d_sum"] == pytest.approx(sum(defined), abs=1e-9)


def test_cider_d_by_hand() -> None:
    # "the" is in both documents and weighs nothing, so "the pan" has a bigram's weight but a word's for "pan" only.
    frequencies = document_frequencies(["heat the pan", "cut the onion"])
    assert frequencies.documents == 2 and frequencies.counts[("the",)] == 2 and frequencies.counts[("cut", "the")] == 1
    # Orders 1 to 3 of the reference have a weight: cosines 1 / sqrt(2), 1 / sqrt(2), 0; lengths differ by one word.
    counts = text_counts(["the pan"], ["heat the pan"], frequencies)
    assert counts["text_cider_d_sum"] == pytest.approx(10 * math.exp(-1 / 72) * math.sqrt(2) / 3)
    # A word said three times counts once against one.
    counts = text_counts(["pan pan pan"], ["pan"], frequencies)
    assert counts["text_cider_d_sum"] == pytest.approx(10 * math.exp(-4 / 72) / 3)


def test_cider_d_of_equal_texts_is_ten_to_the_last_digit() -> None:
    rng = random.Random(0)
    references = [" ".join(f"w{rng.randrange(40)}" for _ in range(rng.randint(1, 9))) for _ in range(200)]
    frequencies = document_frequencies(references)
    for reference in references:
        assert text_counts([reference], [reference], frequencies)["text_cider_d_sum"] == 10.0


def test_cider_d_is_undefined_where_every_document_says_the_same() -> None:
    same = [("Well done.", "Well done.")] * 3
    assert figures_of(same)["text_cider_d"] is None and figures_of(same)["text_rouge_l"] == 1.0
    mixed = text_counts(["", "cut"], ["well", "well cut"], document_frequencies(["well", "well cut"]))
    assert mixed["text_cider_d_pairs"] == 1 and mixed["text_pairs"] == mixed["text_word_pairs"] == 2


# ---- other alphabets

# Two texts of each script that differ in one word.
SCRIPTS = {
    "German": ("Das Öl steht bereit.", "Das Äl steht bereit."),
    "Russian": ("Возьми белую чашку.", "Возьми чёрную чашку."),
    "Greek": ("Πάρε το μαχαίρι.", "Πάρε το ποτήρι."),
    "Chinese": ("把轮子装上。", "把盘子装上。"),
    "Japanese": ("ネジを回してください。", "フタを回してください。"),
    "Korean": ("바퀴를 끼우세요.", "나사를 끼우세요."),
    "Thai": ("ใส่น้ำในหม้อ", "ใส่นมในหม้อ"),
    "Khmer": ("ដាក់ទឹក", "ដាក់ប្រេង"),
    "Myanmar": ("ရေထည့်ပါ", "ဆီထည့်ပါ"),
    "Hindi": ("पहिया लगाओ।", "पेंच लगाओ।"),
    "Hindi, a mark apart": ("की पहिया", "के पहिया"),
    "Arabic": ("خذ الكوب الأبيض", "خذ الكوب الأسود"),
    "Hebrew": ("קח את הכוס הלבנה", "קח את הכוס השחורה"),
}


def scores(prediction: str, reference: str) -> dict[str, float | None]:
    frequencies = document_frequencies([reference, "something else altogether"])
    return plain(text_figures(text_counts([prediction], [reference], frequencies)))


@pytest.mark.parametrize("script", SCRIPTS)
def test_words_of_any_script_count(script: str) -> None:
    text, other = SCRIPTS[script]
    length = len(words(text))
    equal, different = scores(text, text), scores(other, text)
    assert length > 1 and equal["text_rouge_l"] == 1 and equal["text_cider_d"] == 10 and equal["text_bleu1"] == 100
    assert equal["text_meteor"] == pytest.approx(1 - 0.5 / length**3)
    for name in ("text_rouge_l", "text_meteor", "text_cider_d", "text_bleu1"):
        reached, highest = different[name], equal[name]
        assert reached is not None and highest is not None and 0 < reached < highest, name
    assert scores(unicodedata.normalize("NFD", text), text) == equal
    assert distinct([text], 1) is not None


any_text = st.text() | st.text("añб語ก\u0e31क\u0940ا\u064bé\u0301\U0001f600\u200f ", max_size=12)


@settings(deadline=None)
@given(any_text, any_text)
def test_any_text_is_at_the_top_with_itself_and_never_above(one: str, other: str) -> None:
    equal, reached = scores(one, one), scores(other, one)
    length = len(words(one))
    assert equal["text_rouge_l"] == (1 if length else None) and equal["text_cider_d"] == (10 if length else None)
    assert equal["text_bleu4"] in (None, pytest.approx(100))
    for name in FIGURES:
        score, highest = reached[name], equal[name]
        assert (score is None) == (highest is None)
        assert score is None or highest is None or 0 <= score <= highest + 1e-9
    if length and not any(word.isascii() for word in words(one)) and sorted(words(one)) != sorted(words(other)):
        assert reached["text_rouge_l"] != 1 and reached["text_cider_d"] != 10


# ---- rules for all


@settings(deadline=None)
@given(pair_lists)
def test_the_oracle_has_the_highest_score(pairs: list[tuple[str, str]]) -> None:
    frequencies = spread(pairs)
    oracle = counted([(reference, reference) for _, reference in pairs], frequencies)
    best, reached = plain(text_figures(oracle)), plain(text_figures(counted(pairs, frequencies)))
    if any(reference.split() for _, reference in pairs):
        assert [best[f"text_bleu{order}"] for order in (1, 2, 3, 4)] == [100.0] * 4
    else:
        assert [best[f"text_bleu{order}"] for order in (1, 2, 3, 4)] == [None] * 4
    lengths = [len(words(reference)) for _, reference in pairs if words(reference)]
    assert oracle["text_word_pairs"] == oracle["text_cider_d_pairs"] == len(lengths)
    assert best["text_rouge_l"] == (1.0 if lengths else None) and best["text_cider_d"] == (10.0 if lengths else None)
    assert oracle["text_meteor_sum"] == pytest.approx(sum(1 - 0.5 / length**3 for length in lengths))
    assert oracle["text_pairs"] == len(pairs)
    for name in FIGURES:
        score, highest = reached[name], best[name]
        assert (score is None) == (highest is None)
        assert score is None or highest is None or 0 <= score <= highest + 1e-9


@settings(deadline=None)
@given(st.lists(utterances, max_size=6))
def test_silence_scores_zero(references: list[str]) -> None:
    pairs = [("", reference) for reference in references]
    figures = plain(text_figures(counted(pairs, spread(pairs))))
    assert set(figures) == FIGURES and all(figures[name] in (0.0, None) for name in FIGURES)
    if any(words(reference) for reference in references):
        assert all(figures[name] == 0.0 for name in FIGURES)


def test_without_a_pair_figures_are_undefined() -> None:
    counts = text_counts([], [], document_frequencies([]), cosines=[])
    assert set(counts.values()) == {0.0}
    figures = text_figures(counts)
    assert set(figures) == FIGURES | {"text_similarity"} and all(np.isnan(value) for value in figures.values())
    silent = figures_of([("well done", ""), ("well done", " ")])
    assert set(silent.values()) == {None}


@settings(deadline=None)
@given(pair_lists, st.integers(0, 8), st.integers(0, 1000))
def test_sums_add_up_in_any_order(pairs: list[tuple[str, str]], cut: int, seed: int) -> None:
    frequencies = spread(pairs)
    whole = counted(pairs, frequencies)
    assert total([counted(pairs[:cut], frequencies), counted(pairs[cut:], frequencies)]) == pytest.approx(whole)
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    assert counted(shuffled, frequencies) == whole


@settings(deadline=None)
@given(st.lists(pair_lists, min_size=1, max_size=4))
def test_all_draws_at_once_are_each_draw_alone(sessions: list[list[tuple[str, str]]]) -> None:
    frequencies = document_frequencies(["cut the onion", "well done"])
    draws = [counted(session, frequencies) for session in sessions]
    together = text_figures({name: np.array([draw[name] for draw in draws]) for name in draws[0]})
    assert set(together) == FIGURES
    for name, values in together.items():
        alone = [float(text_figures(draw)[name]) for draw in draws]
        assert values.shape == (len(draws),) and text_figures(draws[0])[name].shape == ()
        np.testing.assert_array_equal(values, alone)


def test_similarity_is_the_mean_cosine_of_the_pairs_that_have_one() -> None:
    frequencies = document_frequencies(["cut"])
    some = text_counts(["cut", "cut it"], ["cut", "cut"], frequencies, np.array([1.0, 0.25], np.float32))
    none = text_counts(["cut"], ["cut"], frequencies)
    assert "text_similarity_sum" not in none and "text_similarity" not in text_figures(none)
    assert plain(text_figures(total([some, none])))["text_similarity"] == 0.625


def test_what_does_not_fit_is_refused() -> None:
    frequencies = document_frequencies(["cut"])
    with pytest.raises(DataError, match="2 predicted and 1 reference texts"):
        text_counts(["cut", "it"], ["cut"], frequencies)
    for cosines in ([1.0, 1.0], [[1.0]], [math.nan], 1.0):
        with pytest.raises(DataError, match="1 finite number"):
            text_counts(["cut"], ["cut"], frequencies, cosines)
    with pytest.raises(DataError, match="have no document"):
        text_counts(["cut"], ["cut"], document_frequencies([]))


@pytest.mark.parametrize("package", ["nltk.stem.porter", "nltk.translate.meteor_score", "rouge_score.rouge_scorer"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    texts._stemmer.cache_clear()
    with pytest.raises(UsageError, match=rf'{package}.*pip install -e "\.\[eval\]"'):
        text_counts(["cut"], ["cut"], DocumentFrequencies({}, 1))


# ---- distinct-n


def test_distinct_n_by_hand() -> None:
    said = ["Cut it, cut it.", "cut", "…"]
    assert distinct(said, 1) == 2 / 5
    assert distinct(said, 2) == 2 / 3  # cut it, it cut, cut it; none spans two texts
    assert distinct(said, 4) == 1.0
    assert distinct(said, 5) is None and distinct([], 1) is None and distinct(["", "!"], 1) is None
    with pytest.raises(UsageError, match="distinct-0"):
        distinct(said, 0)
