"""One run in ``results.json``: what is shown, how late it was, which recordings go together, and that it adds up."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from model_fixtures import make_session
from score_fixtures import scored_run, words_apart

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.baselines import oracle, shifted, silent
from prospect_hf.evaluation.judge.judged_runs import Judged
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.report import results
from prospect_hf.evaluation.report.results import drawn_average_precision, run_result, scope_scores
from prospect_hf.evaluation.report.sessions import session_scores, session_views, view
from prospect_hf.evaluation.scored_run import ScoredRun, ScoredSession
from prospect_hf.metrics.catalogue import MARKS


def result_of(part: ScoredRun, judged: Judged | None = None, draws: int = 0) -> dict[str, Any]:
    """A run's part of ``results.json``."""
    return run_result("run", {}, part, {one.session.session_id: "0f" for one in part.sessions}, draws, judged)


def worse(session: SessionRows, frames: int) -> Prediction:
    """The oracle, with a table that is wrong on so many frames and a head that is wrong on all."""
    made = oracle(session)
    made.states = 2 - made.states
    assert made.table is not None
    made.table[:frames] = 2 - made.table[:frames]
    return made


def test_sessions_are_shown_from_the_worst_to_the_best() -> None:
    count = 9
    sessions = [make_session(seed, 40, 1, event_rate=0.0) for seed in range(count)]
    order = np.random.default_rng(0).permutation(count).tolist()
    part = scored_run(sessions, [worse(session, wrong) for session, wrong in zip(sessions, order, strict=True)])
    scores, words = session_scores(part)
    views = session_views(part, scores)
    # So many frames of 40 are wrong, and every utterance is right.
    assert [one["score"] for one in views] == pytest.approx([1 - wrong / 80 for wrong in range(count)][::-1], abs=1e-4)
    assert views[-1]["id"] == sessions[order.index(0)].session_id
    assert words == "mean of joint state accuracy of the table and speaking F1 within 1 s"


def test_offline_runs_are_ranked_by_the_head_and_the_frame() -> None:
    session = make_session(1, 22, 5, turn_rate=0.8)
    made = oracle(session)
    made.table, made.spoken = None, {}
    assert session_scores(scored_run([session], [made])) == (
        [1.0],
        "mean of joint state accuracy and speaking F1 on the frame",
    )


def test_a_view_says_what_became_of_each_utterance() -> None:
    session = make_session(8, 60, 2, event_rate=0.0, turn_rate=0.0)
    texts = {4: "attach the wheel", 20: "tighten the bolt", 40: "well done"}
    session.speaking[list(texts)] = 1
    session.items = {frame: FrameItem(response=text) for frame, text in texts.items()} | {2: FrameItem({}, "hello")}
    made = silent(session)
    made.spoken = {5: texts[4], 20: "now", 55: "please"}
    made.states[7:, 1] = 1
    made.p_speak[5] = 0.12345
    assert made.table is not None
    made.table[9:, 1] = 1
    embeddings = words_apart([session]) | {"now": np.zeros(3, np.float32) - 1, "please": np.ones(3, np.float32)}
    shown = view(scored_run([session], [made], embeddings).sessions[0], 2.0, 0.5)
    assert [(one["frame"], one["verdict"], one.get("partner"), one.get("exact")) for one in shown["said"]] == [
        (5, "matched", 4, True),
        (20, "different", 20, False),
        (55, "redundant", None, None),
    ]
    assert [(one["frame"], one["verdict"], one.get("partner")) for one in shown["reference"]] == [
        (4, "matched", 5),
        (20, "different", 20),
        (40, "missed", None),
    ]
    assert [one["text"] for one in shown["reference"]] == list(texts.values())
    assert shown["said"][0]["cosine"] == 1.0 and shown["said"][1]["cosine"] < 0
    assert shown["user"] == [{"frame": 2, "text": "hello"}]
    assert shown["predicted_states"] == [[9, 1, 1]] and shown["reference_states"] == []  # the table's, not the head's
    assert (
        shown["p_speak"][4:6] == [0, 123] and len(shown["p_speak"]) == len(shown["p_update"]) == shown["frames"] == 60
    )
    plain = view(scored_run([session], [made]).sessions[0], 2.0, 0.5)
    assert {one["verdict"] for one in plain["said"] + plain["reference"]} == {None}


def test_a_pair_that_differs_by_white_space_is_exact_and_one_that_differs_by_a_word_is_not() -> None:
    session = make_session(8, 60, 2, event_rate=0.0, turn_rate=0.0)
    session.speaking[[4, 30]] = 1
    session.items = {4: FrameItem(response="attach the wheel"), 30: FrameItem(response="attach the roof")}
    made = silent(session)
    made.spoken = {4: " attach the wheel\n", 30: "attach the wheel"}
    vector = np.ones(3, np.float32)
    run = scored_run(
        [session], [made], dict.fromkeys(["attach the wheel", "attach the roof", *made.spoken.values()], vector)
    )
    assert [(one.verdict, one.exact) for one in run.sessions[0].said] == [("matched", True), ("matched", False)]
    assert run.counts[0]["text_exact"] == 1.0 and run.counts[0]["text_pairs"] == 2.0


def test_the_confusion_is_by_reference_and_prediction() -> None:
    session = make_session(9, 6, 1, turn_rate=0.0, event_rate=0.0)
    made = silent(session)
    made.states[2:] = 1
    assert result_of(scored_run([session], [made]))["confusion"] == {
        "head": [[2, 4, 0], [0, 0, 0], [0, 0, 0]],
        "table": [[6, 0, 0], [0, 0, 0], [0, 0, 0]],
    }


