"""What was said against what should have been said: text metrics of utterance pairs, one reference each.

A session is counted once (:func:`text_counts`), and all figures follow from the added counts (:func:`text_figures`), so
pooling and a bootstrap over sessions are sums. BLEU pools n-grams over the corpus; the others are means over pairs.

A *word* is a run of ASCII letters and digits in the lowercased text, as ROUGE has it; BLEU has its own tokens (13a).
A pair whose reference gives a metric nothing to find (no word; for CIDEr-D no n-gram with a weight) is left out of that
metric's mean, whatever was predicted. On every pair that counts, the reference itself has the highest score: 100 for
BLEU, 1 for ROUGE-L, 10 for CIDEr-D, and 1 - 0.5 / words^3 for METEOR, which takes off something for even one chunk.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sacrebleu.metrics.bleu import BLEU

from prospect_hf.errors import DataError, UsageError
from prospect_hf.extras import missing
from prospect_hf.metrics.counts import Counts, Figures, Sums, ratio

ORDERS = (1, 2, 3, 4)
CIDER_SIGMA = 6.0
CIDER_SCALE = 10.0
WORD = re.compile("[a-z0-9]+")

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class DocumentFrequencies:
    """How common the n-grams of a corpus are.

    Args:
        counts: the number of documents that hold an n-gram of 1 to 4 stemmed words.
        documents: how many there are.
    """

    counts: Mapping[Ngram, int]
    documents: int

    def weight(self, ngram: Ngram) -> float:
        """Inverse document frequency, natural logarithm; one that no document holds weighs as if one did."""
        return math.log(self.documents / max(self.counts.get(ngram, 0), 1))


def document_frequencies(references: Sequence[str]) -> DocumentFrequencies:
    """The n-grams of all reference texts of an evaluation, each text one document; :func:`text_counts` needs them.

    Raises:
        UsageError: nltk is not installed.
    """
    counts: Counter[Ngram] = Counter()
    for text in references:
        stems = _stems(text)
        counts.update({ngram for order in ORDERS for ngram in _ngrams(stems, order)})
    return DocumentFrequencies(counts, len(references))


def text_counts(
    predictions: Sequence[str],
    references: Sequence[str],
    frequencies: DocumentFrequencies,
    cosines: ArrayLike | None = None,
) -> Counts:
    """The sums of one session, which may have no pair.

    - BLEU: sacrebleu's, 13a tokens, case kept.
    - ROUGE-L: F-measure of the package rouge-score, stemmed (Lin, 2004).
    - METEOR: nltk's, exact and stem matches only, so that no WordNet is needed (Lavie and Agarwal, 2007).
    - CIDEr-D: Vedantam et al. (2015), see :func:`_cider_d`.

    Args:
        predictions, references: ``[pairs]`` texts; an empty prediction is silence.
        frequencies: of all references of the evaluation, not only of this session.
        cosines: ``[pairs]`` of the two texts' embeddings.

    Returns:
        ``text_pairs``; ``text_bleu_correct_{n}``, ``text_bleu_total_{n}`` (n-grams that match, and
        all that were predicted), ``text_bleu_predicted_length``, ``text_bleu_reference_length`` (tokens);
        ``text_rouge_l_sum``, ``text_meteor_sum`` and ``text_word_pairs``, the pairs behind them; ``text_cider_d_sum``
        and ``text_cider_d_pairs``; with cosines ``text_similarity_sum`` and ``text_similarity_pairs``.

    Raises:
        DataError: numbers of texts or cosines differ, a cosine is not finite, or the frequencies hold no document.
        UsageError: rouge-score or nltk is not installed.
    """
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predicted texts stand against {len(references)} reference texts.")
    if references and not frequencies.documents:
        raise DataError("The document frequencies count no document; take them from all references of the evaluation.")
    rouge_l, meteor = _rouge_l(), _meteor()
    f_measures, meteors, ciders = [], [], []
    for prediction, reference in zip(predictions, references, strict=True):
        if words(reference):
            f_measures.append(rouge_l.score(reference, prediction)["rougeL"].fmeasure)
            meteors.append(meteor(words(reference), words(prediction)))
        cider = _cider_d(_stems(prediction), _stems(reference), frequencies)
        if cider is not None:
            ciders.append(cider)
    # fsum is exact, so the order of the pairs leaves no trace.
    counts = {
        "text_pairs": float(len(references)),
        **bleu_counts(predictions, references, "text"),
        "text_word_pairs": float(len(f_measures)),
        "text_rouge_l_sum": math.fsum(f_measures),
        "text_meteor_sum": math.fsum(meteors),
        "text_cider_d_pairs": float(len(ciders)),
        "text_cider_d_sum": math.fsum(ciders),
    }
    if cosines is None:
        return counts
    values = np.asarray(cosines, np.float64)
    if values.shape != (len(references),) or not np.isfinite(values).all():
        raise DataError(f"Cosines {values.shape} must be {len(references)} finite numbers, one for each pair of texts.")
    return counts | {
        "text_similarity_pairs": float(len(values)),
        "text_similarity_sum": math.fsum(values.tolist()),
    }


def text_figures(sums: Sums) -> Figures:
    """The figures of added counts.

    Args:
        sums: those of :func:`text_counts`, each a number or ``[draws]``, all of one shape.

    Returns:
        ``text_bleu1`` to ``text_bleu4`` (0 to 100), ``text_rouge_l``, ``text_meteor`` (0 to 1), ``text_cider_d`` (0 to
        10), and ``text_similarity`` where its sums are there; each of the sums' shape, NaN where no pair counts.
    """
    figures = bleu_figures(sums, "text")
    figures["text_rouge_l"] = ratio(sums["text_rouge_l_sum"], sums["text_word_pairs"])
    figures["text_meteor"] = ratio(sums["text_meteor_sum"], sums["text_word_pairs"])
    figures["text_cider_d"] = ratio(sums["text_cider_d_sum"], sums["text_cider_d_pairs"])
    if "text_similarity_sum" in sums:
        figures["text_similarity"] = ratio(sums["text_similarity_sum"], sums["text_similarity_pairs"])
    return figures


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Distinct-n: how many n-grams of words differ, of all that were said (Li et al., 2016); None if there is none.

    No n-gram spans two texts. It falls with the amount of text, so compare texts of like size only.

    Raises:
        UsageError: n is not positive.
    """
    if n < 1:
        raise UsageError(f"distinct-{n} counts nothing; give n of 1 or more.")
    said = [ngram for text in texts for ngram in _ngrams(words(text), n)]
    return len(set(said)) / len(said) if said else None


