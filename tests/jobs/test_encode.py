"""The encoding job: from settings to files that training finds, alone, in parts and in several processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from job_fixtures import SETTINGS, evaluate, train
from model_fixtures import new_model, small_processor
from safetensors.torch import load_file

from prospect_hf.cli import main
from prospect_hf.data import encode as encode_module
from prospect_hf.data import features as features_module
from prospect_hf.data.encode_arguments import EncodeArguments
from prospect_hf.errors import UsageError
from prospect_hf.jobs import encode as job
from prospect_hf.training.trainer import DSTTrainer

DATA = [one for one in SETTINGS if one.startswith("data.")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model of random weights, ``model``; the corpus comes with the first run."""
    folder = tmp_path_factory.mktemp("encode")
    new_model().save_pretrained(folder / "model")
    small_processor().save_pretrained(folder / "model")
    return folder


def settings(place: Path, cache: Path | None = None) -> list[str]:
    folders = {"data.root": place / "corpus", "data.cache_dir": cache or place / "cache"}
    model = f"model.name_or_path={place / 'model'}"
    return ["data=simulated", *DATA, *(f"{key}={path}" for key, path in folders.items()), model]


def encode(arguments: list[str]) -> int:
    return main(["encode", *arguments])


def folder_named(told: str) -> Path:
    found = re.search(r"Features: (\S+)", told)
    assert found is not None
    return Path(found[1])


