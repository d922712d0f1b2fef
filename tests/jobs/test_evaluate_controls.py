"""The controls of ``prospect evaluate``: runs like the others, which are never taken for what the model reaches."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from job_fixtures import SETTINGS, train
from job_fixtures import evaluate as main

from prospect_hf.errors import UsageError
from prospect_hf.evaluation.arguments import EvaluateArguments
from prospect_hf.evaluation.report.results import read_results

FEW = ["evaluate.draws=100", "decoding.max_new_tokens=6", "evaluate.baselines=false"]
CONTROLS = ["control, window 1", "control, window 8", "control, blind"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model``, and ``blind``, which learned from grey pictures."""
    folder = tmp_path_factory.mktemp("trained")
    settings = [f"data.root={folder / 'corpus'}", f"data.cache_dir={folder / 'cache'}", "data.sources=[wtag]"]
    level = logging.getLogger().level
    few = ["training.look_steps=0", "training.max_steps=1", f"training.output_dir={folder / 'model'}"]
    assert train([*SETTINGS, *settings, *few]) == 0
    logging.getLogger().setLevel(level)
    # What tells a blind model from others is what its results say of its training.
    shutil.copytree(folder / "model", folder / "blind")
    for name, change in (("results.json", seen), ("config.json", cautious)):
        path = folder / "blind" / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return folder


def seen(facts: dict[str, Any]) -> dict[str, Any]:
    """``results.json`` of a model that learned from grey pictures."""
    facts["settings"]["data"]["frames"] = "blank"
    return facts


def cautious(config: dict[str, Any]) -> dict[str, Any]:
    """Another threshold."""
    return config | {"speaking_threshold": 0.625}


def evaluate(folder: Path, output: Path, *settings: str) -> dict[str, Any]:
    assert main([f"evaluate.model={folder / 'model'}", f"evaluate.output_dir={output}", *FEW, *settings]) == 0
    return read_results(output)


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *settings: str) -> str:
    """The one line that is printed before exit code 2."""
    capsys.readouterr()
    assert main([f"evaluate.model={folder / 'model'}", f"evaluate.output_dir={folder / 'none'}", *settings]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and not (folder / "none").exists()
    return errors[0]


def test_the_controls_are_runs_that_go_on_and_stay_out_of_the_card(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["evaluate.windows=[1,8]", f"evaluate.blind={folder / 'blind'}", "evaluate.dataset_id=a/b"]
    results = evaluate(folder, tmp_path, *asked, "evaluate.speaking_threshold=0.0")
    shown = capsys.readouterr().out.splitlines()
    runs = {run["name"]: run for run in results["runs"]}
    assert list(runs) == ["offline", "stream, summarize_with_dst", *CONTROLS]
    head = next(line for line in shown if "offline" in line)
    assert head.split("  ")[-1].strip() == "blind" and "window 1" in head and "control" not in head

    stamps = [runs[name]["stamp"] for name in CONTROLS]
    assert [stamp["mode"] for stamp in stamps] == ["control"] * 3
    assert [(stamp.get("window"), stamp["frames"]) for stamp in stamps] == [(1, "store"), (8, "store"), (None, "blank")]
    assert [stamp["context"] is None for stamp in stamps] == [True, True, False]
    assert stamps[0]["tracking"] == stamps[2]["tracking"] and stamps[0]["decoding"] is None
    stream = runs["stream, summarize_with_dst"]
    assert stamps[0]["model_revision"] == stream["stamp"]["model_revision"] != stamps[2]["model_revision"]
    assert stamps[2]["model"] == "blind"
    # The thresholds that are given are those of the evaluated model.
    assert [stamp["speaking_threshold"] for stamp in stamps] == [0.0, 0.0, 0.625]

    for name in CONTROLS[:2]:
        scores = runs[name]["scores"]["all"]
        assert {"joint_state_accuracy", "table_joint_state_accuracy", "speaking_f1_1s", "dst_update_f1_1s"} <= set(
            scores
        )
        absent = ("response_exact_match", "response_bleu", "distinct_1", "distinct_2", "matching_f1", "perplexity")
        assert not set(scores) & set(absent)
        assert any(view["said"] for view in runs[name]["views"])
    assert {"response_exact_match", "distinct_1"} <= set(runs["control, blind"]["scores"]["all"])
    labels = json.dumps(
        [yaml.safe_load((tmp_path / name).read_text()) for name in ("model-index.yaml", "eval_results.yaml")]
    )
    assert "offline" in labels and "control" not in labels

    files = sorted((tmp_path / "predictions").glob("*/*.safetensors"))
    folders = {path.parent.name for path in files}
    assert folders == {"offline", "stream-summarize_with_dst", "control-window-1", "control-window-8", "control-blind"}
    times = {path: path.stat().st_mtime_ns for path in files}
    gone = [path for path in files if path.parent.name in ("control-window-8", "control-blind")]
    for path in gone:
        path.unlink()
    evaluate(folder, tmp_path, *asked, "evaluate.speaking_threshold=0.0")
    assert [path for path in files if path.stat().st_mtime_ns != times[path]] == gone
    # Another rule of the table makes the windows anew, and leaves what was teacher-forced.
    evaluate(folder, tmp_path, *asked[:1], "evaluate.speaking_threshold=0.0", "tracking=monotone")
    again = {path.parent.name for path in files if path.stat().st_mtime_ns != times[path]}
    assert again == folders - {"offline"}


def test_a_control_is_compared_with_a_stream(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["evaluate.modes=[stream]", "evaluate.windows=[2]", f"evaluate.blind={folder / 'blind'}"]
    evaluate(folder, tmp_path, *asked)
    for control in ("window 2", "blind"):
        sides = [f"{tmp_path}#control, {control}", f"{tmp_path}#stream, summarize_with_dst"]
        assert main(["compare", *sides]) == 0
        assert "A is control, B is stream: not the same task" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "page.html"), str(tmp_path)]) == 0


