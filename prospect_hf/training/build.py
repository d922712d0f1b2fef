"""Builds the processor and the model that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoTokenizer, SmolVLMConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from adapters_dst_smolvlm import add_adapters, quantization_config
from configuration_dst_smolvlm import DECISION_HEADS, HEADS, DSTSmolVLMConfig
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import (
    base_folder,
    check_base,
    check_finite,
    check_processor,
    check_safetensors,
    check_shapes,
    read_config,
    reading,
)
from prospect_hf.content_hash import weights_hash
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.copying import learn_to_copy
from prospect_hf.training.tiny import tiny_model, tiny_processor

ALIGNMENT = 64  # bytes: torch's own tensors on a CPU begin at multiples of it


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
        processor = tiny_processor(session_texts(sessions), model)
        processor.state_feedback = model.state_feedback is not False
        return processor
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
        processor = DSTSmolVLMProcessor(
            images, tokenizer, tokens_per_frame=config.stream_tokens, state_feedback=config.state_feedback
        )
    check_processor(processor, config, Path(str(model.name_or_path)))
    return processor


def build_model(
    model: ModelArguments,
    processor: DSTSmolVLMProcessor,
    args: DSTTrainingArguments,
    checkpoint: Path | None = None,
) -> DSTSmolVLMForConditionalGeneration:
    """The model to train: the small one with fresh weights, or a checkpoint (a stock SmolVLM2 gets fresh heads).

    The language half of a fresh small model can copy (``model.copy_steps``).

    In another mode than ``full`` it is a frozen base with fresh adapters, and an interrupted run's adapters are read by
    the trainer.

    Args:
        model: the model's settings.
        processor: of ``build_processor``.
        args: the mode, and the types and kernels that go with it.
        checkpoint: folder of an interrupted run; in mode ``full`` it takes the place of ``model.name_or_path``.

    Raises:
        UsageError: the sizes do not fit together, or the checkpoint cannot be used.
    """
    if args.mode != "full":
        built = _with_adapters(model, processor, args, checkpoint)
    elif checkpoint is not None or model.name_or_path is not None:
        name = model.name_or_path if checkpoint is None else str(checkpoint)
        built = load_whole(replace(model, name_or_path=name), processor, args.base_dtype)
    else:
        try:
            built = tiny_model(processor, model, model.decision_source or "heads")
        except ValueError as error:
            raise UsageError(f"The model settings cannot be used: {error}") from error
        if model.copy_steps:
            learn_to_copy(built, set(processor.tokenizer.all_special_ids), model.copy_steps)
    built.set_attn_implementation(args.attention_implementation)
    if args.mode == "full" and model.freeze_vision:
        freeze_vision(built)
    align(built)
    return built


def align(model: nn.Module) -> None:
    """Move each weight that lies at an odd address on the CPU, as those of a mapped file do, to memory of its own.

    Matrix products round otherwise there: a resumed run would slowly part from the uninterrupted one.
    """
    for weight in model.parameters():
        if weight.device.type == "cpu" and weight.is_floating_point() and weight.data_ptr() % ALIGNMENT:
            weight.data = weight.data.clone()


def load_whole(
    model: ModelArguments, processor: DSTSmolVLMProcessor | None = None, dtype: str = "auto", **options: Any
) -> DSTSmolVLMForConditionalGeneration:
    """The checkpoint ``model.name_or_path``, a SmolVLM2 (with fresh heads) or a DST-SmolVLM2.

    Args:
        processor: of the checkpoint; needed where ``model.decision_source`` is not the checkpoint's.
        dtype: of the weights; ``auto``: as the checkpoint says.
        **options: of ``from_pretrained``.

    Raises:
        UsageError: there is no such checkpoint, it is of another kind or not complete, or a weight is not finite.
    """
    config, stock = load_config(model)
    fresh: tuple[str, ...] = HEADS if stock else ()
    if model.decision_source not in (None, config.decision_source):
        fresh += DECISION_HEADS
        assert processor is not None
        _read_decisions_from(config, model.decision_source, processor)
    check_safetensors(str(model.name_or_path))
    with reading(f"model.name_or_path={model.name_or_path}"):
        built, info = DSTSmolVLMForConditionalGeneration.from_pretrained(
            model.name_or_path,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    # A stock SmolVLM2 has no heads yet, and one with decision_source=lm not all of them: any other is damaged.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(fresh))
    if missing or info["mismatched_keys"]:
        kind = "SmolVLM2" if stock else "DST-SmolVLM2"
        raise UsageError(
            f"{model.name_or_path} is not a complete {kind} checkpoint: {len(missing)} tensors are missing "
            f"({', '.join(missing[:3])} ...) and {len(info['mismatched_keys'])} have another shape."
        )
    check_finite(built, str(model.name_or_path))
    return built


def _with_adapters(
    model: ModelArguments, processor: DSTSmolVLMProcessor, args: DSTTrainingArguments, checkpoint: Path | None
) -> DSTSmolVLMForConditionalGeneration:
    """The base model ``model.name_or_path``, frozen, with fresh adapters and the heads to be trained."""
    if model.name_or_path is None:
        raise UsageError(
            f"training.mode={args.mode} trains adapters of a checkpoint, and the small model is new: give "
            "model.name_or_path, or training.mode=full."
        )
    base = base_folder(model.name_or_path)
    # By its absolute path: a relative one would be taken from another folder when the adapters are opened.
    named = str(base) if Path(model.name_or_path).is_dir() else model.name_or_path
    source = model.decision_source or load_config(replace(model, name_or_path=str(base)))[0].decision_source
    adapter = args.adapter(named, weights_hash(base), source)
    if checkpoint is not None:
        check_base(checkpoint, read_config(checkpoint), base)
    options: dict[str, Any] = {}
    if adapter["quantization"] is not None:
        storage = "uint8" if args.sharding is None else args.base_dtype
        options["quantization_config"] = quantization_config(adapter["quantization"], storage)
    built = load_whole(replace(model, name_or_path=str(base)), processor, args.base_dtype, **options)
    built.config.name_or_path = model.name_or_path
    add_adapters(built, adapter)
    return built


def _read_decisions_from(config: DSTSmolVLMConfig, source: str, processor: DSTSmolVLMProcessor) -> None:
    """Let a model of the other source decide by ``source``; its thresholds and temperatures no longer hold."""
    config.decision_source = source
    config.decision_tokens = processor.decision_tokens if source == "lm" else None
    config.speaking_threshold = config.dst_update_threshold = 0.5
    config.speaking_temperature = config.dst_update_temperature = 1.0


def freeze_vision(model: DSTSmolVLMForConditionalGeneration) -> None:
    """Exclude the vision tower and the connector from training."""
    model.model.vision_model.requires_grad_(False)
    model.model.connector.requires_grad_(False)


def vision_is_frozen(model: ModelArguments, args: DSTTrainingArguments) -> bool:
    """Whether neither the vision tower nor the connector is trained, so that frames can be encoded once."""
    return model.freeze_vision if args.mode == "full" else not args.train_connector


def longest_stream(model: ModelArguments) -> int:
    """The positions of the model, in tokens, as its configuration says; errors as in ``load_config``."""
    if model.name_or_path is None:
        return model.max_positions
    return int(load_config(model)[0].text_config.max_position_embeddings)


def load_config(model: ModelArguments) -> tuple[DSTSmolVLMConfig, bool]:
    """The configuration of ``model.name_or_path``, and whether it is of a stock SmolVLM2.

    A stock configuration is extended by the settings of the heads.

    Raises:
        UsageError: there is no such checkpoint, or it is of another kind.
    """
    with reading(f"model.name_or_path={model.name_or_path}"):
        config = read_config(str(model.name_or_path))
    stock = not isinstance(config, DSTSmolVLMConfig)
    if isinstance(config, DSTSmolVLMConfig) and config.adapter is not None:
        raise UsageError(
            f"model.name_or_path={model.name_or_path} holds adapters and no whole model: make one of them, prospect "
            f"merge {model.name_or_path} FOLDER, and give that folder."
        )
    try:
        if isinstance(config, DSTSmolVLMConfig):
            if model.tokens_per_frame is not None:
                config.tokens_per_frame = model.tokens_per_frame
            if model.state_feedback is not None:
                config.state_feedback = model.state_feedback
        elif isinstance(config, SmolVLMConfig):
            config = DSTSmolVLMConfig.from_smolvlm(
                config,
                tokens_per_frame=model.tokens_per_frame or 1,
                state_feedback=model.state_feedback is not False,
            )
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
