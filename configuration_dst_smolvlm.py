"""Configuration of DST-SmolVLM2: SmolVLM's, extended by the settings of the four heads and the frame stream.

Remote code of the Hub: it imports transformers and nothing of the training package.
"""

from __future__ import annotations

import copy
import math
import os
import re
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import SmolVLMConfig

TOKENS_PER_FRAME = (1, 4, 9, 16, "full")
MOST_FPS = 1000
DECISION_SOURCES = ("heads", "lm")
# Sizes of both parts of the model, and of each alone; no model comes near the largest.
SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
TEXT_SIZES = ("vocab_size", "max_position_embeddings", "num_key_value_heads", "head_dim")
VISION_SIZES = ("image_size", "patch_size", "num_channels")
LARGEST_SIZE = 10**9

# Modules that a stock SmolVLM2 lacks.
DECISION_HEADS = ("speaking_decision_head", "dst_update_head")
HEADS = (
    *DECISION_HEADS,
    "dst_frame_proj",
    "dst_step_norm",
    "dst_step_proj",
    "dst_state_norm",
    "dst_state_head",
)
CONNECTOR = "model.connector"
# By full name: q_proj and its like exist in the vision tower too.
LORA_TARGETS = r"model\.text_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
ADAPTER_MODES = ("lora", "qlora", "heads")
ADAPTER_DTYPES = ("bfloat16", "float32")
NF4 = {"type": "nf4", "double": True}
HUB_ID = r"[\w.-]{1,96}(/[\w.-]{1,96})?"

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
        speaking_temperature: a model in eval mode divides its speaking logits by this; fitted after training, so that
            p(speak) is the share of frames with that p(speak) on which the assistant speaks.
        dst_update_temperature: the same for the DST-update logits.
        fps: frames a second of the streams that the model was trained on.
        decision_source: where the two decisions of a frame are read: ``heads`` (a linear layer each), or ``lm`` (the LM
            head's logits of the next token, after the frame's last one).
        decision_tokens: for ``lm``: the next tokens that mean "nothing happens" (``<image>``), "speak" (the first
            token of ``Assistant:``) and "the state changed" (the first token of ``State:``).
        state_feedback: the tracked state changes of a frame follow it in the stream as a text.
        adapter: of a folder that holds adapters and no base weights, what they are: ``mode`` (lora, qlora or heads);
            ``base_model`` (Hub id, or path from this folder), ``base_sha256`` of its weights and the ``dtype`` it is
            loaded in; ``rank``, ``alpha``, ``dropout`` and ``targets`` (a regular expression of full names) of the LoRA
            layers, None without them; ``modules`` that are trained beside them; ``quantization`` of the base (None, or
            ``type``, ``double`` and ``compute_dtype``). None: the folder holds a whole model.
        blind: the vision tower and the connector came with random weights, so that a frozen one has learned nothing.
        merged: of a whole model that adapters were merged into, which adapters, and into which weights.
        **kwargs: SmolVLM's own: ``text_config``, ``vision_config``, ``scale_factor``, ``image_token_id``, ...

    Raises:
        ValueError: a value outside its range, with the key's name.
    """

    model_type = "dst_smolvlm"

    tokens_per_frame: int | str = 1
    num_dst_states: int = 3
    speaking_threshold: float = 0.5
    dst_update_threshold: float = 0.5
    speaking_temperature: float = 1.0
    dst_update_temperature: float = 1.0
    fps: float = 2.0
    decision_source: str = "heads"
    decision_tokens: list[int] | None = None
    state_feedback: bool = True
    adapter: dict[str, Any] | None = None
    merged: str | None = None
    blind: bool = False

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
        temperatures = {
            "speaking_temperature": self.speaking_temperature,
            "dst_update_temperature": self.dst_update_temperature,
        }
        for name, value in temperatures.items():
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be a positive number, not {value}.")
        if type(self.fps) not in (int, float) or not 0 < self.fps <= MOST_FPS:
            raise ValueError(f"fps must be positive and at most {MOST_FPS}, not {self.fps}.")
        self._check_decisions()
        if self.stream_tokens > self.grid_side**2:
            raise ValueError(
                f"tokens_per_frame={self.tokens_per_frame} is more than the {self.grid_side} x {self.grid_side} "
                "vision tokens that image_size, patch_size and scale_factor leave."
            )
        if self.adapter is not None:
            check_adapter(self.adapter, heads_of(self.decision_source))

    def _check_decisions(self) -> None:
        if self.decision_source not in DECISION_SOURCES:
            raise ValueError(
                f"decision_source must be one of {', '.join(DECISION_SOURCES)}, not {self.decision_source!r}."
            )
        tokens, vocabulary = self.decision_tokens, self.text_config.vocab_size
        if self.decision_source == "lm" and not (
            isinstance(tokens, list)
            and len(set(tokens)) == len(tokens) == 3
            and all(type(token) is int and 0 <= token < vocabulary for token in tokens)
        ):
            raise ValueError(
                "decision_source=lm needs decision_tokens: three different token ids below "
                f"text_config.vocab_size={vocabulary}, not {tokens!r}."
            )
        if self.decision_source == "heads" and tokens is not None:
            raise ValueError(f"decision_tokens={tokens!r} belongs to decision_source=lm.")
        if type(self.state_feedback) is not bool:
            raise ValueError(f"state_feedback must be true or false, not {self.state_feedback!r}.")

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


def heads_of(decision_source: str) -> tuple[str, ...]:
    """The modules of the heads that a model has: without those of the decisions that its LM head answers."""
    return HEADS if decision_source == "heads" else tuple(name for name in HEADS if name not in DECISION_HEADS)


def check_adapter(adapter: Any, heads: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for a description of adapters that this package does not write, by the key's name."""
    if not isinstance(adapter, dict):
        raise ValueError(f"adapter in config.json is not what this package writes: {adapter!r}.")
    base: Any = adapter.get("base_model")
    lora = adapter.get("mode") in ("lora", "qlora")
    # None in mode qlora: the same adapters, opened on the base's own weights.
    quantization = adapter.get("quantization")
    quantizations = [{**NF4, "compute_dtype": dtype} for dtype in ADAPTER_DTYPES]
    rank: Any = adapter.get("rank")
    alpha: Any = adapter.get("alpha")
    dropout: Any = adapter.get("dropout")
    modules = adapter.get("modules")
    right = {
        "mode": adapter.get("mode") in ADAPTER_MODES,
        # By its path from the folder, in this process by its whole path, or by its id on the Hub.
        "base_model": type(base) is str
        and (base.startswith(".") or os.path.isabs(base) or re.fullmatch(HUB_ID, base) is not None),
        "base_sha256": re.fullmatch("[0-9a-f]{64}", str(adapter.get("base_sha256"))) is not None,
        "dtype": adapter.get("dtype") in ADAPTER_DTYPES,
        "rank": type(rank) is int and 1 <= rank <= LARGEST_SIZE if lora else rank is None,
        "alpha": type(alpha) in (int, float) and 0 < alpha < math.inf if lora else alpha is None,
        "dropout": type(dropout) in (int, float) and 0 <= dropout < 1 if lora else dropout is None,
        "targets": adapter.get("targets") == (LORA_TARGETS if lora else None),
        "modules": modules in ([*heads], [*heads, CONNECTOR]),
        "quantization": quantization is None or (adapter.get("mode") == "qlora" and quantization in quantizations),
    }
    wrong = [key for key, holds in right.items() if not holds] or sorted(adapter.keys() - right.keys())
    if wrong:
        raise ValueError(
            f"adapter.{wrong[0]} in config.json is not what this package writes: {adapter.get(wrong[0])!r}."
        )


DSTSmolVLMConfig.register_for_auto_class()

__all__ = ["DSTSmolVLMConfig"]
