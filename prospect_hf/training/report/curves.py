"""The curves of a run, from the logs of its trainers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Log = Sequence[Mapping[str, Any]]

# A curve has at most this many points; of a longer one, stretches are averaged.
POINTS = 400


@dataclass(frozen=True)
class Curve:
    """How the values of a log are drawn.

    Args:
        key: in the log; ``eval_{key}`` is drawn beside it.
        label: of the curve.
        unit: of the vertical axis.
        logarithmic: the vertical axis may be logarithmic; otherwise values are shares of 0 to 1.
    """

    key: str
    label: str
    unit: str
    logarithmic: bool = True


TRAINED = (
    Curve("loss", "All losses, weighted sum", "loss"),
    Curve("speaking_loss", "Speaking", "loss a frame"),
    Curve("dst_update_loss", "DST update", "loss a frame"),
    Curve("dst_state_loss", "Step states", "nats a step and frame"),
    Curve("response_loss", "Texts", "nats a token"),
    Curve("grad_norm", "Gradient norm, before clipping", "norm"),
    Curve("learning_rate", "Learning rate", "learning rate"),
)
EVALUATED = (
    Curve("task_score", "Task score", "share", logarithmic=False),
    Curve("joint_state_accuracy", "Joint state accuracy", "share", logarithmic=False),
    Curve("speaking_best_f1_1s", "Speaking F1 within 1 s, best threshold", "F1", logarithmic=False),
    Curve("dst_update_best_f1_1s", "DST-update F1 within 1 s, best threshold", "F1", logarithmic=False),
    Curve("speaking_average_precision", "Speaking, average precision", "share", logarithmic=False),
    Curve("dst_update_average_precision", "DST update, average precision", "share", logarithmic=False),
    Curve("free_task_score", "Task score, freely", "share", logarithmic=False),
    Curve("free_table_joint_state_accuracy", "Joint accuracy of the table, freely", "share", logarithmic=False),
    Curve("free_speaking_f1_1s", "Speaking F1 within 1 s, freely", "F1", logarithmic=False),
    Curve("free_dst_update_f1_1s", "DST-update F1 within 1 s, freely", "F1", logarithmic=False),
)


def stage_curves(log: Log) -> list[dict[str, Any]]:
    """The curves of the training of one stage: losses, gradient norm and learning rate over steps.

    Returns:
        One entry for each of ``TRAINED`` that was logged: ``label``, ``unit``, ``logarithmic``, ``train`` and
        ``validation``, lists of [step, value]. A curve that is 0 throughout, of a loss without labels, is left out.
    """
    return [
        {
            "label": curve.label,
            "unit": curve.unit,
            "logarithmic": curve.logarithmic,
            "train": points,
            "validation": series(log, f"eval_{curve.key}") if curve.key.endswith("loss") else [],
        }
        for curve in TRAINED
        if (points := series(log, curve.key)) and any(value for _, value in points)
    ]


def evaluation_curves(log: Log) -> list[dict[str, Any]]:
    """The figures of the evaluations during the training, over steps; entries as :func:`stage_curves`."""
    return [
        {
            "label": curve.label,
            "unit": curve.unit,
            "logarithmic": curve.logarithmic,
            "train": [],
            "validation": points,
        }
        for curve in EVALUATED
        if (points := series(log, f"eval_{curve.key}"))
    ]


def series(log: Log, key: str) -> list[list[float]]:
    """[step, value] of each entry that has the key, at most ``POINTS``; of several at a step the last.

    A value that is not finite is left out.
    """
    found = {entry["step"]: float(entry[key]) for entry in log if key in entry and "step" in entry}
    pairs = np.array([[step, value] for step, value in sorted(found.items()) if np.isfinite(value)]).reshape(-1, 2)
    if len(pairs) > POINTS:
        pairs = np.array([part.mean(0) for part in np.array_split(pairs, POINTS)])
    return [[round(step, 1), float(f"{value:.6g}")] for step, value in pairs.tolist()]
