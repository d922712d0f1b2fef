"""The memory plan against the memory that a training step really takes, on CPU.

Each case is planned in this process, on tensors without memory, and measured in a fresh one that trains a step of the
same model with the same sizes (float32, random weights, AdamW's states of the step before are there):

* planned: the plan's peak, without its allowance for a GPU;
* counted: the same count on the real tensors of the measured step;
* resident: the peak of the process's resident memory during the step, above what it was before the model was built.

The measured process trains a small step first, so that the libraries have loaded what they need, and glibc is told to
give blocks back when they are freed (MALLOC_MMAP_THRESHOLD_), so that its own reserves are not measured.

Examples:
    python benchmarks/memory_plan.py
    python benchmarks/memory_plan.py --models tiny --modes full --lengths 512

Exit codes: 0 all within the limit; 1 the plan is off by more than --limit; 2 a bad argument, or no /proc.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import transformers
from fresh_process import measured, peak_bytes, reset_peak, resident_bytes

from prospect_hf.machine import processor
from prospect_hf.tables import table
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.memory.batch import BatchSize
from prospect_hf.training.memory.planned import planned_arguments
from prospect_hf.training.memory.planned_model import planned_model
from prospect_hf.training.memory.shapes import planned_config
from prospect_hf.training.memory.step import Setting, run_step, trace

MODELS = {
    "tiny": ModelArguments(),
    "256M": ModelArguments(name_or_path="HuggingFaceTB/SmolVLM2-256M-Video-Instruct", freeze_vision=True),
}
MODES = ("full", "lora", "qlora")
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MIB = 2**20


def setting_of(model: str, mode: str, checkpointing: bool, folder: str) -> Setting:
    """A case's setting, in float32 and for this machine's CPU."""
    args = planned_arguments(
        {
            "output_dir": folder,
            "mode": mode,
            "optim": "adamw_torch",
            "activation_checkpointing": checkpointing,
            "response_loss_weight": 1.0,
        }
    )
    return Setting(planned_config(MODELS[model]), args, freeze_vision=True, cuda=False)


def measure(model: str, mode: str, checkpointing: bool, size: BatchSize) -> dict[str, int]:
    """Train a step in this process; returns the counted and the resident peak in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        small = setting_of("tiny", mode, checkpointing, folder)
        run_step(built(small), small, BatchSize(2, 256))
        setting = setting_of(model, mode, checkpointing, folder)
        before = resident_bytes()
        reset_peak()
        counted = run_step(built(setting), setting, size).peak
        return {"counted": counted, "resident": peak_bytes() - before}


def built(setting: Setting) -> transformers.PreTrainedModel:
    """The model with random weights; a 4-bit layer quantises its own when it is moved."""
    return planned_model(setting.config, setting.args, setting.freeze_vision).to("cpu")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny,256M", help="tiny, 256M or both (default)")
    parser.add_argument("--modes", default="full,lora,qlora", help="modes of training (default full,lora,qlora)")
    parser.add_argument("--lengths", default="512,1024,2048", help="tokens of a clip (default 512,1024,2048)")
    parser.add_argument("--batch", type=int, default=2, help="clips of a batch (default 2)")
    parser.add_argument("--checkpointing", choices=("on", "off", "both"), default="both")
    parser.add_argument("--limit", type=float, default=10.0, help="largest error in percent (default 10)")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    if args.measure:
        model, mode, checkpointing, batch, seq = args.measure
        print(json.dumps(measure(model, mode, checkpointing == "1", BatchSize(int(batch), int(seq)))))
        return 0
    models, modes = args.models.split(","), args.modes.split(",")
    if not set(models) <= set(MODELS) or not set(modes) <= set(MODES) or not Path("/proc/self/clear_refs").exists():
        parser.error(f"--models takes {', '.join(MODELS)}, --modes {', '.join(MODES)}; and this needs Linux's /proc")
    rows = [["model, mode", "checkpointing", "batch x tokens", "planned", "counted", "resident", "error"]]
    worst = 0.0
    for model in models:
        for mode in modes:
            for checkpointing in {"on": (True,), "off": (False,), "both": (False, True)}[args.checkpointing]:
                for seq in map(int, args.lengths.split(",")):
                    size = BatchSize(args.batch, seq)
                    with tempfile.TemporaryDirectory() as folder:
                        planned = trace(setting_of(model, mode, checkpointing, folder), size).peak
                    case = [model, mode, str(int(checkpointing)), str(size.batch), str(size.seq)]
                    found = measured(
                        __file__, case, {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
                    )
                    error = 100 * (planned / found["resident"] - 1)
                    worst = max(worst, abs(error))
                    rows.append(
                        [
                            f"{model}, {mode}",
                            "on" if checkpointing else "off",
                            f"{size.batch} x {seq}",
                            *(f"{count / MIB:,.0f} MiB" for count in (planned, found["counted"], found["resident"])),
                            f"{error:+.1f} %",
                        ]
                    )
                    print(rows[-1], file=sys.stderr, flush=True)
    print(f"Peak of a training step, {processor()}; largest error {worst:.1f} %")
    print(table(rows))
    return int(worst > args.limit)


if __name__ == "__main__":
    sys.exit(main())
