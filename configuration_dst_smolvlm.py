"""Configuration of DST-SmolVLM2: SmolVLM's, extended by the settings of the four heads and the frame stream.

Remote code of the Hub: it imports transformers and nothing of the training package.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import SmolVLMConfig

TOKENS_PER_FRAME = (1, 4, 9, 16, "full")
MOST_FPS = 1000
# Sizes of both parts of the model, and of each alone; no model comes near the largest.
SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
TEXT_SIZES = ("vocab_size", "max_position_embeddings", "num_key_value_heads", "head_dim")
VISION_SIZES = ("image_size", "patch_size", "num_channels")
LARGEST_SIZE = 10**9

AUTO_MAP = {
    "AutoConfig": "configuration_dst_smolvlm.DSTSmolVLMConfig",
    "AutoModel": "modeling_dst_smolvlm.DSTSmolVLMForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_dst_smolvlm.DSTSmolVLMForConditionalGeneration",
    "AutoProcessor": "processing_dst_smolvlm.DSTSmolVLMProcessor",
}

CUSTOM_PIPELINES = {
    "dst-stream": {
        "impl": "pipeline_dst_smolvlm.DSTStreamPipeline",
        "pt": ["AutoModelForImageTextToText"],
        "type": "multimodal",
    }
}


@strict
class DSTSmolVLMConfig(SmolVLMConfig):
    """The configuration of ``DSTSmolVLMForConditionalGeneration``.

    Args:
        tokens_per_frame: stream tokens that one frame takes: 1, 4, 9 or 16 (the vision tokens averaged over a square
            grid) or ``"full"`` (all of them: 64 for the 256M and 500M models, 81 for the 2.2B).
        num_dst_states: classes of the state head; 3: not started, in progress, completed.
        speaking_threshold: the assistant speaks on a frame where p(speak) is at least this.
        dst_update_threshold: the state table is updated on a frame where p(update) is at least this.
        fps: frames a second of the streams that the model was trained on.
        **kwargs: SmolVLM's own: ``text_config``, ``vision_config``, ``scale_factor``, ``image_token_id``, ...

    Raises:
        ValueError: a value outside its range, with the key's name.
    """

    model_type = "dst_smolvlm"

    tokens_per_frame: int | str = 1
    num_dst_states: int = 3
    speaking_threshold: float = 0.5
    dst_update_threshold: float = 0.5
    fps: float = 2.0

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        kwargs.setdefault("custom_pipelines", copy.deepcopy(CUSTOM_PIPELINES))
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raise ``ValueError`` for a value outside its range; the model calls this when it is built."""
        self._check_sizes()
        if type(self.tokens_per_frame) not in (int, str) or self.tokens_per_frame not in TOKENS_PER_FRAME:
            raise ValueError(f"tokens_per_frame must be one of {TOKENS_PER_FRAME}, not {self.tokens_per_frame!r}.")
        if self.num_dst_states != 3:
            raise ValueError(f"num_dst_states must be 3, not {self.num_dst_states}: the labels have three states.")
        thresholds = {"speaking_threshold": self.speaking_threshold, "dst_update_threshold": self.dst_update_threshold}
        for name, value in thresholds.items():
            if type(value) not in (int, float) or not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], not {value}.")
        if type(self.fps) not in (int, float) or not 0 < self.fps <= MOST_FPS:
            raise ValueError(f"fps must be positive and at most {MOST_FPS}, not {self.fps}.")
        if self.stream_tokens > self.grid_side**2:
            raise ValueError(
                f"tokens_per_frame={self.tokens_per_frame} is more than the {self.grid_side} x {self.grid_side} "
                "vision tokens that image_size, patch_size and scale_factor leave."
            )

    def _check_sizes(self) -> None:
        """Refuse sizes that no model has: 0 or negative heads pass the checks of shapes and fail in the first pass."""
        text, vision = self.text_config, self.vision_config
        sizes = {f"text_config.{name}": getattr(text, name) for name in (*SIZES, *TEXT_SIZES)}
        sizes |= {f"vision_config.{name}": getattr(vision, name) for name in (*SIZES, *VISION_SIZES)}
        for name, value in {**sizes, "scale_factor": self.scale_factor}.items():
            if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
                raise ValueError(f"{name} must be a whole number from 1 to {LARGEST_SIZE}, not {value!r}.")
        if vision.num_channels != 3:
            raise ValueError(f"vision_config.num_channels must be 3 (red, green, blue), not {vision.num_channels}.")
        numbers = {
            "text_config.rms_norm_eps": text.rms_norm_eps,
            "vision_config.layer_norm_eps": vision.layer_norm_eps,
            "text_config.rope_parameters.rope_theta": text.rope_parameters["rope_theta"],
        }
        for name, value in numbers.items():
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be a positive number, not {value!r}.")

    @property
    def grid_side(self) -> int:
        """Vision tokens along one side of a frame, after the pixel shuffle."""
        return self.vision_config.image_size // self.vision_config.patch_size // self.scale_factor

    @property
    def stream_tokens(self) -> int:
        """Stream tokens that one frame takes."""
        return self.grid_side**2 if self.tokens_per_frame == "full" else int(self.tokens_per_frame)

    @classmethod
    def from_smolvlm(cls, config: SmolVLMConfig, **overrides: Any) -> DSTSmolVLMConfig:
        """The configuration of a stock SmolVLM2 with new heads: all of ``config``, then ``overrides``."""
        values = config.to_dict()
        for own in ("model_type", "auto_map", "custom_pipelines", "architectures", "transformers_version"):
            values.pop(own, None)
        return cls(**{**values, **overrides})


DSTSmolVLMConfig.register_for_auto_class()

__all__ = ["DSTSmolVLMConfig"]
