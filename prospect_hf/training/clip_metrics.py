"""Metrics of the evaluation inside a run: of clips that contain the reference's texts (teacher-forced)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from configuration_dst_smolvlm import DSTSmolVLMConfig
from prospect_hf.metrics.calibration import Bin, calibration_error, decision_reliability
from prospect_hf.metrics.catalogue import CHOICE_TOLERANCE_S
from prospect_hf.metrics.counts import total
from prospect_hf.metrics.decisions import binary_metrics
from prospect_hf.metrics.states import state_confusion, state_counts, state_metrics
from prospect_hf.metrics.task_score import task_score
from prospect_hf.metrics.threshold_sweep import Sweep, sweep
from prospect_hf.training.loss_arguments import LOSSES
from prospect_hf.training.losses import DECISIONS, mean_losses

HEAD_LABELS = ("speaking_labels", "dst_update_labels", "dst_state_labels")

ClipRow = dict[str, NDArray[Any]]


def clip_decisions(
    outputs: Any, inputs: dict[str, torch.Tensor], sums: torch.Tensor, counts: torch.Tensor
) -> list[ClipRow]:
    """One record per clip: probabilities, margins (logit of yes - logit of no), states and labels.

    The first also has the batch's loss sums and counts.
    """
    logits = {name: outputs[f"{name}_logits"].float() for name in DECISIONS}
    yes = {name: of_head.softmax(-1)[..., 1].cpu().numpy() for name, of_head in logits.items()}
    margins = {name: (of_head[..., 1] - of_head[..., 0]).cpu().numpy() for name, of_head in logits.items()}
    states = outputs.dst_state_logits.argmax(-1).cpu().numpy()
    labels = {name: inputs[name].cpu().numpy() for name in HEAD_LABELS}
    frames = (inputs["frame_positions"] >= 0).sum(1).tolist()
    steps = (inputs["step_positions"][..., 1] >= 0).sum(1).tolist()
    records = []
    for row, (n_frames, n_steps) in enumerate(zip(frames, steps, strict=True)):
        first = row == 0
        records.append(
            {
                **{name: yes[name][row, :n_frames] for name in DECISIONS},
                **{f"{name}_margin": margins[name][row, :n_frames] for name in DECISIONS},
                "states": states[row, :n_frames, :n_steps],
                "speaking_labels": labels["speaking_labels"][row, :n_frames],
                "dst_update_labels": labels["dst_update_labels"][row, :n_frames],
                "dst_state_labels": labels["dst_state_labels"][row, :n_frames, :n_steps],
                "loss_sums": sums.cpu().numpy() * first,
                "loss_counts": counts.cpu().numpy() * first,
            }
        )
    return records


@dataclass(frozen=True)
class Decision:
    """One decision over all clips of a split.

    Args:
        rows: of ``clip_decisions``.
        owners: the session of each row; the clips of a session follow each other in time.
        name: ``speaking`` or ``dst_update``.
        fps: frames a second.
    """

    rows: Sequence[ClipRow]
    owners: Sequence[int]
    name: str
    fps: float

    def pooled(self, what: str) -> NDArray[Any]:
        """``[frames]`` of all clips: the probabilities (""), ``_margin`` or ``_labels``."""
        return np.concatenate([np.zeros(0), *(row[self.name + what] for row in self.rows)])

    def sweep(self, tolerance_s: float = CHOICE_TOLERANCE_S) -> Sweep:
        """Precision, recall and F1 at every threshold, in whole sessions: a pair may span the border of two clips."""
        cuts = np.flatnonzero(np.diff(self.owners)) + 1
        sessions = [some for some in np.split(np.arange(len(self.rows)), cuts) if len(some)]
        parts = [[np.concatenate([self.rows[i][key] for i in some]) for some in sessions] for key in self._keys]
        return sweep(list(zip(*parts, strict=True)), int(tolerance_s * self.fps))

    @property
    def reliability(self) -> tuple[Bin, ...]:
        """The bins of the reliability curve."""
        return decision_reliability(*(self.pooled(key.removeprefix(self.name)) for key in self._keys))

    @property
    def _keys(self) -> tuple[str, str]:
        return self.name, f"{self.name}_labels"


def head_metrics(
    rows: Sequence[ClipRow], weights: dict[str, float], config: DSTSmolVLMConfig, owners: Sequence[int]
) -> dict[str, float]:
    """Metrics over all clips: decisions at the model's thresholds and at the best ones, states, losses, perplexity.

    ``{head}_f1_1s`` is F1 within 1 s at the model's threshold, ``{head}_best_f1_1s`` that at the best threshold,
    ``{head}_best_threshold_1s``. ``task_score`` takes the latter, since thresholds are chosen after training. An
    undefined metric (the split has no label for it) is left out: experiment trackers accept only numbers, and
    ``metric_for_best_model`` then reports it as missing.

    Args:
        rows: of ``clip_decisions``.
        weights: of the losses, by name.
        config: the model's thresholds and frames a second.
        owners: the session of each row (``Decision``).
    """
    sums, counts = (torch.from_numpy(np.sum([row[name] for row in rows], 0)) for name in ("loss_sums", "loss_counts"))
    means = mean_losses(sums, counts).tolist()
    losses = {name: float(mean) for name, mean in zip(LOSSES, means, strict=True)}
    metrics: dict[str, float | None] = {f"{name}_loss": loss for name, loss in losses.items()}
    metrics["loss"] = sum(weights[name] * loss for name, loss in losses.items())
    metrics["perplexity"] = math.exp(min(losses["response"], 700.0))
    thresholds = {"speaking": config.speaking_threshold, "dst_update": config.dst_update_threshold}
    for name, threshold in thresholds.items():
        decision = Decision(rows, owners, name, config.fps)
        metrics |= binary_metrics(decision.pooled(""), decision.pooled("_labels"), threshold, name)
        swept, bins = decision.sweep(), decision.reliability
        best = swept.best()
        metrics[f"{name}_f1_1s"] = swept.at(threshold).f1
        metrics[f"{name}_best_f1_1s"] = None if best is None else best.f1
        metrics[f"{name}_best_threshold_1s"] = None if best is None else best.threshold
        metrics[f"{name}_calibration_error"] = calibration_error(bins) if bins else None
    predicted, reference = [row["states"] for row in rows], [row["dst_state_labels"] for row in rows]
    metrics |= state_metrics(predicted, reference)
    metrics["task_score"] = task_score(
        metrics["joint_state_accuracy"], metrics["speaking_best_f1_1s"], metrics["dst_update_best_f1_1s"]
    )
    return {name: value for name, value in metrics.items() if value is not None}


def clip_confusion(rows: Sequence[ClipRow]) -> list[list[int]]:
    """``[reference][predicted]`` counts of (frame, step) cells over all clips."""
    nothing = state_counts(np.zeros((0, 1)), np.zeros((0, 1)))
    return state_confusion(total([nothing, *(state_counts(row["states"], row["dst_state_labels"]) for row in rows)]))
