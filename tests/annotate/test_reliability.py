"""Whether confidence means something: rank correlation, and what a threshold sends on."""

from __future__ import annotations

import math

import pytest

from prospect_hf.align.alignment import Visit
from prospect_hf.annotate.reliability import (
    kept_curve,
    rank_correlation,
    reliability_table,
    visit_accuracies,
)
from prospect_hf.errors import DataError
from prospect_hf.labels.spans import Span
from prospect_hf.metrics.calibration import reliability


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
