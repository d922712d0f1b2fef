"""Stream matching: which predicted utterance stands for which reference, by content and time (the ProAssist paper's).

A prediction on frame i and a frame j may be matched where ``l <= j - i <= r`` (the source's window). A pair costs
``1 - |cos|`` of the two texts' embeddings (1 where frame j is silent) plus ``0.3 |i - j|^1.5 / max(|l|, r)^1.5``.
Predictions are matched with frames so that the sum is least. One given to a silent frame is redundant, a reference that
nobody is given to is missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import Counts, Figures, Sums, precision_recall, ratio

# Seconds (l, r) that a reference may lie before and after a prediction: j - i.
WINDOWS_S = {
    "ego4d": (-4.0, 8.5),
    "epickitchens": (-1.5, 3.0),
    "holoassist": (-1.5, 2.5),
    "egoexolearn": (-2.0, 3.5),
    "assembly101": (-2.0, 4.0),
    "wtag": (-3.0, 6.0),
}
DISTANCE_WEIGHT = 0.3
DISTANCE_POWER = 1.5
# A matched pair is correct where its cosine is over this.
CORRECT_COSINE = 0.5
# Predictions that are assigned in one call: the solver's time grows with their square.
ROWS_PER_CALL = 256


@dataclass(frozen=True)
class StreamMatch:
    """The matching of one session.

    Args:
        matched: ``[pairs, 2]``, indices of prediction and reference, by prediction.
        cosines: ``[pairs]``, of the pairs' embeddings.
        offsets: ``[pairs]``, frames from the prediction to its reference.
        missed: indices of the references that nobody was given to.
        redundant: indices of the predictions that were given to a silent frame.
        cost: of the whole assignment.
    """

    matched: NDArray[np.int64]
    cosines: NDArray[np.float64]
    offsets: NDArray[np.int64]
    missed: NDArray[np.int64]
    redundant: NDArray[np.int64]
    cost: float

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``[pairs]``, which pairs say the same."""
        return self.cosines > CORRECT_COSINE


def window_frames(source: str, fps: float) -> tuple[int, int]:
    """The window (l, r) of a source in frames: ``int(seconds * fps)``.

    Raises:
        DataError: the source has no window.
    """
    if source not in WINDOWS_S:
        raise DataError(f"{source!r} has no matching window; known are {', '.join(WINDOWS_S)}.")
    left, right = WINDOWS_S[source]
    return int(left * fps), int(right * fps)


def match_stream(
    predicted: Sequence[int],
    reference: Sequence[int],
    predicted_embeddings: ArrayLike,
    reference_embeddings: ArrayLike,
    frames: int,
    window: tuple[int, int],
) -> StreamMatch:
    """Match the predicted utterances of a session with its references, in time linear in their number.

    Only pairs inside the window exist, so the costs are a sparse matrix, predictions x frames. It is solved in parts of
    some hundred predictions, and parts that want the same frame are solved together, so the whole is exact. Every
    prediction can take its own frame, so an assignment always exists.

    Args:
        predicted, reference: frames of the utterances, in order, each frame once.
        predicted_embeddings, reference_embeddings: ``[utterances, size]``, of any length but 0.
        frames: of the session.
        window: ``(l, r)`` in frames, ``l <= 0 <= r``.

    Raises:
        DataError: frames out of order or outside of the session, embeddings that do not fit, a window without 0.
    """
    guess, truth = _frames(predicted, frames, "predicted"), _frames(reference, frames, "reference")
    left, right = window
    if not left <= 0 <= right:
        raise DataError(f"The window ({left}, {right}) must hold 0: a prediction may always stand for its own frame.")
    ours = _unit(predicted_embeddings, len(guess), "predicted")
    theirs = _unit(reference_embeddings, len(truth), "reference")
    if len(guess) and len(truth) and ours.shape[1] != theirs.shape[1]:
        raise DataError(f"Embeddings have {ours.shape[1]} and {theirs.shape[1]} numbers: take both from one encoder.")
    if not len(guess):
        nothing = np.zeros(0, np.int64)
        return StreamMatch(np.zeros((0, 2), np.int64), np.zeros(0), nothing, np.arange(len(truth)), nothing, 0.0)

    parts: list[_Part] = []
    for begin, end in _spans(guess):
        part = _assign(begin, end, guess, truth, ours, theirs, frames, window)
        # Parts that may take the same frames are a relaxation: its cost is a lower bound, and where no frame is taken
        # twice the parts together are the optimum. Where one is, the two are assigned together.
        while _clash(parts, part, guess, window):
            part = _assign(parts.pop().begin, end, guess, truth, ours, theirs, frames, window)
        parts.append(part)
    chosen = np.concatenate([part.chosen for part in parts])
    place = np.searchsorted(truth, chosen)
    found = np.where(np.append(truth, -1)[place] == chosen, place, -1)
    hit = np.flatnonzero(found >= 0)
    pairs = np.stack([hit, found[hit]], axis=1)
    return StreamMatch(
        matched=pairs,
        cosines=np.einsum("ij,ij->i", ours[pairs[:, 0]], theirs[pairs[:, 1]]),
        offsets=truth[pairs[:, 1]] - guess[pairs[:, 0]],
        missed=np.setdiff1d(np.arange(len(truth)), pairs[:, 1]),
        redundant=np.flatnonzero(found < 0),
        cost=sum(part.cost for part in parts),
    )


