"""How a run's processes share the model: whole in each of them (one process, DDP, ZeRO-2), or cut up (FSDP2, ZeRO-3).

``accelerate launch`` says it by a file (``configs/accelerate``), or ``training.fsdp`` and ``training.deepspeed`` do.
"""

from __future__ import annotations

import os
from typing import Any

from transformers.integrations.deepspeed import unset_hf_deepspeed_config


def asked_sharding(fsdp: Any, deepspeed: Any) -> str | None:
    """What the launcher or the settings ask for: ``FSDP``, ``DeepSpeed``, or nothing.

    Args:
        fsdp: the setting of that name.
        deepspeed: the setting of that name.
    """
    asked = {"FSDP": fsdp, "DeepSpeed": deepspeed}
    for name, setting in asked.items():
        if setting or os.environ.get(f"ACCELERATE_USE_{name.upper()}", "false").lower() == "true":
            return name
    return None


def build_whole_models() -> None:
    """Let transformers build each model whole from now on, under ZeRO-3 too.

    It would cut up the weights while it reads them. But a process encodes frames with a model that is whole, and
    DeepSpeed cuts it up itself when training begins.
    """
    unset_hf_deepspeed_config()
