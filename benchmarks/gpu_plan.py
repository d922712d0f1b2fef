"""The memory plan for the training steps of ``gpu.py``: the file of its option ``--plan``.

    python benchmarks/gpu_plan.py memory.json

The plan is traced on fake tensors with the very batches of ``gpu.py``, on any machine where the package is installed.
It has no allowance for context and fragmentation, and leaves out the states of a paged optimiser: both lie outside the
memory that torch counts.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch
from gpu_records import GIB
from gpu_training import ALPHA, DROPOUT, RANK, Case, cases
from shapes import PLAN_STEPS, config_of

from prospect_hf.files import write_json
from prospect_hf.training.memory import step
from prospect_hf.training.memory.batch import BatchSize
from prospect_hf.training.memory.live_bytes import OPTIMISER
from prospect_hf.training.memory.planned import planned_arguments


def planned_gib(case: Case, folder: str) -> float:
    """GiB at the peak of a step, as torch counts them on a GPU."""
    args = planned_arguments(
        {
            "output_dir": folder,
            "mode": case.mode,
            "lora_rank": RANK,
            "lora_alpha": ALPHA,
            "lora_dropout": DROPOUT,
            "optim": "auto",
            "bf16": True,
            "activation_checkpointing": True,
        }
    )
    setting = step.Setting(config_of(case.shape), args, encoded=True)
    # The batch that is measured, in place of one of the same size.
    with mock.patch.object(step, "make_batch", lambda config, size: case.batch()):
        traced = step.trace(setting, BatchSize(case.rows, case.positions, steps=PLAN_STEPS))
    return (traced.peak - traced.parts[OPTIMISER]) / GIB


def main(argv: Sequence[str] | None = None) -> int:
    """Write the plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path, help="where the plan is written")
    parser.add_argument("--tiny", action="store_true", help="of the tiny sizes")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        plan = {case.name: round(planned_gib(case, folder), 3) for case in cases(args.tiny)}
    write_json(args.file, plan)
    for name, size in plan.items():
        print(f"{name}: {size:.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
