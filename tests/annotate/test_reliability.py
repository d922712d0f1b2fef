"""Whether confidence means something: bins, calibration error, rank correlation, and what a threshold sends on."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.align.alignment import Visit
from prospect_hf.annotate.reliability import (
    Bin,
    calibration_error,
    kept_curve,
    rank_correlation,
    reliability,
    reliability_table,
    visit_accuracies,
)
from prospect_hf.errors import DataError
from prospect_hf.labels.spans import Span

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


def test_rank_correlation_sees_order_alone() -> None:
    assert rank_correlation([0.1, 0.2, 0.9], [0.0, 0.01, 0.02]) == pytest.approx(1)
    assert rank_correlation([0.1, 0.2, 0.9], [0.9, 0.5, 0.4]) == pytest.approx(-1)
    assert rank_correlation([0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.4, 0.3]) == pytest.approx(0.6)
    assert rank_correlation([0.1, 0.1, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(math.sqrt(0.9))  # shared ranks
    assert rank_correlation([0.5, 0.5], [0.1, 0.9]) is None


def test_a_threshold_sends_what_is_below_it() -> None:
    confidences, accuracies = [0.2, 0.4, 0.6, 0.8], [0.1, 0.3, 0.7, 0.9]
    none, half, most = kept_curve(confidences, accuracies, [0.0, 0.6, 0.7, 0.9])
    assert (none.sent, none.accuracy, none.sent_accuracy) == (0.0, 0.5, None)
    assert half.sent == 0.5 and half.accuracy == pytest.approx(0.8) and half.sent_accuracy == pytest.approx(0.2)
    assert most.sent == 0.75 and most.accuracy == 0.9  # and 0.9 leaves none


def test_a_visit_is_as_accurate_as_its_lines() -> None:
    visits = [
        Visit(Span(0, 0.0, 1.0), (0, 1), 0.9, "semantic"),
        Visit(Span(1, 1.0, 2.0), (2, 3, 4, 5), 0.9, "semantic"),
    ]
    assert visit_accuracies(visits, {0: 0, 1: 0, 2: 1, 3: 0, 5: 1}) == [1.0, 0.5]  # line 4 belongs to no step
    with pytest.raises(DataError, match="no line"):
        visit_accuracies([Visit(Span(0, 0.0, 1.0), (), 0.9, "semantic")], {})


@pytest.mark.parametrize(
    ("confidences", "accuracies", "message"),
    [
        ([], [], "at least one"),
        ([0.5], [0.5, 0.6], "as many"),
        ([1.5], [0.5], "confidence is not 0 to 1"),
        ([math.nan], [0.5], "confidence is not 0 to 1"),
        ([0.5], [math.nan], "accuracy is not 0 to 1"),
        ([0.5], [-0.1], "accuracy is not 0 to 1"),
    ],
)
def test_pairs_that_are_none_are_refused(confidences: list[float], accuracies: list[float], message: str) -> None:
    for function in (reliability, rank_correlation):
        with pytest.raises(DataError, match=message):
            function(confidences, accuracies)


def test_the_table_shows_bins_error_and_curve() -> None:
    text = reliability_table([0.2, 0.4, 0.6, 0.8], [0.1, 0.3, 0.7, 0.9], 2, [0.0, 0.5])
    assert text.splitlines() == [
        "| pairs | mean confidence | mean accuracy |",
        "|---|---|---|",
        "| 2 | 0.300 | 0.200 |",
        "| 2 | 0.700 | 0.800 |",
        "",
        "Expected calibration error 0.100, rank correlation 1.00.",
        "",
        "| threshold | below it | accuracy of these | accuracy of the others |",
        "|---|---|---|---|",
        "| 0 | 0% |  | 0.500 |",
        "| 0.5 | 50% | 0.200 | 0.800 |",
    ]
    assert reliability_table([0.5], [0.5]).endswith("rank correlation undefined.")
