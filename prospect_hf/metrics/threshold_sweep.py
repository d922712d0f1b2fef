"""Precision, recall and F1 of a decision at every threshold, its events matched within a tolerance as in evaluation.

Each frame whose score reaches the threshold is one predicted event, also where several follow each other: a stream
speaks on each of them. Reference events are the frames with label 1. Frames with label -100 are no events (a stream
does not decide where the user speaks). Predicted and reference events of a session are matched one to one by
:func:`prospect_hf.metrics.events.match_events`, and pairs, predictions and references are summed over the sessions.

A lower threshold only adds predictions, and each one added makes the matching larger by one pair or by none. One that
adds no pair never will, whatever is added after it (sets of predictions that can all be paired form a matroid). So the
frames are taken once, by falling score, and each is tried in the neighbourhood of its reference events alone. 400,000
frames in 400 sessions take 0.8 seconds on one core with 5 % events, 1.9 with 10 %, and 14 with 30 %, where events form
long chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prospect_hf.metrics.counts import ratio
from prospect_hf.metrics.decisions import best_running, labelled_scores, running_counts, running_curve
from prospect_hf.metrics.events import match_events
from prospect_hf.sessions import IGNORE


@dataclass(frozen=True)
class AtThreshold:
    """A threshold, and the figures of the decision there; None where undefined."""

    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Sweep:
    """The counts of a decision at each distinct score as threshold, by falling threshold.

    Args:
        hits: ``[distinct]`` pairs of a predicted and a reference event.
        predicted: ``[distinct]`` predicted events.
        thresholds: ``[distinct]``.
        wanted: reference events.
    """

    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    wanted: int

    @property
    def frames(self) -> int:
        """Labelled frames."""
        return int(self.predicted[-1]) if len(self.predicted) else 0

    @property
    def undefined(self) -> str | None:
        """Why no threshold is better than another; None where one is."""
        if not self.frames:
            return "no frame has a label for it"
        if not self.wanted:
            return "no frame has the label yes"
        return "every frame has the label yes" if self.wanted == self.frames else None

    def best(self) -> AtThreshold | None:
        """The threshold with the highest F1, and of several the highest one; None where ``undefined`` says why.

        It lies halfway between two scores, so that rounding differences do not change decisions.
        """
        if self.undefined:
            return None
        return self.at(best_running(self.hits, self.predicted, self.thresholds, self.wanted)[0])

    def at(self, threshold: float) -> AtThreshold:
        """The figures at any threshold."""
        reached = int(np.searchsorted(-self.thresholds, -threshold, side="right"))
        hits, predicted = (int(counts[reached - 1]) if reached else 0 for counts in (self.hits, self.predicted))
        values = (ratio(hits, predicted), ratio(hits, self.wanted), ratio(2 * hits, predicted + self.wanted))
        return AtThreshold(threshold, *(None if np.isnan(value) else float(value) for value in values))

    def curve(self, points: int = 200) -> dict[str, list[float]]:
        """At most ``points`` points, as :func:`prospect_hf.metrics.decisions.precision_recall_curve` gives them."""
        return running_curve(self.hits, self.predicted, self.thresholds, self.wanted, points)


def sweep(sessions: Sequence[tuple[ArrayLike, ArrayLike]], tolerance_frames: int) -> Sweep:
    """The counts at every threshold.

    Args:
        sessions: of each session the scores ``[frames]``, which are probabilities of "yes" or any other numbers, and
            the labels ``[frames]``: 1, 0 or -100.
        tolerance_frames: events at most this far apart can be a pair.

    Raises:
        DataError: shapes differ, a label is not 1, 0 or -100, a labelled score is NaN, or the tolerance is negative.
    """
    found = [labelled_scores(scores, labels) for scores, labels in sessions]
    # One time line; between two sessions lies a gap that no pair can span.
    lengths = [len(np.asarray(labels)) + tolerance_frames + 1 for _, labels in sessions]
    places = [
        start + np.flatnonzero(np.asarray(labels) != IGNORE)
        for start, (_, labels) in zip(np.cumsum([0, *lengths])[:-1], sessions, strict=True)
    ]
    score = np.concatenate([np.zeros(0), *(one for one, _ in found)])
    truth = np.concatenate([np.zeros(0, bool), *(one for _, one in found)])
    place = np.concatenate([np.zeros(0, np.int64), *places])
    pairing = adds_a_pair(place, score, place[truth], tolerance_frames)
    return Sweep(*running_counts(score, pairing), int(truth.sum()))


def adds_a_pair(
    places: NDArray[np.int64], scores: NDArray[np.float64], references: NDArray[np.int64], tolerance_frames: int
) -> NDArray[np.bool_]:
    """Of each predicted event, whether it adds a pair when the events are let in by falling score, ``[predictions]``.

    Args:
        places: ``[predictions]`` frames on a time line.
        scores: ``[predictions]``.
        references: frames of the reference events, rising.
        tolerance_frames: as in ``match_events``.

    Raises:
        DataError: the tolerance is negative.
    """
    match_events([], [], tolerance_frames)  # checks the tolerance
    adds = np.zeros(len(places), bool)
    if not len(references):
        return adds
    # No event can be paired with references of two groups, so that groups do not depend on each other.
    group_of = np.concatenate([[0], np.cumsum(np.diff(references) > 2 * tolerance_frames)])
    starts = np.flatnonzero(np.diff(group_of, prepend=-1))
    after = np.searchsorted(references, places)
    nearest = np.minimum(
        np.abs(references[np.minimum(after, len(references) - 1)] - places),
        np.abs(places - references[np.maximum(after - 1, 0)]),
    )
    order = np.argsort(-scores, kind="stable")
    order = order[nearest[order] <= tolerance_frames]
    first_at = np.searchsorted(references, places[order] - tolerance_frames)
    groups = group_of[first_at]
    sizes = np.diff(starts, append=len(references))
    # A group of one reference event takes the first prediction near it.
    alone = sizes[groups] == 1
    adds[order[alone][np.unique(groups[alone], return_index=True)[1]]] = True
    paired: dict[int, list[int]] = {}
    for index, group in zip(order[~alone].tolist(), groups[~alone].tolist(), strict=True):
        held = paired.setdefault(group, [])
        size = int(sizes[group])
        if len(held) < size:
            wanted = references[starts[group] : starts[group] + size].tolist()
            if len(match_events([*held, places[index]], wanted, tolerance_frames)) > len(held):
                held.append(int(places[index]))
                adds[index] = True
    return adds
