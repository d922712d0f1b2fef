"""From the settings of a run to what it trains: processor and model."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from transformers import AutoTokenizer, SmolVLMConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import AutoConfig
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.tiny import TinyShape, tiny_model, tiny_processor

logger = logging.getLogger(__name__)

HEADS = (
    "speaking_decision_head",
    "dst_update_head",
    "dst_frame_proj",
    "dst_step_norm",
    "dst_step_proj",
    "dst_state_norm",
    "dst_state_head",
)


def build_processor(model: ModelArguments, sessions: Iterable[SessionRows]) -> DSTSmolVLMProcessor:
    """The checkpoint's processor, or for the small model one whose tokenizer is trained on the sessions' texts."""
    if model.name_or_path is None:
        return tiny_processor(session_texts(sessions), tiny_shape(model))
    config = load_config(model)
    size = config.vision_config.image_size
    images = SmolVLMImageProcessorPil.from_pretrained(
        model.name_or_path, size={"longest_edge": size}, max_image_size={"longest_edge": size}, do_image_splitting=False
    )
    tokenizer = AutoTokenizer.from_pretrained(model.name_or_path)
    return DSTSmolVLMProcessor(images, tokenizer, tokens_per_frame=config.stream_tokens)


def build_model(model: ModelArguments, processor: DSTSmolVLMProcessor) -> DSTSmolVLMForConditionalGeneration:
    """The model to train: the small one with fresh weights, or a checkpoint (stock ones get fresh heads)."""
    if model.name_or_path is None:
        try:
            built = tiny_model(processor, tiny_shape(model))
        except ValueError as error:
            raise UsageError(f"The model settings cannot be used: {error}") from error
    else:
        built, info = DSTSmolVLMForConditionalGeneration.from_pretrained(
            model.name_or_path, config=load_config(model), output_loading_info=True
        )
        fresh = sorted(key for key in info["missing_keys"] if not key.startswith(HEADS))
        if fresh or info["mismatched_keys"]:
            raise UsageError(
                f"{model.name_or_path} is no whole SmolVLM2 checkpoint: {len(fresh)} tensors are missing "
                f"({', '.join(fresh[:3])} ...) and {len(info['mismatched_keys'])} have another shape."
            )
    if model.freeze_vision:
        freeze_vision(built)
    return built


def freeze_vision(model: DSTSmolVLMForConditionalGeneration) -> None:
    """Keep vision tower and connector as they are from here on."""
    model.model.vision_model.requires_grad_(False)
    model.model.connector.requires_grad_(False)


def load_config(model: ModelArguments) -> DSTSmolVLMConfig:
    """The configuration of ``model.name_or_path``, a stock one with what the heads need added.

    Raises:
        UsageError: no such checkpoint, or one of another kind.
    """
    try:
        config = AutoConfig.from_pretrained(model.name_or_path)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"model.name_or_path={model.name_or_path} cannot be loaded: {reason}") from error
    try:
        if isinstance(config, DSTSmolVLMConfig):
            if model.tokens_per_frame is not None:
                config.tokens_per_frame = model.tokens_per_frame
        elif isinstance(config, SmolVLMConfig):
            config = DSTSmolVLMConfig.from_smolvlm(config, tokens_per_frame=model.tokens_per_frame or 1)
        else:
            raise UsageError(
                f"model.name_or_path={model.name_or_path} is a {config.model_type} checkpoint; "
                "give a SmolVLM2 or a DST-SmolVLM2."
            )
        config.check()
    except ValueError as error:
        raise UsageError(str(error)) from error
    return config


def tiny_shape(model: ModelArguments) -> TinyShape:
    """The small model's part of the settings."""
    names = TinyShape.__dataclass_fields__.keys() & ModelArguments.__dataclass_fields__.keys()
    return TinyShape(**{name: vars(model)[name] for name in names if vars(model)[name] is not None})


def session_texts(sessions: Iterable[SessionRows]) -> list[str]:
    """All texts that the sessions' streams are made of."""
    texts = []
    for session in sessions:
        texts.append(f" {session.goal}")
        texts.extend(f" {step}" for step in session.steps)
        for item in session.items.values():
            texts.extend(f" {text}" for text in (item.user_text, item.response) if text)
    return texts
