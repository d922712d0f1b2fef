"""Adapters of DST-SmolVLM2: LoRA layers and heads trained on a frozen base model, and the folder that holds them.

Such a folder holds no base weights. ``config.json`` names the base model and says how it is loaded (``adapter``), and
``adapter/`` holds what was trained, in the format of the package peft. The files lie in a subfolder because
transformers loads the base model in place of a folder with ``adapter_config.json`` at its top. LoRA layers are injected
into the model, which stays one of this project's own class: no wrapper, no second copy of a head.
Remote code of the Hub: it imports torch and transformers, and peft and bitsandbytes where a folder needs them.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BitsAndBytesConfig, GenerationConfig, PreTrainedConfig
from transformers.dynamic_module_utils import custom_object_save, get_class_from_dynamic_module
from transformers.utils import cached_file

try:
    from .configuration_dst_smolvlm import CONNECTOR, HEADS
except ImportError:  # imported as a top-level module of the installed package
    from configuration_dst_smolvlm import CONNECTOR, HEADS

# Kept in full precision by full prefix: whoever names any module to skip must name the LM head too.
NOT_QUANTIZED = ("model.vision_model", CONNECTOR, "lm_head", *HEADS)
SUBFOLDER = "adapter"
DESCRIPTION = "adapter_config.json"  # peft's own
WEIGHTS = "adapter_model.safetensors"
GENERATION = "generation_config.json"
PEFT_PREFIX = "base_model.model."
# On a processor with bfloat16 units bitsandbytes warns on import that a kernel of the Hub is not there, which
# ``add_adapters`` switches off.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in str(record.msg))
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class AdapterFolders:
    """The part of the model's class that opens and saves folders of adapters, and checkpoints activations."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        base_model: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the library's; a folder of adapters opens on its base model, and a second local folder runs its own code.

        ``AutoModel`` keeps one model class for each configuration class. Two folders of one name, such as
        ``checkpoint-100`` of two runs, share the latter where their configuration files are equal, so the class of the
        first one is asked to load the second one as well, whatever code lies in it.

        Args:
            base_model: folder or Hub id of the base model, where it is not where the folder of adapters says.

        Raises:
            ValueError: the base model or the adapters are not those that the folder's configuration describes.
            OSError: the base model is not there.
            ImportError: peft or bitsandbytes is needed and not installed.
        """
        name, config = pretrained_model_name_or_path, kwargs.get("config")
        remote = cls.__module__.startswith("transformers_modules.") and kwargs.get("trust_remote_code")
        # AutoModel gives the configuration; who calls this class by name has chosen it.
        if remote and isinstance(config, PreTrainedConfig) and os.path.isdir(name):
            its_class = get_class_from_dynamic_module(config.auto_map["AutoModel"], name)
            if its_class is not cls:
                of_base = {} if base_model is None else {"base_model": base_model}
                return its_class.from_pretrained(name, *model_args, **of_base, **kwargs)
        hub = {key: kwargs[key] for key in HUB_OPTIONS if key in kwargs}
        if isinstance(config, PreTrainedConfig):
            adapter = getattr(config, "adapter", None)
        else:
            adapter = cls.config_class.get_config_dict(config or name, **hub)[0].get("adapter")  # type: ignore[attr-defined]
        if adapter is None:
            if base_model is not None:
                raise ValueError(f"{name} holds a whole model: give no base_model with it.")
            return super().from_pretrained(name, *model_args, **kwargs)  # type: ignore[misc]

        own = {key: kwargs.pop(key) for key in tuple(kwargs) if key not in HUB_OPTIONS}
        if not isinstance(config, PreTrainedConfig):
            own.pop("config", None)
            config, own = cls.config_class.from_pretrained(  # type: ignore[attr-defined]
                config or name, return_unused_kwargs=True, **hub, **own
            )
        config = copy.deepcopy(config)
        config.check()
        if hasattr(config, "quantization_config"):  # it would take the place of the adapters' own
            raise ValueError("its config.json has quantization_config, which no folder of adapters has: remove it")
        adapter = config.adapter
        base = find_base(name, adapter, base_model)
        weights = cached_file(name, WEIGHTS, **{**hub, "subfolder": os.path.join(hub.get("subfolder", ""), SUBFOLDER)})
        with_info = own.pop("output_loading_info", False)
        own["config"], own["use_safetensors"] = config, True
        # The base model's repository may hold code of its own, which nobody was asked about.
        own["trust_remote_code"] = False
        own.setdefault("dtype", getattr(torch, adapter["dtype"]))
        if adapter["quantization"] is not None:
            own["quantization_config"] = quantization_config(adapter["quantization"])
        of_base = {key: value for key, value in hub.items() if key not in ("revision", "subfolder")}
        model, info = super().from_pretrained(  # type: ignore[misc]
            base, *model_args, output_loading_info=True, **of_base, **own
        )
        missing = sorted(key for key in info["missing_keys"] if not key.startswith(HEADS))
        if missing:
            raise ValueError(f"the base model {base} lacks {len(missing)} tensors, the first of them {missing[0]}")
        add_adapters(model, {**adapter, "base_model": base})
        load_trained_parts(model, weights)
        generation = cached_file(name, GENERATION, _raise_exceptions_for_missing_entries=False, **hub)
        if generation is not None:
            model.generation_config = GenerationConfig.from_dict(json.loads(Path(generation).read_text("utf-8")))
        info["missing_keys"] = set()
        return (model.eval(), info) if with_info else model.eval()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """As the library's; of a model with adapters, only what was trained is saved.

        Args:
            state_dict: the model's weights where they were gathered from several processes.
            **kwargs: of the library.

        Raises:
            ValueError: adapters are to be pushed to the Hub in the same call.
        """
        model: Any = self
        if model.config.adapter is None:
            super().save_pretrained(  # type: ignore[misc]
                save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs
            )
        elif kwargs.get("push_to_hub"):
            raise ValueError("Save the adapters and upload their folder: hf upload OWNER/NAME FOLDER.")
        elif is_main_process:
            save_adapters(model, Path(save_directory), state_dict)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """As the library's, for the parts that are trained: nothing is kept or recomputed for a frozen vision tower.

        Checkpoints are non-reentrant, so no input has to require a gradient. The library's hooks, which make all
        embeddings require one, are removed: with them a backward pass would run through a frozen vision tower.

        Raises:
            ValueError: reentrant checkpoints are asked for.
        """
        model: Any = self
        options = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        if options["use_reentrant"]:
            raise ValueError("Activation checkpoints are non-reentrant here: leave out use_reentrant.")
        super().activation_checkpointing_enable(options, **kwargs)  # type: ignore[misc]
        model.disable_input_require_grads()


def find_base(
    folder: str | os.PathLike[str], adapter: dict[str, Any], base_model: str | os.PathLike[str] | None = None
) -> str:
    """Where the base model of a folder of adapters is: a local folder, or the id of a repository on the Hub.

    Args:
        folder: the folder of adapters.
        adapter: of its configuration.
        base_model: takes the place of what ``adapter`` names.

    Raises:
        OSError: the folder that is named is not there.
        ValueError: it is a file, holds adapters too, or is named by an absolute path.
    """
    named = str(adapter["base_model"] if base_model is None else base_model)
    if not named:
        raise ValueError("its base model has an empty name: give base_model=FOLDER")
    base = named
    if base_model is None and os.path.isabs(named):
        raise ValueError(f"it names its base model by a path of another machine, {named}: give base_model=FOLDER")
    if base_model is None and named.startswith("."):
        base = os.path.abspath(os.path.join(folder, named))
    if os.path.isfile(base):
        raise ValueError(f"its base model {named} is a file: give its folder")
    if (os.path.isabs(base) or base.startswith(".")) and not os.path.isdir(base):
        place = "" if base == named else f" ({base})"
        raise OSError(f"its base model {named} is not there{place}: put it there, or give base_model=FOLDER")
    for name in (DESCRIPTION, os.path.join(SUBFOLDER, WEIGHTS)):
        if os.path.exists(os.path.join(base, name)):
            raise ValueError(f"its base model {base} holds adapters itself ({name}): give a whole model")
    return os.path.abspath(base) if os.path.isdir(base) else base


def quantization_config(quantization: dict[str, Any], storage: str = "uint8") -> BitsAndBytesConfig:
    """What transformers needs to load the text model's matrices in 4 bits, and everything else as it is.

    Args:
        storage: the type that the 4-bit numbers are stored as; who cuts the model up needs that of its other weights.

    Raises:
        ImportError: bitsandbytes is not installed.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ImportError("a base in 4 bits needs the package bitsandbytes: pip install bitsandbytes") from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization["type"],
        bnb_4bit_use_double_quant=quantization["double"],
        bnb_4bit_compute_dtype=getattr(torch, quantization["compute_dtype"]),
        bnb_4bit_quant_storage=getattr(torch, storage),
        llm_int8_skip_modules=list(NOT_QUANTIZED),
    )


