"""Loads a trained DST-SmolVLM2 and its processor from a folder, with the classes of this package.

Code that lies in a folder is never run and nobody is asked whether it may be: every ``from_pretrained`` of the project
gets ``trust_remote_code=False``. Weights are read from safetensors alone, since loading a pickle may run code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig

from adapters_dst_smolvlm import SUBFOLDER, WEIGHTS, add_adapters, check_trained_parts, find_base
from configuration_dst_smolvlm import SIZES, DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checked_json import as_dict, get_dict, load_json
from prospect_hf.content_hash import weights_hash
from prospect_hf.errors import DataError, UsageError

# Of a repository on the Hub, what a base model consists of.
BASE_FILES = ["config.json", "generation_config.json", "model*.safetensors", "model*.safetensors.index.json"]
# What weights may be stored as, in the words of safetensors.
FLOATS = ("F64", "F32", "F16", "BF16")

# A checkpoint folder contains a copy of this code. Registering the installed classes makes transformers use them, so
# loading needs no trust_remote_code.
AutoConfig.register("dst_smolvlm", DSTSmolVLMConfig, exist_ok=True)


def load_trained(
    folder: Path, base_model: str | None = None, quantized: bool = True
) -> tuple[DSTSmolVLMForConditionalGeneration, DSTSmolVLMProcessor]:
    """Load model and processor; the model is in eval mode, and on the accelerator where there is one.

    A folder of adapters opens on its base model, the weights of which must be those that it was trained on.

    Args:
        folder: of the trained model.
        base_model: folder or Hub id of the base model of a folder of adapters, if it is not where the folder says.
        quantized: load a base that was quantised in training in the same way; False: as its file is.

    Raises:
        UsageError: the folder contains no DST-SmolVLM2, it cannot be loaded, or its weights are not complete and
            finite.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} has no config.json; give the folder of a trained model.")
    with reading(folder):
        config = read_config(folder)
    if not isinstance(config, DSTSmolVLMConfig):
        raise UsageError(f"{folder} contains a {config.model_type} model; give the folder of a DST-SmolVLM2.")
    options: dict[str, Any] = {}
    named = ""
    if config.adapter is None:
        if base_model is not None:
            raise UsageError(f"{folder} holds a whole model and has no base model: leave {base_model} out.")
        check_safetensors(folder)
        check_shapes(config, folder)
    else:
        with reading(folder):
            config.check()
            named = find_base(folder, config.adapter, base_model)
        base = base_folder(named)
        check_base(folder, config, base)
        _check_adapters(folder, config)
        if not quantized:
            config.adapter["quantization"] = None
        options |= {"config": config, "base_model": str(base)}
    with reading(folder):
        model, info = DSTSmolVLMForConditionalGeneration.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options
        )
    if model.config.adapter is not None:
        model.config.adapter["base_model"] = named  # by its Hub id, and not by its place in this machine's cache
    with reading(folder):
        processor = DSTSmolVLMProcessor.from_pretrained(folder, trust_remote_code=False)
    check_processor(processor, config, folder)
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


def base_folder(name: str) -> Path:
    """The local folder of a base model: ``name``, or the copy of a Hub repository's weights, downloaded if need be."""
    if Path(name).is_dir():
        return Path(name).absolute()
    with reading(name):
        return Path(snapshot_download(name, allow_patterns=BASE_FILES))


def check_base(folder: Path, config: DSTSmolVLMConfig, base: Path) -> None:
    """Whether the weights in ``base`` are those that the adapters in ``folder`` were trained on.

    Raises:
        UsageError: they are others, there are none, or they have other sizes.
    """
    check_safetensors(base)
    assert config.adapter is not None
    check_shapes(config, folder, base)
    if weights_hash(base) != config.adapter["base_sha256"]:
        raise UsageError(
            f"{folder} holds adapters for other weights than those in {base} (their SHA-256 differs): give the base "
            "model that they were trained on."
        )


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
    if (Path(name) / "config.json").is_file():
        _check_parts(Path(name) / "config.json")
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    values = config.to_dict()
    if values.get("transformers_weights") is not None:
        raise UsageError(
            f"{name}: config.json has transformers_weights; remove it and name the file model.safetensors."
        )
    if values.get("quantization_config") is not None:
        raise UsageError(
            f"{name}: config.json has quantization_config, and no weights are loaded quantised but those that "
            "training=qlora quantises itself; give the whole model."
        )
    for part in (config, *(getattr(config, part) for part in config.sub_configs)):
        # transformers takes OWNER/NAME for a kernel on the Hub, and would run its code.
        if "/" in (part._attn_implementation or ""):
            raise UsageError(
                f"{name}: config.json asks for the attention kernel {part._attn_implementation} of the Hub, whose code "
                "is not run; remove attn_implementation."
            )
    return config


