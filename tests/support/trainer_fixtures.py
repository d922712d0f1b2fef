"""A trainer of a small model on eight sessions whose labels fall unevenly, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from model_fixtures import clip_dataset, collate, make_session, new_model, small_processor

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.trackers import finish_trackers, prepare_trackers
from prospect_hf.training.trainer import DSTTrainer

# Labels fall as unevenly as they do: a silent session, one without state labels, a single frame, a busy one.
SESSIONS = [
    make_session(0, 12, 3),
    make_session(1, 9, 2, labelled=False),
    make_session(2, 7, 4, event_rate=0.0, turn_rate=0.0),
    make_session(3, 25, 5, event_rate=0.5, turn_rate=0.6),
    make_session(4, 1, 1),
    make_session(5, 14, 3, turn_rate=0.0),
    make_session(6, 5, 2, event_rate=1.0, turn_rate=1.0),
    make_session(7, 10, 6, event_rate=0.0),
]


def trainer_of(
    folder: Path,
    sessions: Sequence[SessionRows] = SESSIONS,
    evaluate: Sequence[SessionRows] | None = None,
    model: DSTSmolVLMForConditionalGeneration | None = None,
    dropout: float = 0.0,
    **settings: Any,
) -> DSTTrainer:
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 3,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "weight_decay": 0.0,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 3,
    }
    return DSTTrainer(
        model=model or new_model(),
        args=DSTTrainingArguments(**{**arguments, **settings}),
        train_dataset=clip_dataset(sessions, dropout=dropout),
        eval_dataset=None if evaluate is None else clip_dataset(evaluate),
        data_collator=collate,
        processing_class=small_processor(),
    )


def weights_of(trainer: DSTTrainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def train_logs(trainer: DSTTrainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


SECRET = "hf_abcdefgh12345678"


def tracked(folder: Path, tracker: str, last: int, first: int = 0) -> None:
    """Train to step ``last`` with a tracker, from the checkpoint of step ``first`` on, and evaluate at the end."""
    sessions = [make_session(seed, 4, 2, event_rate=0.6, turn_rate=0.6) for seed in range(2)]
    model = new_model()
    model.config.name_or_path = "/home/somebody/private/base"
    trainer = trainer_of(
        folder,
        sessions,
        sessions,
        model=model,
        max_steps=last,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        report_to=[tracker],
        run_name="the run",
        hub_token=SECRET,
    )
    prepare_trackers(trainer, folder)
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{first}") if first else None)
    trainer.evaluate()
    finish_trackers(trainer)
