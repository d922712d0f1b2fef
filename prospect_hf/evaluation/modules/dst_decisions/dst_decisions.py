"""Metric module for the library evaluate: yes/no decisions per frame (speaking, DST update)."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from prospect_hf.metrics.calibration import calibration_error, decision_reliability
from prospect_hf.metrics.decisions import binary_metrics

_DESCRIPTION = """
Precision, recall, F1, balanced accuracy and average precision of a yes/no decision per frame, and the threshold with
the best F1; the expected calibration error over 15 bins of equal mass, and the reliability curve. Frames with label
-100 are ignored. Undefined figures (precision without a "yes" decision, recall without a "yes" label) are None.
"""
_INPUTS = """
Args:
    predictions: the probability of "yes" on each frame.
    references: 1, 0, or -100 for a frame to ignore.
    threshold: the decision is "yes" where the probability is at least this; 0.5 by default.
Returns:
    precision, recall, f1, balanced_accuracy, average_precision, best_threshold, best_f1, positives, predicted;
    calibration_error; reliability: [frames, mean probability, share of "yes" labels] of each bin.
Examples:
    >>> metric = evaluate.load("dst_decisions")
    >>> metric.compute(predictions=[0.9, 0.2, 0.6], references=[1, 0, -100])["f1"]
    1.0
"""


class DSTDecisions(evaluate.Metric):
    """``prospect_hf.metrics.decisions.binary_metrics``."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[float], references: list[int], threshold: float = 0.5) -> dict[str, Any]:
        metrics = binary_metrics(predictions, references, threshold, "decision")
        bins = decision_reliability(predictions, references)
        return {name.removeprefix("decision_"): value for name, value in metrics.items()} | {
            "calibration_error": calibration_error(bins) if bins else None,
            "reliability": [[one.count, one.confidence, one.accuracy] for one in bins],
        }
