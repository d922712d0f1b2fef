"""The stock SmolVLM of a shape, and its arguments for one of our batches; it imports nothing of the training."""

from __future__ import annotations

from typing import Any

import torch
from shapes import Shape, config_of
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling


def stock_model(shape: Shape) -> SmolVLMForConditionalGeneration:
    """The stock model of the same sizes, with random weights, in training mode."""
    torch.manual_seed(0)
    values = config_of(shape).to_dict()
    for key in ("model_type", "auto_map", "tokens_per_frame", "num_dst_states", "fps"):
        values.pop(key)
    return SmolVLMForConditionalGeneration(SmolVLMConfig(**values)).train()


def stock_inputs(batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The stock model's arguments for a batch: ids, mask, text labels, and frames as pixels or as features."""
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    if "pixel_values" in batch:
        inputs["pixel_values"] = batch["pixel_values"].unflatten(0, (len(batch["input_ids"]), -1))
    else:
        encoded = BaseModelOutputWithPooling(pooler_output=batch["frame_features"].flatten(0, 1))
        inputs["mm_encoder_outputs"] = {"image": encoded}
    return inputs
