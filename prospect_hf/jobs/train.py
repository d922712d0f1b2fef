"""The training job: from settings to a folder with a trained and evaluated model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import transformers

from context_dst_smolvlm import Context
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.errors import UsageError
from prospect_hf.machine import first_process
from prospect_hf.terminal import say
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_model, build_processor, freeze_vision
from prospect_hf.training.result_tables import balance_table, result_table
from prospect_hf.training.results import evaluate_freely, write_results
from prospect_hf.training.resume import find_checkpoint, run_record
from prospect_hf.training.splits import load_splits
from prospect_hf.training.stages import (
    choose_thresholds,
    encode_frames,
    learn_to_look,
    pack_clips,
    save,
    train_on_sessions,
)


def run(model: ModelArguments, data: DataArguments, training: DSTTrainingArguments, context: Context) -> None:
    """Train, evaluate and save a model.

    Args:
        model: which model is trained.
        data: what it learns from.
        training: how it is trained. Of several processes, the first prints, follows the held-out sessions and writes.
        context: what happens when the context is full, in the evaluation after training.
    """
    train(model, data, training, context)


def train(
    model_args: ModelArguments, data_args: DataArguments, args: DSTTrainingArguments, context: Context
) -> dict[str, Any]:
    """Train, evaluate and save a model; returns the results that ``results.json`` holds.

    Raises:
        UsageError: settings that contradict each other, or a folder or checkpoint that cannot be used.
        DataError: a record or a frame cannot be used.
        StreamError: a held-out session does not fit the context's limit; the trained model is saved all the same.
    """
    started = time.perf_counter()
    if args.look_steps and model_args.freeze_vision:
        raise UsageError("training.look_steps trains the vision tower and model.freeze_vision forbids it: unset one.")
    if data_args.features is not None and (args.look_steps or not model_args.freeze_vision):
        raise UsageError(
            "data.features was encoded by a vision tower that does not change: set model.freeze_vision=true and "
            "training.look_steps=0, or unset data.features."
        )
    if data_args.streaming:
        _check_streaming(data_args, args)
    transformers.set_seed(args.seed)
    # The others wait for the first process, which writes the corpus and its rows where they are missing.
    with args.main_process_first(desc="reading the sessions"):
        splits = load_splits(data_args)
    say(balance_table(splits.balance))

    record = run_record(model_args, data_args, args, splits)
    interrupted = find_checkpoint(args, record)
    checkpoint = interrupted.folder if interrupted else None
    processor = build_processor(model_args, splits.learned, checkpoint)
    model = build_model(model_args, processor, checkpoint).to(args.device)
    reader = FrameReader(Path(str(data_args.root)), data_args.frames, processor)
    # Before anything is trained: a stream that is too long is then found within seconds.
    with args.main_process_first(desc="packing clips"):
        clips = pack_clips(splits, processor, reader, data_args, args)

    results: dict[str, Any] = {}
    if args.look_steps and interrupted is None:
        results |= learn_to_look(model, processor, reader, splits, args)
    frames: FrameReader | FrameFeatures = reader
    if args.look_steps or (model_args.freeze_vision and not data_args.streaming):
        freeze_vision(model)
        frames = encode_frames(model, reader, splits, data_args, args)
        clips.read_from(frames)

    trainer, trained = train_on_sessions(model, processor, clips, args, record, interrupted)
    results |= trained | choose_thresholds(trainer)
    output = Path(str(args.output_dir))
    # Before the free run: an error there must not lose the trained model.
    save(trainer, output)
    if not first_process():
        return results  # the rest needs one process, and no other has to wait for it
    results |= evaluate_freely(model, processor, frames, splits, context, progress=not args.disable_tqdm)
    results["seconds"] = time.perf_counter() - started
    write_results(output, model_args, data_args, args, context, results, splits.balance)
    say(result_table(results))
    say(f"\nModel, processor, remote code, card and results.json: {output}")
    return results


def _check_streaming(data: DataArguments, args: DSTTrainingArguments) -> None:
    """Raise ``UsageError`` where a setting needs all training sessions at once, or their number."""
    reasons = {
        "a stream has no end: set training.max_steps": args.max_steps < 1,
        "the first stage draws from all sessions: set training.look_steps=0": args.look_steps > 0,
        "encoded frames are found by reading all sessions: unset data.features": data.features is not None,
        "it trains in one process": args.world_size > 1,
    }
    wrong = [reason for reason, holds in reasons.items() if holds]
    if wrong:
        raise UsageError(f"data.streaming=true: {'; '.join(wrong)}.")