def lora_config(adapter: dict[str, Any], **kwargs: Any) -> Any:
    """peft's description of the LoRA layers of ``adapter``.

    Raises:
        ImportError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError("LoRA layers need the package peft: pip install peft") from error
    return LoraConfig(
        r=adapter["rank"],
        lora_alpha=adapter["alpha"],
        lora_dropout=adapter["dropout"],
        target_modules=adapter["targets"],
        bias="none",
        **kwargs,
    )


def add_adapters(model: Any, adapter: dict[str, Any]) -> None:
    """Freeze ``model``, inject fresh LoRA layers as ``adapter`` says, and let them and its ``modules`` be trained.

    What is trained is in float32, whatever the base is in: the small steps of training would be lost in bfloat16.
    """
    model.requires_grad_(False)
    if adapter["rank"] is not None:
        config = lora_config(adapter)
        from peft import inject_adapter_in_model

        inject_adapter_in_model(config, model)
        model._hf_peft_config_loaded = True  # the library trains no quantised model without adapters
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # Else bitsandbytes repacks 4-bit weights in the first pass in eval mode on such a CPU, with a loss: an
            # evaluation would change the frozen base.
            layer.support_avx512bf16_for_cpu = False
    model.config.adapter = adapter
    for weight in trained_parts(model).values():
        weight.data = weight.data.float()
        weight.requires_grad_(True)


def trained_parts(model: Any) -> dict[str, nn.Parameter]:
    """The parameters that a folder of adapters holds: LoRA layers, heads, and the connector where it is trained."""
    modules = tuple(f"{module}." for module in model.config.adapter["modules"])
    return {name: weight for name, weight in model.named_parameters() if name.startswith(modules) or ".lora_" in name}


def peft_name(name: str) -> str:
    """The name of a trained parameter in peft's files."""
    return PEFT_PREFIX + re.sub(r"(\.lora_[AB])\.default\.", r"\1.", name)


