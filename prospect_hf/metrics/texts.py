"""Text metrics of pairs of a predicted and a reference utterance.

:func:`text_counts` gives the counts of one session and :func:`text_figures` the figures of their sums. BLEU pools
n-grams over the corpus; the other metrics are means over pairs.

Words are those of :mod:`prospect_hf.words`, of any script; words of ASCII characters are stemmed as English ones. BLEU
uses sacrebleu's 13a tokenizer, after each character of a script without blanks was set apart. A pair whose reference
has no word (for CIDEr-D: no n-gram with a weight) is left out of a metric's mean, whatever the prediction is. A
prediction equal to its reference has the highest score: 100 for BLEU, 1 for ROUGE-L, 10 for CIDEr-D, and
1 - 0.5 / words^3 for METEOR, whose chunk penalty is not 0 for a single chunk.
"""

from __future__ import annotations

import functools
import math
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
from prospect_hf.words import spaced, words

ORDERS = (1, 2, 3, 4)
CIDER_SIGMA = 6.0
CIDER_SCALE = 10.0

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class DocumentFrequencies:
    """Document frequencies of the n-grams of a corpus.

    Args:
        counts: n-gram of 1 to 4 stemmed words -> number of documents that contain it.
        documents: number of documents.
    """

    counts: Mapping[Ngram, int]
    documents: int

    def weight(self, ngram: Ngram) -> float:
        """Inverse document frequency (natural logarithm); an n-gram in no document weighs as one in one document."""
        return math.log(self.documents / max(self.counts.get(ngram, 0), 1))


