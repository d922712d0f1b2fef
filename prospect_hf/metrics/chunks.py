"""Speech in chunks of time: in which stretches of 8 seconds does the assistant speak?

After the EgoProactive task of the Wearable AI challenge (ECCV 2026). Its official scorer was not seen, so two rules are
ours. The first chunk begins with the session's first frame. The last chunk may be shorter than the others, and counts
as one of them: an utterance at the end of a session would have no chunk otherwise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import Counts, Figures, Sums, ratio
from prospect_hf.metrics.decisions import decision_counts, decision_figures

CHUNK_S = 8


def chunk_counts(said: ArrayLike, labels: ArrayLike, fps: float, seconds: float = CHUNK_S) -> Counts:
    """The chunks of one session: ``chunk_yes_yes`` (said something, should have), ``_yes_no``, ``_no_yes``, ``_no_no``.

    Frame i is in chunk ``floor(i / (fps * seconds))``. A chunk without a labelled frame is left out; so is what is said
    in it.

    Args:
        said: ``[frames]``, true or 1 on each frame on which the assistant speaks.
        labels: ``[frames]``, 1 where it should, 0, or -100 on a frame without label, such as that of a user's turn.
        fps: frames a second.
        seconds: length of a chunk.

    Raises:
        DataError: shapes differ, a value of ``said`` is not 0 or 1, a label is not 1, 0 or -100, or ``fps`` or
            ``seconds`` is not a positive number.
    """
    spoken, truth = np.asarray(said), np.asarray(labels)
    if not (fps > 0 and seconds > 0 and np.isfinite(fps * seconds)):
        raise DataError(f"fps is {fps} and a chunk has {seconds} seconds; both must be numbers above 0.")
    if spoken.ndim != 1 or spoken.shape != truth.shape or not np.isin(spoken, (0, 1)).all():
        raise DataError(
            f"Speech {spoken.shape} and labels {truth.shape} must be [frames] of one session, and speech 0 or 1."
        )
    decision_counts(spoken, truth, 0.5, "chunk")  # checks the labels of frames: the largest of a chunk may hide one
    chunks = np.floor(np.arange(len(spoken)) / (fps * seconds))
    starts = np.flatnonzero(np.diff(chunks, prepend=-1))
    if len(starts):  # -100 < 0 < 1: the largest label of a chunk is its own
        spoken, truth = np.maximum.reduceat(spoken, starts), np.maximum.reduceat(truth, starts)
    return decision_counts(spoken, truth, 0.5, "chunk")


def chunk_figures(sums: Sums) -> Figures:
    """``chunk_precision``, ``chunk_recall`` and ``chunk_f1`` of the chunks with speech, and ``chunk_macro_f1``.

    The macro-F1 is the mean F1 of both classes, chunks with and without speech; a class that is in neither labels nor
    predictions is left out. Silence has F1 0 on chunks with speech and a macro-F1 of half the F1 of the others.
    """
    hits, extra, missed, rest = (
        np.asarray(sums[f"chunk_{kind}"], np.float64) for kind in ("yes_yes", "yes_no", "no_yes", "no_no")
    )
    wrong = extra + missed
    f1 = np.stack(np.broadcast_arrays(ratio(2 * hits, 2 * hits + wrong), ratio(2 * rest, 2 * rest + wrong)))
    found = decision_figures(sums, "chunk")
    del found["chunk_balanced_accuracy"]
    return found | {"chunk_macro_f1": ratio(np.nansum(f1, axis=0), np.sum(~np.isnan(f1), axis=0))}
