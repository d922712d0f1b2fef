"""What the processes of a run do in tests: the functions that ``process_group`` runs in each of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from model_fixtures import clip_dataset, make_session, new_model, small_processor
from safetensors.torch import save_file
from trainer_fixtures import SESSIONS

from prospect_hf.cli import main
from prospect_hf.data.clips import ClipCollator, ClipDataset
from prospect_hf.errors import UsageError
from prospect_hf.machine import process_number
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.trainer import DSTTrainer

# With one clip in a micro-batch, some have no label of a head, in one process or in both. Nine sessions, so that the
# last step of an epoch is not full.
UNEVEN = [*SESSIONS, make_session(8, 8, 1, labelled=False, turn_rate=0.0)]

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer,SmolVLMEncoderLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What ``accelerate launch`` makes of ``configs/accelerate/fsdp2.yaml``."""


def train(arguments: Sequence[str]) -> int:
    """``prospect train``."""
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        allow_fsdp_on_cpus()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        compile_nothing()
    return main(["train", *arguments])


def train_on_clips(
    folder: str, batch: int, accumulation: int, idle: bool = False, negative_rate: float = 1.0, **settings: Any
) -> int:
    """Train a loud model on sessions whose labels fall unevenly; write the weights and the log of each process.

    Args:
        batch: clips a process and micro-batch.
        accumulation: micro-batches a step.
        idle: the model has a weight that nothing computes with.
        negative_rate: of the training clips.
        settings: of training, in place of those here.
    """
    processor, model = small_processor(), new_model()
    if idle:
        model.register_parameter("idle_weight", torch.nn.Parameter(torch.zeros(2)))
    given = {
        "num_train_epochs": 2,
        "per_device_eval_batch_size": 2,
        "optim": "sgd",
        "learning_rate": 0.05,
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 3,
    }
    args = DSTTrainingArguments(
        output_dir=folder,
        use_cpu=True,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        disable_tqdm=True,
        report_to=[],
        **{**given, **settings},
    )
    collator = ClipCollator(processor.tokenizer.pad_token_id)
    clips = clip_dataset(UNEVEN)
    train_on = ClipDataset(clips.clips, replace(clips.inputs, negative_rate=negative_rate))
    trainer = DSTTrainer(model=model, args=args, train_dataset=train_on, eval_dataset=clips, data_collator=collator)
    try:
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    number = process_number()
    save_file({n: w.detach().clone() for n, w in model.named_parameters()}, Path(folder) / f"{number}.safetensors")
    (Path(folder) / f"{number}.json").write_text(json.dumps(trainer.state.log_history))
    return 0


def compile_nothing() -> None:
    """Let DeepSpeed's processes talk through gloo alone.

    For those on one machine's CPUs it compiles an operation, which takes one to two minutes; a process that is killed
    meanwhile leaves a lock for which all later ones wait.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def allow_fsdp_on_cpus() -> None:
    """accelerate cuts models up over accelerators alone; torch and all of accelerate's code can do so over CPUs too."""
    original = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = init  # type: ignore[method-assign]
