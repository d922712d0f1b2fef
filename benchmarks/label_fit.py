"""Fits the parameters of the semantic aligner to videos whose steps are known.

The parameters are those under which the true paths are most probable (maximum likelihood; L-BFGS over the exact
gradient, which the model's expectations give). In these videos every segment belongs to a step and every step has a
segment, which is not so in a real annotation. So what says how often it is otherwise, ``CHOSEN``, is not fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from label_truth import TruthVideo
from numpy.typing import NDArray
from scipy.optimize import minimize

from prospect_hf.align.segmental import runs
from prospect_hf.align.semantic import FITTED, Evidence, Parameters, gather, run_features, segmental_model
from prospect_hf.align.similarity import Encode, Floats

# Steps without a segment, and segments off the plan, are no part of the fit. Chosen were: one step in 20 has no segment
# (skip = 3 = -log 0.05); ``off`` and the scores of unrelated segments by the table of ``labels.py robust``.
CHOSEN = ("named", "skip", "off", "related", "off_slope")
# Where the optimiser starts; rounded guesses.
START = replace(
    FITTED,
    meaning=4.0,
    words=1.0,
    best_words=2.0,
    run=-2.0,
    pause=2.0,
    log_pause=1.0,
    cohesion=1.0,
    length=0.0,
    length_squared=0.0,
    revisit=6.0,
)
# Pulls the parameters towards 0: a weight of 4 costs 0.04 nats a video.
RIDGE = 0.005


@dataclass(frozen=True)
class Example:
    """The evidence of a video, and its true path."""

    evidence: Evidence
    path: NDArray[np.int64]


def example(video: TruthVideo, encode: Encode) -> Example:
    """The example that a video is."""
    return Example(gather(video.lines, [step.text for step in video.task.steps], encode), video.owners)


def fit(examples: Sequence[Example], left_out: Sequence[str] = ()) -> Parameters:
    """The parameters that make the true paths most probable, but for ``CHOSEN``; those in ``left_out`` are 0."""
    start = replace(START, **dict.fromkeys(left_out, 0.0))
    names = [field.name for field in fields(Parameters) if field.name not in (*CHOSEN, *left_out)]
    features = [run_features(one.evidence) for one in examples]

    def loss(values: Floats) -> tuple[float, Floats]:
        parameters = replace(start, **dict(zip(names, values.tolist(), strict=True)))
        total, slope = 0.0, np.zeros(len(names))
        for one, of_run in zip(examples, features, strict=True):
            weight = 1 / np.sqrt(len(one.path))  # a long video tells more, but not in proportion to its length
            lost, gradient = surprise(one, of_run, parameters)
            total += weight * lost
            slope += weight * np.array([gradient[name] for name in names])
        count = len(examples)
        return total / count + RIDGE / 2 * float((values**2).sum()), slope / count + RIDGE * values

    began = np.array([asdict(start)[name] for name in names])
    found = minimize(loss, began, jac=True, method="L-BFGS-B", options={"maxiter": 40, "ftol": 1e-5})
    return replace(start, **{name: round(float(value), 3) for name, value in zip(names, found.x, strict=True)})


def surprise(one: Example, features: dict[str, Floats], parameters: Parameters) -> tuple[float, dict[str, float]]:
    """Minus the log probability of the true path, and its gradient by parameter."""
    model = segmental_model(one.evidence, features, parameters)
    probable, revisits = model.run_probabilities()
    true = runs(one.path)
    gradient = {
        name: float((probable * values).sum())
        - sum(float(np.broadcast_to(values, probable.shape)[run.first, run.length - 1, run.step]) for run in true)
        for name, values in features.items()
    }
    # The first run of a step is a revisit too where a later step was reached before.
    reached = np.maximum.accumulate([run.step for run in true])
    again = sum(run.step <= before for run, before in zip(true[1:], reached, strict=False))
    gradient["revisit"] = float(again - revisits)
    return model.log_total - model.score(one.path), gradient
