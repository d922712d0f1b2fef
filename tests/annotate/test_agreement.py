"""The agreement of two sets of labels: exact for what is equal, known figures for what is known, no invalid span."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prospect_hf.annotate import agreement
from prospect_hf.annotate.agreement import Agreement, agreement_figures, compare_spans, pooled
from prospect_hf.errors import DataError
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import MONOTONE, REOPEN

STEPS, SECONDS = 4, 60
# Figures that do not change when a and b are exchanged.
SYMMETRIC = (
    "joint_state_accuracy_mean", "joint_state_accuracy_pooled", "step_accuracy", "state_macro_f1",
    "boundary_error_median_s", "boundary_error_p90_s", "start_error_median_s", "end_error_median_s", "step_iou",
    "transition_f1_2s", "transition_f1_5s", "transition_f1_10s", "order_agreement",
)  # fmt: skip


@st.composite
def label_sets(draw: st.DrawFn) -> list[Span]:
    """Spans of some of the steps, each with up to three visits apart; the last one may be open. Tenths of a second."""
    spans = []
    for step in draw(st.sets(st.integers(0, STEPS - 1))):
        times = sorted(draw(st.sets(st.integers(0, 10 * SECONDS - 20), min_size=2, max_size=6)))
        visits = [(times[n], times[n + 1]) for n in range(0, len(times) - 1, 2)]
        is_open = draw(st.booleans())
        for n, (start, end) in enumerate(visits):
            last = n == len(visits) - 1
            spans.append(Span(step, start / 10, None if last and is_open else end / 10))
    return draw(st.permutations(spans))


def compare(a: Sequence[Span], b: Sequence[Span], **others: Any) -> Agreement:
    return compare_spans(a, b, **{"steps": STEPS, "num_frames": 2 * SECONDS, **others})


def figures(a: Sequence[Span], b: Sequence[Span], **others: Any) -> dict[str, float | None]:
    return agreement_figures(compare(a, b, **others))


@settings(max_examples=40)
@given(label_sets(), st.sampled_from([REOPEN, MONOTONE]))
def test_a_set_agrees_with_itself(spans: list[Span], rule: str) -> None:
    for name, value in figures(spans, spans, rule=rule).items():
        if name.endswith("_s"):
            assert value in (0.0, None), name
        elif "covered" not in name:
            assert value in (1.0, None), name
        if spans and name != "order_agreement" and not name.startswith("end_"):
            assert value is not None, name


@settings(max_examples=40)
@given(label_sets(), label_sets())
def test_figures_without_a_side_are_symmetric(a: list[Span], b: list[Span]) -> None:
    one, other = figures(a, b), figures(b, a)
    for name in SYMMETRIC:
        assert one[name] == pytest.approx(other[name]), name
    for seconds in (2, 5, 10):
        assert one[f"transition_precision_{seconds}s"] == other[f"transition_recall_{seconds}s"]
    for name in ("steps", "time"):
        assert one[f"{name}_covered_a"] == other[f"{name}_covered_b"]
    if one["start_shift_s"] is not None:
        assert one["start_shift_s"] == pytest.approx(-(other["start_shift_s"] or 0.0), abs=1e-9)


@settings(max_examples=40)
@given(label_sets(), st.sampled_from([1.0, -0.5, 1.7]))
def test_a_shift_is_the_boundary_error(spans: list[Span], shift: float) -> None:
    a = [Span(one.step, one.start + 1, None if one.end is None else one.end + 1) for one in spans]
    b = [Span(one.step, one.start + shift, None if one.end is None else one.end + shift) for one in a]
    found = figures(a, b, num_frames=2 * SECONDS + 6)
    for kind in ("boundary", "start", "end"):
        for figure in ("median", "p90"):
            assert found[f"{kind}_error_{figure}_s"] in (None, pytest.approx(abs(shift)))
    assert found["start_shift_s"] == (pytest.approx(shift) if spans else None)
    assert found["order_agreement"] in (1.0, None)


@settings(max_examples=40)
@given(st.lists(st.tuples(label_sets(), label_sets()), min_size=1, max_size=4))
def test_pooled_videos_are_sums(pairs: list[tuple[list[Span], list[Span]]]) -> None:
    each = [compare(a, b) for a, b in pairs]
    joint = [agreement_figures(one)["joint_state_accuracy_mean"] for one in each]
    every = agreement_figures(pooled(each))
    assert every["joint_state_accuracy_mean"] == pytest.approx(sum(one or 0.0 for one in joint) / len(joint))
    assert pooled([pooled(each[:1]), *(pooled([one]) for one in each[1:])]) == pooled(each)


def test_mean_over_videos_and_pool_of_frames_differ() -> None:
    """A short video that is right and a long one that is wrong throughout."""
    right = compare([Span(0, 1, 2)], [Span(0, 1, 2)], num_frames=10)
    wrong = compare([Span(0, 0, None)], [Span(1, 0, None)], num_frames=90)
    found = agreement_figures(pooled([right, wrong]))
    assert found["joint_state_accuracy_mean"] == 0.5 and found["joint_state_accuracy_pooled"] == 0.1


def test_figures_of_a_known_pair() -> None:
    a = [Span(0, 10, 20), Span(1, 20, 30), Span(2, 30, 40)]
    b = [Span(0, 10, 26), Span(2, 26, 38), Span(3, 40, 50)]
    one = compare(a, b)
    assert one.start_errors == (0.0, -4.0) and one.end_errors == (6.0, -2.0)
    assert {name: one.counts[name] for name in ("steps", "steps_a", "steps_b", "steps_both", "open_ends")} == {
        "steps": 4, "steps_a": 3, "steps_b": 3, "steps_both": 2, "open_ends": 0,
    }  # fmt: skip
    found = agreement_figures(one)
    assert found["boundary_error_median_s"] == 3.0 and found["start_shift_s"] == -2.0 and found["end_shift_s"] == 2.0
    assert found["boundary_error_p90_s"] == pytest.approx(4 + 0.7 * 2)  # of 0, 2, 4 and 6
    assert found["step_iou"] == pytest.approx((10 / 16 + 0 + 8 / 14 + 0) / 4)
    # S1's start and S3's end within 2 s, S3's start within 5 s, S1's end within 10 s; of 6 transitions each.
    assert [found[f"transition_f1_{seconds}s"] for seconds in (2, 5, 10)] == pytest.approx([2 / 6, 3 / 6, 4 / 6])
    # Equal up to 20 s, where b's first step goes on.
    assert found["joint_state_accuracy_mean"] == pytest.approx(39 / 120)
    assert found["order_agreement"] == 1.0
    assert found["steps_covered_a"] == 0.75 and found["time_covered_a"] == 0.5


@pytest.mark.parametrize(
    ("b", "expected"),
    [
        ([Span(0, 30, 40), Span(1, 20, 30), Span(2, 10, 20)], 0.0),  # reversed
        ([Span(0, 20, 30), Span(1, 10, 20), Span(2, 30, 40)], 2 / 3),
        ([Span(0, 10, 20), Span(1, 10, 20), Span(2, 30, 40)], 2 / 3),  # a tie is an order of its own
        ([Span(0, 10, 20)], None),  # one step in common has no order
    ],
)
def test_order_by_first_starts(b: list[Span], expected: float | None) -> None:
    found = figures([Span(0, 10, 20), Span(1, 20, 30), Span(2, 30, 40)], b)["order_agreement"]
    assert found == (None if expected is None else pytest.approx(expected))


def test_no_step_in_common() -> None:
    found = figures([Span(0, 10, 20)], [Span(1, 10, 20)])
    assert found["boundary_error_median_s"] is None and found["order_agreement"] is None
    assert found["step_iou"] == 0.0 and found["transition_f1_10s"] == 0.0
    assert 0 < (found["joint_state_accuracy_mean"] or 0) < 0.2  # before both begin


def test_one_set_without_labels() -> None:
    one = compare([Span(0, 10, 20)], [])
    found = agreement_figures(one)
    assert found["steps_covered_b"] == 0.0 and found["transition_recall_10s"] == 0.0
    assert found["transition_precision_10s"] is None and found["step_iou"] == 0.0
    assert figures([], [])["step_iou"] is None and figures([], [])["joint_state_accuracy_mean"] == 1.0


def test_visits_by_rule() -> None:
    """Two visits against one span from the first to the last: equal boundaries, and equal states where labels join."""
    visits, whole = [Span(0, 10, 20), Span(0, 40, 50)], [Span(0, 10, 50)]
    apart, joined = figures(visits, whole, rule=REOPEN), figures(visits, whole, rule=MONOTONE)
    assert apart["boundary_error_p90_s"] == joined["boundary_error_p90_s"] == 0.0
    assert apart["step_iou"] == pytest.approx(0.5) and joined["step_iou"] == 1.0
    assert apart["joint_state_accuracy_mean"] == pytest.approx(80 / 120) and joined["joint_state_accuracy_mean"] == 1.0


def test_open_ends_last_to_the_end_of_the_video() -> None:
    one = compare([Span(0, 10, None)], [Span(0, 10, 60)])
    assert one.end_errors == () and one.counts["open_ends"] == 1
    found = agreement_figures(one)
    assert found["step_iou"] == 1.0 and found["end_error_median_s"] is None and found["boundary_error_p90_s"] == 0.0
    at_end = figures([Span(0, 60, None)], [Span(0, 60, None)])
    assert at_end["step_iou"] == 1.0 and at_end["joint_state_accuracy_mean"] == 1.0


def test_frames_before_the_task_are_not_compared() -> None:
    a, b = [Span(0, 30, 40)], [Span(0, 32, 40)]
    whole, part = (figures(a, b, first_frame=first)["joint_state_accuracy_pooled"] for first in (0, 60))
    assert whole == pytest.approx(116 / 120) and part == pytest.approx(57 / 60)  # frame 59 is none of the part


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (Span(4, 1, 2), "video, b: a span is of step S5; the plan has the steps S1 to S4."),
        (Span(-1, 1, 2), "step S0"),
        (Span(0, math.nan, 2), "video, b: S1: its start is nan; it must be a finite number of seconds."),
        (Span(0, 1, math.inf), "its end is inf"),
        (Span(0, -1, 2), "must not be negative"),
        (Span(0, 2, 2), "its end 2 is not after its start 2."),
        (Span(0, 1, 99), "S1 is labelled at 99 s, but the video ends at 60 s."),
        (Span(0, 99_999, None), "no video is so long"),
    ],
)
def test_a_span_that_is_none(span: Span, message: str) -> None:
    with pytest.raises(DataError) as error:
        compare([Span(0, 1, 2)], [span], where="video")
    assert message in str(error.value)


def test_more_states_than_any_video_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "MOST_STATES", 400)
    compare([], [], steps=4, num_frames=100)
    with pytest.raises(DataError, match="video: 101 frames and 4 steps are more than any video has"):
        compare([], [], steps=4, num_frames=101, where="video")


def test_a_video_without_frames() -> None:
    with pytest.raises(DataError, match="video: there is no frame from 5 to 5; give the length of the video"):
        compare([], [], first_frame=5, num_frames=5, where="video")
