"""From the settings of a command line to what is planned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configuration_dst_smolvlm import DSTSmolVLMConfig
from prospect_hf.data.arguments import DataArguments
from prospect_hf.dataset.layout import load_manifest
from prospect_hf.errors import UsageError
from prospect_hf.settings import parse
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import vision_is_frozen
from prospect_hf.training.memory.arguments import PlanArguments
from prospect_hf.training.memory.batch import BatchSize
from prospect_hf.training.memory.cost import Corpus, proassist
from prospect_hf.training.memory.known_values import MOST_VALUES
from prospect_hf.training.memory.step import Setting

# A plan trains one step, and evaluates and saves nothing.
EVALUATION = (
    "eval_strategy",
    "save_strategy",
    "load_best_model_at_end",
    "early_stopping_patience",
    "free_validation_sessions",
)


class PlannedArguments(DSTTrainingArguments):
    """The training settings as a GPU takes them, on a machine that may have none."""

    @property
    def cuda(self) -> bool:
        """True: the plan is for a GPU."""
        return True

    def _check_machine(self) -> None:
        """The machine that trains is another one."""


def planned_arguments(training: Mapping[str, Any]) -> PlannedArguments:
    """The training settings for a plan.

    Raises:
        UsageError: they cannot be used.
    """
    values = {name: value for name, value in training.items() if name not in EVALUATION}
    # This machine's units are not asked for: half precision takes the same memory in both of its types.
    half = values.pop("bf16", False) or values.pop("fp16", False)
    values |= {"fp16": False, "bf16": half, "use_cpu": True, "tf32": None, "report_to": []}
    return parse(PlannedArguments, values, "training")


def planned_setting(
    config: DSTSmolVLMConfig,
    model: ModelArguments,
    data: DataArguments,
    args: DSTTrainingArguments,
    processes: int = 1,
) -> Setting:
    """What the settings train, and how.

    Args:
        config: the sizes of the model.
        processes: of the run; with several, each keeps its gradients twice (DDP).
    """
    return Setting(
        config,
        args,
        freeze_vision=args.look_steps > 0 or vision_is_frozen(model, args),
        encoded=data.features is not None,
        streaming=data.streaming,
        processes=processes,
    )


def planned_size(
    config: DSTSmolVLMConfig, data: DataArguments, args: DSTTrainingArguments, plan: PlanArguments
) -> BatchSize:
    """The sizes of a training batch.

    Raises:
        UsageError: a clip has no room for a plan and two frames, or is longer than the model's positions; or the batch
            has more tokens than can be traced.
    """
    size = BatchSize(args.per_device_train_batch_size, data.max_seq_len, plan.text_tokens, plan.labelled, plan.steps)
    least, most = size.least_seq(config.stream_tokens), config.text_config.max_position_embeddings
    if size.seq < least:
        raise UsageError(
            f"data.max_seq_len={size.seq} holds no plan of {size.steps} steps and two frames of {config.stream_tokens} "
            f"tokens: set it to {least} or more, or lower plan.steps."
        )
    if size.seq > most:
        raise UsageError(f"data.max_seq_len={size.seq} is longer than the model's {most} positions: lower it.")
    if size.batch * most > MOST_VALUES:  # more ids than a trace follows, at the longest clip that it may try
        raise UsageError(
            f"training.per_device_train_batch_size={size.batch} is more than a plan can trace: set it to "
            f"{max(1, MOST_VALUES // most)} or less, and training.gradient_accumulation_steps higher."
        )
    return size


def planned_corpus(data: DataArguments, plan: PlanArguments) -> Corpus:
    """What an epoch reads: as plan.frames_per_epoch says, or data.rows' manifest, or ProAssist's size.

    Raises:
        UsageError, DataError: data.rows is no finished dataset.
    """
    if plan.frames_per_epoch is not None:
        return Corpus(plan.frames_per_epoch, plan.frames_per_epoch, "plan.frames_per_epoch")
    if data.rows is not None:
        shards = load_manifest(Path(data.rows)).of_split("train")
        rows = sum(shard.rows for shard in shards if shard.source not in data.held_out_sources)
        return Corpus(rows, rows, f"the training rows of {data.rows}")
    return proassist(data.learned_sources)
