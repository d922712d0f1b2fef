"""One run as it stands in results.json: values with intervals, what is shown of sessions, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_fixtures import make_session
from score_fixtures import scored_run

from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.evaluation.baselines import oracle, shifted, silent
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.report import sessions as evaluated_module
from prospect_hf.evaluation.report.differences import paired_differences
from prospect_hf.evaluation.report.results import read_results, run_result, scope_scores, write_results
from prospect_hf.evaluation.report.sessions import delays, session_scores, session_views
from prospect_hf.evaluation.score import figures
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.metrics.calibration import Bin, calibration_error, decision_reliability
from prospect_hf.metrics.counts import plain, total

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
    return scored_run(sessions, predictions)


def result(part: ScoredRun, **changes: Any) -> dict[str, Any]:
    prints = {scored.session.session_id: "0f" for scored in part.sessions}
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


def test_every_session_has_a_view_and_the_worst_comes_first() -> None:
    made = [oracle(SESSIONS[0]), silent(SESSIONS[1]), shifted(oracle(SESSIONS[2]), 2), oracle(SESSIONS[3])]
    run = result(evaluated(SESSIONS[:4], made))
    assert "table" in run["ranked_by"] and "speaking F1" in run["ranked_by"]
    assert [view["id"] for view in run["views"]] == [SESSIONS[number].session_id for number in (1, 2, 3, 0)]
    scores = [view["score"] for view in run["views"]]
    assert scores == sorted(scores) and scores[-1] == 1.0
    assert {one["id"]: round(one["score"], 4) for one in run["sessions"]} == {
        view["id"]: view["score"] for view in run["views"]
    }
    offline = Prediction(made[0].p_speak, made[0].p_update, made[0].states, None)
    words = session_scores(evaluated(SESSIONS[:1], [offline]))[1]
    assert "table" not in words and "on the frame" in words


def test_a_session_without_any_figure_is_shown_last() -> None:
    """Nothing is said and nothing labelled: there is no score, but the session can be opened."""
    quiet = make_session(1, 10, 2, turn_rate=0.0, labelled=False)
    run = evaluated([quiet, SESSIONS[0]], [silent(quiet), oracle(SESSIONS[0])])
    scores, _ = session_scores(run)
    assert scores == [None, 1.0]
    assert [view["score"] for view in session_views(run, scores)] == [1.0, None]


def test_a_session_has_its_own_figures() -> None:
    run = result(evaluated(SESSIONS[:2], [oracle(SESSIONS[0]), silent(SESSIONS[1])]))
    first, second = (one["figures"] for one in run["sessions"])
    assert first["speaking_f1_1s"] == first["table_joint_state_accuracy"] == first["response_exact_match"] == 1.0
    assert second["speaking_f1_1s"] == 0.0 and "matching_f1" not in first


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


def unsure(session: SessionRows, seed: int) -> Prediction:
    """The oracle's words and states, with probabilities of both decisions that are more or less right."""
    drawn = np.random.default_rng(seed)
    made = oracle(session)
    made.p_speak = 0.3 * made.p_speak + 0.7 * drawn.random(len(session))
    made.p_update = 0.6 * made.p_update + 0.4 * drawn.random(len(session))
    return made


def test_the_calibration_error_is_that_of_the_pooled_frames_and_of_the_curve() -> None:
    predictions = [unsure(session, number) for number, session in enumerate(SESSIONS)]
    run = result(evaluated(SESSIONS, predictions))
    for scope in ("all", "wtag", "ego4d"):
        chosen = [number for number, one in enumerate(SESSIONS) if scope in ("all", one.source)]
        scores = np.concatenate([predictions[number].p_speak for number in chosen])
        labels = np.concatenate([SESSIONS[number].speaking for number in chosen])
        bins = decision_reliability(scores, labels)
        found = run["scores"][scope]["speaking_calibration_error"]
        assert len(bins) == 15 and found["value"] == pytest.approx(calibration_error(bins))
        assert 0.1 < found["low"] < found["value"] < found["high"]
        if scope == "all":
            curve = [Bin(*one) for one in run["curves"]["speaking"]["reliability"]]
            assert [one.count for one in curve] == [one.count for one in bins]
            assert calibration_error(curve) == pytest.approx(found["value"], abs=1e-5)
    assert len(run["curves"]["dst_update"]["reliability"]) == 15
    # The counts of the sessions alone give the figure again: compare, which has nothing else, can use it.
    sums = total(one["counts"] for one in run["sessions"])
    assert (
        plain(figures(sums))["speaking_calibration_error"]
        == run["scores"]["all"]["speaking_calibration_error"]["value"]
    )
    differences = paired_differences(run, result(evaluated(SESSIONS, MIXED)), 200)["figures"]
    for name in ("speaking_calibration_error", "dst_update_calibration_error", "chunk_macro_f1"):
        assert differences[name]["a"] == pytest.approx(run["scores"]["all"][name]["value"])
    assert differences["speaking_calibration_error"]["high"] < 0  # the oracle's probabilities are right


def test_the_oracle_is_calibrated_and_silence_is_off_by_the_share_of_yes() -> None:
    for make, wanted in ((oracle, 0.0), (silent, None)):
        run = result(evaluated(SESSIONS, [make(session) for session in SESSIONS]))
        labels = np.concatenate([session.speaking for session in SESSIONS])
        share = float((labels == 1).sum() / (labels != -100).sum())
        value = run["scores"]["all"]["speaking_calibration_error"]["value"]
        assert value == pytest.approx(share if wanted is None else wanted)


def test_without_a_labelled_frame_there_is_no_calibration(tmp_path: Path) -> None:
    quiet = make_session(1, 10, 2, turn_rate=0.0, labelled=False)
    quiet = dataclasses.replace(quiet, speaking=np.full_like(quiet.speaking, -100))
    run = result(evaluated([quiet], [silent(quiet)]))
    assert run["scores"]["all"]["speaking_calibration_error"]["value"] is None
    assert run["curves"]["speaking"]["reliability"] == [] and "chunk_macro_f1" not in run["scores"]["all"]
    write_results(tmp_path / "results.json", [run])


@pytest.mark.parametrize(
    "bins", ["curve", {"a": 1}, [[1, 0.5]], [[0, 0.5, 0.5]], [[3, 1.5, 0.5]], [[3, None, 0.5]], [7]]
)
def test_a_reliability_curve_that_is_none_is_refused(bins: object, tmp_path: Path) -> None:
    run = result(evaluated(SESSIONS[:2], MIXED[:2]))
    run["curves"]["speaking"]["reliability"] = bins
    with pytest.raises(DataError, match=r"reliability|results\.json: a value is not of the type"):
        write_results(tmp_path / "results.json", [run])
