"""Metrics of events in time (utterances, state changes): precision, recall, F1 and delay within a tolerance.

Predicted and reference events are matched one to one. ``tolerance_frames`` is in frames; a suffix such as ``_1s`` in a
count's name is a tolerance in seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import Counts, Figures, Sums, precision_recall, ratio

Transition = tuple[int, int, Hashable]  # frame, step, new state


def match_events(
    predicted_frames: Sequence[int], reference_frames: Sequence[int], tolerance_frames: int
) -> list[tuple[int, int]]:
    """Match predicted events one to one with reference events at most ``tolerance_frames`` apart.

    The matching has the largest number of pairs, and among those the smallest total distance, so that a second
    prediction near a reference does not distort the delay. On a time line such a matching exists without crossing
    pairs, so it is found by dynamic programming like an edit distance, in O(predicted * reference) for each run of
    nearby events.

    Args:
        predicted_frames, reference_frames: frame indices in any order; a frame may occur twice.
        tolerance_frames: 0 or more.

    Returns:
        (predicted frame, reference frame) of each pair, by time.

    Raises:
        DataError: the tolerance is negative.
    """
    if tolerance_frames < 0:
        raise DataError(f"The tolerance is {tolerance_frames} frames; it must be 0 or more.")
    predicted = np.sort(np.asarray(predicted_frames, dtype=np.int64))
    reference = np.sort(np.asarray(reference_frames, dtype=np.int64))
    every = np.sort(np.concatenate([predicted, reference]))
    cuts = every[1:][np.diff(every) > tolerance_frames]  # no pair spans a gap wider than the tolerance
    pairs: list[tuple[int, int]] = []
    ours = np.split(predicted, np.searchsorted(predicted, cuts))
    theirs = np.split(reference, np.searchsorted(reference, cuts))
    for some, others in zip(ours, theirs, strict=True):
        if len(some) and len(others):
            pairs += _match_run(some, others, tolerance_frames)
    return pairs


def _match_run(predicted: np.ndarray, reference: np.ndarray, tolerance_frames: int) -> list[tuple[int, int]]:
    # One more pair outweighs any total distance.
    pair_worth = (tolerance_frames + 1) * (min(len(predicted), len(reference)) + 1)
    worth = np.zeros((len(predicted) + 1, len(reference) + 1), dtype=np.int64)
    for row, frame in enumerate(predicted):
        distance = np.abs(reference - frame)
        gain = np.where(distance <= tolerance_frames, pair_worth - distance, -pair_worth)
        paired = np.maximum(worth[row, 1:], worth[row, :-1] + gain)
        worth[row + 1, 1:] = np.maximum.accumulate(paired)
    pairs: list[tuple[int, int]] = []
    row, column = len(predicted), len(reference)
    while row and column:
        if worth[row, column] == worth[row - 1, column]:
            row -= 1
        elif worth[row, column] == worth[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((int(predicted[row]), int(reference[column])))
    return pairs[::-1]


def match_transitions(
    predicted: Sequence[Transition], reference: Sequence[Transition], tolerance_frames: int
) -> list[tuple[int, int]]:
    """Match state transitions as :func:`match_events` does; only transitions of one step to one state can match.

    Args:
        predicted, reference: transitions (frame, step, new state).
        tolerance_frames: 0 or more.

    Returns:
        (predicted frame, reference frame) of each pair, grouped by step and state.

    Raises:
        DataError: the tolerance is negative.
    """
    ours, theirs = _by_kind(predicted), _by_kind(reference)
    return [
        pair
        for kind in ours.keys() & theirs.keys()
        for pair in match_events(ours[kind], theirs[kind], tolerance_frames)
    ]


def _by_kind(transitions: Sequence[Transition]) -> dict[tuple[int, Hashable], list[int]]:
    kinds: dict[tuple[int, Hashable], list[int]] = defaultdict(list)
    for frame, step, state in transitions:
        kinds[step, state].append(frame)
    return kinds


def event_counts(
    pairs_within: dict[int, list[tuple[int, int]]], predictions: int, references: int, fps: float, name: str
) -> Counts:
    """The counts of one session's events.

    Args:
        pairs_within: tolerance in seconds -> the matched (predicted, reference) frames.
        predictions, references: number of predicted and of reference events.
        fps: frames per second.
        name: prefix of the counts, "speaking", "dst_update" or "transition".

    Returns:
        ``{name}_predictions``, ``{name}_references``, ``{name}_matched_{t}s`` for each tolerance; and over the pairs
        within the widest tolerance ``{name}_delay_sum`` (predicted - reference) and ``{name}_distance_sum``
        (absolute), in seconds.
    """
    widest = max(pairs_within)
    delays = [(predicted - reference) / fps for predicted, reference in pairs_within[widest]]
    return {
        f"{name}_predictions": float(predictions),
        f"{name}_references": float(references),
        **{f"{name}_matched_{seconds}s": float(len(pairs)) for seconds, pairs in pairs_within.items()},
        f"{name}_delay_sum": float(sum(delays)),
        f"{name}_distance_sum": float(sum(map(abs, delays))),
    }


def event_figures(sums: Sums, tolerances_s: Sequence[int], name: str) -> Figures:
    """``{name}_precision_{t}s``, ``_recall_{t}s`` and ``_f1_{t}s`` for each tolerance; and over the pairs within the
    widest tolerance the means ``{name}_delay_s`` (positive: predicted late) and ``{name}_abs_delay_s``, in seconds.
    """
    figures: Figures = {}
    predictions, references = sums[f"{name}_predictions"], sums[f"{name}_references"]
    for seconds in tolerances_s:
        figures |= precision_recall(name, sums[f"{name}_matched_{seconds}s"], predictions, references, f"_{seconds}s")
    matched = sums[f"{name}_matched_{max(tolerances_s)}s"]
    figures[f"{name}_delay_s"] = ratio(sums[f"{name}_delay_sum"], matched)
    figures[f"{name}_abs_delay_s"] = ratio(sums[f"{name}_distance_sum"], matched)
    return figures