def check_trained_parts(model: Any, shapes: dict[str, list[int]]) -> None:
    """Whether a file of adapters has the trained parameters of ``model``.

    Args:
        shapes: of the file's tensors, by name.

    Raises:
        ValueError: it has other parameters, or other shapes.
    """
    wanted = {peft_name(name): list(weight.shape) for name, weight in trained_parts(model).items()}
    different = sorted(shapes.keys() ^ wanted.keys())
    if different:
        fault = "lacks" if different[0] in wanted else "has unknown"
        raise ValueError(f"{WEIGHTS} {fault} {different[0]}: it is not of the model that config.json describes")
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise ValueError(f"{WEIGHTS}: {name} is {shapes[name]} and by config.json {shape}")


def load_trained_parts(model: Any, path: str | os.PathLike[str]) -> None:
    """Read the trained parameters of ``model`` from a file of adapters; errors as in ``check_trained_parts``."""
    found = load_file(path)
    check_trained_parts(model, {name: list(value.shape) for name, value in found.items()})
    for name, weight in trained_parts(model).items():
        weight.data.copy_(found[peft_name(name)])


def save_adapters(model: Any, folder: Path, state_dict: dict[str, torch.Tensor] | None) -> None:
    """Write ``config.json``, the remote code and ``adapter/`` into ``folder``."""
    (folder / SUBFOLDER).mkdir(parents=True, exist_ok=True)
    adapter = {**model.config.adapter, "base_model": relative_base(model.config.adapter["base_model"], folder)}
    config = copy.deepcopy(model.config)
    config.adapter, config.architectures = adapter, [type(model).__name__]
    config.dtype = adapter["dtype"]
    if hasattr(config, "quantization_config"):  # it would say that this folder's weights are quantised
        del config.quantization_config
    custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    if adapter["rank"] is not None:
        description = lora_config(
            adapter,
            base_model_name_or_path=adapter["base_model"],
            modules_to_save=adapter["modules"],
            inference_mode=True,
        )
        description.save_pretrained(folder / SUBFOLDER)
    weights = model.state_dict() if state_dict is None else state_dict
    trained = {peft_name(name): weights[name].detach().cpu().contiguous() for name in trained_parts(model)}
    save_file(trained, folder / SUBFOLDER / WEIGHTS, metadata={"format": "pt"})