def check_safetensors(name: Path | str) -> None:
    """Raise ``UsageError`` where a local folder has no weights in safetensors."""
    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("model*.safetensors")):
        raise UsageError(
            f"{name} has no model.safetensors, the only weights that are loaded: .bin, .pt and .ckpt files are "
            "pickles, which can run code; convert them."
        )


def _check_parts(path: Path) -> None:
    """Refuse sizes below 1 by name: transformers divides by them as soon as it reads them."""
    values = as_dict(load_json(path), str(path))
    for part in ("text_config", "vision_config"):
        inner = values.get(part)
        if not isinstance(inner, dict):
            continue  # transformers says what is missing
        for name in SIZES:
            value = inner.get(name, 1)
            if type(value) is not int or value < 1:
                raise UsageError(f"{path} has {part}.{name}={value!r}; it must be a whole number of 1 or more.")


@contextmanager
def reading(name: Path | str) -> Iterator[None]:
    """Around one call of a library that reads a model's folder: whatever it raises is a ``UsageError``.

    Every kind of error is caught: tokenizers raises bare ``Exception``, huggingface_hub classes of its own, and
    transformers whatever its code trips over in a value that it did not expect.
    """
    try:
        yield
    except (UsageError, DataError, MemoryError):
        raise
    except Exception as error:
        raise cannot_load(name, error) from error


def check_shapes(config: DSTSmolVLMConfig, folder: Path, weights: Path | None = None) -> None:
    """Compare a folder's configuration with the shapes in its weights, before anything is allocated.

    Args:
        config: of ``folder``.
        weights: the folder that holds the weights, where it is another one.

    Raises:
        UsageError: a weights file cannot be read, or the two are not of one model.
    """
    fault = (
        f"{'its weights' if weights is None else f'the weights in {weights}'} and its config.json are not of one model"
    )
    with reading(folder):
        config.check()
        shapes = weight_shapes(weights or folder)
    layers = config.text_config.num_hidden_layers + config.vision_config.num_hidden_layers
    if layers > len(shapes):
        raise UsageError(f"{folder} cannot be loaded: {fault}: {layers} layers, but {len(shapes)} tensors.")
    with reading(folder), torch.device("meta"):
        planned = DSTSmolVLMForConditionalGeneration(config)
    wrong = {
        name: list(weight.shape)
        for name, weight in planned.state_dict().items()
        if name in shapes and shapes[name] != list(weight.shape)
    }
    if wrong:
        name, shape = next(iter(wrong.items()))
        raise UsageError(
            f"{folder} cannot be loaded: {fault}: {len(wrong)} tensors have another shape, the first of them {name}, "
            f"{shapes[name]} in the file and {shape} by config.json."
        )


