"""Reliability bins and calibration error; the temperature that makes probabilities mean what they say."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.errors import DataError
from prospect_hf.metrics.bootstrap import drawn_sums
from prospect_hf.metrics.calibration import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    Bin,
    calibration_counts,
    calibration_error,
    calibration_figures,
    counted_bins,
    decision_edges,
    decision_reliability,
    fit_temperature,
    reliability,
)
from prospect_hf.metrics.counts import plain, total

shares = st.integers(0, 20).map(lambda twentieth: twentieth / 20)
pairs = st.lists(st.tuples(shares, shares), min_size=1, max_size=30)


def test_bins_have_equal_mass_and_rise() -> None:
    confidences, accuracies = [0.9, 0.1, 0.2, 0.8], [1.0, 0.0, 0.5, 0.5]
    found = reliability(confidences, accuracies, 2)
    assert [(one.count, one.accuracy) for one in found] == [(2, 0.25), (2, 0.75)]
    assert [one.confidence for one in found] == pytest.approx([0.15, 0.85])
    assert calibration_error(found) == pytest.approx(0.1)


def test_what_is_as_accurate_as_it_is_sure_has_no_calibration_error() -> None:
    values = [number / 100 for number in range(101)]
    assert calibration_error(reliability(values, values)) == pytest.approx(0, abs=1e-12)
    # Half of the visits at .5 right, all at 1: calibrated, though no single pair is.
    assert calibration_error(reliability([0.5, 0.5, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0], 2)) == 0


def test_the_calibration_error_counts_pairs_not_bins() -> None:
    assert calibration_error([Bin(3, 0.5, 0.7), Bin(1, 0.9, 0.1)]) == pytest.approx((3 * 0.2 + 0.8) / 4)


def test_equal_confidences_share_a_bin() -> None:
    assert [one.count for one in reliability([0.5, 0.5, 0.5, 0.9], [0, 1, 1, 1], 2)] == [3, 1]
    assert reliability([0.5] * 6, [0, 1, 0, 1, 1, 1], 3) == (Bin(6, 0.5, 4 / 6),)


@given(pairs, st.integers(1, 8), st.randoms())
def test_bins_hold_every_pair_once_whatever_their_order(
    found: list[tuple[float, float]], bins: int, chance: object
) -> None:
    confidences, accuracies = zip(*found, strict=True)
    made = reliability(confidences, accuracies, bins)
    assert len(made) <= bins and sum(one.count for one in made) == len(found)
    assert sum(one.count * one.confidence for one in made) == pytest.approx(sum(confidences))
    assert sum(one.count * one.accuracy for one in made) == pytest.approx(sum(accuracies))
    assert all(below.confidence < above.confidence for below, above in pairwise(made))
    chance.shuffle(found)  # type: ignore[attr-defined]
    assert reliability(*zip(*found, strict=True), bins) == made
    assert 0 <= calibration_error(made) <= 1


@given(st.lists(st.lists(st.tuples(shares, st.sampled_from([1, 0, -100])), max_size=12), min_size=1, max_size=5))
def test_the_counts_of_sessions_add_up_to_the_bins_of_all(sessions: list[list[tuple[float, int]]]) -> None:
    """Whichever way the frames are dealt out over sessions, the error is that of the pooled bins."""
    sides = [([p for p, _ in one], [label for _, label in one]) for one in sessions]
    everything = ([p for scores, _ in sides for p in scores], [label for _, labels in sides for label in labels])
    edges = decision_edges(*everything)
    sums = total(calibration_counts(*side, edges, "speaking") for side in sides)
    wanted, found = decision_reliability(*everything), counted_bins(sums, "speaking")
    assert [one.count for one in found] == [one.count for one in wanted] and len(edges) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.confidence, ours.accuracy) == pytest.approx((theirs.confidence, theirs.accuracy))
    error = plain(calibration_figures(sums, "speaking"))["speaking_calibration_error"]
    assert error == (pytest.approx(calibration_error(wanted)) if wanted else None)
    assert sums["speaking_calibration_frames"] == sum(one.count for one in wanted)


def test_a_sum_may_be_an_array_of_draws() -> None:
    edges = decision_edges([0.2, 0.8], [0, 1])
    one = calibration_counts([0.2], [0], edges, "x")
    other = calibration_counts([0.8], [1], edges, "x")
    drawn = drawn_sums([one, other], np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 3.0], [0.0, 0.0]]))
    found = calibration_figures(drawn, "x")["x_calibration_error"]
    assert found[:3] == pytest.approx([0.2, 0.2, 0.2]) and np.isnan(found[3])


# -- temperature --------------------------------------------------------------------------------------------------


def drawn(margins: np.ndarray, seed: int = 0) -> np.ndarray:
    """Labels that are "yes" with the probability that the margins say."""
    return (np.random.default_rng(seed).random(margins.shape) < 1 / (1 + np.exp(-margins))).astype(int)


MARGINS = np.random.default_rng(1).normal(-1.5, 2.0, 20_000)


def test_calibrated_margins_have_temperature_one() -> None:
    assert fit_temperature(MARGINS, drawn(MARGINS)) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("scale", [0.4, 2.0, 5.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    labels = drawn(MARGINS)
    before, after = fit_temperature(MARGINS, labels), fit_temperature(scale * MARGINS, labels)
    assert before is not None and after == pytest.approx(scale * before, rel=1e-4)


def test_the_temperature_lowers_the_calibration_error() -> None:
    labels = drawn(MARGINS)
    sharp = 3 * MARGINS
    temperature = fit_temperature(sharp, labels)
    assert temperature is not None
    errors = [
        calibration_error(decision_reliability(1 / (1 + np.exp(-margins)), labels))
        for margins in (sharp, sharp / temperature)
    ]
    assert errors[0] > 0.1 and errors[1] < 0.02


@given(st.lists(st.tuples(st.floats(-30, 30), st.sampled_from([0, 1, 1, -100])), min_size=2, max_size=20))
def test_no_other_temperature_is_likelier(rows: list[tuple[float, int]]) -> None:
    margins, labels = np.array([m for m, _ in rows]), np.array([y for _, y in rows])
    found = fit_temperature(margins, labels)
    known = labels[labels >= 0]
    if len(set(known.tolist())) < 2:
        assert found is None
        return
    assert found is not None and LEAST_TEMPERATURE <= found <= MOST_TEMPERATURE
    signed = np.where(known == 1, -margins[labels >= 0], margins[labels >= 0])
    least = np.logaddexp(0, signed / found).mean()
    for other in np.geomspace(LEAST_TEMPERATURE, MOST_TEMPERATURE, 50):
        assert least <= np.logaddexp(0, signed / other).mean() + 1e-6 * (1 + least)


def test_a_temperature_needs_both_labels() -> None:
    for labels in ([], [1, 1], [0, 0], [-100, 1], [-100, -100]):
        assert fit_temperature([0.5] * len(labels), labels) is None
    with pytest.raises(DataError, match="NaN"):
        fit_temperature([math.nan, 1.0], [0, 1])


def test_unlabelled_frames_are_in_no_bin() -> None:
    assert decision_reliability([0.2, 0.9, 0.4], [0, -100, 1]) == (Bin(1, 0.2, 0.0), Bin(1, 0.4, 1.0))
    assert decision_reliability([0.3], [-100]) == ()
