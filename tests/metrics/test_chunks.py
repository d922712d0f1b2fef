"""Speech in chunks of 8 seconds: where chunks begin and end, what is left out, and sums over sessions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prospect_hf.errors import DataError
from prospect_hf.metrics.chunks import chunk_counts, chunk_figures
from prospect_hf.metrics.counts import plain, total

LABELS = st.lists(st.sampled_from([1, 0, -100]), min_size=1, max_size=40)


def kinds(said: list[int], labels: list[int], fps: float = 1.0, seconds: float = 2) -> dict[str, float]:
    counts = chunk_counts(said, labels, fps, seconds)
    return {name.removeprefix("chunk_"): value for name, value in counts.items() if value}


def test_chunks_begin_with_the_session_and_the_last_may_be_short() -> None:
    assert kinds([0, 1, 1, 0, 0], [1, 0, 0, 0, 1]) == {"yes_yes": 1, "yes_no": 1, "no_yes": 1}
    labels = [0] * 15 + [1, 1] + [0] * 3  # at 2 frames a second, 16 frames are 8 seconds
    assert kinds(labels, labels, 2.0, 8) == {"yes_yes": 2}
    assert kinds([0] * 15 + [1], labels[:16], 2.0, 8) == {"yes_yes": 1}
    assert chunk_counts(labels, labels, 2.0) == chunk_counts(labels, labels, 2.0, 8)


def test_frames_need_not_divide_a_chunk() -> None:
    """At 0.3 frames a second a chunk of 8 s has 2 or 3 frames; at 0.1 each frame is a chunk, and none is empty."""
    assert sum(kinds([0] * 10, [0] * 10, 0.3, 8).values()) == 4  # frames 0-2, 3-4, 5-7, 8-9
    assert kinds([0] * 5, [0] * 5, 0.1, 8) == {"no_no": 5}


def test_a_chunk_without_a_label_is_left_out() -> None:
    assert kinds([1, 0, 1, 0], [-100, -100, -100, 0]) == {"yes_no": 1}
    assert kinds([1, 1], [-100, 1]) == {"yes_yes": 1}
    assert kinds([], []) == {}


def test_the_macro_f1_is_the_mean_over_both_classes() -> None:
    found = plain(chunk_figures(chunk_counts([1, 0, 1, 0, 0], [1, 0, 0, 1, 0], 1.0, 1)))
    assert found == pytest.approx(
        {"chunk_precision": 0.5, "chunk_recall": 0.5, "chunk_f1": 0.5, "chunk_macro_f1": (0.5 + 4 / 6) / 2}
    )


def test_silence_has_half_the_f1_of_the_chunks_without_speech() -> None:
    labels = [1, 0, 0, 0]
    silence = plain(chunk_figures(chunk_counts([0] * 4, labels, 1.0, 1)))
    assert silence["chunk_f1"] == silence["chunk_recall"] == 0.0 and silence["chunk_precision"] is None
    assert silence["chunk_macro_f1"] == pytest.approx((2 * 3 / (2 * 3 + 1)) / 2)
    always = plain(chunk_figures(chunk_counts([1] * 4, labels, 1.0, 1)))
    assert always["chunk_macro_f1"] == pytest.approx((2 / (2 + 3)) / 2) and always["chunk_recall"] == 1.0
    # Of one class alone, the other is left out and not counted as 0.
    assert plain(chunk_figures(chunk_counts([0] * 4, [0] * 4, 1.0, 1)))["chunk_macro_f1"] == 1.0
    assert plain(chunk_figures(chunk_counts([], [], 1.0)))["chunk_macro_f1"] is None


@given(LABELS, st.sampled_from([0.5, 1.0, 2.0, 2.13]), st.integers(1, 9))
def test_the_reference_scores_one_and_each_chunk_counts_once(labels: list[int], fps: float, seconds: int) -> None:
    said = [int(label == 1) for label in labels]
    counts = chunk_counts(said, labels, fps, seconds)
    assert counts["chunk_yes_no"] == counts["chunk_no_yes"] == 0
    assert plain(chunk_figures(counts))["chunk_macro_f1"] in (1.0, None)
    assert sum(counts.values()) <= math.floor((len(labels) - 1) / (fps * seconds)) + 1


@settings(max_examples=40)
@given(st.lists(st.tuples(LABELS, st.randoms(use_true_random=False)), min_size=1, max_size=4))
def test_whole_chunks_of_one_session_are_the_sum_of_its_parts(parts: list[tuple[list[int], object]]) -> None:
    """Sessions of whole chunks, put together, have the counts of both: pooling is a sum."""
    sessions = []
    for labels, chance in parts:
        whole = labels + [0] * (-len(labels) % 4)
        sessions.append(([chance.randint(0, 1) for _ in whole], whole))  # type: ignore[attr-defined]
    pooled = total(chunk_counts(said, labels, 2.0, 2) for said, labels in sessions)
    together = chunk_counts(np.concatenate([s for s, _ in sessions]), np.concatenate([w for _, w in sessions]), 2.0, 2)
    assert pooled == together


@pytest.mark.parametrize(
    ("said", "labels", "fps", "seconds", "message"),
    [
        ([1, 0], [1], 2.0, 8, "of one session"),
        ([[1]], [[1]], 2.0, 8, "of one session"),
        ([2], [1], 2.0, 8, "speech 0 or 1"),
        ([float("nan")], [1], 2.0, 8, "speech 0 or 1"),
        ([1, 0], [1, 7], 2.0, 8, "a decision is 1, 0 or -100"),
        ([1, 0], [1, -5], 2.0, 8, "a decision is 1, 0 or -100"),
        ([1], [1], 0.0, 8, "numbers above 0"),
        ([1], [1], float("nan"), 8, "numbers above 0"),
        ([1], [1], 2.0, -8, "numbers above 0"),
        ([1], [1], float("inf"), 8, "numbers above 0"),
    ],
)
def test_what_is_no_session_is_a_sentence(said: list, labels: list, fps: float, seconds: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        chunk_counts(said, labels, fps, seconds)
