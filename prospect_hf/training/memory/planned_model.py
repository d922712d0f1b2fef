"""The model of a mode with weights that have no values, built by the code that builds it for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adapters_dst_smolvlm import NOT_QUANTIZED, add_adapters
from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.build import freeze_vision

NO_BASE = "0" * 64  # a plan reads no weights, so it knows no SHA-256 of them


def planned_model(
    config: DSTSmolVLMConfig, args: DSTTrainingArguments, frozen_vision: bool
) -> DSTSmolVLMForConditionalGeneration:
    """A model of ``config`` as ``training.mode`` trains it, on torch's default device: ``with torch.device("meta")``.

    Args:
        frozen_vision: ``model.freeze_vision``.
    """
    model = DSTSmolVLMForConditionalGeneration._from_config(
        config, dtype=getattr(torch, args.base_dtype), attn_implementation=_attention(args)
    )
    if args.mode == "full":
        model.requires_grad_(True)
    else:
        if args.mode == "qlora":
            _put_4_bit_layers(model, getattr(torch, args.base_dtype))
        add_adapters(model, args.adapter("planned", NO_BASE, config.decision_source))
    if frozen_vision:
        freeze_vision(model)
    if args.activation_checkpointing:
        model.activation_checkpointing_enable(args.activation_checkpointing_kwargs)
    return model


def _attention(args: DSTTrainingArguments) -> str:
    """Flash attention needs its package and a GPU; SDPA's kernels keep the same tensors, and a mask beside them."""
    return "eager" if args.attention == "eager" else "sdpa"


def _put_4_bit_layers(model: nn.Module, dtype: torch.dtype) -> None:
    """Put bitsandbytes' layers in place of the text model's linear layers, as the library's loader does."""
    from bitsandbytes.nn.modules import Linear4bit

    for name, layer in list(model.named_modules()):
        if type(layer) is not nn.Linear or name.startswith(NOT_QUANTIZED):
            continue
        layer_in_4_bits = Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=dtype,
            compress_statistics=True,
            quant_type="nf4",
        )
        layer_in_4_bits.weight.data = layer.weight.data
        layer_in_4_bits.requires_grad_(False)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer_in_4_bits)


def fill(model: nn.Module) -> None:
    """Give a model on the meta device weights of the default device, under a mode of fake tensors: fake ones.

    A 4-bit weight becomes a plain parameter with the attributes that its layer and peft read, since bitsandbytes' class
    of parameters takes no fake tensor.
    """
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) not in made:  # a tied weight is made once
                values, attributes = torch.empty(weight.shape, dtype=weight.dtype), vars(weight)
                if "quant_type" in attributes:
                    values, state = _in_4_bits(weight)
                    attributes = {**attributes, "quant_state": state, "bnb_quantized": True}
                made[id(weight)] = nn.Parameter(values, requires_grad=weight.requires_grad)
                vars(made[id(weight)]).update(attributes)
            setattr(module, name, made[id(weight)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _in_4_bits(weight: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """What ``bitsandbytes.functional.quantize_4bit`` makes of a weight, without values.

    Two weights lie in a byte. Each 64 share a scale, which is kept in 8 bits; each 256 scales share one in float32.
    """
    from bitsandbytes.functional import QuantState

    scales = -(-weight.numel() // 64)
    of_scales = QuantState(
        absmax=torch.empty(-(-scales // 256)), code=torch.empty(256), blocksize=256, dtype=torch.float32
    )
    state = QuantState(
        absmax=torch.empty(scales, dtype=torch.uint8),
        shape=weight.shape,
        dtype=weight.dtype,
        blocksize=64,
        code=torch.empty(16),
        quant_type="nf4",
        offset=torch.empty(()),
        state2=of_scales,
    )
    return torch.empty((weight.numel() + 1) // 2, 1, dtype=torch.uint8), state
