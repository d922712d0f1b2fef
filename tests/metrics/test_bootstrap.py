"""Intervals: they cover the truth as often as they say, and what belongs together is drawn together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_fixtures import make_session
from score_fixtures import scored_run

from processing_dst_smolvlm import FrameItem
from prospect_hf.evaluation.baselines import silent
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.report.results import THRESHOLDS, drawn_average_precision, scope_scores
from prospect_hf.evaluation.scored_run import ScoredRun, ScoredSession
from prospect_hf.metrics.bootstrap import draw_weights, drawn_sums, interval, recording_sums
from prospect_hf.metrics.counts import ratio, total
from prospect_hf.metrics.decisions import average_precision


def test_intervals_cover_the_truth() -> None:
    """A pooled recall over 60 uneven sessions, the harder the longer: the truth is inside in about 95 of 100 worlds."""
    rng = np.random.default_rng(0)
    worlds, sessions, inside = 400, 60, 0
    # The truth: hits over events where a session has on average as many events as it has difficulty to miss them.
    ability = rng.beta(4, 2, 200_000)
    events = rng.poisson(3 + 12 * (1 - ability))
    truth = float((ability * events).sum() / events.sum())
    for world in range(worlds):
        chance = rng.beta(4, 2, sessions)
        count = rng.poisson(3 + 12 * (1 - chance))
        counts = [
            {"hits": float(h), "events": float(n)} for h, n in zip(rng.binomial(count, chance), count, strict=True)
        ]
        weights = draw_weights([str(number) for number in range(sessions)], 400, seed=world)
        sums = drawn_sums(counts, weights)
        bounds = interval(ratio(sums["hits"], sums["events"]), sessions)
        assert bounds is not None
        inside += bounds[0] <= truth <= bounds[1]
    assert 0.91 <= inside / worlds <= 0.98, inside / worlds


def test_sessions_of_one_recording_are_drawn_together() -> None:
    """Ten copies of each of 30 recordings tell no more than one: the interval stays as wide."""
    rng = np.random.default_rng(1)
    values = rng.random(30)
    names = [f"r{number}" for number in range(30)]
    counts = [{"hits": value, "all": 1.0} for value in values]
    alone = drawn_sums(counts, draw_weights(names, 2000))
    together = drawn_sums(counts * 10, draw_weights(names * 10, 2000))
    narrow = drawn_sums(counts * 10, draw_weights([f"s{number}" for number in range(300)], 2000))
    widths = []
    for sums in (alone, together, narrow):
        bounds = interval(ratio(sums["hits"], sums["all"]), 30)
        assert bounds is not None
        widths.append(bounds[1] - bounds[0])
    wide, same, tight = widths
    assert same == pytest.approx(wide, rel=0.1) and tight < wide / 2


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 100))
def test_every_draw_has_as_many_recordings_as_there_are(groups: list[int], seed: int) -> None:
    weights = draw_weights([str(group) for group in groups], 50, seed)
    first = [groups.index(group) for group in set(groups)]
    assert (weights[:, first].sum(1) == len(set(groups))).all()
    for number, group in enumerate(groups):
        assert np.array_equal(weights[:, number], weights[:, groups.index(group)])
    assert np.array_equal(weights, draw_weights([str(group) for group in groups], 50, seed))


def test_another_seed_draws_otherwise() -> None:
    names = [str(number) for number in range(20)]
    assert not np.array_equal(draw_weights(names, 50, 0), draw_weights(names, 50, 1))


def test_a_draw_of_each_session_once_is_the_sum() -> None:
    counts = [{"a": 1.0, "b": 2.0}, {"a": 5.0}, {"c": 7.0}]
    sums = drawn_sums(counts, np.ones((1, 3)))
    assert {name: float(values[0]) for name, values in sums.items()} == total(counts)


def test_what_is_undefined_has_no_interval() -> None:
    assert interval(np.full(100, np.nan), 50) is None
    assert interval(np.where(np.arange(100) < 50, np.nan, 1.0), 50) is None
    assert interval(np.where(np.arange(100) < 40, np.nan, 1.0), 50) == (1.0, 1.0)
    assert interval(np.ones(100), 5) is None and interval(np.ones(100), 6) == (1.0, 1.0)


def test_a_figure_that_few_recordings_show_has_no_interval() -> None:
    """One matched pair in 40 sessions says nothing of how alike the texts of pairs are, however it is drawn."""
    sessions = [make_session(number, 12, 2, turn_rate=0.0) for number in range(40)]
    for number in range(10):
        sessions[number].speaking[3] = 1
        sessions[number].items[3] = FrameItem(response="take it")
    predictions = [silent(session) for session in sessions]
    predictions[0].spoken = {3: "take it"}
    run = scored_run(sessions, predictions)
    scores = scope_scores(run, 500)
    assert scores["speaking_recall"]["low"] is not None  # ten sessions have something to recall
    assert scores["speaking_f1_1s"]["value"] == pytest.approx(2 / 11) and scores["speaking_f1_1s"]["low"] is not None
    assert scores["speaking_precision"]["low"] is None  # nobody decides to speak
    sums = recording_sums(run.counts, [str(number // 4) for number in range(40)])
    assert sums["response_texts"].tolist() == [4.0, 4.0, 2.0, *[0.0] * 7]


@given(st.integers(0, 1000))
def test_average_precision_of_a_draw_is_that_of_its_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sessions = [make_session(seed + number, 12, 2, turn_rate=0.5) for number in range(4)]
    predictions = [
        Prediction(np.round(rng.random(12), 1), rng.random(12), session.states_after, None) for session in sessions
    ]
    part = ScoredRun([ScoredSession(*pair, {}) for pair in zip(sessions, predictions, strict=True)], 2.0)
    weights = rng.integers(0, 3, (5, 4)).astype(float)
    found = drawn_average_precision(part, "speaking", weights)
    for row, value in zip(weights, found, strict=True):
        chosen = [number for number in range(4) for _ in range(int(row[number]))]
        scores = np.concatenate([predictions[number].p_speak for number in chosen] or [np.zeros(0)])
        labels = np.concatenate([sessions[number].speaking for number in chosen] or [np.zeros(0, int)])
        wanted = average_precision(scores, labels)
        assert (np.isnan(value) and wanted is None) or value == pytest.approx(wanted)


def test_average_precision_of_many_scores_is_near() -> None:
    rng = np.random.default_rng(0)
    session = make_session(0, 20_000, 1, turn_rate=0.0, event_rate=0.0)
    session.speaking[:] = rng.random(20_000) < 0.3
    scores = 0.6 * session.speaking + rng.random(20_000)
    part = ScoredRun([ScoredSession(session, Prediction(scores, scores, session.states_after, None), {})], 2.0)
    assert session.speaking.sum() > 2 * THRESHOLDS
    (found,) = drawn_average_precision(part, "speaking", np.ones((1, 1)))
    assert found == pytest.approx(average_precision(scores, session.speaking), abs=1e-3)
