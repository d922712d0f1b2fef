"""Metrics of the evaluation inside a run: of clips that contain the reference's texts (teacher-forced)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from prospect_hf.metrics.decisions import binary_metrics
from prospect_hf.metrics.states import state_metrics
from prospect_hf.sessions import IGNORE
from prospect_hf.training.loss_arguments import LOSSES

HEAD_LABELS = ("speaking_labels", "dst_update_labels", "dst_state_labels")


def label_counts(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Labels of each loss in a batch, ``[4]`` in the order of ``LOSSES``; text labels are counted where predicted."""
    labels = [*(batch[name] for name in HEAD_LABELS), batch["labels"][:, 1:]]
    return torch.stack([(label != IGNORE).sum() for label in labels]).float()


def clip_decisions(
    outputs: Any, inputs: dict[str, torch.Tensor], sums: torch.Tensor, counts: torch.Tensor
) -> list[dict[str, np.ndarray]]:
    """One record per clip: probabilities, states and labels; the first also has the batch's loss sums and counts."""
    speak = outputs.speaking_logits.float().softmax(-1)[..., 1].cpu().numpy()
    update = outputs.dst_update_logits.float().softmax(-1)[..., 1].cpu().numpy()
    states = outputs.dst_state_logits.argmax(-1).cpu().numpy()
    labels = {name: inputs[name].cpu().numpy() for name in HEAD_LABELS}
    frames = (inputs["frame_positions"] >= 0).sum(1).tolist()
    steps = (inputs["step_positions"][..., 1] >= 0).sum(1).tolist()
    records = []
    for row, (n_frames, n_steps) in enumerate(zip(frames, steps, strict=True)):
        first = row == 0
        records.append(
            {
                "speaking": speak[row, :n_frames],
                "dst_update": update[row, :n_frames],
                "states": states[row, :n_frames, :n_steps],
                "speaking_labels": labels["speaking_labels"][row, :n_frames],
                "dst_update_labels": labels["dst_update_labels"][row, :n_frames],
                "dst_state_labels": labels["dst_state_labels"][row, :n_frames, :n_steps],
                "loss_sums": sums.cpu().numpy() * first,
                "loss_counts": counts.cpu().numpy() * first,
            }
        )
    return records


def head_metrics(rows: list[dict[str, np.ndarray]], weights: dict[str, float]) -> dict[str, float]:
    """Metrics over all clips: decisions at threshold 0.5 and at the best one, states, losses, perplexity.

    An undefined metric (the split has no label for it) is left out: experiment trackers accept only numbers, and
    ``metric_for_best_model`` then reports it as missing.
    """
    means = np.sum([row["loss_sums"] for row in rows], 0) / np.maximum(np.sum([r["loss_counts"] for r in rows], 0), 1)
    losses = {name: float(mean) for name, mean in zip(LOSSES, means, strict=True)}
    metrics: dict[str, float | None] = {f"{name}_loss": loss for name, loss in losses.items()}
    metrics["loss"] = sum(weights[name] * loss for name, loss in losses.items())
    metrics["perplexity"] = math.exp(min(losses["response"], 700.0))
    for head in ("speaking", "dst_update"):
        scores = np.concatenate([row[head] for row in rows])
        labels = np.concatenate([row[f"{head}_labels"] for row in rows])
        metrics |= binary_metrics(scores, labels, name=head)
    predicted, reference = [row["states"] for row in rows], [row["dst_state_labels"] for row in rows]
    metrics |= state_metrics(predicted, reference)
    return {name: value for name, value in metrics.items() if value is not None}
