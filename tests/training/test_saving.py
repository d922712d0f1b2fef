"""Checkpoints: a resumed run is the uninterrupted one, and whatever stops a save leaves the earlier ones whole."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from model_fixtures import make_session, new_model, small_processor
from trainer_fixtures import train_logs, trainer_of, weights_of

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.training import resumable_trainer as trainer_module
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import ALIGNMENT, build_model
from prospect_hf.training.checkpoint_files import PARTIAL, checkpoints, fault_in_files, fault_in_list, put_in_place
from prospect_hf.training.loss_arguments import LOSSES

SHORT = [make_session(seed, 3, 2) for seed in range(2)]


@pytest.mark.parametrize(("logging_steps", "sampling"), [(1, "random"), (2, "random"), (1, "group_by_length")])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, logging_steps: int, sampling: str) -> None:
    """Cut in the middle of the second epoch: the same clips, the same texts left out, the same weights."""
    settings: dict[str, Any] = {
        "dropout": 0.9,
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_steps": logging_steps,
        "train_sampling_strategy": sampling,
    }
    whole = trainer_of(tmp_path, **settings)
    whole.train()
    resumed = trainer_of(tmp_path, model=new_model(seed=9), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    after = weights_of(resumed)
    assert all(torch.equal(weight, after[name]) for name, weight in weights_of(whole).items())
    # The last log covers steps of the resumed run alone: it must not divide by the steps before it.
    last, again = train_logs(whole)[-1], train_logs(resumed)[-1]
    for name in ("loss", *(f"{loss}_loss" for loss in LOSSES)):
        assert again[name] == pytest.approx(last[name], abs=1e-6), name
    for log in train_logs(resumed):
        assert log["loss"] == pytest.approx(sum(log[f"{name}_loss"] for name in LOSSES), rel=1e-4)


def test_a_run_that_was_killed_after_its_last_step_trains_no_further_step(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 5, "per_device_train_batch_size": 2, "save_strategy": "steps"}
    whole = trainer_of(tmp_path, save_steps=5, **settings)
    whole.train()
    resumed = trainer_of(tmp_path, model=new_model(seed=9), save_steps=5, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert resumed.state.global_step == 5
    after = weights_of(resumed)
    assert all(torch.equal(weight, after[name]) for name, weight in weights_of(whole).items())


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("stopped_in", "error"),
    [
        ("save_model", full_disk()),
        (
            "_save_optimizer_and_scheduler",
            RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/3"),
        ),
        ("_save_rng_state", KeyboardInterrupt()),
        ("publish_state", full_disk()),
        ("write_list", full_disk()),
        ("put_in_place", KeyboardInterrupt()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_save_that_is_stopped_leaves_the_earlier_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: str, error: BaseException
) -> None:
    """Whatever stops it, a full disk too, wherever it is in its files: no half checkpoint, and the space is free."""
    settings: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    trainer = trainer_of(tmp_path, SHORT, **settings)
    place = trainer if hasattr(trainer, stopped_in) else trainer_module
    save = getattr(place, stopped_in)

    def stop(*args: Any, **kwargs: Any) -> None:
        if trainer.state.global_step == 4:
            raise error
        save(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(place, stopped_in, stop)
        trainer.train()
    assert checkpoints(tmp_path) == [tmp_path / "checkpoint-2"] and not (tmp_path / PARTIAL).exists()
    assert fault_in_list(tmp_path / "checkpoint-2") is None and fault_in_files(tmp_path / "checkpoint-2") is None
    # A kill leaves what was written until then. The next save holds no file of it.
    shutil.copytree(tmp_path / "checkpoint-2", tmp_path / PARTIAL / "checkpoint-4")
    (tmp_path / PARTIAL / "checkpoint-4" / "stale.safetensors").write_bytes(b"")
    trainer_of(tmp_path, SHORT, **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    assert fault_in_list(tmp_path / "checkpoint-4") is None and fault_in_files(tmp_path / "checkpoint-4") is None
    assert not (tmp_path / "checkpoint-4" / "stale.safetensors").exists()


def test_a_checkpoint_is_under_its_name_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill at any moment of a save finds no folder of that name, or all of it."""
    settings: dict[str, Any] = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    seen: list[bool] = []

    def look(folder: Path) -> None:
        seen.append((tmp_path / "checkpoint-2").exists())
        assert fault_in_list(folder) is None and fault_in_files(folder) is None
        put_in_place(folder)

    monkeypatch.setattr(trainer_module, "put_in_place", look)
    # What an earlier run left in its place goes as a whole.
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "stale.safetensors").write_bytes(b"")
    trainer_of(tmp_path, SHORT, **settings).train()
    assert seen == [True] and fault_in_files(tmp_path / "checkpoint-2") is None
    assert not (tmp_path / "checkpoint-2" / "stale.safetensors").exists()
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2 and PARTIAL not in json.dumps(state)


def test_weights_of_a_checkpoint_lie_where_fresh_ones_do(tmp_path: Path) -> None:
    """Matrix products round otherwise at odd addresses: a resumed run would part from the uninterrupted one."""
    trainer = trainer_of(tmp_path, SHORT)
    trainer.save_model(str(tmp_path / "saved"))
    mapped = DSTSmolVLMForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert any(weight.data_ptr() % ALIGNMENT for weight in mapped.parameters())  # or this test shows nothing
    model = build_model(ModelArguments(), small_processor(), trainer.args, tmp_path / "saved")
    assert not any(weight.data_ptr() % ALIGNMENT for weight in model.parameters())
    after = dict(model.named_parameters())
    assert all(torch.equal(weight, after[name]) for name, weight in weights_of(trainer).items())