@pytest.fixture()
def losses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    found: list[float] = []
    log = DSTTrainer.log

    def recording(self: DSTTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        log(self, logs, start_time)
        found.extend([logs["loss"]] if "loss" in logs else [])

    monkeypatch.setattr(DSTTrainer, "log", recording)
    yield found


def test_training_from_features_has_the_losses_of_training_from_pixels(
    place: Path, tmp_path: Path, capsys: Any, losses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of the job are found by training and by the evaluation, and nothing is encoded again."""
    monkeypatch.setattr("prospect_hf.jobs.train.evaluate_freely", lambda *given, **more: ({}, None))
    told = {}
    for dtype in ("float32", "float16"):
        assert encode([*settings(place), f"encode.dtype={dtype}"]) == 0
        told[dtype] = folder_named(capsys.readouterr().out)
    steps = ["training.look_steps=0", "training.max_steps=3", "training.logging_steps=1", "training.use_cpu=true"]
    common = [*settings(place), *steps, "training.per_device_train_batch_size=2", "data.max_seq_len=400"]
    frozen = [*common, "model.freeze_vision=true"]

    def run(name: str, arguments: list[str]) -> list[float]:
        losses.clear()
        assert train([*arguments, f"training.output_dir={tmp_path / name}"]) == 0
        return list(losses)

    with monkeypatch.context() as patch:  # pixels: the clips go on reading pictures
        patch.setattr("prospect_hf.training.stages.PackedClips.read_from", lambda self, frames: None)
        pixels = run("pixels", frozen)
    monkeypatch.setattr(encode_module, "encode_pass", None)  # whatever is encoded now would fail
    found = run("found", frozen)
    halved = run("halved", [*frozen, f"data.features={told['float16']}"])
    assert len(pixels) == 3 and pixels[0] != pixels[2]
    assert found == pytest.approx(pixels, rel=1e-6, abs=1e-6)
    assert halved == pytest.approx(pixels, rel=2e-3) and halved != found
    assert evaluate([f"evaluate.model={tmp_path / 'halved'}", "evaluate.modes=[offline]", "evaluate.baselines=false",
                     f"evaluate.output_dir={tmp_path / 'evaluation'}"]) == 0  # fmt: skip
    (stamp,) = (one["stamp"] for one in json.loads((tmp_path / "evaluation" / "results.json").read_text())["runs"])
    assert stamp["features"] == "float16"
    for wrong in ([*common, f"data.features={told['float32']}"], [*frozen, "training.look_steps=2", "data.features=x"]):
        capsys.readouterr()
        assert train([*wrong, f"training.output_dir={tmp_path / 'wrong'}"]) == 2
        assert re.search(r"forbids it|data\.features was encoded by a vision tower", capsys.readouterr().err)


def test_parts_and_processes_share_the_videos(place: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    assert encode(settings(place, tmp_path / "whole")) == 0
    whole = {path.name: path.read_bytes() for path in folder_named(capsys.readouterr().out).glob("*.safetensors")}
    common, seen = settings(place, tmp_path / "parts"), []
    monkeypatch.setattr(job, "own_device", lambda: torch.device("cpu"))
    for shard, rank in (("1/2", 0), ("1/2", 1), ("2/2", 0), ("2/2", 1)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        before = set((tmp_path / "parts").rglob("*.safetensors"))
        assert encode([*common, f"encode.shard={shard}"]) == 0
        told = capsys.readouterr().out
        assert bool(told) == (rank == 0)
        seen.append({path.name for path in set((tmp_path / "parts").rglob("*.safetensors")) - before})
    assert all(seen) and sum(map(len, seen)) == len(whole) and set.union(*seen) == set(whole)
    assert all(path.read_bytes() == whole[path.name] for path in (tmp_path / "parts").rglob("*.safetensors"))
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(encode_module, "encode_pass", None)
    monkeypatch.setattr(features_module, "check_seal", None)  # a second run reads neither videos nor features
    assert encode(common) == 0
    assert f"0 videos encoded ({len(whole)} were there)" in capsys.readouterr().out


def test_the_plan_is_measured_and_nothing_is_written(place: Path, tmp_path: Path, capsys: Any) -> None:
    assert encode([*settings(place, tmp_path), "encode.dry_run=true", "encode.dtype=float16", "encode.shard=1/2"]) == 0
    told = capsys.readouterr().out
    found = re.search(r"Part 1 of 2: (\d+) videos, ([\d,]+) unique frames; 0 videos are encoded already", told)
    assert found is not None
    frames = int(found[2].replace(",", ""))
    assert f"To encode: {frames:,} frames, 1 tokens x 32 in float16: {job.size(frames * 64)}" in told
    assert re.search(r"vision tower [\d.]+ frames/s, .* hours, the share of one of 2 processes", told)
    assert [line.split()[0] for line in told.splitlines()[-5:]] == ["1", "4", "9", "16", "36"]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_stored_frames_below_a_folder(place: Path, tmp_path: Path, capsys: Any) -> None:
    """What a run of the rows finds is there, and what cannot be read is named while the rest is encoded."""
    assert encode(settings(place)) == 0
    capsys.readouterr()
    arguments = [f"model.name_or_path={place / 'model'}", f"data.cache_dir={tmp_path / 'cache'}"]
    frames = place / "corpus" / "processed_data" / "wtag" / "frames"
    bad = frames.parent / "broken.arrow"
    bad.write_bytes(b"no Arrow file")
    assert encode([*arguments, f"encode.root={frames.parent}"]) == 2
    shown = capsys.readouterr()
    assert "1 videos could not be encoded, all others" in shown.err and "broken.arrow" in shown.err
    made = folder_named(shown.out)
    bad.unlink()
    assert len(list(made.iterdir())) == len(list(frames.iterdir()))
    of_rows = place / "cache" / "features" / made.name
    for path in made.iterdir():
        assert torch.equal(load_file(path)["features"][: len(load_file(of_rows / path.name)["features"])],
                           load_file(of_rows / path.name)["features"])  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=tiny", "encode.root=x"], "a new model has nothing to encode with"),
        (["model.name_or_path=MODEL", "encode.root=x", "data.root=y"], "encode.root takes all stored frames"),
        (["model.name_or_path=MODEL", "encode.root=/no/such"], "encode.root=/no/such: no such folder"),
        (["model.name_or_path=MODEL"], "data.root is not set"),
        (["model.name_or_path=/no/such", "data.root=y"], "/no/such"),
        (["model.name_or_path=/no/such", "encode.root=/no/where"], "encode.root=/no/where: no such folder"),
        (["model.name_or_path=MODEL", "data.root=y", "data.features=z"], "data.features is read and not written"),
        (["model.name_or_path=MODEL", "data.root=y", "data.rows=z", "data.streaming=true"], "data.streaming does not"),
    ],
)
def test_what_cannot_be_is_one_sentence(place: Path, capsys: Any, arguments: list[str], message: str) -> None:
    assert encode([one.replace("MODEL", str(place / "model")) for one in arguments]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(({"shard": shard}, "must be I/N") for shard in ("0/8", "9/8", "1", "a/b", "1/0", "-1/2", "1/2/3", "")),
        ({"dtype": "float64"}, "encode.dtype must be one of"),
        ({"autocast": "float32"}, "encode.autocast must be"),
        ({"threads": 0}, "encode.threads must be 1 or more"),
        ({"frames_per_pass": 0}, "encode.frames_per_pass must be 1 or more"),
    ],
)
def test_bad_settings_are_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EncodeArguments(**given)


def test_autocast_has_features_of_its_own(place: Path, tmp_path: Path, capsys: Any) -> None:
    folders = []
    for more in ([], ["encode.autocast=bfloat16"]):
        assert encode([*settings(place, tmp_path), *more]) == 0
        folders.append(folder_named(capsys.readouterr().out))
    one, other = (load_file(next(iter(sorted(folder.glob("*.safetensors")))))["features"] for folder in folders)
    assert folders[0] != folders[1] and 0 < float((one - other).abs().max()) < 0.1 * float(one.abs().max())


@pytest.mark.slow
def test_two_processes_of_torchrun(place: Path, tmp_path: Path, repository: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(repository / "scripts" / "encode_frames.py"), *settings(place, tmp_path)],
        capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Part 1 of 2: ") == 1 and "Part 2" not in ran.stdout
    assert len(list(folder_named(ran.stdout).glob("*.safetensors"))) == 8