@dataclass(frozen=True)
class _Part:
    """The assignment of predictions ``begin`` to ``end``: the frame of each, and the cost."""

    begin: int
    end: int
    chosen: NDArray[np.int64]
    cost: float


def _spans(guess: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Predictions ``begin`` to ``end`` that are assigned together, ended at the longest pause of their latter half."""
    begin = 0
    while len(guess) - begin > ROWS_PER_CALL:
        half = begin + max(ROWS_PER_CALL // 2, 1)
        end = half + int(np.argmax(np.diff(guess[half - 1 : begin + ROWS_PER_CALL + 1])))
        yield begin, end
        begin = end
    yield begin, len(guess)


def _clash(parts: list[_Part], part: _Part, guess: NDArray[np.int64], window: tuple[int, int]) -> bool:
    """Whether ``part`` takes a frame that one of the parts before it has taken."""
    left, right = window
    for earlier in reversed(parts):
        if guess[earlier.end - 1] + right < guess[part.begin] + left:
            return False
        if np.isin(part.chosen, earlier.chosen).any():
            return True
    return False


def _assign(
    begin: int,
    end: int,
    all_predicted: NDArray[np.int64],
    truth: NDArray[np.int64],
    all_ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    frames: int,
    window: tuple[int, int],
) -> _Part:
    """Predictions ``begin`` to ``end`` with frames at the least cost, as if they were alone."""
    guess, ours = all_predicted[begin:end], all_ours[begin:end]
    left, right = window
    offsets = np.arange(left, right + 1)
    row = np.repeat(np.arange(len(guess)), len(offsets))
    column = (guess[:, None] + offsets).ravel()
    inside = (column >= 0) & (column < frames)
    row, column = row[inside], column[inside]
    place = np.searchsorted(truth, column)
    spoken = np.append(truth, -1)[place] == column
    cosine = np.zeros(len(row))
    cosine[spoken] = np.einsum("ij,ij->i", ours[row[spoken]], theirs[place[spoken]])
    furthest = max(-left, right)
    distance = np.abs(column - guess[row]) / furthest if furthest else np.zeros(len(row))
    cost = 1 - np.abs(cosine) + DISTANCE_WEIGHT * distance**DISTANCE_POWER
    # Every prediction takes one frame, so a constant changes nothing, but an edge of cost 0 would be no edge.
    used, index = np.unique(column, return_inverse=True)
    costs = csr_array((cost + 1.0, (row, index)), shape=(len(guess), len(used)))
    taken = min_weight_full_bipartite_matching(costs)[1]
    return _Part(begin, end, used[taken], float(costs[np.arange(len(guess)), taken].sum()) - len(guess))


def match_counts(match: StreamMatch, fps: float) -> Counts:
    """``matching_matched``, ``_correct``, ``_missed``, ``_redundant``, ``_distance_sum`` (seconds, correct pairs)."""
    return {
        "matching_matched": float(len(match.matched)),
        "matching_correct": float(match.correct.sum()),
        "matching_missed": float(len(match.missed)),
        "matching_redundant": float(len(match.redundant)),
        "matching_distance_sum": float(np.abs(match.offsets[match.correct]).sum() / fps),
    }


def match_figures(sums: Sums) -> Figures:
    """Scores of a source, pooled over its sessions.

    With M matched, C correct, X missed and R redundant utterances: precision C / (M + R), recall C / (M + X), their F1,
    Jaccard C / (M + X + R), missing rate X / (M + X), redundant rate R / (M + R), and over correct pairs the mean
    distance in seconds; each after ``matching_``. A ratio without a denominator is NaN: undefined, and not 0.
    """
    pairs, correct, missed, redundant = (
        np.asarray(sums[f"matching_{name}"], np.float64) for name in ("matched", "correct", "missed", "redundant")
    )
    return precision_recall("matching", correct, pairs + redundant, pairs + missed) | {
        "matching_jaccard": ratio(correct, pairs + missed + redundant),
        "matching_missing_rate": ratio(missed, pairs + missed),
        "matching_redundant_rate": ratio(redundant, pairs + redundant),
        "matching_time_diff_s": ratio(sums["matching_distance_sum"], correct),
    }


def _frames(given: Sequence[int], frames: int, name: str) -> NDArray[np.int64]:
    places = np.asarray(given, np.int64)
    if len(places) and (places[0] < 0 or places[-1] >= frames or (np.diff(places) <= 0).any()):
        raise DataError(f"{name} frames must rise, each once, between 0 and {frames - 1}.")
    return places


def _unit(given: ArrayLike, count: int, name: str) -> NDArray[np.float64]:
    """Embeddings of length 1, so that a product is a cosine."""
    vectors = np.asarray(given, np.float64) if count else np.zeros((0, 1))
    if vectors.ndim != 2 or len(vectors) != count:
        raise DataError(f"{name} embeddings are {list(vectors.shape)} for {count} utterances: give one vector each.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise DataError(f"{name} embeddings hold a vector that is 0 or not finite: it has no direction.")
    return vectors / lengths
