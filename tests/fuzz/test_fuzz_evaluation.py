"""Damaged files of an evaluation: predictions, features, results, traces, and the answers of a language model."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import Target, assert_no_fault, survey
from model_fixtures import NoiseReader, make_session, small_model
from mutations import damage_file, damaged_json, files_in, mutate_bytes, mutate_json, write_files
from report_fixtures import make_results
from trace_fixtures import make_trace, with_plan_change

from prospect_hf.data.encode import encode_sessions
from prospect_hf.evaluation.baselines import oracle, silent
from prospect_hf.evaluation.corpus import data_of
from prospect_hf.evaluation.judge.judge import SCHEMA
from prospect_hf.evaluation.predictions import ForcedTexts, Prediction, PredictionStore
from prospect_hf.evaluation.report.differences import difference_table, paired_differences, read_side, run_pairs
from prospect_hf.evaluation.report.overview import overview_table
from prospect_hf.evaluation.report.page import write_report
from prospect_hf.evaluation.report.results import read_results, run_result
from prospect_hf.evaluation.score import score_session
from prospect_hf.evaluation.scored_run import ScoredRun
from prospect_hf.hub.evaluation_entries import write_entries
from prospect_hf.jobs.report import named_runs
from prospect_hf.llm.answers import TransientError, answer_in, http_error, usage
from prospect_hf.llm.cache import load_answer
from prospect_hf.streaming.frame_sources import open_source
from prospect_hf.streaming.subtitles import write_srt
from prospect_hf.streaming.timeline_page import write_page
from prospect_hf.streaming.trace import read_trace

SESSION = make_session(0, 14, 3)
STAMP: dict[str, Any] = {"mode": "stream"}


def predictions() -> Target:
    bases = []
    rng = np.random.default_rng(0)
    for forced in (False, True):
        made = Prediction(
            rng.random(14), rng.random(14), rng.integers(0, 3, (14, 3)), None if forced else rng.integers(0, 3, (14, 3))
        )
        if forced:
            count = np.arange(3)
            made.forced = ForcedTexts(count, count > 1, count + 1, rng.random(3), count, count)
        else:
            made.spoken, made.updates, made.rejected, made.overflows = {3: "Take it.", 9: "No."}, [2, 5], 4, [7]
        with tempfile.TemporaryDirectory() as place:
            PredictionStore(Path(place), STAMP, {SESSION.session_id: "0f"}).save(SESSION, made)
            bases.append(files_in(Path(place)))

    def target(rng: random.Random, folder: Path) -> None:
        write_files(folder, rng.choice(bases))
        damage_file(next(folder.iterdir()), rng)
        store = PredictionStore(folder, STAMP, {SESSION.session_id: "0f"})
        if store.has(SESSION):
            made = store.load(SESSION)
            scored = score_session(SESSION, made, 2.0, (0.5, 0.5), "reopen", None, None)
            run_result("x", STAMP, ScoredRun([scored], 2.0), {SESSION.session_id: "0f"}, 0)

    return target


def features() -> Target:
    reader, model = NoiseReader(), small_model()
    with tempfile.TemporaryDirectory() as place:
        encode_sessions(model, reader, [SESSION], Path(place), progress=False)
        base = files_in(Path(place))

    def target(rng: random.Random, folder: Path) -> None:
        write_files(folder, base)
        path = next(folder.rglob("*.safetensors"))
        damage_file(path, rng)
        if rng.random() < 0.3:
            for number, frame in enumerate(open_source(str(path))):
                frame.frame.sum()  # type: ignore[union-attr, operator]
                if number > 50:
                    break
        else:
            found = encode_sessions(model, reader, [SESSION], folder, progress=False)
            found.inputs(SESSION, 0, 14)["frame_features"].sum()
            found.inputs(SESSION, 3, 5)

    return target


def results() -> Target:
    sessions = [make_session(seed, 12, 3) for seed in range(2)]
    prints = {session.session_id: "0f" for session in sessions}
    shown = make_results(2, 12)
    stamps = {run["name"]: run["stamp"] for run in shown["runs"]}
    runs = []
    for name, predict in (("stream, none", oracle), ("stream, drop_all", silent), ("baseline, silent", silent)):
        scored = [score_session(session, predict(session), 2.0, (0.5, 0.5)) for session in sessions]
        runs.append(run_result(name, stamps[name], ScoredRun(scored, 2.0), prints, draws=20))
    whole = {**shown, "runs": runs}

    def target(rng: random.Random, folder: Path) -> None:
        (folder / "b").mkdir()
        (folder / "b" / "results.json").write_text(json.dumps(whole))
        (folder / "results.json").write_bytes(damaged_json(whole, rng, 0.15))
        read = read_results(folder)
        overview_table(read["runs"])
        paths = {str(folder): read, str(folder / "b"): whole}
        runs = named_runs(paths if rng.random() < 0.5 else {str(folder): read})
        write_report(folder / "page.html", {**read, "runs": list(runs.values())})
        for ours, theirs in run_pairs(read_side(str(folder)), read_side(str(folder / "b"))):
            difference_table(ours, theirs, paired_differences(ours, theirs, draws=20))
        write_entries(folder, read, rng.choice([None, "a/b"]), None)

    return target


def results_of_trainings() -> Target:
    base = {
        "settings": {
            "data": {
                "name": "simulated",
                "root": "/nowhere",
                "sources": ["wtag"],
                "seed": 0,
                "recordings": {"train": 1, "val": 1, "test": 1},
                "scene": {"steps": [3, 4]},
                "max_seq_len": 9,
            }
        }
    }

    def target(rng: random.Random, folder: Path) -> None:
        (folder / "results.json").write_bytes(damaged_json(base, rng, 0.3))
        data_of(folder, rng.choice([{}, {"seed": 3}, {"root": str(folder)}]))

    return target


def traces() -> Target:
    made = make_trace(12, 3)
    changed_plan = with_plan_change(made, 5, ["Fit the roof", made.header["plan"][1]], [None, 1])

    def target(rng: random.Random, folder: Path) -> None:
        base = rng.choice([made, changed_plan])
        lines = [base.header, *base.events]
        path = folder / "trace.jsonl"
        changed: list[bytes] = [json.dumps(line).encode() for line in lines]
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.choice([0, 0, rng.randrange(len(changed))])
            changed[at] = damaged_json(lines[at], rng)
        data = b"\n".join(changed) + b"\n"
        path.write_bytes(mutate_bytes(data, rng) if rng.random() < 0.2 else data)
        trace = read_trace(path)
        write_page(folder / "page.html", trace)
        write_srt(folder / "words.srt", trace)

    return target


def answers() -> Target:
    answer = {"reason": "Good.", **dict.fromkeys(list(SCHEMA["properties"])[1:], 4)}
    body = {
        "choices": [{"message": {"content": json.dumps(answer), "refusal": None}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }

    def target(rng: random.Random, folder: Path) -> None:
        told = json.loads(json.dumps(body))
        if rng.random() < 0.5:
            said = damaged_json(answer, rng).decode("utf-8", "replace")
            told["choices"][0]["message"]["content"] = rng.choice(["", "```json\n", "<think>x</think>"]) + said
        else:
            told = mutate_json(told, rng)
        text = json.dumps(told)
        if rng.random() < 0.3:
            text = mutate_bytes(text.encode(), rng).decode("utf-8", "replace")
        usage(text)
        path = folder / "answer.json"
        path.write_bytes(damaged_json({"name": "x", "model": "y", "answer": answer}, rng))
        after = rng.choice([None, "", "3", "1e9", "9" * 5000, "-1", "nan", "Fri, 27 Nov", "\x00", "٣"])
        assert isinstance(
            http_error("x", rng.choice([0, 404, 408, 429, 503, 999]), after, "K"), (ValueError, TransientError)
        )
        if rng.random() < 0.5:
            answer_in(text, SCHEMA, rng.choice([None, "secretsecret"]))
        else:
            load_answer(path, SCHEMA)

    return target


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "predictions": (predictions, 60),
    "features": (features, 60),
    "results": (results, 50),
    "results of trainings": (results_of_trainings, 40),
    "traces": (traces, 60),
    "answers of a language model": (answers, 80),
}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_of_an_evaluation(name: str, tmp_path: Path) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(), inputs, tmp_path))
