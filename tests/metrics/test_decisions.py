"""Yes/no decisions against scikit-learn, and their fixed points: oracle = 1, silence = 0, nothing = undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.decisions import (
    average_precision,
    best_threshold,
    binary_metrics,
    decision_counts,
    decision_figures,
    precision_recall_curve,
)

# Few distinct scores, so that ties are common; the labels include ignored ones.
decisions = st.lists(st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.sampled_from([0, 0, 1, -100])), max_size=40)


def of(metrics: dict[str, float | None], *names: str) -> list[float | None]:
    return [metrics[f"decision_{name}"] for name in names]


@settings(deadline=None)
@given(decisions, st.integers(0, 8).map(lambda n: n / 8))
def test_binary_metrics_equal_scikit_learn(rows: list[tuple[float, int]], threshold: float) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    ours = binary_metrics([score for score, _ in rows], [label for _, label in rows], threshold)
    kept = [(score, label) for score, label in rows if label != -100]
    truth, guess = [label for _, label in kept], [int(score >= threshold) for score, _ in kept]
    assert of(ours, "positives", "predicted") == [sum(truth), sum(guess)]
    scored = kept and sklearn_metrics.precision_recall_fscore_support(truth, guess, average="binary", zero_division=0)
    precision, recall = scored[:2] if scored else (math.nan, math.nan)
    # Undefined is None: without a decision, without a label, without either.
    assert ours["decision_precision"] == (pytest.approx(precision) if sum(guess) else None)
    assert ours["decision_recall"] == (pytest.approx(recall) if sum(truth) else None)
    if sum(truth) + sum(guess):
        hits = sum(g and t for g, t in zip(guess, truth, strict=True))
        assert ours["decision_f1"] == pytest.approx(2 * hits / (sum(truth) + sum(guess)))
    else:
        assert ours["decision_f1"] is None
    recalls = [np.mean([g == t for g, t in zip(guess, truth, strict=True) if t == kind]) for kind in set(truth)]
    assert ours["decision_balanced_accuracy"] == (pytest.approx(np.mean(recalls)) if kept else None)
    if sum(truth):
        exact = sklearn_metrics.average_precision_score(truth, [score for score, _ in kept])
        assert ours["decision_average_precision"] == pytest.approx(exact)
    else:
        assert of(ours, "average_precision", "best_f1", "recall") == [None, None, None]


@given(decisions)
def test_best_threshold_is_best_and_reproducible(rows: list[tuple[float, int]]) -> None:
    scores, labels = [score for score, _ in rows], [label for _, label in rows]
    threshold, f1 = best_threshold(scores, labels)
    if 1 not in labels:
        assert (threshold, f1) == (0.5, None)
        return
    assert f1 is not None and binary_metrics(scores, labels, threshold)["decision_f1"] == pytest.approx(f1)
    for other in {*scores, 0.0, math.inf}:
        assert (binary_metrics(scores, labels, other)["decision_f1"] or 0.0) <= f1 + 1e-12
    # Rounding noise on the scores turns no decision, unless the threshold must let the lowest score through.
    if threshold > min(score for score, label in rows if label != -100):
        noisy = [score - 1e-6 for score in scores]
        assert binary_metrics(noisy, labels, threshold)["decision_f1"] == pytest.approx(f1)


def test_oracle_silence_and_bad_input() -> None:
    labels = np.array([0, 1, -100, 0, 1, 1])
    oracle = binary_metrics(labels == 1, labels)
    assert of(oracle, "precision", "recall", "f1", "average_precision", "balanced_accuracy", "best_f1") == [1.0] * 6
    silence = binary_metrics(np.zeros(6), labels)
    assert of(silence, "f1", "recall", "predicted", "precision", "balanced_accuracy") == [0.0, 0.0, 0.0, None, 0.5]
    assert best_threshold([-np.inf, np.inf, 0.0], [0, 1, 1])[1] == 1.0
    with pytest.raises(DataError, match="NaN"):
        binary_metrics([0.1, math.nan], [0, 1])
    binary_metrics([0.1, math.nan], [0, -100])
    with pytest.raises(DataError, match="shape"):
        binary_metrics([0.1], [0, 1])
    with pytest.raises(DataError, match="decision is"):
        binary_metrics([0.1, 0.2], [0, 2])


@given(st.lists(decisions, min_size=1, max_size=4), st.integers(0, 8).map(lambda n: n / 8))
def test_counts_of_parts_add_up_and_draws_are_alike(parts: list[list[tuple[float, int]]], threshold: float) -> None:
    """Pooled counts are those of all frames together; figures of an array of sums are those of each sum."""
    counts = [
        decision_counts([score for score, _ in rows], [label for _, label in rows], threshold, "decision")
        for rows in parts
    ]
    rows = [row for part in parts for row in part]
    whole = decision_counts([score for score, _ in rows], [label for _, label in rows], threshold, "decision")
    assert total(counts) == whole
    drawn = decision_figures({name: np.array([of_part[name] for of_part in counts]) for name in whole}, "decision")
    for index, of_part in enumerate(counts):
        alone = plain(decision_figures(of_part, "decision"))
        assert plain({name: values[index] for name, values in drawn.items()}) == alone


@given(decisions)
def test_the_curve_lies_on_the_decisions(rows: list[tuple[float, int]]) -> None:
    scores, labels = [score for score, _ in rows], [label for _, label in rows]
    curve = precision_recall_curve(scores, labels)
    if 1 not in labels:
        assert curve == {"precision": [], "recall": [], "threshold": []}
        return
    for precision, recall, threshold in zip(*curve.values(), strict=True):
        at = binary_metrics(scores, labels, threshold)
        assert of(at, "precision", "recall") == pytest.approx([precision, recall], abs=1e-4)
    assert curve["recall"] == sorted(curve["recall"]) and curve["recall"][-1] == 1.0
    short = precision_recall_curve(scores, labels, points=2)
    assert len(short["recall"]) <= 2 and short["recall"][-1] == 1.0


def test_average_precision_of_a_constant_is_the_share_of_positives() -> None:
    assert average_precision([0.3] * 4, [1, 0, 0, 0]) == 0.25


def test_of_equal_thresholds_the_highest_is_taken_and_lies_between_scores() -> None:
    # F1 is 2/3 at 0.9 (1 of 2 found) and at 0.3 (2 of 4 decisions right).
    assert best_threshold([0.9, 0.5, 0.4, 0.3], [1, 0, 0, 1]) == (pytest.approx(0.7), pytest.approx(2 / 3))
    for low in (0.5, float(np.nextafter(0.5, 0.0))):
        high = float(np.nextafter(low, 1.0))
        assert best_threshold([high, low], [1, 0]) == (high, 1.0)  # nothing lies between neighbours


def test_the_curve_ends_where_everything_is_found() -> None:
    """Of many points some are kept, the first and the one of full recall among them."""
    rng = np.random.default_rng(0)
    labels = rng.random(5000) < 0.2
    curve = precision_recall_curve(labels * 0.5 + rng.random(5000), labels.astype(int))
    assert 150 <= len(curve["recall"]) <= 200 and curve["recall"][-1] == 1.0 and curve["recall"][0] < 0.01
    assert np.diff(curve["recall"]).max() < 0.02 and curve["threshold"] == sorted(curve["threshold"], reverse=True)


def test_infinite_is_not_undefined() -> None:
    assert plain({"a": math.inf, "b": math.nan, "c": np.float64(1)}) == {"a": math.inf, "b": None, "c": 1.0}


def test_the_curve_begins_at_the_highest_threshold_and_ends_with_the_last_hit() -> None:
    assert precision_recall_curve([0.9, 0.8, 0.1, 0.05], [1, 1, 0, 0]) == {
        "precision": [1.0, 1.0],
        "recall": [0.5, 1.0],
        "threshold": [0.9, 0.8],
    }