@pytest.mark.slow
def test_two_processes_make_the_controls_of_one(folder: Path, tmp_path: Path) -> None:
    asked = ["evaluate.modes=[offline]", "evaluate.windows=[3]", f"evaluate.blind={folder / 'blind'}"]
    one, two = (evaluate(folder, tmp_path / str(n), *asked, f"evaluate.processes={n}") for n in (1, 2))
    for ours, theirs in zip(one["runs"], two["runs"], strict=True):
        assert ours["name"] == theirs["name"] and ours["confusion"] == theirs["confusion"]


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("evaluate.windows=[0]: a window has 1 frame or more", ["evaluate.windows=[0]"]),
        ("evaluate.windows=[4, -1]: a window has 1 frame or more", ["evaluate.windows=[4,-1]"]),
        ("evaluate.windows has a value twice: 8, 8", ["evaluate.windows=[8,8]"]),
        ("evaluate.windows", ["evaluate.windows=[a]"]),
        ("evaluate.windows", ["evaluate.windows=[1.5]"]),
        ("evaluate.windows", ["evaluate.windows=8"]),
        ("set tracking.source=head", ["evaluate.windows=[1]", "tracking.source=text"]),
        ("evaluate.blind=FOLDER/absent: no such folder", ["evaluate.blind=FOLDER/absent"]),
        ("evaluate.blind=FOLDER/model was trained with data.frames=store", ["evaluate.blind=FOLDER/model"]),
        ("corpus/results.json does not record the training data", ["evaluate.blind=FOLDER/corpus"]),
    ],
)
def test_a_control_that_cannot_be_is_one_sentence(
    folder: Path, message: str, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [setting.replace("FOLDER", str(folder)) for setting in settings]
    assert message.replace("FOLDER", str(folder)) in refused(folder, capsys, *settings)


def test_a_blind_model_of_another_frame_rate_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "blind", tmp_path / "blind")
    config = tmp_path / "blind" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"fps": 4.0}))
    capsys.readouterr()
    asked = [
        f"evaluate.output_dir={tmp_path / 'out'}",
        "evaluate.modes=[offline]",
        f"evaluate.blind={tmp_path / 'blind'}",
    ]
    assert main([f"evaluate.model={folder / 'model'}", *FEW, *asked]) == 2
    assert "reads 4 frames a second, evaluate.model 2" in capsys.readouterr().err


def test_windows_are_kept_as_numbers() -> None:
    assert EvaluateArguments(windows=[1, 8]).windows == [1, 8]
    with pytest.raises(UsageError, match="twice"):
        EvaluateArguments(windows=[1, 1])
