"""Two processes learn what one does, whichever labels fall into whose micro-batch; and every weight learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import new_model
from process_group import Launcher, succeeded
from safetensors.torch import load_file

from configuration_dst_smolvlm import HEADS

WORK = "process_work:train_on_clips"
Learned = tuple[list[dict[str, torch.Tensor]], list[dict[str, float]]]


def learned(launcher: Launcher, folder: Path, count: int, batch: int, accumulation: int, **settings: Any) -> Learned:
    """The weights of each process, and the log of the first one."""
    folder.mkdir(exist_ok=True)
    succeeded(launcher.run(WORK, count, folder=str(folder), batch=batch, accumulation=accumulation, **settings))
    weights = [load_file(folder / f"{number}.safetensors") for number in range(count)]
    return weights, json.loads((folder / "0.json").read_text())


DECISIONS: dict[str, dict[str, Any]] = {
    "focal": {"decision_loss": "focal"},
    "balanced": {},
    "class weights, few negatives": {"decision_loss": "focal", "class_weights": [0.6, 3.0], "negative_rate": 0.3},
}


@pytest.fixture(scope="module", params=DECISIONS)
def alone(
    request: pytest.FixtureRequest, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Learned]:
    """How the decisions are learned, and one process with four clips a step."""
    settings = DECISIONS[request.param]
    return settings, learned(launcher, tmp_path_factory.mktemp("alone") / "run", 1, 4, 1, **settings)


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 1), (1, 2)])
def test_two_processes_learn_what_one_does(
    launcher: Launcher, tmp_path: Path, alone: tuple[dict[str, Any], Learned], batch: int, accumulation: int
) -> None:
    """Each head has moved, in both processes alike; each loss and metric is that of one process.

    In some micro-batches of a process a decision has no label of one class, or of both.
    """
    settings, ((expected,), log_alone) = alone
    (first, second), log = learned(launcher, tmp_path / "run", 2, batch, accumulation, **settings)
    before = dict(new_model().named_parameters())
    for name, weight in expected.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], weight, rtol=1e-4, atol=1e-5), name
    for head in HEADS:
        assert any(not torch.equal(first[name], before[name]) for name in first if name.startswith(head)), head
    assert len(log) == len(log_alone)
    for ours, theirs in zip(log, log_alone, strict=True):
        assert figures(ours) == pytest.approx(figures(theirs), abs=2e-6, rel=2e-6)


def test_an_epoch_goes_on_with_its_own_order_and_its_half_batch(launcher: Launcher, tmp_path: Path) -> None:
    """Two processes, from the first of three steps of the second epoch: bit for bit what nobody stopped.

    The last batch of the epoch is filled up with clips that must not be learned twice.
    """
    settings = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 1}
    whole, _ = learned(launcher, tmp_path / "whole", 2, 1, 2, **settings)
    checkpoint = str(tmp_path / "whole/checkpoint-4")
    resumed, log = learned(launcher, tmp_path / "resumed", 2, 1, 2, resume_from_checkpoint=checkpoint, **settings)
    assert [one["step"] for one in log if "loss" in one] == [1, 2, 3, 4, 5, 6]
    for name, weight in whole[0].items():
        assert torch.equal(resumed[0][name], weight) and torch.equal(resumed[1][name], weight), name


def figures(logged: dict[str, Any]) -> dict[str, float]:
    """What was computed, and not how long it took, nor the share of the epoch's micro-batches."""
    timed = ("runtime", "per_second", "total_flos", "epoch")
    return {name: value for name, value in logged.items() if not any(part in name for part in timed)}


@pytest.mark.parametrize("count", [1, 2])
def test_a_weight_that_no_loss_reaches_is_named(launcher: Launcher, tmp_path: Path, count: int) -> None:
    ended = launcher.run(WORK, count, folder=str(tmp_path), batch=1, accumulation=1, idle=True)
    for one in ended:
        assert one.code == 2 and "1 trained weights get no gradient from any loss (idle_weight)" in one.err, one
