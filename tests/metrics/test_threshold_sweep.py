"""The sweep of thresholds within a tolerance: equal to matching anew at each threshold, by the metric of evaluation."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prospect_hf.errors import DataError
from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.decisions import best_threshold, precision_recall_curve
from prospect_hf.metrics.events import event_counts, event_figures, match_events
from prospect_hf.metrics.threshold_sweep import sweep

Session = tuple[list[float], list[int]]
frame = st.tuples(st.integers(0, 8).map(lambda eighth: eighth / 8), st.sampled_from([0, 0, 1, -100]))
session = st.lists(frame, max_size=14).map(lambda rows: ([s for s, _ in rows], [y for _, y in rows]))
sessions = st.lists(session, max_size=4)
tolerances = st.integers(0, 4)


def figures_at(found: Sequence[Session], threshold: float, tolerance: int) -> dict[str, float | None]:
    """As an evaluation makes them: events of each session matched, counts added up."""
    counts = []
    for scores, labels in found:
        said = [at for at, (p, y) in enumerate(zip(scores, labels, strict=True)) if p >= threshold and y != -100]
        wanted = [at for at, label in enumerate(labels) if label == 1]
        pairs = {1: match_events(said, wanted, tolerance)}
        counts.append(event_counts(pairs, len(said), len(wanted), 1.0, "x"))
    none = event_counts({1: []}, 0, 0, 1.0, "x")
    return plain(event_figures(total([none, *counts]), [1], "x"))


def reaching(found: Sequence[Session], threshold: float) -> int:
    """Labelled frames whose score reaches a threshold."""
    return sum(p >= threshold and y != -100 for scores, labels in found for p, y in zip(scores, labels, strict=True))


@settings(deadline=None, max_examples=60)
@given(sessions, tolerances)
def test_the_sweep_equals_evaluation_at_every_threshold(found: list[Session], tolerance: int) -> None:
    made = sweep(found, tolerance)
    for threshold in [-0.1, *np.arange(0, 1.05, 1 / 16), 1.1]:
        at, wanted = made.at(threshold), figures_at(found, threshold, tolerance)
        for name in ("precision", "recall", "f1"):
            expected = wanted[f"x_{name}_1s"]
            assert vars(at)[name] == (None if expected is None else pytest.approx(expected)), (name, threshold)


@settings(deadline=None, max_examples=50)
@given(sessions, tolerances)
def test_no_threshold_has_a_higher_f1_than_the_best(found: list[Session], tolerance: int) -> None:
    made = sweep(found, tolerance)
    labels = {label for _, of_session in found for label in of_session if label != -100}
    best = made.best()
    if labels != {0, 1}:
        assert best is None and made.undefined
        return
    assert best is not None and best.f1 is not None and made.undefined is None
    for threshold in np.arange(0, 1.05, 1 / 16):
        other = made.at(threshold).f1
        assert other is None or other < best.f1 + 1e-12
        if other == best.f1:  # of equal ones the highest: it lets the fewest frames through
            assert reaching(found, threshold) >= reaching(found, best.threshold)


@settings(deadline=None, max_examples=50)
@given(sessions, tolerances)
def test_only_the_order_of_scores_matters(found: list[Session], tolerance: int) -> None:
    bent = [([p**3 * 0.2 + p * 0.7 - 5 for p in scores], labels) for scores, labels in found]
    best, other = sweep(found, tolerance).best(), sweep(bent, tolerance).best()
    assert (best is None) == (other is None)
    if best is not None and other is not None:
        assert (best.precision, best.recall, best.f1) == (other.precision, other.recall, other.f1)


@settings(deadline=None, max_examples=50)
@given(sessions)
def test_without_tolerance_it_is_the_decision_on_the_frame(found: list[Session]) -> None:
    scores, labels = [p for one, _ in found for p in one], [y for _, one in found for y in one]
    made = sweep(found, 0)
    assert made.curve() == precision_recall_curve(scores, labels)
    best = made.best()
    if best is not None:
        assert (best.threshold, best.f1) == (
            best_threshold(scores, labels)[0],
            pytest.approx(best_threshold(scores, labels)[1]),
        )


def test_the_oracle_scores_one_and_silence_zero() -> None:
    labels = [0, 1, 0, 0, -100, 1, 1, 0]
    oracle = sweep([([0.8 * (label == 1) + 0.1 for label in labels], labels)] * 3, 2)
    for threshold in (0.11, 0.5, 0.9):
        assert oracle.at(threshold).f1 == 1.0
    best = oracle.best()
    assert best is not None and best.f1 == 1.0 and best.threshold == pytest.approx(0.5)
    silent = oracle.at(0.95)
    assert (silent.precision, silent.recall, silent.f1) == (None, 0.0, 0.0)


def test_late_decisions_choose_another_threshold_than_the_frame_does() -> None:
    """A decision one frame late is a hit within two frames, and a miss and an extra on the frame."""
    labels, scores = np.zeros(40, int), np.full(40, 0.1)
    labels[[5, 15, 25, 35]] = 1
    scores[[6, 16, 26]] = 0.6
    scores[35] = 0.9
    made = sweep([(scores.tolist(), labels.tolist())], 2)
    best = made.best()
    assert best is not None and best.f1 == 1.0 and 0.1 < best.threshold < 0.6
    assert best_threshold(scores, labels)[0] > 0.6


def test_events_of_two_sessions_are_no_pair() -> None:
    made = sweep([([0.1, 0.9], [0, 0]), ([0.2, 0.3], [1, 0])], 5)
    assert made.at(0.8).f1 == 0.0 and made.at(0.3).recall == 1.0


def test_why_no_threshold_is_the_best() -> None:
    for found, reason in (
        ([], "no frame has a label for it"),
        ([([0.5], [-100])], "no frame has a label for it"),
        ([([0.5, 0.6], [0, 0])], "no frame has the label yes"),
        ([([0.5, 0.6], [1, -100])], "every frame has the label yes"),
    ):
        made = sweep(found, 2)
        assert made.undefined == reason and made.best() is None
    with pytest.raises(DataError, match="tolerance"):
        sweep([([0.5], [1])], -1)


def test_hundreds_of_thousands_of_frames_take_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 1000)) < 0.05).astype(int)
    scores = rng.normal(size=labels.shape) + 2 * labels
    started = time.process_time()
    made = sweep(list(zip(scores, labels, strict=True)), 2)
    assert time.process_time() - started < 5 and made.frames == labels.size
