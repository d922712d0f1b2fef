"""The training job: from settings to a folder with a trained and evaluated model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers

from context_dst_smolvlm import Context
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.reader import FrameReader
from prospect_hf.machine import first_process, machine
from prospect_hf.processes import in_turn, leave, of_first
from prospect_hf.progress import bars
from prospect_hf.terminal import say
from prospect_hf.training.arguments import FIRST_STAGE, DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import build_model, build_processor, freeze_vision, vision_is_frozen
from prospect_hf.training.checkpoint_files import PARTIAL
from prospect_hf.training.free_validation import FreeValidation, spread
from prospect_hf.training.memory.advice import advised, lower
from prospect_hf.training.memory.before_training import check_memory
from prospect_hf.training.report.page import PAGE, write_train_report
from prospect_hf.training.result_tables import balance_table, result_table
from prospect_hf.training.results import evaluate_freely, write_results
from prospect_hf.training.resume import find_checkpoint, run_record
from prospect_hf.training.setting_checks import check_settings
from prospect_hf.training.sharding import build_whole_models
from prospect_hf.training.splits import load_splits
from prospect_hf.training.stages import (
    choose_thresholds,
    encode_frames,
    learn_to_look,
    pack_clips,
    save,
    train_on_sessions,
    whole_model,
)
from prospect_hf.training.text_half import prepare_text_half
from prospect_hf.training.trackers import finish_trackers


def run(
    model: ModelArguments,
    data: DataArguments,
    training: DSTTrainingArguments,
    context: Context,
    command: Sequence[str] = (),
) -> None:
    """Train, evaluate and save a model.

    Args:
        model: which model is trained.
        data: what it learns from.
        training: how it is trained. Of several processes, the first prints and writes.
        context: what happens when the context is full, in the evaluation after training.
        command: the program and the settings that it was started with, for the page of the run.
    """
    with bars(not training.disable_tqdm):
        train(model, data, training, context, command)


def train(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: DSTTrainingArguments,
    context: Context,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, evaluate and save a model; returns the results that ``results.json`` holds.

    Raises:
        UsageError: settings that contradict each other, or a folder or checkpoint that cannot be used.
        DataError: a record or a frame cannot be used.
        RunOutOfMemory: a GPU's memory ran out although the plan fitted.
        StreamError: a held-out session does not fit the context's limit; the trained model is saved all the same.
    """
    started = time.perf_counter()
    build_whole_models()  # before anything looks at a model, even at its shapes alone
    with in_turn():
        prepare_text_half(model_args)
    check_settings(model_args, data_args, args)
    transformers.set_seed(args.seed)
    with in_turn():  # the corpus and its rows are written where they are missing
        splits = load_splits(data_args)
    say(balance_table(splits.balance))

    # The first process reads the files of videos and checkpoints to hash them; its checkpoint holds for all.
    record = of_first(lambda: run_record(model_args, data_args, args, splits))
    interrupted = of_first(lambda: find_checkpoint(args, record))
    checkpoint = interrupted.folder if interrupted else None
    if not args.run_name:  # a name that is given is given again, and is not recorded: it may hold anything
        if interrupted and interrupted.run_name:
            record["run_name"] = interrupted.run_name
        args.run_name = record["run_name"]
    processor = build_processor(model_args, splits.learned, checkpoint)
    advice = check_memory(model_args, data_args, args)
    model = build_model(model_args, processor, args, checkpoint).to(args.device)
    reader = FrameReader(Path(str(data_args.root)), data_args.frames, processor)
    # Before anything is trained: a stream that is too long is then found within seconds.
    with in_turn():
        clips = pack_clips(splits, processor, reader, data_args, args)

    results: dict[str, Any] = {}
    if args.look_steps and (interrupted is None or interrupted.first_stage):
        with advised(lower("the first stage", "look_batch_size", args.look_batch_size, "training.look_pairs lower")):
            results |= learn_to_look(model, processor, reader, splits, args, record, interrupted)
        interrupted = None
    frames: FrameReader | FrameFeatures = reader
    if args.look_steps or (vision_is_frozen(model_args, args) and not data_args.streaming):
        freeze_vision(model)
        with advised(advice):
            frames = encode_frames(model, reader, splits, data_args, args)
        clips.read_from(frames)

    free = None
    if args.free_validation_sessions and len(splits.validation):
        free = FreeValidation(processor, frames, spread(splits.validation, args.free_validation_sessions), context)
    with advised(advice):
        trainer, trained = train_on_sessions(model, processor, clips, args, record, interrupted, splits.balance, free)
    results |= trained | choose_thresholds(trainer)
    finish_trackers(trainer)
    output = Path(str(args.output_dir))
    # Before the free run: an error there must not lose the trained model.
    save(trainer, output)
    model = whole_model(trainer, output)
    figures, followed = evaluate_freely(model, processor, frames, splits, context, progress=not args.disable_tqdm)
    results |= figures
    results["seconds"] = time.perf_counter() - started
    if first_process():
        hashes = record["sessions"]
        facts = write_results(output, model_args, data_args, args, context, results, splits.balance, hashes)
        write_train_report(output, facts, trainer.state.log_history, followed, command)
        for name in (FIRST_STAGE, PARTIAL):  # from here on no run goes on from there
            shutil.rmtree(output / name, ignore_errors=True)
    leave()
    say(result_table(results, machine()))
    say(f"\nModel, processor, remote code, card and results.json: {output}")
    say(f"Curves, decisions and examples: {output / PAGE}")
    return results
