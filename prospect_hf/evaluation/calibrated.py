"""The calibration of a run's decisions: bins of equal mass over its sessions, and what each session has in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prospect_hf.evaluation.scored_run import ScoredRun, ScoredSession
from prospect_hf.metrics.calibration import calibration_counts, decision_edges

DECISIONS = ("speaking", "dst_update")


def decision(scored: ScoredSession, name: str) -> tuple[ArrayLike, ArrayLike]:
    """Probabilities and labels of one decision, ``[frames]`` each."""
    if name == "speaking":
        return scored.prediction.p_speak, scored.session.speaking
    return scored.prediction.p_update, scored.session.dst_update


def pooled(run: ScoredRun, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities and labels of one decision over all sessions."""
    pairs = [decision(scored, name) for scored in run.sessions]
    return np.concatenate([np.asarray(p) for p, _ in pairs]), np.concatenate([np.asarray(y) for _, y in pairs])


def calibrated(run: ScoredRun) -> ScoredRun:
    """The same run with the counts of both decisions' calibration error; the bins are those of all its sessions.

    Raises:
        DataError: a probability is not 0 to 1.
    """
    for name in DECISIONS:
        edges = decision_edges(*pooled(run, name))
        run = run.without(f"{name}_bin_").with_counts(
            [calibration_counts(*decision(scored, name), edges, name) for scored in run.sessions]
        )
    return run
