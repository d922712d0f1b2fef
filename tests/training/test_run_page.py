"""The page of a run: its curves, its command without secrets, its examples; texts of the data are never markup."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import open_browser
from card_fixtures import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import make_session

from context_dst_smolvlm import Context
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.evaluation.predictions import Prediction
from prospect_hf.evaluation.report.results import confusions
from prospect_hf.evaluation.score import figures, score_session
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.hub.weights import ABOUT_WEIGHTS
from prospect_hf.metrics.counts import plain, total
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.clip_metrics import Decision
from prospect_hf.training.report.curves import POINTS, series, stage_curves
from prospect_hf.training.report.examples import evenly, examples
from prospect_hf.training.report.page import PAGE, public_command, write_train_report
from prospect_hf.training.results import write_results

SESSIONS = [make_session(number, 30, 4, turn_rate=0.3) for number in range(3)]
LOG = [
    {"step": step, "epoch": step / 100, "loss": 5 / step, "grad_norm": 1.0, "learning_rate": 1e-3, **{
        f"{head}_loss": 1 / step for head in ("speaking", "dst_update", "dst_state", "response")
    }}
    for step in range(5, 60, 5)
]  # fmt: skip
EVALUATIONS = [
    {"step": step, "eval_loss": 2.0, "eval_joint_state_accuracy": 0.5, "eval_task_score": 0.4 + step / 1000}
    for step in (20, 40, 55)
]


def run_of(sessions: list[SessionRows]) -> ScoredRun:
    """A model that is right on every second frame and speaks a frame late."""
    scored = []
    for session in sessions:
        rng = np.random.default_rng(len(session))
        said = {int(at): "Well done." for at in np.flatnonzero(session.speaking == 1)[:-1]}
        states = np.where(rng.random(session.states_after.shape) < 0.9, session.states_after, 0)
        made = Prediction(rng.random(len(session)), rng.random(len(session)), states, states, said, [3])
        scored.append(score_session(session, made, 2.0, (0.5, 0.5)))
    return ScoredRun(scored, 2.0)


@cache
def calibration() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    chosen: dict[str, Any] = {"tolerance_s": 1, "sessions": 4}
    for name in ("speaking", "dst_update"):
        labels = (rng.random(400) < 0.1).astype(int)
        p = np.clip(0.3 * labels + rng.random(400) * 0.6, 0, 1)
        decision = Decision([{name: p, f"{name}_labels": labels}], [0], name, 2.0)
        swept = decision.sweep()
        best = swept.best()
        assert best is not None
        chosen[name] = {
            **vars(best), "kept": None, "frames": 400, "events": swept.wanted, "at_half": 0.2, "at_best_on_frame": 0.3,
            "temperature": 1.2, "calibration_error": 0.02, "calibration_error_at_1": 0.1, "curve": swept.curve(),
            "reliability": [list(vars(one).values()) for one in decision.reliability],
        }  # fmt: skip
    return chosen


def written(folder: Path, run: ScoredRun | None, **changes: Any) -> dict[str, Any]:
    """Write the page of a small run; returns the data in it."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    args = DSTTrainingArguments(output_dir=str(folder), use_cpu=True, look_steps=10, seed=7, hub_token="hf_secret1")
    results: dict[str, Any] = {
        "steps": 55, "train_seconds": 12.0, "look_seconds": 3.0, "look_history": LOG[:3], "seconds": 20.0,
        "validation": {}, "calibration": calibration(), "validation_confusion": [[9, 1, 0], [2, 7, 1], [0, 0, 5]],
    }  # fmt: skip
    if run is not None:
        sums = total(run.counts)
        free = {"split": "test", "sessions": len(run.sessions), "speaking_threshold": 0.5, "dst_update_threshold": 0.5}
        results |= {"free_run": free | plain(figures(sums)), "majority": {"joint_state_accuracy": 0.1}}
        results |= {"free_run_confusion": confusions(sums)}
    for name, value in changes.items():
        if value is None:
            del results[name]
        else:
            results[name] = value
    data = DataArguments(root="/home/somebody/corpus")
    balance = {"all dialogs train": dict.fromkeys(("videos", "sessions", "rows", "speaking_1", "dst_update_1"), 3)}
    hashes = {"training": "a" * 64, "validation": "b" * 64}
    facts = write_results(folder, ModelArguments(), data, args, Context(), results, balance, hashes)
    command = ["prospect train", "training.seed=7", "training.hub_token=hf_secret1", "data.root=/home/somebody/corpus"]
    write_train_report(folder, facts, [*LOG, *EVALUATIONS], run, command)
    return data_of((folder / PAGE).read_text())


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_holds_what_was_run_and_no_secret(tmp_path: Path) -> None:
    data = written(tmp_path / "model", run_of(SESSIONS))
    text = (tmp_path / "model" / PAGE).read_text()
    assert "hf_secret1" not in text and "/home/somebody" not in text
    assert data["command"].startswith("prospect train training.seed=7 'training.hub_token=***' data.root=")
    shown = dict(data["facts"])
    assert shown["training sessions, SHA-256"] == "a" * 64 and shown["seed"] == "7" and "torch" in shown
    assert [stage["name"] for stage in data["stages"]] == ["First stage: pairs of frames", "Whole sessions"]
    labels = [curve["label"] for curve in data["stages"][1]["curves"]]
    assert labels[1:5] == ["Speaking", "DST update", "Step states", "Texts"] and "Learning rate" in labels[-1]
    assert data["stages"][1]["curves"][0]["validation"] == [[20.0, 2.0], [40.0, 2.0], [55.0, 2.0]]
    assert [curve["label"] for curve in data["evaluations"]] == ["Task score", "Joint state accuracy"]
    assert ["training.seed", "7"] in data["settings"] and len(data["examples"]) == 3
    assert len(data["confusions"]) == 3 and data["result"][1][2] in ("·", "0.100")
    assert PAGE in ABOUT_WEIGHTS  # it never lies beside other weights


