"""The main job: settings in, a trained, evaluated and reloadable model folder out."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import transformers
from transformers.trainer_utils import SaveStrategy, get_last_checkpoint

from context_dst_smolvlm import Context
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clips import ClipCollator, ClipDataset
from prospect_hf.data.corpus import LoadedRows, prepare_rows, split_sessions
from prospect_hf.data.features import FrameFeatures, encode_sessions
from prospect_hf.data.glimpses import GlimpseDataset
from prospect_hf.data.reader import FrameReader
from prospect_hf.dataset.balance import balance_by_source, label_balance
from prospect_hf.errors import DataError, UsageError
from prospect_hf.evaluation.baselines import majority, majority_response
from prospect_hf.evaluation.free_running import follow
from prospect_hf.evaluation.score import score
from prospect_hf.hub.model_card import write_card
from prospect_hf.settings import parse
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_model, build_processor, freeze_vision
from prospect_hf.training.result_tables import balance_table, result_table
from prospect_hf.training.trainer import DSTTrainer

logger = logging.getLogger(__name__)


def run(model: ModelArguments, data: DataArguments, training: Mapping[str, Any], context: Context) -> None:
    """Prepare, train, evaluate, save.

    Args:
        model: which model is trained.
        data: what it learns from.
        training: settings of the training as they are given; ``results.json`` keeps them so.
        context: what happens when the context is full, in the evaluation after training.
    """
    args = parse(DSTTrainingArguments, training, "training")
    train(model, data, args, context, training)


def train(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: DSTTrainingArguments,
    context: Context,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """The work of ``run``; returns the results that ``results.json`` holds."""
    started = time.perf_counter()
    args.dataloader_pin_memory = args.dataloader_pin_memory and args.device.type == "cuda"
    if args.look_steps and model_args.freeze_vision:
        raise UsageError("training.look_steps learns to see and model.freeze_vision forbids it: set one of them to 0.")
    transformers.set_seed(args.seed)

    loaded = prepare_rows(data_args)
    balance = label_balance_by_source(loaded)
    print(balance_table(balance))
    train = split_sessions(loaded, "train")
    if not train:
        raise DataError(f"data.root={data_args.root} has no training rows in {', '.join(data_args.sources)}.")
    held_out = {split: split_sessions(loaded, split) for split in ("validation", "test")}
    if data_args.frames != "store":
        logger.info("Frames are %s, not the videos': the model learns nothing about seeing.", data_args.frames)

    checkpoint = last_checkpoint(args)
    processor = build_processor(model_args, train)
    model = build_model(model_args if checkpoint is None else replace(model_args, name_or_path=checkpoint), processor)
    model.to(args.device)
    reader = FrameReader(Path(str(data_args.root)), data_args.frames, processor)
    collator = ClipCollator(processor.tokenizer.pad_token_id)
    # Packed before anything is trained: a stream that does not fit is found at once.
    clips = ClipDataset(
        train, processor, reader, data_args.max_seq_len, data_args.text_dropout, args.seed, data_args.late_start
    )
    check_clips = ClipDataset(held_out["validation"], processor, reader, data_args.max_seq_len)
    results: dict[str, Any] = {}
    if args.look_steps:
        if checkpoint is None:
            glimpses = GlimpseDataset(train, processor, reader, args.look_pairs, args.seed)
            results["look_seconds"] = learn_to_look(model, args, glimpses, collator)
        freeze_vision(model)
    frames: FrameReader | FrameFeatures = reader
    if model_args.freeze_vision or args.look_steps:
        with args.main_process_first(desc="encoding frames"):
            frames = encode_sessions(
                model, reader, [*train, *itertools.chain(*held_out.values())], Path(data_args.cache_dir) / "features"
            )
        clips.frames = check_clips.frames = frames
    logger.info(
        "%d training clips of %d sessions, %d frames; %.2f M parameters, %.2f M trained.",
        len(clips),
        len(train),
        sum(map(len, train)),
        model.num_parameters() / 1e6,
        model.num_parameters(only_trainable=True) / 1e6,
    )
    if not len(check_clips):
        logger.info("There is no validation split: thresholds stay at %.2f.", model.config.speaking_threshold)
        args.eval_strategy = transformers.IntervalStrategy.NO
    trainer = DSTTrainer(
        model=model,
        args=args,
        train_dataset=clips,
        eval_dataset=check_clips if len(check_clips) else None,
        data_collator=collator,
        processing_class=processor,
    )
    fitted = trainer.train(resume_from_checkpoint=checkpoint)
    results |= {"train_seconds": fitted.metrics["train_runtime"], "steps": trainer.state.global_step}

    if len(check_clips):
        validation = trainer.evaluate()
        results["validation"] = validation
        model.config.speaking_threshold = validation["eval_speaking_best_threshold"]
        model.config.dst_update_threshold = validation["eval_dst_update_best_threshold"]
    # Saved before it is followed freely: whatever happens there, what was trained is kept.
    output = Path(str(args.output_dir))
    trainer.save_model(str(output))
    trainer.save_state()
    for split, sessions in held_out.items():
        if sessions and (split == "test" or not held_out["test"]):
            predictions = follow(model, processor, frames, sessions, context=context)
            thresholds = (model.config.speaking_threshold, model.config.dst_update_threshold)
            results["free_run"] = {
                "split": split,
                "sessions": len(sessions),
                **score(predictions, sessions, model.config.fps, thresholds),
            }
            text = majority_response(train)
            guessed = [majority(session, text) for session in sessions]
            # Its times are the reference's, so only what it says and which states it tells can be compared.
            of_majority = score(guessed, sessions, model.config.fps, thresholds)
            results["majority"] = {
                name: of_majority[name]
                for name in ("joint_state_accuracy", "response_exact_match", "response_bleu")
                if name in of_majority
            }

    results["seconds"] = time.perf_counter() - started
    settings = {"model": asdict(model_args), "data": asdict(data_args), "training": dict(training)}
    settings["context"] = asdict(context)
    facts = {"settings": settings, "results": results, "balance": balance}
    write_json(output / "results.json", facts)
    write_card(output, facts)
    print(result_table(results))
    print(f"\nModel, processor, remote code, card and results.json: {output}")
    return results


def learn_to_look(
    model: DSTSmolVLMForConditionalGeneration,
    args: DSTTrainingArguments,
    glimpses: GlimpseDataset,
    collator: ClipCollator,
) -> float:
    """The first stage: ``args.look_steps`` steps on glimpses, with an optimiser of its own; returns its seconds.

    It writes no checkpoint: a run that is stopped in it begins anew.
    """
    stage = copy.copy(args)
    stage.max_steps, stage.per_device_train_batch_size = args.look_steps, args.look_batch_size
    stage.gradient_accumulation_steps, stage.train_sampling_strategy = 1, "random"
    stage.eval_strategy = transformers.IntervalStrategy.NO
    stage.save_strategy = SaveStrategy.NO
    logger.info("First stage: %d pairs of frames of each of %d sessions.", glimpses.pairs, len(glimpses))
    looked = DSTTrainer(model=model, args=stage, train_dataset=glimpses, data_collator=collator).train()
    return float(looked.metrics["train_runtime"])


def label_balance_by_source(loaded: Sequence[LoadedRows]) -> dict[str, dict[str, int]]:
    """Label counts of every source, form and split: ``"wtag dialogs train" -> counts``."""
    balance = {}
    for part in loaded:
        for split, rows in part.rows.items():
            for source, counts in balance_by_source(rows).items():
                balance[f"{source} {part.form} {split}"] = counts
            balance[f"all {part.form} {split}"] = label_balance(rows)
    return balance


def last_checkpoint(args: DSTTrainingArguments) -> str | None:
    """The checkpoint to go on from, where ``training.resume_from_checkpoint`` asks for one.

    Raises:
        UsageError: it is not there.
    """
    wanted = args.resume_from_checkpoint
    if not wanted:
        return None
    if isinstance(wanted, str):
        if not Path(wanted).is_dir():
            raise UsageError(f"training.resume_from_checkpoint={wanted}: no such folder.")
        return wanted
    found = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    if found is None:
        raise UsageError(f"training.resume_from_checkpoint=true, but {args.output_dir} holds no checkpoint.")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write beside, then rename."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, default=str) + "\n")
    partial.replace(path)
