"""Stream matching: assigns predicted utterances to reference utterances by content and time (ProAssist paper).

A prediction on frame i can be assigned to frame j where ``l <= j - i <= r``, the window of the source. The cost is
``1 - |cos|`` of the two embeddings (1 where frame j has no reference) plus ``0.3 |i - j|^1.5 / max(|l|, r)^1.5``.
The assignment minimises the total cost. A prediction assigned to a frame without reference is redundant; a reference
without an assigned prediction is missed.
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

# Smallest and largest offset (l, r) of a reference from its prediction, in seconds.
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
# A matched pair is correct where its cosine is greater than this.
CORRECT_COSINE = 0.5
# Largest number of predictions in one call of the solver, whose time grows with its square.
ROWS_PER_CALL = 256


@dataclass(frozen=True)
class StreamMatch:
    """The matching of one session.

    Args:
        matched: ``[pairs, 2]`` indices (prediction, reference), sorted by prediction.
        cosines: ``[pairs]`` cosine of the two embeddings.
        offsets: ``[pairs]`` offset of the reference from its prediction, in frames.
        missed: indices of the references without a prediction.
        redundant: indices of the predictions without a reference.
        cost: total cost of the assignment.
    """

    matched: NDArray[np.int64]
    cosines: NDArray[np.float64]
    offsets: NDArray[np.int64]
    missed: NDArray[np.int64]
    redundant: NDArray[np.int64]
    cost: float

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``[pairs]``: whether the texts of a pair have the same meaning, by their cosine."""
        return self.cosines > CORRECT_COSINE


def window_frames(source: str, fps: float) -> tuple[int, int]:
    """The window (l, r) of a source in frames, ``int(seconds * fps)``.

    Raises:
        DataError: the source has no window.
    """
    if source not in WINDOWS_S:
        raise DataError(f"The source {source!r} has no matching window; known are {', '.join(WINDOWS_S)}.")
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

    Costs exist only inside the window, so they form a sparse matrix ``[predictions, frames]``. It is solved in parts of
    a few hundred predictions. Parts that assign the same frame are solved again together, so the result is the exact
    optimum. A prediction can always be assigned to its own frame, so an assignment always exists.

    Args:
        predicted, reference: frames of the utterances, strictly increasing.
        predicted_embeddings, reference_embeddings: ``[utterances, size]`` vectors, not 0; they are normalised here.
        frames: number of frames of the session.
        window: ``(l, r)`` in frames, ``l <= 0 <= r``.

    Raises:
        DataError: frames are out of order or outside the session, embeddings have a wrong shape, or the window does not
            contain 0.
    """
    guess, truth = _frames(predicted, frames, "predicted"), _frames(reference, frames, "reference")
    left, right = window
    if not left <= 0 <= right:
        raise DataError(f"The window ({left}, {right}) must contain 0, the frame of the prediction.")
    ours = _unit(predicted_embeddings, len(guess), "predicted")
    theirs = _unit(reference_embeddings, len(truth), "reference")
    if len(guess) and len(truth) and ours.shape[1] != theirs.shape[1]:
        raise DataError(f"Embeddings have sizes {ours.shape[1]} and {theirs.shape[1]}: use one encoder for both.")
    if not len(guess):
        nothing = np.zeros(0, np.int64)
        return StreamMatch(np.zeros((0, 2), np.int64), np.zeros(0), nothing, np.arange(len(truth)), nothing, 0.0)

    parts: list[_Part] = []
    for begin, end in _spans(guess):
        part = _assign(begin, end, guess, truth, ours, theirs, frames, window)
        # Parts solved separately are a relaxation, whose cost is a lower bound. Where no frame is assigned twice, they
        # form the optimum; otherwise the two parts are solved together.
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
    """The assignment of predictions ``begin`` to ``end`` (exclusive): ``chosen`` is the frame of each."""

    begin: int
    end: int
    chosen: NDArray[np.int64]
    cost: float


def _spans(guess: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of predictions to solve together; each ends at the longest pause in the second half of its maximum."""
    begin = 0
    while len(guess) - begin > ROWS_PER_CALL:
        half = begin + max(ROWS_PER_CALL // 2, 1)
        end = half + int(np.argmax(np.diff(guess[half - 1 : begin + ROWS_PER_CALL + 1])))
        yield begin, end
        begin = end
    yield begin, len(guess)


def _clash(parts: list[_Part], part: _Part, guess: NDArray[np.int64], window: tuple[int, int]) -> bool:
    """Whether ``part`` uses a frame that an earlier part uses."""
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
    """Assign predictions ``begin`` to ``end`` (exclusive) to frames at minimum cost, ignoring the other predictions."""
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
    # Adding 1 to every cost does not change the optimum; a stored cost of 0 would count as a missing edge.
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
    """The stream matching scores of summed counts, each with prefix ``matching_``, NaN where undefined.

    With M matched, C correct, X missed and R redundant utterances: precision C / (M + R), recall C / (M + X), F1,
    Jaccard C / (M + X + R), missing rate X / (M + X), redundant rate R / (M + R), and the mean distance of correct
    pairs in seconds.
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
        raise DataError(f"{name} frames must be strictly increasing and between 0 and {frames - 1}.")
    return places


def _unit(given: ArrayLike, count: int, name: str) -> NDArray[np.float64]:
    """Embeddings scaled to length 1, so that dot products are cosines."""
    vectors = np.asarray(given, np.float64) if count else np.zeros((0, 1))
    if vectors.ndim != 2 or len(vectors) != count:
        raise DataError(f"{name} embeddings have shape {list(vectors.shape)}; give one vector for each of {count}.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise DataError(f"{name} embeddings contain a vector that is 0 or not finite: encode the texts again.")
    return vectors / lengths
