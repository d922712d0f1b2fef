"""Small runs in each training mode: a base folder, arguments, a trainer, and what a model answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from model_fixtures import HEAD_LOGITS, clip_dataset, collate, make_session, model_inputs, new_model, small_processor

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.data.clips import ClipCollator
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_model
from prospect_hf.training.stages import save
from prospect_hf.training.trainer import DSTTrainer

ADAPTER_MODES = ("lora", "qlora", "heads")
ALL_MODES = ("full", *ADAPTER_MODES)


def write_base(folder: Path) -> Path:
    """A whole model and its processor."""
    new_model().save_pretrained(folder)
    small_processor().save_pretrained(folder)
    return folder


def mode_arguments(mode: str, output: Path, **settings: Any) -> DSTTrainingArguments:
    """Three steps of two clips, on the CPU in float32, without a checkpoint."""
    given: dict[str, Any] = {
        "mode": mode,
        "output_dir": str(output),
        "use_cpu": True,
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
        "optim": "auto",
        "lora_rank": 4,
        "response_loss_weight": 0.0 if mode == "heads" else 1.0,
        "activation_checkpointing": mode != "heads",
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": [],
    }
    return DSTTrainingArguments(**(given | settings))


def build(base: Path, args: DSTTrainingArguments) -> DSTSmolVLMForConditionalGeneration:
    """The model to train; the same one each time."""
    torch.manual_seed(0)
    return build_model(ModelArguments(name_or_path=str(base), freeze_vision=True), small_processor(), args)


def trainer_of(model: DSTSmolVLMForConditionalGeneration, args: DSTTrainingArguments) -> DSTTrainer:
    """A trainer on six clips of noise."""
    processor = small_processor()
    return DSTTrainer(
        model=model,
        args=args,
        train_dataset=clip_dataset([make_session(seed, frames=8) for seed in range(6)]),
        eval_dataset=clip_dataset([make_session(9, frames=8)]),
        data_collator=ClipCollator(processor.tokenizer.pad_token_id),
        processing_class=processor,
    )


def trained(mode: str, base: Path, output: Path, **settings: Any) -> DSTTrainer:
    """A finished run in ``mode``, saved in ``output``."""
    args = mode_arguments(mode, output, **settings)
    trainer = trainer_of(build(base, args), args)
    trainer.train()
    save(trainer, output)
    trainer.model.eval()
    return trainer


def clip_batch() -> dict[str, torch.Tensor]:
    """What the model takes of two clips, frames as pixels."""
    clips = clip_dataset([make_session(seed, frames=8) for seed in (0, 1)])
    return model_inputs(collate([clips[0], clips[1]]))


@torch.no_grad()
def answers(model: DSTSmolVLMForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The logits of all heads, the LM head's included."""
    batch = clip_batch()
    del batch["labels"]
    output = model(**batch)
    return {name: output[name].float() for name in (*HEAD_LOGITS, "logits")}
