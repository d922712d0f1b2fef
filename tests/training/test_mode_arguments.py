"""Settings of the training modes: what cannot work is refused in one sentence, before anything is loaded."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from adapter_fixtures import mode_arguments

from prospect_hf.errors import UsageError
from prospect_hf.jobs.model_commands import TRAIN
from prospect_hf.settings import compose, parse
from prospect_hf.training import mode_arguments as module
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.mode_arguments import ModeArguments


def on_cuda(monkeypatch: pytest.MonkeyPatch, **available: bool) -> None:
    """Let the settings believe in a GPU, and in packages by name."""
    monkeypatch.setattr(ModeArguments, "cuda", property(lambda self: True))
    monkeypatch.setattr(module.torch.cuda, "is_bf16_supported", lambda **_: available.get("bf16", True))
    monkeypatch.setattr(module.torch.cuda, "get_device_name", lambda: "Old Card")
    for name in ("bitsandbytes", "flash_attn_2", "peft"):
        monkeypatch.setattr(module, f"is_{name}_available", functools.partial(available.get, name, True))


@pytest.mark.parametrize(
    ("mode", "settings", "message"),
    [
        ("best", {}, "training.mode must be one of full, lora, qlora, heads, not 'best'"),
        ("lora", {"attention": "fast"}, "training.attention must be one of auto, sdpa, flash_attention_2, eager"),
        ("lora", {"lora_rank": 0}, "training.lora_rank must be 1 or more, not 0"),
        ("lora", {"lora_alpha": 0.0}, "training.lora_alpha must be positive, not 0"),
        ("lora", {"lora_dropout": 1.0}, "training.lora_dropout must be 0 or more and below 1, not 1"),
        ("full", {"train_connector": True}, "mode=full trains the connector with the vision tower"),
        ("lora", {"muon_learning_rate": 0.1}, "mode=lora and training.muon_learning_rate do not go together"),
        ("qlora", {"fp16": True}, "mode=qlora and training.fp16 do not go together"),
        ("heads", {"look_steps": 5}, "mode=heads and training.look_steps do not go together"),
        ("heads", {"response_loss_weight": 1.0}, "mode=heads trains nothing that writes texts: set"),
        ("qlora", {"optim": "paged_adamw_8bit"}, "optim=paged_adamw_8bit runs on a CUDA device alone"),
        ("full", {"optim": "adamw_bnb_8bit"}, "optim=adamw_bnb_8bit runs on a CUDA device alone"),
        ("lora", {"attention": "flash_attention_2"}, "flash_attention_2 runs on a CUDA device alone .*attention=sdpa"),
        ("lora", {"tf32": True}, "training.tf32=true is for CUDA devices"),
        ("lora", {"activation_checkpointing_kwargs": {"use_reentrant": True}}, "leave out use_reentrant"),
        ("lora", {"activation_checkpointing_kwargs": '{"use_reentrant": true}'}, "leave out use_reentrant"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, mode: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        mode_arguments(mode, tmp_path, **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("mode", "settings", "available", "message"),
    [
        ("lora", {}, {"peft": False}, "training.mode=lora needs the package peft"),
        ("qlora", {}, {"bitsandbytes": False}, "training.mode=qlora needs the package bitsandbytes"),
        ("lora", {"optim": "paged_adamw_8bit"}, {"bitsandbytes": False}, "optim=paged_adamw_8bit needs the package"),
        ("lora", {"bf16": True}, {"bf16": False}, "Old Card has no bfloat16 units: set training.bf16=false"),
        ("lora", {"attention": "flash_attention_2", "bf16": True}, {"flash_attn_2": False}, "needs the package flash"),
        ("lora", {"attention": "flash_attention_2"}, {}, "flash_attention_2 needs training.bf16=true"),
        ("full", {"attention": "flash_attention_2", "bf16": True}, {}, "cannot run on the float32 weights"),
    ],
)
def test_what_the_machine_lacks_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    settings: dict[str, Any],
    available: dict[str, bool],
    message: str,
) -> None:
    args = mode_arguments(mode, tmp_path)
    for name, value in settings.items():
        setattr(args, name, value)
    on_cuda(monkeypatch, **available)
    with pytest.raises(UsageError, match=message):
        args.check_mode()


@pytest.mark.parametrize(
    ("mode", "cuda", "available", "optimizer", "attention"),
    [
        ("lora", False, {}, "adamw_torch", "sdpa"),
        ("lora", True, {}, "paged_adamw_8bit", "flash_attention_2"),
        ("qlora", True, {"flash_attn_2": False}, "paged_adamw_8bit", "sdpa"),
        ("lora", True, {"bitsandbytes": False}, "adamw_torch_fused", "flash_attention_2"),
        ("heads", True, {}, "adamw_torch_fused", "flash_attention_2"),
        ("full", True, {}, "adamw_torch_fused", "sdpa"),
    ],
)
def test_auto_takes_what_the_machine_has(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    cuda: bool,
    available: dict[str, bool],
    optimizer: str,
    attention: str,
) -> None:
    args = mode_arguments(mode, tmp_path, bf16=True)
    if cuda:
        on_cuda(monkeypatch, **available)
    args.optim = "auto"
    args.resolve_optimizer()
    assert (args.optim, args.attention_implementation) == (optimizer, attention)


def test_the_record_holds_the_optimizer_that_auto_stands_for(tmp_path: Path) -> None:
    """A resumed run on another machine must not load another optimiser's state."""
    given = mode_arguments("lora", tmp_path).given
    assert given["optim"] == "adamw_torch" and given["mode"] == "lora" and given["lora_rank"] == 4


MODE_OF = {
    "smolvlm2_256m": "full",
    "smolvlm2_500m": "full",
    "smolvlm2_2b": "qlora",
    "tiny": "full",
}


@pytest.mark.parametrize("model", MODE_OF)
def test_each_model_brings_its_mode(model: str) -> None:
    assert composed(f"model={model}").mode == MODE_OF[model]


@pytest.mark.parametrize("mode", ["full", "lora", "qlora", "heads"])
def test_each_mode_is_a_choice_for_every_checkpoint(mode: str) -> None:
    for model in ("smolvlm2_256m", "smolvlm2_500m", "smolvlm2_2b"):
        args = composed(f"model={model}", f"training={mode}")
        assert args.mode == mode and args.activation_checkpointing == (mode in ("lora", "qlora"))


def composed(*overrides: str) -> DSTTrainingArguments:
    values = compose("train", TRAIN.groups, ["training.use_cpu=true", *overrides])
    return parse(DSTTrainingArguments, values["training"], "training")
