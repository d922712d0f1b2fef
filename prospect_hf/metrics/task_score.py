"""The task score: one number for how well a model does the whole task, to choose a checkpoint by."""

from __future__ import annotations

import math


def task_score(joint: float | None, speaking_f1: float | None, update_f1: float | None) -> float | None:
    """The mean of joint state accuracy, speaking F1 and update F1, each in [0, 1]; None if one of them is undefined.

    A mean over fewer figures would be another quantity: whether an F1 is undefined can change from one evaluation to
    the next (it is defined as soon as the model says "yes" once), and scores of a run must be comparable.

    Args:
        joint: joint state accuracy.
        speaking_f1: F1 of the speaking decision, within the tolerance of evaluation (1 s).
        update_f1: F1 of the DST update, within the same tolerance.
    """
    figures = (joint, speaking_f1, update_f1)
    if any(figure is None or math.isnan(figure) for figure in figures):
        return None
    return sum(figure for figure in figures if figure is not None) / len(figures)
