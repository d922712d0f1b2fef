"""The training job in two processes: what one process gives, told and written once, under every launcher."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from job_fixtures import SETTINGS
from process_group import Ended, Launcher, succeeded
from process_work import FSDP2
from safetensors.torch import load_file

ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false"}
ZERO2 = {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
ZERO3 = {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"}
no_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
no_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")

# 5 training clips, so that the last step of an epoch is half; an odd number of clips to validate on.
RUN = [
    *("data.sources=[wtag]", "data.recordings.train=5", "data.recordings.val=3", "data.recordings.test=2"),
    *("data.text_dropout=0.5", "model.freeze_vision=true", "training.look_steps=0", "training.max_steps=6"),
    "training.muon_learning_rate=null",
    *("training.gradient_accumulation_steps=2", "training.eval_strategy=steps", "training.eval_steps=4"),
    *("training.save_strategy=steps", "training.save_steps=2", "training.train_sampling_strategy=group_by_length"),
]
HALF = ["training.per_device_train_batch_size=1"]


class Work:
    """A folder with a corpus, where runs differ in the processes alone."""

    alone: Ended  # the run of one process

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self.launcher, self.folder = launcher, folder

    def run(
        self, name: str, count: int, more: Sequence[str] = (), cache: str = "cache", **options: Any
    ) -> Sequence[Ended]:
        """The ends of ``count`` processes of a run that writes to ``name``."""
        folders = [f"data.root={self.folder / 'corpus'}", f"data.cache_dir={self.folder / cache}"]
        half = HALF if count == 2 else []
        arguments = [*SETTINGS, *RUN, *folders, *half, f"training.output_dir={self.folder / name}", *more]
        return self.launcher.run("process_work:train", count, arguments=arguments, **options)


@pytest.fixture(scope="module")
def work(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A folder in which one process has run: ``alone``."""
    made = Work(launcher, tmp_path_factory.mktemp("runs"))
    (made.alone,) = succeeded(made.run("alone", 1))
    return made


def facts(folder: Path) -> dict[str, Any]:
    """What ``results.json`` says."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def curve(folder: Path) -> list[dict[str, float]]:
    """Everything that was logged of losses and metrics."""
    logged = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    timed = ("runtime", "per_second", "flos", "seconds", "epoch")
    return [{name: value for name, value in one.items() if not any(part in name for part in timed)} for one in logged]


def check_equal(ours: Path, alone: Path) -> None:
    """Losses, metrics, weights and the free run of two runs are the same but for rounding."""
    ours_curve, curve_alone = curve(ours), curve(alone)
    assert len(ours_curve) == len(curve_alone) and sum("loss" in one for one in curve_alone) == 6
    for one, other in zip(ours_curve, curve_alone, strict=True):
        assert one == pytest.approx(other, abs=1e-6, rel=2e-6)
    for path in sorted([*alone.glob("*.safetensors"), *alone.glob("adapter/*.safetensors")]):
        mine = load_file(ours / path.relative_to(alone))
        expected = load_file(path)
        assert mine.keys() == expected.keys()
        for name, weight in expected.items():
            assert float((mine[name] - weight).abs().max()) < 2e-6, name
    assert facts(ours)["results"]["free_run"] == pytest.approx(facts(alone)["results"]["free_run"])
    assert (
        json.loads((ours / "config.json").read_text()).keys() == json.loads((alone / "config.json").read_text()).keys()
    )
    assert {path.name for path in ours.glob("*.py")} == {path.name for path in alone.glob("*.py")}


def hashes(folder: Path) -> dict[str, str]:
    """The content of every file of encoded frames, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.safetensors")}


def test_two_processes_give_what_one_gives(work: Work) -> None:
    """Under DDP, with a cache of its own: features are the same bits; the first process alone prints and writes."""
    first, second = succeeded(work.run("ddp", 2, cache="cache-2"))
    check_equal(work.folder / "ddp", work.folder / "alone")
    features = hashes(work.folder / "cache-2/features")
    assert features == hashes(work.folder / "cache/features") and len(features) == 10
    assert second.out == second.err == ""
    assert first.out.count("all dialogs train") == first.out.count("card and results.json") == 1
    for once in ("training clips of", "encoding frames", "whole sessions 6/6", "following sessions"):
        assert first.err.count(once) == 1, (once, first.err)
    # Encoded in two shares: the first process tells its own.
    share, whole = (int(told.err.split("encoding frames ")[1].split("/")[0]) for told in (first, work.alone))
    assert 0.4 * whole < share < 0.6 * whole
    assert facts(work.folder / "ddp")["machine"]["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(FSDP2, id="FSDP2"),
        pytest.param(ZERO2, id="ZeRO-2", marks=no_deepspeed),
        pytest.param(ZERO3, id="ZeRO-3", marks=no_deepspeed),
    ],
)
def test_a_model_that_is_cut_up_learns_the_same(
    work: Work, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    succeeded(work.run(name, 2, environment=environment))
    check_equal(work.folder / name, work.folder / "alone")
    # A checkpoint is a model too, and its optimiser is there in parts.
    checkpoint = work.folder / name / "checkpoint-2"
    assert (checkpoint / "model.safetensors").is_file() and len(list(checkpoint.rglob("*optim*"))) > 0


@pytest.mark.slow
@no_peft
@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        pytest.param({}, "lora", id="LoRA under DDP"),
        pytest.param(FSDP2, "lora", id="LoRA under FSDP2"),
        pytest.param(ZERO3, "lora", id="LoRA under ZeRO-3", marks=no_deepspeed),
    ],
)
def test_adapters_learn_the_same(work: Work, environment: dict[str, str], mode: str) -> None:
    more = [f"training.mode={mode}", "training.lora_dropout=0", f"model.name_or_path={work.folder / 'alone'}"]
    more += ["model.freeze_vision=false", "training.save_strategy=no", "training.activation_checkpointing=true"]
    if not (work.folder / f"{mode}-alone").exists():
        succeeded(work.run(f"{mode}-alone", 1, more))
    name = f"{mode}-{'-'.join(sorted(environment)[:1])}"
    succeeded(work.run(name, 2, more, environment=environment))
    check_equal(work.folder / name, work.folder / f"{mode}-alone")


