"""One process or several, with or without accumulation: the same clips in the same order, and the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from job_fixtures import SETTINGS
from torch.utils.data import BatchSampler

from prospect_hf.sessions import IGNORE
from prospect_hf.training.trainer import DSTTrainer

LENGTHS = [(37 * number) % 101 + 1 for number in range(61)]


def sampler(
    batch: int, accumulation: int, processes: int, lengths: list[int], epoch: int
) -> torch.utils.data.Sampler[int]:
    """The trainer's sampler in one of several processes."""
    args = SimpleNamespace(
        train_sampling_strategy="group_by_length",
        train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        world_size=processes,
        seed=3,
    )
    clips = SimpleNamespace(clips=SimpleNamespace(lengths=lengths))
    found = DSTTrainer._get_train_sampler(SimpleNamespace(args=args, train_dataset=clips))
    assert found is not None
    found.set_epoch(epoch)
    return found


def steps(batch: int, accumulation: int, processes: int, lengths: list[int], epoch: int) -> list[list[int]]:
    """The clips of each optimiser step over all processes, in order, as accelerate deals batches out."""
    of_process = [
        list(
            BatchSamplerShard(
                BatchSampler(sampler(batch, accumulation, processes, lengths, epoch), batch, drop_last=False),
                processes,
                process,
                even_batches=False,
            )
        )
        for process in range(processes)
    ]
    dealt = []
    for begin in range(0, len(of_process[0]), accumulation):
        window = [of[begin : begin + accumulation] for of in of_process]
        dealt.append([clip for row in range(accumulation) for of in window if row < len(of) for clip in of[row]])
    return dealt


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize(
    ("batch", "accumulation", "processes"),
    [(4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2), (2, 1, 4), (1, 2, 4), (1, 1, 8)],
)
def test_each_step_has_the_same_clips_in_the_same_order(
    batch: int, accumulation: int, processes: int, epoch: int
) -> None:
    alone = steps(8, 1, 1, LENGTHS, epoch)
    assert steps(batch, accumulation, processes, LENGTHS, epoch) == alone
    assert sorted(clip for step in alone for clip in step) == list(range(len(LENGTHS)))


@given(st.integers(1, 40), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
def test_any_number_of_clips(clips: int, processes: int, batch: int, accumulation: int) -> None:
    lengths = LENGTHS[:clips]
    alone = steps(processes * batch * accumulation, 1, 1, lengths, 0)
    dealt = steps(batch, accumulation, processes, lengths, 0)
    # Where the last steps are not full, the clips are the same ones too; BatchSamplerShard repeats none here.
    assert [clip for step in dealt for clip in step] == [clip for step in alone for clip in step]


@pytest.mark.parametrize(
    ("process", "remainder", "end", "kept"),
    [
        (0, 3, True, 2),
        (1, 3, True, 1),
        (0, 1, True, 1),
        (1, 1, True, 0),
        (0, 0, True, 2),
        (1, 0, True, 2),
        (1, 3, False, 2),
    ],
)
def test_clips_that_fill_up_an_epoch_are_not_learned_twice(process: int, remainder: int, end: bool, kept: int) -> None:
    """Two processes with two clips each, of which ``remainder`` are left at the end of the epoch."""
    names = ("speaking_labels", "dst_update_labels", "dst_state_labels", "labels")
    batch = {name: torch.ones(2, 3, dtype=torch.long) for name in names}
    trainer = SimpleNamespace(
        args=SimpleNamespace(world_size=2, process_index=process),
        accelerator=SimpleNamespace(gradient_state=SimpleNamespace(end_of_dataloader=end)),
    )
    DSTTrainer._ignore_repeated(trainer, batch, range(8 + remainder))
    for name in names:
        assert (batch[name][:kept] == 1).all() and (batch[name][kept:] == IGNORE).all(), name


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(repository: Path, tmp_path: Path) -> None:
    """Under torchrun: one process prints, follows and writes; 5 clips, so that the last step of an epoch is half."""
    from safetensors.torch import load_file

    common = [f"data.root={tmp_path / 'corpus'}", f"data.cache_dir={tmp_path / 'cache'}", "data.sources=[wtag]"]
    common += ["data.recordings.train=5", "data.text_dropout=0.5", "training.max_steps=6"]
    common += ["training.train_sampling_strategy=group_by_length", "training.muon_learning_rate=2e-3"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    half = ["training.per_device_train_batch_size=1", "training.look_batch_size=1"]
    script, told = str(repository / "scripts" / "train.py"), {}
    for name, start, more in (("one", [], []), ("two", torchrun, half)):
        output = f"training.output_dir={tmp_path / name}"
        ran = subprocess.run(
            [sys.executable, *start, script, *SETTINGS, *common, *more, output],
            capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=200,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        told[name] = ran
    alone = load_file(tmp_path / "one" / "model.safetensors")
    for name, weight in load_file(tmp_path / "two" / "model.safetensors").items():
        assert float((weight - alone[name]).abs().max()) < 1e-6, name
    shown = told["two"]
    assert shown.stdout.count("all dialogs train") == shown.stdout.count("card and results.json") == 1
    for once in (
        "training clips of",
        "first stage 2/2",
        "encoding frames",
        "whole sessions 6/6",
        "following sessions 1/1, 100",
    ):
        assert shown.stderr.count(once) == 1, (once, shown.stderr)
    facts = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert [one["machine"]["processes"] for one in facts] == [1, 2]
    assert facts[0]["results"]["free_run"] == pytest.approx(facts[1]["results"]["free_run"])
    assert (tmp_path / "two" / "README.md").is_file()
