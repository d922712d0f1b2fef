"""Loads a trained DST-SmolVLM2 and its processor from a folder, with the classes of this package.

Code that lies in a folder is never run and nobody is asked whether it may be: every ``from_pretrained`` of the project
gets ``trust_remote_code=False``. Weights are read from safetensors alone, since loading a pickle may run code.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig

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
        config = read_config(folder)
        if not isinstance(config, DSTSmolVLMConfig):
            raise UsageError(f"{folder} contains a {config.model_type} model; give the folder of a DST-SmolVLM2.")
        check_weights(folder)
        model, info = DSTSmolVLMForConditionalGeneration.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
        processor = DSTSmolVLMProcessor.from_pretrained(folder, trust_remote_code=False)
    except UsageError:
        raise
    except (ValueError, OSError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise cannot_load(folder, error) from error
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


def read_config(name: Path | str) -> PreTrainedConfig:
    """The configuration of a model's folder or Hub id.

    Raises:
        UsageError: loading the model would read a pickle, another model's weights, or code from the Hub.
        OSError, ValueError: there is no configuration, or it cannot be read.
    """
    if (Path(name) / "adapter_config.json").exists():
        raise UsageError(
            f"{name} holds an adapter (adapter_config.json), whose base model would be loaded from elsewhere; merge "
            "the adapter into its model and save the whole model."
        )
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    values = config.to_dict()
    if values.get("transformers_weights") is not None:
        raise UsageError(
            f"{name}: config.json has transformers_weights; remove it and name the file model.safetensors."
        )
    for part in (config, *(getattr(config, part) for part in config.sub_configs)):
        # transformers takes OWNER/NAME for a kernel on the Hub, and would run its code.
        if "/" in (part._attn_implementation or ""):
            raise UsageError(
                f"{name}: config.json asks for the attention kernel {part._attn_implementation} of the Hub, whose code "
                "is not run; remove attn_implementation."
            )
    return config


def check_weights(name: Path | str) -> None:
    """Raise ``UsageError`` where a local folder has no weights in safetensors."""
    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("model*.safetensors")):
        raise UsageError(
            f"{name} has no model.safetensors, the only weights that are loaded: .bin, .pt and .ckpt files are "
            "pickles, which can run code; convert them."
        )


def cannot_load(name: Path | str, error: Exception) -> UsageError:
    """The sentence for what transformers raised on a model's folder or Hub id."""
    reason = " ".join(str(error).split())
    # Its own sentence calls for trust_remote_code=True, which cannot be given here.
    if "trust_remote_code" in reason:
        reason = "it asks to run code of its own, which never happens; give a model whose classes are installed."
    return UsageError(f"{name} cannot be loaded: {reason}")


def check_finite(model: torch.nn.Module, folder: Path | str) -> None:
    """Raise ``UsageError`` where a weight of the model is NaN or infinite."""
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise UsageError(
            f"{folder} holds {len(broken)} tensors with values that are not finite, the first of them {broken[0]}: "
            "the training diverged or the file is damaged; take an earlier checkpoint."
        )


__all__ = ["cannot_load", "check_finite", "check_weights", "load_trained", "read_config"]
