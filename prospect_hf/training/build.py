"""Builds the processor and the model that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from transformers import AutoTokenizer, SmolVLMConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from configuration_dst_smolvlm import DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import (
    check_finite,
    check_processor,
    check_safetensors,
    check_shapes,
    read_config,
    reading,
)
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import ModelArguments
from prospect_hf.training.tiny import tiny_model, tiny_processor

HEADS = (
    "speaking_decision_head",
    "dst_update_head",
    "dst_frame_proj",
    "dst_step_norm",
    "dst_step_proj",
    "dst_state_norm",
    "dst_state_head",
)


def build_processor(
    model: ModelArguments, sessions: Iterable[SessionRows], checkpoint: Path | None = None
) -> DSTSmolVLMProcessor:
    """The checkpoint's processor; for the small model a new one, with a tokenizer trained on the sessions' texts.

    Args:
        model: the model's settings.
        sessions: of the training split.
        checkpoint: folder of an interrupted run, in place of ``model.name_or_path``.
    """
    if checkpoint is not None:
        with reading(checkpoint):
            return DSTSmolVLMProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    if model.name_or_path is None:
        return tiny_processor(session_texts(sessions), model)
    config, _ = load_config(model)
    size = config.vision_config.image_size
    with reading(f"model.name_or_path={model.name_or_path}"):
        images = SmolVLMImageProcessorPil.from_pretrained(
            model.name_or_path,
            trust_remote_code=False,
            size={"longest_edge": size},
            max_image_size={"longest_edge": size},
            do_image_splitting=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(model.name_or_path, trust_remote_code=False)
        processor = DSTSmolVLMProcessor(images, tokenizer, tokens_per_frame=config.stream_tokens)
    check_processor(processor, config, Path(str(model.name_or_path)))
    return processor


def build_model(
    model: ModelArguments, processor: DSTSmolVLMProcessor, checkpoint: Path | None = None
) -> DSTSmolVLMForConditionalGeneration:
    """The model to train: the small one with fresh weights, or a checkpoint (a stock SmolVLM2 gets fresh heads).

    Args:
        model: the model's settings.
        processor: of ``build_processor``.
        checkpoint: folder of an interrupted run, in place of ``model.name_or_path``.

    Raises:
        UsageError: the sizes do not fit together, or the checkpoint cannot be used.
    """
    if checkpoint is not None:
        model = replace(model, name_or_path=str(checkpoint))
    if model.name_or_path is None:
        try:
            built = tiny_model(processor, model)
        except ValueError as error:
            raise UsageError(f"The model settings cannot be used: {error}") from error
    else:
        config, stock = load_config(model)
        check_safetensors(str(model.name_or_path))
        with reading(f"model.name_or_path={model.name_or_path}"):
            built, info = DSTSmolVLMForConditionalGeneration.from_pretrained(
                model.name_or_path,
                config=config,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        # Only a stock SmolVLM2 has no heads yet: a DST-SmolVLM2 without one is damaged.
        missing = sorted(key for key in info["missing_keys"] if not (stock and key.startswith(HEADS)))
        if missing or info["mismatched_keys"]:
            kind = "SmolVLM2" if stock else "DST-SmolVLM2"
            raise UsageError(
                f"{model.name_or_path} is not a complete {kind} checkpoint: {len(missing)} tensors are missing "
                f"({', '.join(missing[:3])} ...) and {len(info['mismatched_keys'])} have another shape."
            )
        check_finite(built, model.name_or_path)
    if model.freeze_vision:
        freeze_vision(built)
    return built


def freeze_vision(model: DSTSmolVLMForConditionalGeneration) -> None:
    """Exclude the vision tower and the connector from training."""
    model.model.vision_model.requires_grad_(False)
    model.model.connector.requires_grad_(False)


def load_config(model: ModelArguments) -> tuple[DSTSmolVLMConfig, bool]:
    """The configuration of ``model.name_or_path``, and whether it is of a stock SmolVLM2.

    A stock configuration is extended by the settings of the heads.

    Raises:
        UsageError: there is no such checkpoint, or it is of another kind.
    """
    with reading(f"model.name_or_path={model.name_or_path}"):
        config = read_config(str(model.name_or_path))
    stock = not isinstance(config, DSTSmolVLMConfig)
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
    if not stock and Path(str(model.name_or_path)).is_dir():
        check_safetensors(str(model.name_or_path))
        check_shapes(config, Path(str(model.name_or_path)))
    return config, stock


def session_texts(sessions: Iterable[SessionRows]) -> list[str]:
    """Every text that occurs in the sessions' streams."""
    texts = []
    for session in sessions:
        texts.append(f" {session.goal}")
        texts.extend(f" {step}" for step in session.steps)
        for item in session.items.values():
            texts.extend(f" {text}" for text in (item.user_text, item.response) if text)
    return texts
