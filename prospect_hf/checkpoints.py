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
        UsageError: the folder contains no DST-SmolVLM2, it cannot be loaded, or its weights are not complete and
            finite.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} has no config.json; give the folder of a trained model.")
    try:
        config = AutoConfig.from_pretrained(folder)
        if not isinstance(config, DSTSmolVLMConfig):
            raise UsageError(f"{folder} contains a {config.model_type} model; give the folder of a DST-SmolVLM2.")
        model, info = DSTSmolVLMForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
        processor = DSTSmolVLMProcessor.from_pretrained(folder)
    except UsageError:
        raise
    except (ValueError, OSError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"{folder} cannot be loaded: {' '.join(str(error).split())}") from error
    # transformers draws missing weights at random and leaves out unknown ones, with a warning at most.
    for fault, names in (("lacks", info["missing_keys"]), ("has unknown", info["unexpected_keys"])):
        if names:
            raise UsageError(
                f"{folder} {fault} {len(names)} tensors, the first of them {', '.join(sorted(names)[:3])}: its weights "
                "and its config.json are not of one model; copy the whole folder again, or train again."
            )
    check_finite(model, folder)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return model.to(device).eval(), processor


def check_finite(model: torch.nn.Module, folder: Path | str) -> None:
    """Raise ``UsageError`` where a weight of the model is NaN or infinite."""
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise UsageError(
            f"{folder} holds {len(broken)} tensors with values that are not finite, the first of them {broken[0]}: "
            "the training diverged or the file is damaged; take an earlier checkpoint."
        )


__all__ = ["AutoConfig", "check_finite", "load_trained"]
