"""Metrics of the step states per frame: joint and step accuracy, macro-F1, transitions and illegal transitions.

Cells with label -100 are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import Counts, Figures, Sums, plain, ratio, total
from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS, NOT_STARTED

STATES = (NOT_STARTED, IN_PROGRESS, COMPLETED)


def state_counts(predicted: ArrayLike, reference: ArrayLike, name: str = "", before: ArrayLike | None = None) -> Counts:
    """The counts of one session's states.

    Args:
        predicted: ``[frames, steps]`` states 0, 1, 2.
        reference: the same shape, -100 without label. A frame counts where at least one of its steps has a label.
        name: prefix of each count's name.
        before: ``[steps]`` reference states before the first frame; without it, the first frame is not an update.

    Returns:
        ``state_frames``, ``state_right`` (frames with all labelled steps correct), ``state_updates`` (frames whose
        reference differs from the previous frame), ``state_right_at_updates``, and ``state_{r}{p}``, the number of
        (frame, step) cells with reference state r and predicted state p.

    Raises:
        DataError: shapes differ, or a value is not a state.
    """
    guess, truth = state_tables(predicted, reference)
    labelled = truth != IGNORE
    right, counts = np.all((guess == truth) | ~labelled, axis=1), np.any(labelled, axis=1)
    first = truth[:1] if before is None else np.asarray(before, np.int64)[None]
    earlier = np.vstack([first, truth])[: len(truth)]
    changed = np.any((truth != earlier) & labelled & (earlier != IGNORE), axis=1)
    cells = np.bincount(3 * truth[labelled] + guess[labelled], minlength=9)
    return {
        f"{name}state_frames": float(counts.sum()),
        f"{name}state_right": float(np.sum(right & counts)),
        f"{name}state_updates": float(changed.sum()),
        f"{name}state_right_at_updates": float(np.sum(right & changed)),
        **{f"{name}state_{r}{p}": float(cells[3 * r + p]) for r in STATES for p in STATES},
    }


def state_figures(sums: Sums, name: str = "") -> Figures:
    """``joint_state_accuracy``, ``joint_state_accuracy_at_updates``, ``step_accuracy`` (share of correct cells) and
    ``state_macro_f1``, the mean F1 of the states that occur in labels or predictions; ``name`` is their prefix.
    """
    cells = np.stack([np.asarray(sums[f"{name}state_{r}{p}"], np.float64) for r in STATES for p in STATES])
    cells = cells.reshape(3, 3, *cells.shape[1:])
    hits = np.stack([cells[state, state] for state in STATES])
    f1 = ratio(2 * hits, cells.sum(0) + cells.sum(1))
    return {
        f"{name}joint_state_accuracy": ratio(sums[f"{name}state_right"], sums[f"{name}state_frames"]),
        f"{name}joint_state_accuracy_at_updates": ratio(
            sums[f"{name}state_right_at_updates"], sums[f"{name}state_updates"]
        ),
        f"{name}step_accuracy": ratio(hits.sum(0), cells.sum((0, 1))),
        f"{name}state_macro_f1": ratio(np.nansum(f1, axis=0), np.sum(~np.isnan(f1), axis=0)),
    }


def state_confusion(sums: Mapping[str, float], name: str = "") -> list[list[int]]:
    """``[reference][predicted]``: the number of (frame, step) cells with these states, from :func:`state_counts`."""
    return [[int(sums[f"{name}state_{r}{p}"]) for p in STATES] for r in STATES]


def state_metrics(predicted: Sequence[ArrayLike], reference: Sequence[ArrayLike]) -> dict[str, float | None]:
    """The figures of :func:`state_figures`, pooled over clips or sessions, None where undefined.

    Args:
        predicted: tables ``[frames, steps]`` of states 0, 1, 2, of any sizes.
        reference: tables of the same shapes, -100 without label.

    Raises:
        DataError: the numbers of tables or their shapes differ, or a value is not a state.
    """
    if len(predicted) != len(reference):
        raise DataError(
            f"There are {len(predicted)} predicted and {len(reference)} reference state tables; give pairs."
        )
    nothing = np.zeros((0, 1), np.int64)
    tables = [(nothing, nothing), *zip(predicted, reference, strict=True)]
    sums = total(state_counts(guess, truth) for guess, truth in tables)
    return plain(state_figures(sums)) | {"state_frames": sums["state_frames"], "state_updates": sums["state_updates"]}


def per_step_accuracy(predicted: ArrayLike, reference: ArrayLike) -> list[float | None]:
    """``[steps]``: share of labelled frames with the correct state, for each step; arguments as ``state_counts``."""
    guess, truth = state_tables(predicted, reference)
    labelled = truth != IGNORE
    shares = ratio(np.sum((guess == truth) & labelled, axis=0), labelled.sum(0))
    return [None if np.isnan(share) else float(share) for share in shares]


def transitions(states: ArrayLike) -> list[tuple[int, int, int]]:
    """The transitions (frame, step, new state) in ``states`` ``[frames, steps]``; before frame 0 nothing is started.

    Raises:
        DataError: a value is not a state.
    """
    table, _ = state_tables(states, states)
    if (table == IGNORE).any():
        raise DataError("The state table has cells without a label, so it has no transitions; leave the session out.")
    before = np.vstack([np.zeros_like(table[:1]), table[:-1]])
    return [(int(frame), int(step), int(table[frame, step])) for frame, step in np.argwhere(table != before)]


def illegal_transitions(states: ArrayLike, legal: frozenset[tuple[int, int]]) -> int:
    """The number of state changes between frames that are not in ``legal``; before frame 0 nothing is started.

    Args:
        states: ``[frames, steps]``.
        legal: pairs (before, after), as in ``tracking_dst_smolvlm.LEGAL_MOVES``.

    Raises:
        DataError: a value is not a state.
    """
    table, _ = state_tables(states, states)
    before = np.vstack([np.zeros_like(table[:1]), table[:-1]])
    moved = before != table
    codes = 3 * before[moved] + table[moved]
    return int(np.sum(~np.isin(codes, [3 * old + new for old, new in legal])))


def state_tables(predicted: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both tables as checked arrays ``[frames, steps]``; errors as in :func:`state_counts`."""
    guess, truth = np.asarray(predicted, dtype=np.int64), np.asarray(reference, dtype=np.int64)
    if guess.ndim != 2 or guess.shape != truth.shape:
        raise DataError(f"State tables have shapes {guess.shape} and {truth.shape}; both must be [frames, steps].")
    if not np.isin(truth, (*STATES, IGNORE)).all():
        raise DataError(f"State labels are {np.unique(truth).tolist()}, but a state is 0, 1, 2 or {IGNORE}.")
    if not np.isin(guess[truth != IGNORE], STATES).all():
        raise DataError(f"Predicted states are {np.unique(guess).tolist()}, but a state is 0, 1 or 2.")
    return guess, truth
