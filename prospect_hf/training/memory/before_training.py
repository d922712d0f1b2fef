"""A training run on a GPU is planned before its model is built, and refused where it cannot fit."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from configuration_dst_smolvlm import DSTSmolVLMConfig
from prospect_hf.data.arguments import DataArguments
from prospect_hf.errors import UsageError
from prospect_hf.machine import first_process
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import load_config
from prospect_hf.training.memory.arguments import PlanArguments
from prospect_hf.training.memory.plan import make_plan, refusal, relief, with_largest
from prospect_hf.training.memory.planned import planned_arguments, planned_setting, planned_size
from prospect_hf.training.memory.shapes import planned_config
from prospect_hf.workers import worker_pool

logger = logging.getLogger(__name__)

# What launchers tell their processes by environment; the plan is made as if there was one process.
LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
LAUNCHED_BEGINNING = "ACCELERATE_"
SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


@dataclass(frozen=True)
class Checked:
    """What the plan of a run says: a sentence that refuses it, or None; and what to set if memory runs out."""

    refusal: str | None
    relief: str


def check_memory(model: ModelArguments, data: DataArguments, args: DSTTrainingArguments) -> str | None:
    """Plan a run that is about to begin on a GPU; returns what to set if memory runs out all the same.

    None without a GPU, with ``training.memory_check=false``, in the other processes of a run, and where the model is
    sharded over GPUs (FSDP, DeepSpeed), which the plan does not know.

    Raises:
        UsageError: the estimated peak does not fit in the memory that is free.
    """
    if not args.cuda or not args.memory_check or not first_process():
        return None
    if args.deepspeed or args.fsdp or any(os.environ.get(name) == "true" for name in SHARDING):
        logger.info("The memory of a sharded model is not planned.")
        return None
    config = planned_config(model) if model.name_or_path is None else load_config(model)[0]
    free, _ = torch.cuda.mem_get_info()
    # In a process of its own: transformers keeps one state of the devices in a process, and the plan sets it to CPU.
    with worker_pool(1) as pool:
        checked = pool.submit(check_run, config, model, data, dict(args.given), free, args.world_size).result()
    if checked.refusal is not None:
        raise UsageError(checked.refusal)
    return checked.relief


def check_run(
    config: DSTSmolVLMConfig,
    model: ModelArguments,
    data: DataArguments,
    training: Mapping[str, Any],
    free: int,
    processes: int,
) -> Checked:
    """Plan a run in this process, which must be another than the one that trains.

    Args:
        training: the settings as they were given.
        free: memory of the GPU that is free, in bytes.
        processes: of the run.
    """
    for name in [name for name in os.environ if name in LAUNCHED or name.startswith(LAUNCHED_BEGINNING)]:
        del os.environ[name]
    args, plan_args = planned_arguments(training), PlanArguments()
    setting = planned_setting(config, model, data, args, processes)
    plan = make_plan(setting, planned_size(config, data, args, plan_args), free, plan_args.allowance_bytes)
    if plan.fits:
        return Checked(None, relief(plan))
    plan = with_largest(plan)
    return Checked(refusal(plan, model.name_or_path is not None), relief(plan))
