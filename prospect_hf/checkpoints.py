"""Loads a trained DST-SmolVLM2 and its processor from a folder, with the classes of this package."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.errors import UsageError

# A checkpoint folder contains a copy of this code. Registering the installed classes makes transformers use them, so
# loading needs no trust_remote_code.
AutoConfig.register("dst_smolvlm", DSTSmolVLMConfig, exist_ok=True)


def load_trained(folder: Path) -> tuple[DSTSmolVLMForConditionalGeneration, DSTSmolVLMProcessor]:
    """Load model and processor; the model is in eval mode, and on the accelerator where there is one.

    Raises:
        UsageError: the folder contains no DST-SmolVLM2, or it cannot be loaded.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} has no config.json; give the folder of a trained model.")
    try:
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, DSTSmolVLMConfig):
            raise UsageError(f"{folder} contains a {config.model_type} model; give the folder of a DST-SmolVLM2.")
        model = DSTSmolVLMForConditionalGeneration.from_pretrained(folder)
        processor = DSTSmolVLMProcessor.from_pretrained(folder)
    except UsageError:
        raise
    except (ValueError, OSError, KeyError, AttributeError, SafetensorError) as error:
        raise UsageError(f"{folder} cannot be loaded: {error}") from error
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return model.to(device).eval(), processor


__all__ = ["AutoConfig", "load_trained"]
