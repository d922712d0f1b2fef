"""``prospect plan-memory``, and the plan of a training run on a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from job_fixtures import SETTINGS, train

from prospect_hf.cli import main
from prospect_hf.jobs import plan_memory as plan_job
from prospect_hf.jobs import train as train_module
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.memory import before_training, tables
from prospect_hf.training.memory.batch import BatchSize
from prospect_hf.training.memory.before_training import Checked
from prospect_hf.training.memory.shapes import PUBLISHED
from prospect_hf.training.memory.step import STEP, Setting, Traced

SMALL = [setting for setting in SETTINGS if setting.startswith("model.") or "batch_size" in setting]


def plan(*arguments: str) -> int:
    """The exit code of ``prospect plan-memory`` for the small model, in this process."""
    return main(["plan-memory", "model=tiny", "data.max_seq_len=320", "plan.steps=4", *SMALL, *arguments])


def test_a_plan_is_printed_without_a_gpu_a_corpus_or_a_download(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_job, "with_largest", lambda made: replace(made, longest=640, largest_batch=64))
    assert plan("training.bf16=true", "training.tf32=true", "plan.card=h100", "plan.gpu_memory=24GiB") == 0
    told = capsys.readouterr().out
    assert "the GPU has; the setting fits" in told and "24.0 GiB" in told
    assert "data.max_seq_len at batch 2" in told and " 640\n" in told and " 64 (the limit)\n" in told
    for line in ("weights", "activations", "context and fragmentation (plan.allowance)"):
        assert f"\n{line} " in told
    assert "an epoch on NVIDIA H100 SXM at 35% of its peak" in told
    assert told.count("estimated") >= 2 and "Estimated from a traced training step" in told
    assert list(tmp_path.iterdir()) == []  # nothing is written


def test_a_setting_that_does_not_fit_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_job, "with_largest", lambda made: made)
    assert plan("plan.gpu_memory=8MiB", "plan.allowance=7MiB") == 1
    assert "the setting does not fit" in capsys.readouterr().out


def test_the_table_has_a_row_for_each_size_and_number_of_tokens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced(planned: Setting, size: BatchSize) -> Traced:
        taken = size.batch * 2**30
        return Traced(size, STEP, {"activations": taken}, 1, 1, 1, 0, frames=1, step_peak=taken, encoding_peak=2**29)

    monkeypatch.setattr(plan_job, "with_largest", lambda made: made)
    monkeypatch.setattr(tables, "trace", traced)
    assert plan("plan.table=true", "plan.gpu_memory=10GiB") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(PUBLISHED))]
    assert [row[0] for row in rows] == [name for name in PUBLISHED for _ in range(4)]
    assert all(row[-1] == "8" for row in rows)  # 8 clips of 1 GiB beside an allowance of 2 GiB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan.gpu_memory=24gigs"], "plan.gpu_memory must be a size such as 24GiB"),
        (["plan.card=voodoo"], "plan.card must be one of rtx_3090"),
        (["model.name_or_path=somebody/unknown"], "are not known here, and a plan downloads nothing"),
        (["data.max_seq_len=40"], "holds no plan of 4 steps"),
        (["data.max_seq_len=20000"], "data.max_seq_len=20000 is longer than the model's 8192 positions"),
        (["training.per_device_train_batch_size=10000"], "set it to 8192 or less, and training.gradient_accum"),
        (["training.mode=qlra"], "training.mode must be one of full, lora, qlora, heads"),
        (["data.rows=nowhere"], "no manifest.json"),
    ],
    ids=["memory", "card", "model", "short", "long", "batch", "mode", "rows"],
)
def test_what_cannot_be_planned_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(*arguments) == 2
    assert message in capsys.readouterr().err


# -- before training ------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The arguments of a run that believes that it is on a GPU, with 3 GiB free; the tensors stay on the CPU."""
    monkeypatch.setattr(DSTTrainingArguments, "cuda", property(lambda self: True))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 * 2**30, 24 * 2**30))
    folder = tmp_path / "model"
    corpus = [f"data.root={tmp_path}/corpus", f"data.cache_dir={tmp_path}/cache", f"training.output_dir={folder}"]
    return [*SETTINGS, *corpus, "training.optim=adamw_torch"]


def test_a_refusal_ends_the_run_before_the_model_is_built(
    gpu: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*given: Any) -> None:
        raise AssertionError("the model was built")

    monkeypatch.setattr(train_module, "build_model", built)
    monkeypatch.setattr(before_training, "check_run", lambda *given: Checked("it does not fit: set KNOB.", ""))
    monkeypatch.setattr(before_training, "worker_pool", _HerePool)
    assert train(gpu) == 2
    assert "error: it does not fit: set KNOB." in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_cannot_fit_is_planned_in_a_process_of_its_own(
    gpu: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*given: Any) -> None:
        raise AssertionError("the model was built")

    monkeypatch.setattr(train_module, "build_model", built)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**31 + 2**20, 24 * 2**30))
    assert train(gpu) == 2
    told = capsys.readouterr().err
    assert "training does not fit on this GPU: batches of 2 x 400 tokens take" in told and "estimated" in told


@pytest.mark.parametrize(
    ("settings", "knob"),
    [
        (
            "training.look_batch_size=6",
            "first stage had training.look_batch_size=6; set training.look_batch_size=3",
        ),
        ("training.look_batch_size=1", "set training.look_pairs lower"),
    ],
)
def test_memory_that_runs_out_in_the_first_stage_names_its_own_knob(
    gpu: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, settings: str, knob: str
) -> None:
    def runs_out(*given: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(train_module, "learn_to_look", runs_out)
    assert train([*gpu, settings, "training.memory_check=false"]) == 1
    assert knob in capsys.readouterr().err


def test_memory_that_runs_out_all_the_same_names_the_plan_and_the_knob(
    gpu: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs_out(*given: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    told = Checked(None, "the plan estimated 2.1 GiB; set training.per_device_train_batch_size=1")
    monkeypatch.setattr(before_training, "check_run", lambda *given: told)
    monkeypatch.setattr(before_training, "worker_pool", _HerePool)
    monkeypatch.setattr(train_module, "train_on_sessions", runs_out)
    assert train(gpu) == 1
    assert f"error: out of memory: {told.relief}." in capsys.readouterr().err


def test_without_the_check_or_a_gpu_nothing_is_planned(
    gpu: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked(*given: Any) -> None:
        raise AssertionError("a plan was made")

    monkeypatch.setattr(before_training, "worker_pool", checked)
    args = DSTTrainingArguments(output_dir=str(tmp_path), use_cpu=True, optim="adamw_torch", memory_check=False)
    nothing: Any = None
    assert before_training.check_memory(nothing, nothing, args) is None
    args.memory_check, args.fsdp = True, True
    assert before_training.check_memory(nothing, nothing, args) is None
    monkeypatch.setattr(DSTTrainingArguments, "cuda", property(lambda self: False))
    args.fsdp = None
    assert before_training.check_memory(nothing, nothing, args) is None


class _HerePool:
    """A pool that works in this process."""

    def __init__(self, processes: int) -> None:
        self.answer: Any = None

    def __enter__(self) -> _HerePool:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def submit(self, work: Any, *given: Any) -> _HerePool:
        self.answer = work(*given)
        return self

    def result(self) -> Any:
        return self.answer
