"""Metric module for the library evaluate: in which chunks of time the assistant speaks."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from prospect_hf.metrics.chunks import CHUNK_S, chunk_counts, chunk_figures
from prospect_hf.metrics.counts import plain, total

_DESCRIPTION = """
A session is cut into chunks of 8 seconds from its first frame; the last one may be shorter. A chunk is positive where
the assistant speaks in it. Macro-F1 over chunks with and without speech, and precision, recall and F1 of those with
speech, pooled over sessions. A chunk without a labelled frame is left out. Undefined figures are None.
"""
_INPUTS = """
Args:
    predictions: one list per session: 1 on each frame on which the assistant speaks, otherwise 0.
    references: lists of the same lengths: 1, 0, or -100 for a frame without label.
    fps: frames per second; 2.0 by default.
    seconds: length of a chunk; 8 by default.
Returns:
    macro_f1, precision, recall, f1.
Examples:
    >>> metric = evaluate.load("speaking_chunks")
    >>> metric.compute(predictions=[[0, 1, 0, 0]], references=[[1, 0, 0, 0]], fps=0.25)["macro_f1"]
    1.0
"""


class SpeakingChunks(evaluate.Metric):
    """``prospect_hf.metrics.chunks``."""

    def _info(self) -> evaluate.MetricInfo:
        frames = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": frames, "references": frames}),
        )

    def _compute(
        self,
        predictions: list[list[int]],
        references: list[list[int]],
        fps: float = 2.0,
        seconds: float = CHUNK_S,
    ) -> dict[str, Any]:
        pairs = zip(predictions, references, strict=True)
        sums = total(chunk_counts(ours, theirs, fps, seconds) for ours, theirs in pairs)
        return {name.removeprefix("chunk_"): value for name, value in plain(chunk_figures(sums)).items()}