def test_each_curve_is_its_own_decisions() -> None:
    session = make_session(3, 40, 3, event_rate=0.5, turn_rate=0.5)
    made = oracle(session)
    made.p_update = 1 - made.p_update
    curves = result_of(scored_run([session], [made]))["curves"]
    assert isinstance(curves, dict)
    assert curves["speaking"]["precision"][-1] == 1.0
    share = float((session.dst_update == 1).mean())
    assert curves["dst_update"]["precision"] == [pytest.approx(share, abs=1e-4)]


def test_views_of_one_recording_are_one_recording() -> None:
    """Several cameras show the same hands: they are drawn together."""
    session = make_session(0, 9, 2)
    views = [dataclasses.replace(session, video_uid=f"grp-x__view{number}", source="ego4d") for number in range(2)]
    other = dataclasses.replace(session, video_uid="grp-y__view0", source="ego4d")
    part = scored_run([*views, other], [oracle(session)] * 3)
    assert part.recordings[0] == part.recordings[1] != part.recordings[2]


def test_each_source_has_its_own_scores() -> None:
    wtag = make_session(1, 22, 5)
    ego4d = dataclasses.replace(make_session(3, 40, 2), session_id="ego4d.v3.talk_some_0", source="ego4d")
    part = scored_run([wtag, ego4d], [oracle(wtag), silent(ego4d)])
    scores = result_of(part)["scores"]
    assert isinstance(scores, dict)
    values = {scope: scores[scope]["speaking_recall"]["value"] for scope in scores}
    turns = int((wtag.speaking == 1).sum())
    assert values == {"all": turns / (turns + int((ego4d.speaking == 1).sum())), "wtag": 1.0, "ego4d": 0.0}


def test_intervals_hold_the_value_between_low_and_high() -> None:
    sessions = [make_session(seed, 30, 3) for seed in range(12)]
    scores = scope_scores(scored_run(sessions, [shifted(oracle(one), one.first_frame + 1) for one in sessions]), 200)
    known = {name: score for name, score in scores.items() if score["low"] is not None}
    assert {"speaking_f1_1s", "joint_state_accuracy", "speaking_average_precision"} <= known.keys()
    for name, score in known.items():
        assert score["low"] <= score["value"] <= score["high"], name  # type: ignore[operator]
    assert known["joint_state_accuracy"]["low"] < known["joint_state_accuracy"]["high"]  # type: ignore[operator]


def test_what_is_infinite_is_not_written() -> None:
    """A perplexity past the largest float has no place in JSON, nor has an interval around it."""
    sessions = [make_session(seed, 9, 1) for seed in range(4)]
    part = scored_run(sessions, [oracle(session) for session in sessions])
    forced = dict.fromkeys(
        ("response_tokens", "response_tokens_right", "state_nll", "state_tokens", "state_tokens_right"), 1.0
    ) | dict.fromkeys(("forced_turns", "forced_diff_sum", "forced_silent", "fluency_sum"), 1.0)
    part = part.with_counts([forced | {"response_nll": 1e6}] * 4)
    scores = scope_scores(part, 50)
    assert scores["perplexity"] == {"value": None, "low": None, "high": None}
    assert scores["state_perplexity"]["value"] == pytest.approx(np.e)


def test_no_threshold_is_the_best_where_nothing_is_said() -> None:
    session = make_session(9, 6, 1, turn_rate=0.0)
    scores = scope_scores(scored_run([session], [silent(session)]), 0)
    assert scores["speaking_best_threshold"]["value"] is scores["speaking_best_f1"]["value"] is None


def test_votes_stand_with_a_judged_run_alone() -> None:
    session = make_session(1, 22, 5)
    part = scored_run([session], [oracle(session)])
    votes = {session.session_id: {"votes": [{"overall": 4}], "reasons": ["fine"]}}
    judged = Judged([{}], votes, {"judge_exact": 0.7, "judge_alpha_overall": None})
    assert "judge_exact" not in result_of(part)["scores"]["all"] and "judgement" not in result_of(part)["sessions"][0]
    part = part.with_counts([{"judge_sessions": 1.0} | {f"judge_{mark}_sum": 4.0 for mark in MARKS}])
    run = result_of(part, judged)
    assert run["scores"]["all"]["judge_exact"]["value"] == 0.7
    assert run["scores"]["all"]["judge_alpha_overall"]["value"] is None
    assert run["scores"]["wtag"]["judge_overall"]["value"] == 4.0 and "judge_exact" not in run["scores"]["wtag"]
    assert run["sessions"][0]["judgement"] == run["views"][0]["judgement"] == votes[session.session_id]


def test_many_draws_are_each_alone() -> None:
    """Draws are taken some at a time; which ones go together changes nothing."""
    sessions = [make_session(seed, 12, 2, turn_rate=0.5) for seed in range(4)]
    rng = np.random.default_rng(0)
    made = [Prediction(rng.random(12), rng.random(12), session.states_after, None) for session in sessions]
    part = ScoredRun([ScoredSession(*pair, {}) for pair in zip(sessions, made, strict=True)], 2.0)
    weights = rng.integers(0, 3, (2 * results.DRAWS_AT_A_TIME + 30, 4)).astype(float)
    found = drawn_average_precision(part, "speaking", weights)
    alone = [drawn_average_precision(part, "speaking", weights[row : row + 1])[0] for row in range(len(weights))]
    assert len(set(found.tolist())) > 30 and found == pytest.approx(alone, nan_ok=True)
