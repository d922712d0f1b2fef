"""Deviations from the plan in a state table, and how well those of a predicted table are those of the reference.

The rule is that of streams (``tracking_dst_smolvlm.Deviations``). A predicted deviation is right where the reference
has one of the same kind and step at most ``DEVIATION_TOLERANCE_S`` seconds away; they are matched one to one.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import Counts, Figures, Sums, precision_recall
from prospect_hf.metrics.events import match_transitions
from prospect_hf.metrics.states import state_tables
from prospect_hf.sessions import IGNORE
from tracking_dst_smolvlm import session_deviations

DEVIATION_TOLERANCE_S = 2


def deviations(states: ArrayLike) -> list[tuple[int, int, str]]:
    """The deviations (frame, step, kind) in ``states`` ``[frames, steps]``, a whole session, by frame.

    Raises:
        DataError: a value is not a state.
    """
    table, _ = state_tables(states, states)
    if (table == IGNORE).any():
        raise DataError("The state table has cells without a label, so it has no deviations; leave the session out.")
    return [(frame, one.step, one.kind) for frame, one in session_deviations(table.tolist(), table.shape[1])]


def deviation_counts(predicted: ArrayLike, reference: ArrayLike, fps: float) -> Counts:
    """The counts of one session: ``deviation_predictions``, ``deviation_references`` and ``deviation_matched_2s``.

    Args:
        predicted, reference: ``[frames, steps]`` states 0, 1, 2.
        fps: frames per second.

    Raises:
        DataError: a value is not a state, or the shapes differ.
    """
    guess, truth = state_tables(predicted, reference)
    ours, theirs = deviations(guess), deviations(truth)
    pairs = match_transitions(ours, theirs, int(DEVIATION_TOLERANCE_S * fps))
    return {
        "deviation_predictions": float(len(ours)),
        "deviation_references": float(len(theirs)),
        f"deviation_matched_{DEVIATION_TOLERANCE_S}s": float(len(pairs)),
    }


def deviation_figures(sums: Sums) -> Figures:
    """``deviation_precision_2s``, ``deviation_recall_2s`` and ``deviation_f1_2s``, NaN where undefined."""
    matched = sums[f"deviation_matched_{DEVIATION_TOLERANCE_S}s"]
    predictions, references = sums["deviation_predictions"], sums["deviation_references"]
    return precision_recall("deviation", matched, predictions, references, f"_{DEVIATION_TOLERANCE_S}s")
