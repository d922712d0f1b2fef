"""Simple ways to label the steps of a video, for comparison with the aligners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from label_truth import TruthVideo
from numpy.typing import NDArray

from prospect_hf.align.segmental import Prices, SegmentalModel, run_sums
from prospect_hf.align.semantic import Evidence, Parameters, gather, run_features, segmental_model, unrelated
from prospect_hf.align.similarity import Encode
from prospect_hf.labels.spans import Span

# Scores times this: all draws are the best path then, except where another is as good.
COLD = 1000.0


def known_owners(video: TruthVideo) -> list[Span]:
    """The segments under their true steps: what the segments' own times allow, at best."""
    return video.spans_of(video.owners)


def equal_parts(video: TruthVideo) -> list[Span]:
    """The time from the first start to the last end of a segment, in as many equal parts as the plan has steps."""
    starts, ends = video.lines[0].start, max(line.end or line.start for line in video.lines)
    edges = np.linspace(starts, ends, len(video.task.steps) + 1)
    return [Span(step, float(edges[step]), float(edges[step + 1])) for step in range(len(video.task.steps))]


def nearest_text(video: TruthVideo, encode: Encode) -> list[Span]:
    """Each segment to the step whose embedding is most similar to its own."""
    return video.spans_of(_evidence(video, encode).meaning.argmax(1))


def trial(video: TruthVideo, encode: Encode) -> list[Span]:
    """The best path of a segmental model with weights that were guessed.

    It knows the similarity centred per segment, the logarithm of a run's length, and pauses of up to 5 s.
    """
    evidence = _evidence(video, encode)
    features = run_features(evidence)
    similarity = evidence.meaning - evidence.meaning.mean(1, keepdims=True)
    scores = run_sums(similarity, features["meaning"].shape[1])
    scores = scores - 0.1 * features["length_squared"] + 0.3 * features["pause"]
    never = np.full(len(similarity), -1e6)
    return video.spans_of(_best(SegmentalModel(COLD * scores, never, Prices(COLD, COLD, COLD))))


def best_path(video: TruthVideo, encode: Encode, parameters: Parameters) -> list[Span]:
    """The most probable path of the semantic aligner's model, which is not what the aligner answers."""
    evidence = _evidence(video, encode)
    warm = segmental_model(evidence, run_features(evidence), parameters)
    off = unrelated(evidence.meaning, parameters)
    prices = Prices(COLD * parameters.skip, COLD * parameters.revisit, COLD * parameters.off)
    return video.spans_of(_best(SegmentalModel(COLD * warm.scores, COLD * off, prices)))


def _best(cold: SegmentalModel) -> NDArray[np.int64]:
    return cold.sample(1)[0]


def _evidence(video: TruthVideo, encode: Encode) -> Evidence:
    steps: Sequence[str] = [step.text for step in video.task.steps]
    return gather(video.lines, steps, encode)