def words(text: str) -> list[str]:
    """The words of a text, lowercased: what rouge-score takes for its tokens, not yet stemmed."""
    return WORD.findall(text.lower())


def _ngrams(tokens: list[str], order: int) -> Iterator[Ngram]:
    return zip(*(tokens[start:] for start in range(order)), strict=False)


def bleu_counts(predictions: Sequence[str], references: Sequence[str], name: str) -> Counts:
    """``{name}_bleu_correct_{n}``, ``_total_{n}``, ``_predicted_length`` and ``_reference_length`` of text pairs."""
    correct, predicted, length, reference_length = [0] * 4, [0] * 4, 0, 0
    if references:
        pooled = BLEU(effective_order=True).corpus_score(list(predictions), [list(references)])
        correct, predicted, length, reference_length = pooled.counts, pooled.totals, pooled.sys_len, pooled.ref_len
    return {
        **{f"{name}_bleu_correct_{order}": float(correct[order - 1]) for order in ORDERS},
        **{f"{name}_bleu_total_{order}": float(predicted[order - 1]) for order in ORDERS},
        f"{name}_bleu_predicted_length": float(length),
        f"{name}_bleu_reference_length": float(reference_length),
    }


def bleu_figures(sums: Sums, name: str) -> Figures:
    """``{name}_bleu1`` to ``{name}_bleu4``: corpus BLEU of highest order 1 to 4 (Papineni et al., 2002).

    The numbers are sacrebleu's, for all draws at once. Orders that the predictions are too short for do not count
    (effective order). An order without a match is smoothed: the k-th such order has k halvings of one match ("exp").
    Without any match the score is 0. Precisions are shares and not per cent, so that a text against itself has
    log 1 = 0 everywhere and exactly 100 in the end.
    """
    correct = np.stack([np.asarray(sums[f"{name}_bleu_correct_{order}"], np.float64) for order in ORDERS])
    predicted = np.stack([np.asarray(sums[f"{name}_bleu_total_{order}"], np.float64) for order in ORDERS])
    length = np.asarray(sums[f"{name}_bleu_predicted_length"], np.float64)
    reference_length = np.asarray(sums[f"{name}_bleu_reference_length"], np.float64)
    used = predicted > 0
    unmatched = used & (correct == 0)
    smoothed = np.where(unmatched, 0.5 ** np.cumsum(unmatched, axis=0), correct)
    precision = np.divide(smoothed, predicted, out=np.ones_like(predicted), where=used)
    mean_log = np.cumsum(np.log(precision), axis=0) / np.maximum(np.cumsum(used, axis=0), 1)
    times_longer = np.divide(reference_length, length, out=np.full(length.shape, np.inf), where=length > 0)
    brevity = np.exp(np.minimum(1 - times_longer, 0.0))
    score = np.where(correct[0] > 0, 100 * brevity * np.exp(mean_log), 0.0)
    score = np.where(reference_length > 0, score, np.nan)
    return {f"{name}_bleu{order}": np.asarray(score[order - 1]) for order in ORDERS}


