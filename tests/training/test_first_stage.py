"""The first stage can be stopped at any step: the run goes on from there, and comes to the same weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import NoiseReader, make_session, new_model, small_processor
from stored_fixtures import in_store

from prospect_hf.data.arguments import DataArguments
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import FIRST_STAGE, DSTTrainingArguments, ModelArguments
from prospect_hf.training.checkpoint_files import LIST, checkpoints, write_list
from prospect_hf.training.resume import Interrupted, find_checkpoint, first_stage_record, run_record
from prospect_hf.training.splits import Splits
from prospect_hf.training.stages import learn_to_look
from prospect_hf.training.trainer import DSTTrainer

SPLITS = Splits(
    in_store([make_session(seed, 4, 2) for seed in range(5)]), in_store([make_session(9, 4, 2)]), in_store([]), {}
)


def arguments(output: Path, **settings: Any) -> DSTTrainingArguments:
    given: dict[str, Any] = {"look_steps": 7, "look_batch_size": 2, "look_pairs": 1, "save_strategy": "steps"}
    given |= {"look_state_weight": 4.0}
    given |= {"save_steps": 2, "save_total_limit": 2, "learning_rate": 0.01, "muon_learning_rate": 0.01}
    given |= {"max_steps": 3, "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "seed": 3}
    return DSTTrainingArguments(output_dir=str(output), **{**given, **settings})


def record(args: DSTTrainingArguments) -> dict[str, Any]:
    return run_record(ModelArguments(), DataArguments(root="corpus", frames="rendered"), args, SPLITS)


def found(args: DSTTrainingArguments) -> Interrupted | None:
    args.resume_from_checkpoint = True
    return find_checkpoint(args, record(args))


def looked(args: DSTTrainingArguments, seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights after the first stage, which goes on from a checkpoint if there is one, and its results."""
    model = new_model(seed=seed)
    results = learn_to_look(model, small_processor(), NoiseReader(), SPLITS, args, record(args), found(args))
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}, results


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Stop the training in its step after ``step``, as Ctrl-C does."""
    train = DSTTrainer.training_step

    def stopped(trainer: DSTTrainer, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == step:
            raise KeyboardInterrupt
        return train(trainer, *args, **kwargs)

    monkeypatch.setattr(DSTTrainer, "training_step", stopped)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return looked(arguments(tmp_path_factory.mktemp("whole"), save_strategy="no"))[0]


def test_a_first_stage_that_is_stopped_twice_is_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, torch.Tensor]
) -> None:
    """Epochs of two and a half steps: it stops in the middle of the second and of the third one."""
    args = arguments(tmp_path)
    for part, (step, resumed) in enumerate(((3, 2), (5, 4))):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, step)
            looked(args, seed=part)  # a run that goes on does not look at its fresh weights
        interrupted = found(args)
        assert interrupted is not None and interrupted.first_stage
        assert interrupted.folder == tmp_path / FIRST_STAGE / f"checkpoint-{resumed}"
        assert len(checkpoints(tmp_path / FIRST_STAGE)) <= 2
    weights, results = looked(args, seed=9)
    assert equal(weights, whole)
    assert results["look_earlier_parts"] == [{"until_step": 2}, {"until_step": 4}] and results["look_seconds"] > 0


def test_a_finished_first_stage_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, torch.Tensor]
) -> None:
    """A run that is killed between the stages goes on with the weights that the first one came to."""
    assert equal(looked(arguments(tmp_path, save_strategy="best", eval_strategy="steps"))[0], whole)
    args = arguments(tmp_path)
    interrupted = found(args)
    assert interrupted is not None and interrupted.folder == tmp_path / FIRST_STAGE / "checkpoint-7"
    with monkeypatch.context() as patch:
        stop_at(patch, 7)  # it would raise in any step
        weights, results = looked(args, seed=9)
    assert equal(weights, whole) and results["look_earlier_parts"] == [{"until_step": 7}]


def test_a_checkpoint_of_the_second_stage_goes_before_those_of_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments(tmp_path)

    def saved(folder: Path, run: dict[str, Any]) -> Path:
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(b"state")
        (folder / "trainer_state.json").write_text('{"global_step": 2, "epoch": 0.5}')
        write_list(folder, run)
        return folder

    first = saved(tmp_path / FIRST_STAGE / "checkpoint-7", first_stage_record(record(args)))
    second = saved(tmp_path / "checkpoint-2", record(args))
    interrupted = found(args)
    assert interrupted is not None and interrupted.folder == second and not interrupted.first_stage
    (second / LIST).unlink()
    with caplog.at_level(logging.WARNING):
        interrupted = found(args)
    assert interrupted is not None and interrupted.folder == first and interrupted.first_stage
    assert f"checkpoint-2: it has no {LIST}" in caplog.text and f"from {FIRST_STAGE}/checkpoint-7" in caplog.text
    # It may be named, and another first stage is another run.
    args.resume_from_checkpoint = str(first)
    interrupted = find_checkpoint(args, record(args))
    assert interrupted is not None and interrupted.first_stage
    other = arguments(tmp_path, look_steps=9, resume_from_checkpoint=str(first))
    with pytest.raises(UsageError, match=r"training\.look_steps is 9 and the interrupted run has 7"):
        find_checkpoint(other, record(other))


def test_accumulation_gives_the_first_stage_of_one_batch(tmp_path: Path) -> None:
    """The first stage has no accumulation of its own; its steps do not depend on that of the second one."""
    settings: dict[str, Any] = {"look_steps": 2, "save_strategy": "no"}
    one = looked(arguments(tmp_path, **settings))[0]
    assert equal(looked(arguments(tmp_path, gradient_accumulation_steps=4, **settings))[0], one)


def test_the_weight_of_the_states_falls_evenly_to_one_in_the_second_half(tmp_path: Path) -> None:
    """The decisions keep their weight; the text, of which glimpses have none, is out of it."""
    args = arguments(tmp_path, save_strategy="no", dst_state_loss_weight=0.5)
    logs = [log for log in looked(args)[1]["look_history"] if "loss" in log]
    for step, log in enumerate(logs):
        weight = 0.5 * (1 + 3 * min(1.0, (14 - 2 * step) / 7))
        expected = log["speaking_loss"] + log["dst_update_loss"] + weight * log["dst_state_loss"]
        assert log["loss"] == pytest.approx(expected, rel=1e-4), step
    assert len(logs) == 7


@pytest.mark.parametrize("weight", [0.5, -1.0, float("inf"), float("nan")])
def test_a_weight_of_the_states_that_cannot_be_is_named(tmp_path: Path, weight: float) -> None:
    with pytest.raises(UsageError, match=r"training\.look_state_weight must be 1 or more and finite, not"):
        arguments(tmp_path, look_state_weight=weight)


def test_utterances_teach_words_in_the_first_stage_with_a_weight_of_its_own(tmp_path: Path) -> None:
    """Without them there is no text; with them, its loss has its factor, and in the second stage it has none."""
    settings: dict[str, Any] = {"save_strategy": "no", "look_state_weight": 1.0, "response_loss_weight": 2.0}

    def logs(**more: Any) -> list[dict[str, float]]:
        history = looked(arguments(tmp_path, **settings, **more))[1]["look_history"]
        return [log for log in history if "loss" in log]

    assert all(log["response_loss"] == 0 for log in logs(look_response_weight=0.25))
    spoken = logs(look_utterances=1.0, look_response_weight=0.25)
    assert any(log["response_loss"] > 1 for log in spoken)
    for log in spoken:
        parts = sum(log[f"{name}_loss"] for name in ("speaking", "dst_update", "dst_state"))
        assert log["loss"] == pytest.approx(parts + 0.5 * log["response_loss"], rel=1e-4)
    args = arguments(tmp_path, look_response_weight=0.25, **settings)
    assert args.loss_weights["response"] == 2.0 and args.for_first_stage().loss_weights["response"] == 0.5
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match=r"training\.look_response_weight must be 0 or more and finite, not"):
            arguments(tmp_path, look_response_weight=wrong)