def test_a_run_without_validation_or_held_out_sessions_has_a_page_too(tmp_path: Path) -> None:
    data = written(tmp_path / "model", None, calibration=None, validation_confusion=None, validation=None)
    assert data["calibration"] is None and data["confusions"] == [] and data["result"] == [data["result"][0]]
    assert data["examples"] == [] and data["split"] is None


def test_a_stage_of_an_earlier_part_has_no_curves(tmp_path: Path) -> None:
    parts = [{"until_step": 30, "training.max_steps": 55}]
    data = written(tmp_path / "model", None, look_seconds=None, look_history=None, earlier_parts=parts)
    assert data["stages"][0] == {"name": "First stage: pairs of frames", "curves": []} and data["parts"] == parts


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("training.seed=1", "training.seed=1"),
        ("training.hub_token=hf_abcdefgh", "'training.hub_token=***'"),
        ("training.hub_token=plain", "'training.hub_token=***'"),
        ("data.root=/home/somebody/corpus", "data.root=../home/somebody/corpus"),
        ("data.root=~/corpus", "data.root=.../corpus"),
        ("data.sources=[wtag, ego4d]", "'data.sources=[wtag, ego4d]'"),
        ("training.run_name=sk-abcdefghijklmnopqrst", "'training.run_name=***'"),
        ("model=smolvlm2_2b", "model=smolvlm2_2b"),
    ],
)
def test_a_command_is_shown_without_secrets_and_paths(setting: str, shown: str) -> None:
    told = public_command(["prospect train", setting], Path("/srv/models/m"))
    assert told is not None
    if "/home/somebody" in setting:
        assert "somebody" not in told or told.startswith("prospect train data.root=.../")
    else:
        assert told == f"prospect train {shown}"
    assert public_command([], Path()) is None


def test_curves_are_of_one_value_a_step_and_not_too_long() -> None:
    log = [{"step": step, "loss": float(step)} for step in range(1, 2 * POINTS + 1)] + [{"step": 1, "loss": 9.0}]
    points = series(log, "loss")
    assert len(points) == POINTS and points[0] == [1.5, 5.5] and points[-1][0] == 2 * POINTS - 0.5
    assert series([{"step": 1, "loss": float("nan")}, {"loss": 2.0}, {"step": 2}], "loss") == []
    assert stage_curves([]) == []


