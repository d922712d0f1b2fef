"""What the processes of a run do in tests: the functions that ``process_group`` runs in each of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from model_fixtures import clip_dataset, make_session, new_model, small_processor
from safetensors.torch import save_file

from prospect_hf.cli import main
from prospect_hf.data.clips import ClipCollator
from prospect_hf.errors import UsageError
from prospect_hf.machine import process_number
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.trainer import DSTTrainer

# A silent session, one without state labels, one of a single frame, a busy one: with one clip in a micro-batch, some
# have no label of a head, in one process or in both. Nine, so that the last step of an epoch is not full.
UNEVEN = [
    make_session(0, 12, 3),
    make_session(1, 9, 2, labelled=False),
    make_session(2, 7, 4, event_rate=0.0, turn_rate=0.0),
    make_session(3, 25, 5, event_rate=0.5, turn_rate=0.6),
    make_session(4, 1, 1),
    make_session(5, 14, 3, turn_rate=0.0),
    make_session(6, 5, 2, event_rate=1.0, turn_rate=1.0),
    make_session(7, 10, 6, event_rate=0.0),
    make_session(8, 8, 1, labelled=False, turn_rate=0.0),
]

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
    return main(["train", *arguments])


def train_on_clips(folder: str, batch: int, accumulation: int, idle: bool = False) -> int:
    """Train a loud model on sessions whose labels fall unevenly; write the weights and the log of each process.

    Args:
        batch: clips a process and micro-batch.
        accumulation: micro-batches a step.
        idle: the model has a weight that nothing computes with.
    """
    processor, model = small_processor(), new_model()
    if idle:
        model.register_parameter("idle_weight", torch.nn.Parameter(torch.zeros(2)))
    args = DSTTrainingArguments(
        output_dir=folder,
        use_cpu=True,
        num_train_epochs=2,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=2,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.05,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],
        seed=3,
    )
    collator = ClipCollator(processor.tokenizer.pad_token_id)
    clips = clip_dataset(UNEVEN)
    trainer = DSTTrainer(model=model, args=args, train_dataset=clips, eval_dataset=clips, data_collator=collator)
    try:
        trainer.train()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    number = process_number()
    save_file({n: w.detach().clone() for n, w in model.named_parameters()}, Path(folder) / f"{number}.safetensors")
    (Path(folder) / f"{number}.json").write_text(json.dumps(trainer.state.log_history))
    return 0


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
