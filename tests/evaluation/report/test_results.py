"""One run as it stands in results.json: values with intervals, what is shown of sessions, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_fixtures import make_session

from processing_dst_smolvlm import FrameItem
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.evaluation.baselines import oracle, shifted, silent
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.report import sessions as evaluated_module
from prospect_hf.evaluation.report.results import read_results, run_result, scope_scores, write_results
from prospect_hf.evaluation.report.sessions import delays, shown_sessions
from prospect_hf.evaluation.score import tally
from prospect_hf.evaluation.scored_run import ScoredRun

HALF = (0.5, 0.5)
STAMP = {
    "mode": "stream", "model": "m", "model_revision": "r", "data": "d", "data_fingerprint": "f", "split": "test",
    "sources": ["wtag"], "frames": "store", "dst": "files", "fps": 2.0, "speaking_threshold": 0.5,
    "dst_update_threshold": 0.5, "context": {"strategy": "none"}, "tracking": {}, "decoding": {}, "encoder": None,
    "prospect_hf": "0", "torch": "0",
}  # fmt: skip


def a_session(seed: int, source: str = "wtag") -> SessionRows:
    session = make_session(seed, 40, 3, turn_rate=0.2)
    return dataclasses.replace(session, source=source, session_id=f"{source}.v{seed}.talk_some_0")


def evaluated(sessions: list[SessionRows], predictions: list[Prediction]) -> ScoredRun:
    counts = [tally(session, made, 2.0, HALF) for session, made in zip(sessions, predictions, strict=True)]
    return ScoredRun(sessions, predictions, counts, 2.0, None)


def result(part: ScoredRun, **changes: Any) -> dict[str, Any]:
    prints = {session.session_id: "0f" for session in part.sessions}
    return run_result("a run", STAMP | changes, part, prints, draws=200)


SESSIONS = [a_session(seed, source) for seed in range(6) for source in ("wtag", "ego4d")]
MIXED = [oracle(s) if number % 3 else shifted(oracle(s), 1) for number, s in enumerate(SESSIONS)]


def test_every_scope_has_its_own_values_and_intervals_around_them() -> None:
    run = result(evaluated(SESSIONS, MIXED))
    assert set(run["scores"]) == {"all", "wtag", "ego4d"}
    wtag = [number for number, session in enumerate(SESSIONS) if session.source == "wtag"]
    alone = scope_scores(evaluated([SESSIONS[n] for n in wtag], [MIXED[n] for n in wtag]), 200)
    assert run["scores"]["wtag"] == alone
    for scores in run["scores"].values():
        for name, score in scores.items():
            if score["low"] is not None:
                assert score["low"] <= score["value"] + 1e-9 and score["value"] <= score["high"] + 1e-9, name
    all_scores = run["scores"]["all"]
    assert all_scores["transition_f1_0s"]["low"] < all_scores["transition_f1_0s"]["high"] < 1.0
    assert all_scores["speaking_average_precision"]["low"] is not None
    assert "matching_f1" not in all_scores and "judge_exact" not in all_scores
    json.dumps(run, allow_nan=False)


def test_two_recordings_have_no_interval_and_none_asked_for_none() -> None:
    few = evaluated(SESSIONS[:2], MIXED[:2])
    assert all(score["low"] is None for score in scope_scores(few, 200).values())
    assert all(score["low"] is None for score in scope_scores(evaluated(SESSIONS, MIXED), 0).values())


def test_nothing_to_find_is_no_threshold() -> None:
    quiet = make_session(1, 10, 2, turn_rate=0.0, event_rate=0.0)
    scores = scope_scores(evaluated([quiet], [silent(quiet)]), 0)
    for name in ("speaking_best_threshold", "speaking_best_f1", "dst_update_average_precision", "transition_f1_1s"):
        assert scores[name]["value"] is None


def test_camera_views_of_one_recording_are_one() -> None:
    views = [dataclasses.replace(a_session(n), video_uid=f"v__view{n}") for n in range(4)]
    assert len(set(evaluated(views, [oracle(view) for view in views]).recordings)) == 1
    assert len(set(evaluated(SESSIONS, MIXED).recordings)) == len(SESSIONS)


def test_best_and_worst_are_ranked_and_each_session_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [oracle(SESSIONS[0]), silent(SESSIONS[1]), shifted(oracle(SESSIONS[2]), 2), oracle(SESSIONS[3])]
    best, worst, words = shown_sessions(evaluated(SESSIONS[:4], made))
    assert "table" in words and "speaking F1" in words
    assert {view["id"] for view in best} == {SESSIONS[0].session_id, SESSIONS[3].session_id}
    assert [view["id"] for view in worst] == [SESSIONS[1].session_id, SESSIONS[2].session_id]
    scores = [view["score"] for view in [*best, *worst[::-1]]]
    assert scores == sorted(scores, reverse=True) and scores[0] == 1.0
    monkeypatch.setattr(evaluated_module, "SHOWN", 1)
    best, worst, _ = shown_sessions(evaluated(SESSIONS[:4], made))
    assert len(best) == 1 and [view["id"] for view in worst] == [SESSIONS[1].session_id]
    offline = Prediction(made[0].p_speak, made[0].p_update, made[0].states, None)
    words = shown_sessions(evaluated(SESSIONS[:1], [offline]))[2]
    assert "table" not in words and "on the frame" in words


def test_a_view_tells_what_matched() -> None:
    session = make_session(8, 60, 2, event_rate=0.0, turn_rate=0.0)
    session.speaking[[10, 30, 50]] = 1
    for at, text in ((10, "one"), (30, "two"), (50, "three")):
        session.items[at] = FrameItem(response=text)
    session.items[5] = FrameItem(user_text="hello")
    session.states_after[20:, 1] = 1
    made = silent(session)
    made.spoken = {11: "one", 16: "two", 30: "four"}
    part = evaluated([session], [made])
    part.embeddings = dict(zip(("one", "two", "three", "four"), np.eye(4, dtype=np.float32), strict=True))
    (view,) = shown_sessions(part)[0]
    assert [(said["frame"], said["verdict"]) for said in view["said"]] == [
        (11, "correct"), (16, "redundant"), (30, "wrong"),
    ]  # fmt: skip
    assert [(turn["frame"], turn["verdict"]) for turn in view["reference"]] == [
        (10, "correct"), (30, "wrong"), (50, "missed"),
    ]  # fmt: skip
    assert view["reference_states"] == [[20, 1, 1]] and view["predicted_states"] == []
    assert view["user"] == [{"frame": 5, "text": "hello"}] and len(view["p_speak"]) == view["frames"] == 60


def test_delays_are_late_when_positive_and_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    part = evaluated(SESSIONS[:3], [shifted(oracle(session), 1) for session in SESSIONS[:3]])
    found = delays(part)
    assert set(found) == {"transition", "speaking"} and found["transition"]
    assert set(found["transition"]) == {0.5}
    assert found["speaking"] and min(found["speaking"]) >= 0.0
    far = evaluated([SESSIONS[0]], [silent(SESSIONS[0])])
    assert delays(far) == {"transition": [], "speaking": []}
    monkeypatch.setattr(evaluated_module, "DELAYS", 5)
    some = delays(part)["transition"]
    assert len(some) == 5 and set(some) == {0.5}


def test_written_is_read_and_stamps_are_asked_for(tmp_path: Path) -> None:
    run = result(evaluated(SESSIONS, MIXED))
    written = write_results(tmp_path / "results.json", [run])
    assert read_results(tmp_path) == read_results(tmp_path / "results.json") == json.loads(json.dumps(written))
    assert not list(tmp_path.glob("*.partial"))
    bare = {name: value for name, value in STAMP.items() if name != "encoder"}
    with pytest.raises(DataError, match="encoder"):
        write_results(tmp_path / "results.json", [run | {"stamp": bare}])
    assert read_results(tmp_path)["runs"][0]["stamp"] == STAMP