def test_examples_run_from_the_worst_to_the_best() -> None:
    run = run_of([make_session(number, 20, 3, turn_rate=0.4) for number in range(9)])
    scores = [view["score"] for view in examples(run, 4)]
    assert len(scores) == 4 and scores == sorted(scores)
    assert evenly(list(range(9)), 4) == [0, 2, 5, 8] and evenly([1, 2], 4) == [1, 2]


@settings(deadline=None, max_examples=15)
@given(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30)))
def test_no_text_of_the_data_is_markup(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    session = make_session(5, 8, 2, turn_rate=0.5)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    object.__setattr__(session, "goal", text)
    object.__setattr__(session, "steps", [text, "Other."])
    folder = tmp_path_factory.mktemp("page") / "model"
    data = written(folder, run_of([session]))
    assert data["examples"][0]["goal"] == text and data["examples"][0]["steps"][0] == text
    page = (folder / PAGE).read_text()
    embedded = page.split('type="application/json">')[1].split("</script>")[0]
    assert not set("<>&") & set(embedded) and page.count("<script") == 2


# -- in a browser -------------------------------------------------------------------------------------------------


def test_the_page_draws_everything_and_fits(tmp_path: Path) -> None:
    session = make_session(5, 40, 3, turn_rate=0.4)
    hostile = "<script>document.title='broken'</script><img src=x onerror=alert(1)>"
    object.__setattr__(session, "goal", hostile)
    written(tmp_path / "full", run_of([session, *SESSIONS]))
    written(tmp_path / "bare", None, calibration=None, validation_confusion=None, look_seconds=None, look_history=None)
    with open_browser() as new_page:
        for width, scheme in ((1400, "light"), (390, "dark")):
            page = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto((tmp_path / "full" / PAGE).as_uri())
            assert page.title() == "Training of full" and page.problems == []
            for opened in page.query_selector_all("details.example"):
                opened.evaluate("node => node.open = true")
            page.wait_for_function("document.querySelectorAll('.session-timeline').length === 4")
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
            charts = page.query_selector_all("svg[role=img]")
            # 7 curves of each stage, 2 evaluations, precision-recall, reliability
            assert len(charts) == 18 and all(chart.get_attribute("aria-label") for chart in charts)
            assert "NaN" not in page.content() and "undefined:" not in page.inner_text("main").lower()
            assert hostile in page.inner_text("#examples")
            assert page.query_selector("img") is None
            numbers = [cell.inner_text() for cell in page.query_selector_all("#decisions tbody tr:first-child td")]
            chosen = calibration()["speaking"]
            assert numbers[0] == f"{chosen['threshold']:.3f}" and numbers[3] == f"{chosen['f1']:.3f}"
            dot = page.query_selector("#decisions svg circle.dot.speak")
            assert float(dot.get_attribute("cx")) == pytest.approx(34 + 316 * chosen["recall"], abs=0.1)
            assert float(dot.get_attribute("cy")) == pytest.approx(10 + 250 * (1 - chosen["precision"]), abs=0.1)
        page.goto((tmp_path / "bare" / PAGE).as_uri())
        text = page.inner_text("main")
        assert "There is no validation split: the thresholds stayed as they were." in text
        assert "This stage ran in an earlier part of the run" in text and "no held-out sessions to show" in text
        assert page.problems == []


def test_the_ticks_of_a_curve_of_close_values_differ(tmp_path: Path) -> None:
    close = [{**entry, "loss": 6.01 + step / 1e4, "response_loss": 1e-5 * step} for step, entry in enumerate(LOG[:6])]
    written(tmp_path / "close", None, look_history=close)
    with open_browser() as new_page:
        page = new_page()
        page.goto((tmp_path / "close" / PAGE).as_uri())
        ticks = page.evaluate(
            "[...document.querySelectorAll('#curves svg[role=img]')].map("
            "svg => [...svg.querySelectorAll('text[text-anchor=end]')].map(text => text.textContent))"
        )
    assert len(ticks) == 14 and "6.0102" in ticks[0]
    for texts in ticks:
        assert len(texts) > 1 and len(set(texts)) == len(texts)
