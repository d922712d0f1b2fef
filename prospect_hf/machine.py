"""The machine of a run, as results record it: the same bits come only from the same processor, threads and versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from prospect_hf import __version__


def machine() -> dict[str, Any]:
    """Processor and its vector units, accelerator, threads, processes, and the versions that figures depend on."""
    import torch
    import transformers

    accelerator = None
    if torch.cuda.is_available():
        accelerator = torch.cuda.get_device_name()
    elif torch.accelerator.is_available():
        accelerator = str(torch.accelerator.current_accelerator())
    return {
        "processor": processor(),
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "accelerator": accelerator,
        "threads": torch.get_num_threads(),
        "processes": processes(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "prospect_hf": __version__,
    }


def processor() -> str:
    """The processor's name: as Linux knows it, or as Python does."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def processes(local: bool = False) -> int:
    """How many processes ``torchrun`` started for this run, or ``local``: on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE" if local else "WORLD_SIZE", "1"))


def process_number(local: bool = False) -> int:
    """The number of this process among those of the run, or ``local``: among those on its machine; 0 if alone."""
    return int(os.environ.get("LOCAL_RANK" if local else "RANK", "0")) if processes() > 1 else 0


def first_process() -> bool:
    """Whether this process prints and writes: the only one of the run, or the first."""
    return process_number() == 0
