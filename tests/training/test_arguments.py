"""The settings of model and training: derived arguments, what is recorded of them, and the small model's sizes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from model_fixtures import small_processor
from transformers import TrainingArguments

from prospect_hf.errors import UsageError
from prospect_hf.jobs.model_commands import TRAIN
from prospect_hf.settings import compose, parse
from prospect_hf.training import arguments as arguments_module
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments, TinyShape
from prospect_hf.training.tiny import tiny_config, tiny_processor


def arguments(folder: Path, **settings: Any) -> DSTTrainingArguments:
    return DSTTrainingArguments(**{"output_dir": str(folder), "use_cpu": True, **settings})


# -- derived arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True},
        {"activation_checkpointing": True, "report_to": ["tensorboard"], "debug": "underflow_overflow"},
        {
            "accelerator_config": {"even_batches": False},
            "lr_scheduler_kwargs": '{"num_cycles": 2}',
            "warmup_steps": 0.1,
        },
        {"include_num_input_tokens_seen": True, "lr_scheduler_type": "cosine", "optim": "sgd", "fsdp": None},
    ],
)
def test_derived_arguments_differ_only_in_what_is_changed(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers derives values again when arguments are copied: that must not change any of them."""
    monkeypatch.setattr(arguments_module, "get_available_reporting_integrations", lambda: ["tensorboard"])
    args = arguments(tmp_path, look_steps=7, look_batch_size=5, gradient_accumulation_steps=3, **settings)
    before = args.to_dict()
    first = {
        "max_steps": 7,
        "per_device_train_batch_size": 5,
        "gradient_accumulation_steps": 1,
        "decision_loss": "focal",
        "focal_gamma": 2.0,
        "train_sampling_strategy": "random",
        "eval_strategy": "no",
        "save_strategy": args.save_strategy,
        "load_best_model_at_end": False,
        "metric_for_best_model": None,
        "greater_is_better": None,
    }
    assert args.for_first_stage().to_dict() == {**before, **first}
    assert args.for_first_stage().device == args.device
    assert args.to_dict() == before


def test_without_validation_nothing_is_evaluated(tmp_path: Path) -> None:
    args = arguments(tmp_path, eval_strategy="epoch")
    assert args.without_evaluation().to_dict() == {**args.to_dict(), "eval_strategy": "no"}
    best = arguments(tmp_path, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True)
    with pytest.raises(UsageError, match=r"for data without a validation split: .*load_best_model_at_end"):
        best.without_evaluation()
    plateau = arguments(tmp_path, eval_strategy="epoch", lr_scheduler_type="reduce_lr_on_plateau", look_steps=1)
    with pytest.raises(UsageError, match=r"cannot be used for the first stage .*reduce_lr_on_plateau"):
        plateau.for_first_stage()


def test_memory_is_pinned_for_cuda_alone(tmp_path: Path) -> None:
    args = arguments(tmp_path, dataloader_pin_memory=True, use_cpu=False)
    assert args.dataloader_pin_memory == (args.device.type == "cuda")
    assert not arguments(tmp_path, dataloader_pin_memory=False, use_cpu=False).dataloader_pin_memory


def test_bars_do_not_depend_on_the_level_of_logging(tmp_path: Path) -> None:
    import transformers

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        assert arguments(tmp_path).disable_tqdm is False
    finally:
        transformers.logging.set_verbosity(level)


@pytest.mark.parametrize(
    ("settings", "processes", "message"),
    [
        ({"dataloader_drop_last": True}, 1, "training.dataloader_drop_last leaves clips out"),
        ({"accelerator_config": {"dispatch_batches": True}}, 1, "dispatch_batches cuts batches by clips"),
        ({"accelerator_config": {"even_batches": False}}, 2, "even_batches=false gives some processes fewer batches"),
    ],
)
def test_settings_of_the_data_loaders_that_lose_clips_or_stop_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], processes: int, message: str
) -> None:
    monkeypatch.setattr(DSTTrainingArguments, "world_size", processes)
    with pytest.raises(UsageError, match=message):
        arguments(tmp_path, **settings)


def test_the_record_holds_the_given_settings_and_no_secret(tmp_path: Path) -> None:
    given = arguments(tmp_path, learning_rate=1e-3, save_strategy="epoch", hub_token="hf_secret").given
    own = {f.name for f in fields(DSTTrainingArguments)} - {f.name for f in fields(TrainingArguments)}
    assert given.keys() == own | {
        "output_dir",
        "use_cpu",
        "learning_rate",
        "save_strategy",
        # other defaults than the library's, as they stand
    }
    assert given["learning_rate"] == 1e-3 and given["save_strategy"] == "epoch" and given["look_pairs"] == 3
    stage = arguments(tmp_path, look_steps=9).for_first_stage()
    assert stage.given["max_steps"] == 9 and stage.given["output_dir"] == str(tmp_path / "first_stage")


# -- the small model's sizes --------------------------------------------------------------------------------------


def test_every_size_is_a_setting_of_the_model_and_reaches_the_small_model() -> None:
    """A size that is added to ``TinyShape`` must be settable, and change the model or its processor."""
    changed = {
        "image_size": 96,
        "patch_size": 24,
        "scale_factor": 1,
        "hidden_size": 48,
        "vision_layers": 3,
        "text_layers": 3,
        "heads": 2,
        "vocab_size": 320,
        "max_positions": 512,
        "tokens_per_frame": 4,
    }
    assert changed.keys() == {f.name for f in fields(TinyShape)}
    texts = ["attach the wheel, then tighten the bolt"]

    def built(shape: TinyShape) -> tuple[dict[str, Any], int]:
        processor = tiny_processor(texts, shape)
        return tiny_config(processor, shape).to_dict(), len(processor.tokenizer)

    plain = built(ModelArguments())
    assert plain == built(TinyShape())
    for name, value in changed.items():
        groups = compose("train", TRAIN.groups, [f"model.{name}={value}"])
        model = parse(ModelArguments, groups["model"], "model")
        assert getattr(model, name) == value and built(model) != plain, name


def test_tokens_per_frame_is_one_unless_set() -> None:
    assert tiny_config(small_processor(), TinyShape()).tokens_per_frame == 1
    assert ModelArguments().tokens_per_frame is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"load_best_model_at_end": True, "save_strategy": "no"},
            "load_best_model_at_end=true has no effect without evaluations",
        ),
        ({"save_total_limit": 0}, "save_total_limit must be 1 or more, not 0"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor has no effect on this model"),
        ({"bf16_full_eval": True}, "bf16_full_eval has no effect on this model"),
        (
            {"report_to": ["trackoi"]},
            "none has this name: give one or more of trackio, tensorboard, wandb",
        ),
        ({"ddp_backend": "nccl"}, "ddp_backend is for several processes and this is one"),
        ({"fp16": True}, "fp16=true is for CUDA devices and training runs on the CPU"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **settings)


def test_a_deepspeed_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "zero.yaml").write_text("zero_stage: 2\n")
    with pytest.raises(UsageError, match=r"^training\.deepspeed: .*zero\.yaml: invalid JSON"):
        arguments(tmp_path, deepspeed=str(tmp_path / "zero.yaml"))