def relative_base(base: str, folder: str | os.PathLike[str]) -> str:
    """How a folder of adapters names its base model: by its Hub id, or by its path from ``folder`` (``../base``)."""
    if not os.path.isabs(base):
        return base
    path = os.path.relpath(base, os.path.abspath(folder)).replace(os.sep, "/")
    return path if path.startswith(".") else f"./{path}"


def place_adapters(saved: Path, base: str, folder: Path) -> None:
    """Name the base model in a saved folder of adapters by its path from ``folder``, where its files will lie."""
    named = relative_base(base, folder)
    values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    values["adapter"]["base_model"] = named
    _write_json(saved / "config.json", values)
    of_peft = saved / SUBFOLDER / DESCRIPTION
    if values["adapter"]["rank"] is not None:
        _write_json(of_peft, json.loads(of_peft.read_text(encoding="utf-8")) | {"base_model_name_or_path": named})


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@torch.no_grad()
def merge(model: Any) -> None:
    """Turn a model with adapters into a whole one, in place: ``W + alpha / rank * B A`` replaces each LoRA layer.

    The matrices of a quantised base are dequantised first, so the result computes what was trained. Sums are made in
    float32 and rounded once to the base's type.
    """
    adapter = model.config.adapter
    dtype = getattr(torch, adapter["dtype"])
    for name, layer in list(model.named_modules()):
        if not hasattr(layer, "lora_A"):
            continue
        frozen = layer.get_base_layer()
        weight = whole_weight(frozen).float() + layer.get_delta_weight("default").float()
        # No layer that has adapters has a bias.
        linear = nn.Linear(frozen.in_features, frozen.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(weight.to(dtype))
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, linear)
    if adapter["quantization"] is not None:
        model.hf_quantizer.remove_quantization_config(model)
        model.is_loaded_in_4bit = False
    if adapter["rank"] is not None:
        del model.peft_config
        model._hf_peft_config_loaded = False
    model.model.connector.to(dtype)
    parts = "heads" if adapter["rank"] is None else f"adapters of rank {adapter['rank']}"
    base = adapter["base_model"]
    named = os.path.basename(base) if os.path.isabs(base) else base  # a path of this machine stays here
    quantized = ", which was dequantised from nf4" if adapter["quantization"] is not None else ""
    model.config.merged = f"{parts} of training mode {adapter['mode']} in the base model {named}{quantized}"
    model.config.adapter = None
    model.config.dtype = dtype


def whole_weight(linear: nn.Module) -> torch.Tensor:
    """The weight of a linear layer, dequantised if it is in 4 bits."""
    weight: Any = linear.weight
    if not hasattr(weight, "quant_state"):
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


__all__ = [
    "NOT_QUANTIZED",
    "SUBFOLDER",
    "WEIGHTS",
    "AdapterFolders",
    "add_adapters",
    "check_trained_parts",
    "find_base",
    "load_trained_parts",
    "merge",
    "place_adapters",
    "quantization_config",
    "relative_base",
    "trained_parts",
]
