"""The sizes of the model that is planned for, found without loading or downloading anything.

The three published SmolVLM2 sizes are kept here as numbers: their parameter counts on the meta device are 256,484,928,
507,482,304 and 2,246,784,880.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import SmolVLMConfig

from configuration_dst_smolvlm import DSTSmolVLMConfig
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.build import load_config
from prospect_hf.training.tiny import tiny_config, tiny_processor

TEXT_256M = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
TEXT_500M = {"hidden_size": 960, "intermediate_size": 2560, "num_attention_heads": 15, "num_key_value_heads": 5}
TEXT_2B = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 32}
VISION_SMALL = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
VISION_2B = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27}
# Name -> layers and theta of the text model, its other sizes, those of the vision tower, its image, patch and shuffle.
PUBLISHED: dict[str, tuple[int, float, Mapping[str, int], Mapping[str, int], tuple[int, int, int]]] = {
    "256M": (30, 100_000.0, TEXT_256M, VISION_SMALL, (512, 16, 4)),
    "500M": (32, 100_000.0, TEXT_500M, VISION_SMALL, (512, 16, 4)),
    "2.2B": (24, 130_000.0, TEXT_2B, VISION_2B, (384, 14, 3)),
}
HUB_IDS = {
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": "256M",
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": "500M",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": "2.2B",
}
VOCABULARY, IMAGE_ID, PAD_ID = 49_280, 49_190, 2


def published_config(size: str, tokens_per_frame: int | str = 1) -> DSTSmolVLMConfig:
    """The configuration of a published SmolVLM2, ``256M``, ``500M`` or ``2.2B``, with the heads of this project."""
    layers, theta, text, vision, (image, patch, shuffle) = PUBLISHED[size]
    text_config: dict[str, Any] = {
        "model_type": "llama",
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "num_hidden_layers": layers,
        "pad_token_id": PAD_ID,
        "rms_norm_eps": 1e-5,
        "rope_theta": theta,
        "vocab_size": VOCABULARY,
        **text,
    }
    vision_config = {"model_type": "smolvlm_vision", "image_size": image, "patch_size": patch, **vision}
    stock = SmolVLMConfig(
        text_config=text_config,
        vision_config=vision_config,
        scale_factor=shuffle,
        image_token_id=IMAGE_ID,
        tie_word_embeddings=False,
    )
    return DSTSmolVLMConfig.from_smolvlm(stock, tokens_per_frame=tokens_per_frame)


def planned_config(model: ModelArguments) -> DSTSmolVLMConfig:
    """The configuration of the model that the settings name.

    Raises:
        UsageError: it is a Hub id whose sizes are not known here, or a folder without a usable ``config.json``.
    """
    if model.name_or_path is None:
        config = tiny_config(tiny_processor([], model), model)
        config.text_config.vocab_size = model.vocab_size  # a tokenizer of a real corpus reaches it
        return config
    if model.name_or_path in HUB_IDS:
        config = published_config(HUB_IDS[model.name_or_path], model.tokens_per_frame or 1)
        try:
            config.check()
        except ValueError as error:
            raise UsageError(str(error)) from error
        return config
    if Path(model.name_or_path).is_dir():
        return load_config(model)[0]
    raise UsageError(
        f"model.name_or_path={model.name_or_path}: the sizes of this model are not known here, and a plan downloads "
        f"nothing: give a folder with its config.json, or one of {', '.join(HUB_IDS)}."
    )