@pytest.mark.slow
@no_peft
def test_adapters_on_4_bits_in_bf16_that_are_cut_up(work: Work) -> None:
    """QLoRA under FSDP2 with accumulated gradients: the losses are those of one process within bf16's rounding."""
    more = ["training.mode=qlora", "training.lora_dropout=0", f"model.name_or_path={work.folder / 'alone'}"]
    more += ["model.freeze_vision=false", "training.bf16=true", "training.activation_checkpointing=true"]
    succeeded(work.run("qlora-alone", 1, more))
    succeeded(work.run("qlora-FSDP2", 2, more, environment=FSDP2))
    curves = [curve(work.folder / name) for name in ("qlora-FSDP2", "qlora-alone")]
    losses, alone = ([one["loss"] for one in logged if "loss" in one] for logged in curves)
    assert len(losses) == 6 and losses == pytest.approx(alone, rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [pytest.param({}, id="DDP"), pytest.param(FSDP2, id="FSDP2")])
def test_a_run_goes_on_where_it_was_stopped(work: Work, environment: dict[str, str], tmp_path: Path) -> None:
    """From step 3, in the middle of the second epoch: bit for bit the weights of the run that nobody stopped.

    The resumed epoch has its own order of clips, and a last batch that is filled up.
    """
    name = "whole-FSDP2" if environment else "whole-DDP"
    succeeded(work.run(name, 2, ["training.save_steps=1"], environment=environment))
    stopped = work.folder / f"{name}-stopped"
    stopped.mkdir()
    shutil.copytree(work.folder / name / "checkpoint-3", stopped / "checkpoint-3")
    more = ["training.save_steps=1", "training.resume_from_checkpoint=true"]
    first, _ = succeeded(work.run(stopped.name, 2, more, environment=environment))
    assert "whole sessions 6/6" in first.err and "whole sessions 3/6" not in first.err
    expected = load_file(work.folder / name / "model.safetensors")
    for tensor, weight in load_file(stopped / "model.safetensors").items():
        assert weight.equal(expected[tensor]), tensor


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_run(work: Work, lost: int) -> None:
    """The other one says so in one sentence within seconds, and ends with code 1."""
    ended = work.run(f"killed-{lost}", 2, ["training.max_steps=100000"], killed=lost, once_told="whole sessions 3/")
    assert ended[lost].code == -9
    left = ended[1 - lost]
    assert left.code == 1 and left.after_s < 10
    assert (
        left.err.splitlines()[-1].startswith("error: another process of this run has ended") and "Trac" not in left.err
    )
    assert (work.folder / f"killed-{lost}/checkpoint-2/checkpoint.json").is_file()


@pytest.mark.slow
def test_a_video_that_cannot_be_read_ends_the_run(work: Work, tmp_path: Path) -> None:
    """The process whose share it is in says why, and the other one that it has ended."""
    corpus = work.folder / "corpus"
    damaged = sorted(corpus.rglob("frames/*train*.arrow"))[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole.replace(b"/9j/4AAQ", b"AAAAAAAA"))  # no picture begins like this
    try:
        ended = work.run("damaged", 2, cache="cache-damaged")
    finally:
        damaged.write_bytes(whole)
    assert sorted(one.code for one in ended) == [1, 2], ended
    told = [line for one in ended for line in one.err.splitlines() if line.startswith("error")]
    assert len(told) == 2 and sum(damaged.name in line for line in told) == 1
    assert sum("another process of this run has ended" in line for line in told) == 1


@pytest.mark.parametrize(
    ("environment", "more", "said"),
    [
        (FSDP2, ["training.muon_learning_rate=1e-3"], "Muon turns whole matrices"),
        (FSDP2, ["training.look_steps=2", "model.freeze_vision=false"], "the first stage trains a small model"),
        (FSDP2, ["model.freeze_vision=false"], "each process must call the vision tower equally often"),
        ({}, ["training.ddp_find_unused_parameters=true"], "hides weights that learn nothing"),
    ],
)
def test_what_does_not_go_together_is_refused(
    work: Work, environment: dict[str, str], more: list[str], said: str
) -> None:
    ended = work.run("refused", 2, more, environment=environment)
    # Where one has left before the other one has come so far, that one says so.
    told = [one for one in ended if one.code == 2 and said in one.err]
    left = [one for one in ended if one.code == 1 and "another process of this run has ended" in one.err]
    assert told and len(told) + len(left) == 2, ended