def document_frequencies(references: Sequence[str]) -> DocumentFrequencies:
    """Document frequencies for :func:`text_counts`, from all reference texts of an evaluation, one document each.

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
    """The counts of one session, which may have no pair.

    - BLEU: sacrebleu, 13a tokens, case-sensitive.
    - ROUGE-L: F-measure of the package rouge-score, stemmed (Lin, 2004).
    - METEOR: nltk, exact and stem matches only, so that WordNet is not needed (Lavie and Agarwal, 2007).
    - CIDEr-D: Vedantam et al. (2015), see :func:`_cider_d`.

    Args:
        predictions, references: ``[pairs]`` texts; an empty prediction is silence.
        frequencies: document frequencies of all references of the evaluation, not only of this session.
        cosines: ``[pairs]`` cosine of the two texts' embeddings.

    Returns:
        ``text_pairs``; ``text_bleu_correct_{n}``, ``text_bleu_total_{n}`` (matched and predicted n-grams),
        ``text_bleu_predicted_length``, ``text_bleu_reference_length`` (tokens); ``text_rouge_l_sum``,
        ``text_meteor_sum`` and their number of pairs ``text_word_pairs``; ``text_cider_d_sum`` and
        ``text_cider_d_pairs``; with cosines also ``text_similarity_sum`` and ``text_similarity_pairs``.

    Raises:
        DataError: numbers of texts or cosines differ, a cosine is not finite, or ``frequencies`` has no document.
        UsageError: rouge-score or nltk is not installed.
    """
    if len(predictions) != len(references):
        raise DataError(f"There are {len(predictions)} predicted and {len(references)} reference texts; give pairs.")
    if references and not frequencies.documents:
        raise DataError("The document frequencies have no document; compute them from all references.")
    rouge_l, meteor = _rouge_l(), _meteor()
    f_measures, meteors, ciders = [], [], []
    for prediction, reference in zip(predictions, references, strict=True):
        if words(reference):
            f_measures.append(rouge_l.score(reference, prediction)["rougeL"].fmeasure)
            meteors.append(meteor(words(reference), words(prediction)))
        cider = _cider_d(_stems(prediction), _stems(reference), frequencies)
        if cider is not None:
            ciders.append(cider)
    # fsum is exact, so the sums do not depend on the order of the pairs.
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
        raise DataError(f"Cosines have shape {values.shape}; give {len(references)} finite numbers, one for each pair.")
    return counts | {
        "text_similarity_pairs": float(len(values)),
        "text_similarity_sum": math.fsum(values.tolist()),
    }


def text_figures(sums: Sums) -> Figures:
    """The figures of summed counts.

    Args:
        sums: sums of the counts of :func:`text_counts`, all scalars or all ``[draws]``.

    Returns:
        ``text_bleu1`` to ``text_bleu4`` (0 to 100), ``text_rouge_l``, ``text_meteor`` (0 to 1), ``text_cider_d`` (0 to
        10), and ``text_similarity`` where the sums contain it; in the shape of the sums, NaN without a pair.
    """
    figures = bleu_figures(sums, "text")
    figures["text_rouge_l"] = ratio(sums["text_rouge_l_sum"], sums["text_word_pairs"])
    figures["text_meteor"] = ratio(sums["text_meteor_sum"], sums["text_word_pairs"])
    figures["text_cider_d"] = ratio(sums["text_cider_d_sum"], sums["text_cider_d_pairs"])
    if "text_similarity_sum" in sums:
        figures["text_similarity"] = ratio(sums["text_similarity_sum"], sums["text_similarity_pairs"])
    return figures


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Distinct-n: distinct n-grams of words / all n-grams (Li et al., 2016); None without an n-gram.

    No n-gram spans two texts. Distinct-n falls with the amount of text, so compare sets of similar size only.

    Raises:
        UsageError: n is not positive.
    """
    if n < 1:
        raise UsageError(f"distinct-{n} is undefined; n must be 1 or more.")
    ngrams = [ngram for text in texts for ngram in _ngrams(words(text), n)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def _ngrams(tokens: list[str], order: int) -> Iterator[Ngram]:
    return zip(*(tokens[start:] for start in range(order)), strict=False)


def bleu_counts(predictions: Sequence[str], references: Sequence[str], name: str) -> Counts:
    """``{name}_bleu_correct_{n}``, ``_total_{n}``, ``_predicted_length`` and ``_reference_length`` of text pairs."""
    correct, predicted, length, reference_length = [0] * 4, [0] * 4, 0, 0
    if references:
        pooled = BLEU(effective_order=True).corpus_score(
            [spaced(text) for text in predictions], [[spaced(text) for text in references]]
        )
        correct, predicted, length, reference_length = pooled.counts, pooled.totals, pooled.sys_len, pooled.ref_len
    return {
        **{f"{name}_bleu_correct_{order}": float(correct[order - 1]) for order in ORDERS},
        **{f"{name}_bleu_total_{order}": float(predicted[order - 1]) for order in ORDERS},
        f"{name}_bleu_predicted_length": float(length),
        f"{name}_bleu_reference_length": float(reference_length),
    }


def bleu_figures(sums: Sums, name: str) -> Figures:
    """``{name}_bleu1`` to ``{name}_bleu4``: corpus BLEU with maximum order 1 to 4 (Papineni et al., 2002).

    Equal to sacrebleu, but vectorised over draws. Orders longer than all predictions do not count (effective order).
    The k-th order without a match counts as 2^-k matches ("exp" smoothing). Without any match the score is 0.
    Precisions are fractions and not percentages, so that equal texts have log 1 = 0 and a score of exactly 100.
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
    length_ratio = np.divide(reference_length, length, out=np.full(length.shape, np.inf), where=length > 0)
    brevity = np.exp(np.minimum(1 - length_ratio, 0.0))
    score = np.where(correct[0] > 0, 100 * brevity * np.exp(mean_log), 0.0)
    score = np.where(reference_length > 0, score, np.nan)
    return {f"{name}_bleu{order}": np.asarray(score[order - 1]) for order in ORDERS}


def _cider_d(prediction: list[str], reference: list[str], frequencies: DocumentFrequencies) -> float | None:
    """CIDEr-D of one pair of stemmed texts (Vedantam et al., 2015), 0 to 10.

    For each order: the cosine of the two vectors count x weight, with the prediction's entries clipped to the
    reference's, times a Gaussian of the difference in length (sigma 6 words). Counts are not divided by length, as in
    the authors' code. The mean is taken over the orders in which the reference has a weight; the authors' code always
    divides by 4, so that a text of two words reaches 5 at most. For references of four words or more the two agree,
    unless an order contains only n-grams that every document has. None where no order has a weight.
    """
    cosines = []
    for order in ORDERS:
        wanted = _weighted(reference, order, frequencies)
        wanted_square = sum(weight * weight for weight in wanted.values())
        if not wanted_square:
            continue
        predicted = _weighted(prediction, order, frequencies)
        product = sum(min(predicted.get(ngram, 0.0), weight) * weight for ngram, weight in wanted.items())
        if product:
            # One root of the product: the root of a square is exact, so equal texts give exactly 1.
            product /= math.sqrt(wanted_square * sum(weight * weight for weight in predicted.values()))
        cosines.append(product)
    if not cosines:
        return None
    length_difference = len(prediction) - len(reference)
    return CIDER_SCALE * math.exp(-(length_difference**2) / (2 * CIDER_SIGMA**2)) * sum(cosines) / len(cosines)


def _weighted(stems: list[str], order: int, frequencies: DocumentFrequencies) -> dict[Ngram, float]:
    return {ngram: count * frequencies.weight(ngram) for ngram, count in Counter(_ngrams(stems, order)).items()}


class _Stemmer:
    """Porter's stemmer with a cache: stemming is slow, and utterances share most of their words.

    Its rules are those of English, so words with other letters stay as they are.
    """

    def __init__(self) -> None:
        try:
            from nltk.stem.porter import PorterStemmer
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        self._porter = functools.lru_cache(maxsize=1 << 16)(PorterStemmer().stem)

    def stem(self, word: str) -> str:
        """The stem of an English word; any other word itself."""
        return self._porter(word) if word.isascii() else word


_stemmer = functools.cache(_Stemmer)


def _stems(text: str) -> list[str]:
    stemmer = _stemmer()
    return [stemmer.stem(word) for word in words(text)]


def _rouge_l() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    stemmer = _stemmer()

    class Tokenizer:
        """The tokenizer of ``use_stemmer=True`` for words of any script; it stems words of over three letters."""

        def tokenize(self, text: str) -> list[str]:
            return [stemmer.stem(word) if len(word) > 3 else word for word in words(text)]

    return RougeScorer(["rougeL"], tokenizer=Tokenizer())


class _NoSynonyms:
    """Replaces WordNet, whose data would have to be downloaded, by a dictionary without synonyms."""

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
