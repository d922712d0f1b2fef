"""Spans of one step: which are joined, and what the two state rules make of the others."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.labels.spans import JOINED, ONE_SPAN, REOPENED, STATE_RULES, Span, merge_spans, overlaps, span_events
from prospect_hf.sessions import MONOTONE, REOPEN, SOURCES, Session, Step

times = st.integers(0, 40)
spans_of_two_steps = st.lists(
    st.builds(
        lambda step, start, length, ends: Span(step, start, start + length if ends else None),
        st.integers(0, 1),
        times,
        st.integers(1, 10),
        st.sampled_from([True, True, True, False]),
    ),
    min_size=1,
    max_size=12,
)


def test_each_source_has_a_state_rule() -> None:
    assert set(STATE_RULES) == set(SOURCES) and set(STATE_RULES.values()) == {REOPEN, MONOTONE}


@pytest.mark.parametrize(
    ("second", "pause", "reopen", "monotone", "kinds"),
    [
        ((4, 8), 0.0, [(0, 8)], [(0, 8)], (JOINED, JOINED)),  # overlaps
        ((1, 3), 0.0, [(0, 5)], [(0, 5)], (JOINED, JOINED)),  # lies within
        ((5, 8), 0.0, [(0, 8)], [(0, 8)], (JOINED, JOINED)),  # touches
        ((5.5, 8), 0.5, [(0, 8)], [(0, 8)], (JOINED, JOINED)),  # follows within the pause
        ((5.5, 8), 0.0, [(0, 5), (5.5, 8)], [(0, 8)], (REOPENED, ONE_SPAN)),  # apart
        ((4, None), 0.0, [(0, None)], [(0, None)], (JOINED, JOINED)),  # never completed
    ],
)
def test_spans_of_a_step_are_joined_or_stay_apart(
    second: tuple[float, float | None],
    pause: float,
    reopen: list[tuple[float, float | None]],
    monotone: list[tuple[float, float | None]],
    kinds: tuple[str, str],
) -> None:
    spans = [Span(0, *second), Span(0, 0, 5)]
    for rule, expected, kind in ((REOPEN, reopen, kinds[0]), (MONOTONE, monotone, kinds[1])):
        merged, repairs = merge_spans(spans, rule, pause=pause)
        assert [(span.start, span.end) for span in merged] == expected
        assert repairs == Counter([kind])


def test_spans_of_different_steps_are_left_alone() -> None:
    spans = (Span(0, 0, 5), Span(1, 3, 8))
    assert merge_spans(spans, REOPEN) == (spans, Counter()) == merge_spans(spans, MONOTONE)


@given(spans_of_two_steps, st.sampled_from([REOPEN, MONOTONE]), st.sampled_from([0.0, 0.5]))
def test_merged_spans_are_a_valid_state_machine_and_lose_no_time(spans: list[Span], rule: str, pause: float) -> None:
    merged, repairs = merge_spans(spans, rule, pause=pause)
    Session(  # checks the events: no overlap, one start at most under monotone
        session_id="s",
        source="wtag",
        video_uid="v",
        recording="v",
        user_type="annotation",
        goal="g",
        steps=(Step("S1", "a"), Step("S2", "b")),
        turns=(),
        events=span_events(merged),
        fps=2.0,
        first_frame=0,
        num_frames=200,
        frames_file="frames/v.arrow",
        origin="test",
        state_rule=rule,
    )
    joined = len(spans) - len(merged)
    assert joined == repairs[JOINED] + repairs[ONE_SPAN] and all(count > 0 for count in repairs.values())
    for span in spans:  # what was in progress stays in progress
        inside = [one for one in merged if one.step == span.step and one.start <= span.start]
        assert any(one.end is None or (span.end is not None and span.end <= one.end) for one in inside)
    for above, below in pairwise(merged):
        if above.step == below.step:
            assert rule == REOPEN and above.end is not None and below.start > above.end + pause
    assert merge_spans(merged, rule, pause=pause)[0] == merged


@given(spans_of_two_steps.map(lambda spans: [*spans, Span(2, 5, 9), Span(2, 8, 30)]))
def test_overlaps_are_those_that_a_comparison_of_all_pairs_finds(spans: list[Span]) -> None:
    spans.sort(key=lambda span: span.start)
    pairs = [
        any(above.step != span.step and (above.end is None or above.end > span.start) for above in spans[:number])
        for number, span in enumerate(spans)
    ]
    assert overlaps(spans) == sum(pairs)


def test_many_spans_that_all_overlap_take_no_longer_each() -> None:
    many = [Span(number % 1000, number, 10**9) for number in range(200_000)]
    assert overlaps(many) == 199_999  # a comparison of all pairs would take hours
