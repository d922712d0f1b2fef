"""Trackers get every loss, norm, rate and metric of a run, under names that stay, and nothing private."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from trainer_fixtures import SECRET, tracked

from prospect_hf.errors import UsageError
from prospect_hf.training import arguments as arguments_module
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.loss_arguments import LOSSES
from prospect_hf.training.trackers import RUNS

WANTED = {f"train/{name}_loss" for name in LOSSES} | {"train/loss", "train/grad_norm", "train/learning_rate"}
WANTED |= {"train/epoch", "eval/loss", "eval/speaking_loss", "eval/joint_state_accuracy"}


def test_tensorboard_gets_every_figure_in_one_folder_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra trackers)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "out"
    tracked(folder, "tensorboard", 2)
    tracked(folder, "tensorboard", 3, first=2)
    assert [path.name for path in (folder / RUNS).iterdir()] == ["the run"]
    events = EventAccumulator(str(folder / RUNS / "the run")).Reload()
    found = events.Tags()["scalars"]
    assert set(found) >= WANTED
    for name in ("train/loss", "train/speaking_loss", "train/grad_norm"):
        assert [event.step for event in events.Scalars(name)] == [1, 2, 3], name
    texts = b"".join(path.read_bytes() for path in (folder / RUNS / "the run").iterdir())
    assert b"learning_rate" in texts  # the settings are there
    for private in (SECRET, "somebody", str(tmp_path)):
        assert private.encode() not in texts, private


@pytest.mark.slow
def test_trackio_gets_every_figure_in_a_local_file(repository: Path, tmp_path: Path) -> None:
    """In a process of its own: trackio reads its folder from the environment when it is imported."""
    pytest.importorskip("trackio", reason="trackio is not installed (extra trackers)")
    script = (
        "import sys; sys.path[:0] = ['tests/support', '.']\n"
        "from pathlib import Path\nfrom trainer_fixtures import tracked\n"
        f"tracked(Path({str(tmp_path / 'out')!r}), 'trackio', 2)\n"
        f"tracked(Path({str(tmp_path / 'out')!r}), 'trackio', 3, first=2)\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert b"Trackio" not in done.stdout and b" run: " not in done.stdout, done.stdout.decode()
    (file,) = (tmp_path / "trackio").glob("prospect-hf*.db")
    steps: dict[str, list[int]] = defaultdict(list)
    everything = ""
    with sqlite3.connect(file) as database:
        (names,) = zip(*database.execute("SELECT DISTINCT run_name FROM metrics"), strict=True)
        for (text,) in database.execute("SELECT metrics FROM metrics ORDER BY id"):
            logged: dict[str, Any] = json.loads(text)
            for name in logged:
                steps[name].append(logged["train/global_step"])
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            everything += repr(database.execute(f"SELECT * FROM {table}").fetchall())
    assert names == ("the run",) and set(steps) >= WANTED
    assert steps["train/loss"] == steps["train/grad_norm"] == [1, 2, 3]
    assert steps["eval/loss"][-1] == 3  # the last evaluation, after the training
    for private in (SECRET, "somebody", str(tmp_path)):
        assert private not in everything, private


def test_what_trackers_record_of_the_settings_is_public(tmp_path: Path) -> None:
    args = DSTTrainingArguments(
        output_dir=str(tmp_path / "out"),
        use_cpu=True,
        hub_token=SECRET,
        resume_from_checkpoint="/home/somebody/checkpoint-3",
        run_name=f"run of {tmp_path}/data",
    )
    text = json.dumps(args.to_dict())
    assert SECRET not in text and "somebody" not in text and str(tmp_path) not in text
    assert args.to_dict()["learning_rate"] == args.learning_rate and args.hub_token == SECRET


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments_module, "get_available_reporting_integrations", lambda: [])
    with pytest.raises(UsageError, match=r"training.report_to=trackio: that tracker is not installed: .*\[trackers\]"):
        DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=["trackio"])


def test_the_first_stage_is_a_run_of_its_own(tmp_path: Path) -> None:
    args = DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, look_steps=2, run_name="tiny")
    assert args.for_first_stage().run_name == "tiny first stage"
