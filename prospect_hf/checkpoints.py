"""Trained folders: loading a DST-SmolVLM2 and its processor from disk, with this package's own classes."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.errors import UsageError

# A checkpoint brings this code along, but the installed one is used, and nobody is asked whether to trust the other.
AutoConfig.register("dst_smolvlm", DSTSmolVLMConfig, exist_ok=True)


def load_trained(folder: Path) -> tuple[DSTSmolVLMForConditionalGeneration, DSTSmolVLMProcessor]:
    """Model, in eval mode and on the machine's accelerator if it has one, and processor of a trained folder.

    Raises:
        UsageError: there is no DST-SmolVLM2 in it.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} holds no config.json; give the folder of a trained model.")
    try:
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, DSTSmolVLMConfig):
            raise UsageError(f"{folder} holds a {config.model_type}, not a DST-SmolVLM2.")
        model = DSTSmolVLMForConditionalGeneration.from_pretrained(folder)
        processor = DSTSmolVLMProcessor.from_pretrained(folder)
    except UsageError:
        raise
    except (ValueError, OSError, KeyError, AttributeError, SafetensorError) as error:
        raise UsageError(f"{folder} cannot be loaded: {error}") from error
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return model.to(device).eval(), processor


__all__ = ["AutoConfig", "load_trained"]
