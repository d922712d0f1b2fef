"""Metric module for the library evaluate: the state of every step at every frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from prospect_hf.errors import UsageError
from prospect_hf.metrics.counts import plain, ratio, total
from prospect_hf.metrics.events import event_counts, event_figures, match_transitions
from prospect_hf.metrics.states import (
    illegal_transitions,
    per_step_accuracy,
    state_counts,
    state_figures,
    state_tables,
    transitions,
)
from tracking_dst_smolvlm import LEGAL_MOVES

_DESCRIPTION = """
Dialog state tracking over the steps of a plan: joint state accuracy (all steps correct; on all frames, and on frames
where the state changes), step accuracy, macro-F1 over the states 0 (not started), 1 (in progress) and 2 (completed),
precision, recall and F1 of transitions within a tolerance, their delay, and illegal transitions. Pooled over sessions;
undefined figures are None.
"""
_INPUTS = """
Args:
    predictions: one table per session: a list of frames, each a list of the steps' states.
    references: tables of the same shapes, from the session's first frame; -100 in every cell of an unlabelled session.
    fps: frames per second; 2.0 by default.
    tolerances_s: tolerances for transitions, in seconds; 0, 1, 2 and 5 by default.
    policy: legal transitions: "reopen" (a completed step may be in progress again) or "monotone".
Returns:
    joint_state_accuracy, joint_state_accuracy_at_updates, step_accuracy, state_macro_f1, per_step_accuracy (one list
    per session); transition_precision_1s, transition_recall_1s and transition_f1_1s, and the same for each tolerance;
    transition_delay_s (positive: late) and transition_abs_delay_s over pairs within the widest tolerance;
    illegal_transitions_per_hour.
Examples:
    >>> metric = evaluate.load("dst_state")
    >>> metric.compute(predictions=[[[0], [1], [1]]], references=[[[0], [1], [2]]])["transition_recall_0s"]
    0.5
"""


class DSTState(evaluate.Metric):
    """``prospect_hf.metrics.states`` and the transitions of ``prospect_hf.metrics.events``."""

    def _info(self) -> evaluate.MetricInfo:
        table = datasets.List(datasets.List(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": table, "references": table}),
        )

    def _compute(
        self,
        predictions: list[list[list[int]]],
        references: list[list[list[int]]],
        fps: float = 2.0,
        tolerances_s: Sequence[int] = (0, 1, 2, 5),
        policy: str = "reopen",
    ) -> dict[str, Any]:
        if policy not in LEGAL_MOVES or not fps > 0:
            raise UsageError(
                f"policy is {policy!r} and fps {fps}; policy must be one of {', '.join(LEGAL_MOVES)}, and fps above 0."
            )
        counts, per_step = [], []
        for ours, theirs in zip(predictions, references, strict=True):
            guess, truth = state_tables(ours, theirs)
            before = np.zeros(truth.shape[1], np.int64)
            of_session = state_counts(guess, truth, before=before)
            per_step.append(per_step_accuracy(guess, truth))
            if (truth >= 0).all():
                moves = transitions(guess), transitions(truth)
                within = {seconds: match_transitions(*moves, int(seconds * fps)) for seconds in tolerances_s}
                of_session |= event_counts(within, len(moves[0]), len(moves[1]), fps, "transition")
                of_session |= {
                    "hours": len(truth) / fps / 3600,
                    "illegal": float(illegal_transitions(guess, LEGAL_MOVES[policy])),
                }
            counts.append(of_session)
        nothing = event_counts({seconds: [] for seconds in tolerances_s}, 0, 0, fps, "transition")
        sums = total([nothing | {"hours": 0.0, "illegal": 0.0}, *counts])
        figures = state_figures(sums) | event_figures(sums, tolerances_s, "transition")
        figures["illegal_transitions_per_hour"] = ratio(sums["illegal"], sums["hours"])
        return plain(figures) | {"per_step_accuracy": per_step}