def _check_adapters(folder: Path, config: DSTSmolVLMConfig) -> None:
    """Compare the description of a folder's adapters with the shapes in their file, before anything is allocated."""
    adapter = config.adapter
    assert adapter is not None
    with reading(folder), torch.device("meta"):
        shapes = _shapes_in(folder / SUBFOLDER / WEIGHTS)
        planned = DSTSmolVLMForConditionalGeneration(config)
        add_adapters(planned, adapter)
        check_trained_parts(planned, shapes)


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a folder's safetensors files, read from their headers.

    Raises:
        ValueError: the index names no files of this folder, or a tensor does not hold floating-point numbers.
        OSError, SafetensorError: a file is missing or cannot be read.
    """
    files = ["model.safetensors"]
    if not (folder / files[0]).is_file():
        index = folder / "model.safetensors.index.json"
        places = get_dict(as_dict(load_json(index), str(index)), "weight_map", str(index))
        if not all(isinstance(name, str) and Path(name).name == name for name in places.values()):
            raise ValueError("model.safetensors.index.json names something that is no file of this folder")
        files = sorted(set(places.values()))
    shapes: dict[str, list[int]] = {}
    for name in files:
        shapes |= _shapes_in(folder / name)
    return shapes


def _shapes_in(path: Path) -> dict[str, list[int]]:
    """The shape of every tensor in one safetensors file; errors as in ``weight_shapes``."""
    shapes = {}
    if path.is_dir():
        raise ValueError(f"{path} is a folder and no file")
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            part = file.get_slice(key)
            if part.get_dtype() not in FLOATS:
                raise ValueError(f"{key} in {path.name} holds {part.get_dtype()} and not one of {', '.join(FLOATS)}")
            shapes[key] = list(part.get_shape())
    return shapes


def check_processor(processor: DSTSmolVLMProcessor, config: DSTSmolVLMConfig, folder: Path) -> None:
    """Check that a folder's processor lays out what its model reads.

    Raises:
        UsageError: a token or a picture does not fit the model.
    """
    tokenizer, vocabulary = processor.tokenizer, config.text_config.vocab_size
    size = config.vision_config.image_size
    with reading(folder):
        largest = max(tokenizer.get_vocab().values())
        # Before a picture is resized: a size of a million pixels would take all memory.
        if processor.frame_size != size:
            raise ValueError(f"its processor makes pictures of {processor.frame_size} pixels, its model reads {size}")
        # One picture that has the model's size and one that is resized: they take different ways.
        pixels = [processor.pixel_values([np.full((side, side, 3), 128, np.uint8)]) for side in (size, size + 8)]
    if largest >= vocabulary or tokenizer.pad_token_id is None or processor.image_id != config.image_token_id:
        raise UsageError(
            f"{folder} cannot be loaded: its tokenizer is not its model's: token ids up to {largest} for a vocabulary "
            f"of {vocabulary}, padding {tokenizer.pad_token_id}, <image> {processor.image_id} in place of "
            f"{config.image_token_id}."
        )
    if processor.state_feedback != config.state_feedback:
        raise UsageError(
            f"{folder} cannot be loaded: its processor has state_feedback={processor.state_feedback}, its config.json "
            f"{config.state_feedback}."
        )
    if config.decision_source == "lm" and config.decision_tokens != processor.decision_tokens:
        raise UsageError(
            f"{folder} cannot be loaded: its config.json reads decisions from the tokens {config.decision_tokens}, and "
            f"its tokenizer opens the turns with {processor.decision_tokens}."
        )
    if any(list(part.shape) != [1, 3, size, size] or not bool(part.isfinite().all()) for part in pixels):
        raise UsageError(
            f"{folder} cannot be loaded: its processor_config.json does not make the finite pictures of {size} x "
            f"{size} pixels that its model reads."
        )


def cannot_load(name: Path | str, error: Exception) -> UsageError:
    """The sentence for what transformers raised on a model's folder or Hub id."""
    reason = " ".join(str(error).split())
    # Its own sentence calls for trust_remote_code=True, which cannot be given here.
    if "trust_remote_code" in reason:
        reason = "it asks to run code of its own, which never happens; give a model whose classes are installed."
    return UsageError(f"{name} cannot be loaded: {reason if len(reason) <= 500 else reason[:500] + ' ...'}")


def check_finite(model: torch.nn.Module, folder: Path | str) -> None:
    """Raise ``UsageError`` where a weight of the model is NaN or infinite."""
    # The bytes of a quantised weight may lie in a tensor of floats, and are none.
    weights = {name: weight for name, weight in model.named_parameters() if not hasattr(weight, "quant_state")}
    broken = [name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise UsageError(
            f"{folder} holds {len(broken)} tensors with values that are not finite, the first of them {broken[0]}: "
            "the training diverged or the file is damaged; take an earlier checkpoint."
        )


__all__ = [
    "base_folder",
    "check_base",
    "check_finite",
    "check_processor",
    "check_safetensors",
    "check_shapes",
    "load_trained",
    "read_config",
    "reading",
]