def _cider_d(prediction: list[str], reference: list[str], frequencies: DocumentFrequencies) -> float | None:
    """CIDEr-D of one pair of stemmed texts (Vedantam et al., 2015), 0 to 10.

    For each order a cosine of the two vectors count x weight, where a prediction's entry counts up to the reference's
    only; times a Gaussian of the difference in length (sigma 6 words). Counts are not divided by length, as in the
    authors' code. The mean runs over the orders in which the reference has a weight: their code always divides by 4,
    so that an utterance of two words could reach 5 at most. From four words on the two agree, unless an order holds
    nothing but n-grams of every document. None where no order has a weight.
    """
    cosines = []
    for order in ORDERS:
        wanted = _weighted(reference, order, frequencies)
        wanted_square = sum(weight * weight for weight in wanted.values())
        if not wanted_square:
            continue
        said = _weighted(prediction, order, frequencies)
        product = sum(min(said.get(ngram, 0.0), weight) * weight for ngram, weight in wanted.items())
        if product:
            # One root of the product, not two: the root of a square is exact, and so is 1 for equal texts.
            product /= math.sqrt(wanted_square * sum(weight * weight for weight in said.values()))
        cosines.append(product)
    if not cosines:
        return None
    apart = len(prediction) - len(reference)
    return CIDER_SCALE * math.exp(-(apart**2) / (2 * CIDER_SIGMA**2)) * sum(cosines) / len(cosines)


def _weighted(stems: list[str], order: int, frequencies: DocumentFrequencies) -> dict[Ngram, float]:
    return {ngram: count * frequencies.weight(ngram) for ngram, count in Counter(_ngrams(stems, order)).items()}


class _Stemmer:
    """Porter's stemmer that remembers: stemming is slow, and utterances share most of their words."""

    def __init__(self) -> None:
        try:
            from nltk.stem.porter import PorterStemmer
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        self.stem = functools.lru_cache(maxsize=1 << 16)(PorterStemmer().stem)


_stemmer = functools.cache(_Stemmer)


def _stems(text: str) -> list[str]:
    stemmer = _stemmer()
    return [stemmer.stem(word) for word in words(text)]


def _rouge_l() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenize import tokenize
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    stemmer = _stemmer()

    class Tokenizer:
        """What ``use_stemmer=True`` does, with the stemmer that remembers."""

        def tokenize(self, text: str) -> list[str]:
            return list(tokenize(text, stemmer))

    return RougeScorer(["rougeL"], tokenizer=Tokenizer())


class _NoSynonyms:
    """In place of WordNet, whose data would have to be downloaded: nothing has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        return []


def _meteor() -> Any:
    try:
        from nltk.translate.meteor_score import single_meteor_score
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return functools.partial(single_meteor_score, stemmer=_stemmer(), wordnet=_NoSynonyms())


def _missing(error: ModuleNotFoundError) -> UsageError:
    return missing("A text metric", str(error.name), "eval")
