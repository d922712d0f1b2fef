"""The steps of the training job: pack, first stage, encode, train on whole sessions, choose thresholds, save."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clip_index import Clips, open_clips
from prospect_hf.data.clip_stream import ClipStream
from prospect_hf.data.clips import ClipCollator, ClipDataset, ClipInputs
from prospect_hf.data.encode import encoded_frames
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.glimpses import GlimpseDataset
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_store import SessionStore
from prospect_hf.hub.weights import new_model_files
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.checkpoint_files import publish_state
from prospect_hf.training.resume import Interrupted
from prospect_hf.training.splits import Splits
from prospect_hf.training.trainer import DSTTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackedClips:
    """The clips of the training and the validation sessions."""

    train: ClipDataset | ClipStream
    validation: ClipDataset

    def read_from(self, frames: FrameReader | FrameFeatures) -> None:
        """Read frames from ``frames`` from now on."""
        self.train.inputs.frames = self.validation.inputs.frames = frames


def pack_clips(
    splits: Splits,
    processor: DSTSmolVLMProcessor,
    frames: FrameReader,
    data: DataArguments,
    args: DSTTrainingArguments,
) -> PackedClips:
    """Cut the training and the validation sessions into clips of at most ``data.max_seq_len`` tokens.

    Where each clip begins is kept under ``data.cache_dir``, and read from there the next time. Training sessions that
    are streamed are cut while they come.

    Raises:
        DataError: a frame and its texts do not fit beside the plan.
    """

    def clips_of(sessions: SessionStore) -> Clips:
        return open_clips(sessions, processor, data.max_seq_len, Path(data.cache_dir), data.processes)

    inputs = ClipInputs(processor, frames, data.text_dropout, args.seed, data.late_start)
    validation = ClipDataset(clips_of(splits.validation), ClipInputs(processor, frames))
    if splits.stream is not None:
        rows, batch_size = splits.stream.rows, args.train_batch_size
        logger.info("Training clips are streamed from %d shards of rows.", rows.num_shards)
        return PackedClips(ClipStream(rows, inputs, data.max_seq_len, batch_size, args.seed), validation)
    train = ClipDataset(clips_of(splits.train), inputs)
    frame_count = sum(splits.train.frames_by_file)
    logger.info("%d training clips of %d sessions, %d frames.", len(train), len(splits.train), frame_count)
    return PackedClips(train, validation)


def learn_to_look(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    reader: FrameReader,
    splits: Splits,
    args: DSTTrainingArguments,
) -> dict[str, float]:
    """The first stage: ``args.look_steps`` steps on glimpses, with its own optimiser; returns ``look_seconds``.

    It saves no checkpoint: a run that is stopped during this stage starts it again.

    Raises:
        DataError: no training session has state labels and two frames.
        UsageError: the training settings cannot be used for this stage.
    """
    glimpses = GlimpseDataset(splits.train, processor, reader, args.look_pairs, args.seed)
    logger.info("First stage: %d pairs of frames of each of %d sessions.", glimpses.pairs, len(glimpses))
    trainer = DSTTrainer(
        model=model,
        args=args.for_first_stage(),
        train_dataset=glimpses,
        data_collator=ClipCollator(processor.tokenizer.pad_token_id),
        stage="first stage",
    )
    return {"look_seconds": float(trainer.train().metrics["train_runtime"])}


def encode_frames(
    model: DSTSmolVLMForConditionalGeneration,
    reader: FrameReader,
    splits: Splits,
    data: DataArguments,
    args: DSTTrainingArguments,
) -> FrameFeatures:
    """Encode the frames of all splits once, for a model whose vision tower does not change any more.

    Raises:
        UsageError: ``data.features`` has no features.
        DataError: a frame, or a feature file on disk, cannot be read.
    """
    with args.main_process_first(desc="encoding frames"):
        return encoded_frames(model, reader, splits.sessions, data, progress=not args.disable_tqdm)


def train_on_sessions(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    clips: PackedClips,
    args: DSTTrainingArguments,
    run: Mapping[str, Any],
    interrupted: Interrupted | None,
) -> tuple[DSTTrainer, dict[str, Any]]:
    """The second stage: train on clips of whole sessions, from the checkpoint of an interrupted run if given.

    Args:
        run: the record of the run, for its checkpoints.

    Returns:
        The trainer, and ``steps``, ``train_seconds`` and, of a resumed run, ``earlier_parts``; the seconds are those
        of this part.

    Raises:
        UsageError: the training settings need a validation split, and there is none.
    """
    validated = len(clips.validation) > 0
    if not validated:
        logger.info("There is no validation split: thresholds stay at %.2f.", model.config.speaking_threshold)
    trainer = DSTTrainer(
        model=model,
        args=args if validated else args.without_evaluation(),
        train_dataset=clips.train,
        eval_dataset=clips.validation if validated else None,
        data_collator=ClipCollator(processor.tokenizer.pad_token_id),
        processing_class=processor,
        stage="whole sessions",
        run={**run, "parts": interrupted.parts if interrupted else []},
    )
    logger.info(
        "Whole sessions: %.2f M parameters, %.2f M trained.",
        model.num_parameters() / 1e6,
        model.num_parameters(only_trainable=True) / 1e6,
    )
    fitted = trainer.train(resume_from_checkpoint=str(interrupted.folder) if interrupted else None)
    trained = {"train_seconds": fitted.metrics["train_runtime"], "steps": trainer.state.global_step}
    return trainer, trained | ({"earlier_parts": interrupted.parts} if interrupted else {})


def choose_thresholds(trainer: DSTTrainer) -> dict[str, Any]:
    """Evaluate on the validation clips and put the thresholds of the highest F1 into the model's configuration.

    Returns:
        ``validation``: the metrics; empty without a validation split, where the thresholds stay as they are.
    """
    if trainer.eval_dataset is None:
        return {}
    validation = trainer.evaluate()
    trainer.model.config.speaking_threshold = validation["eval_speaking_best_threshold"]
    trainer.model.config.dst_update_threshold = validation["eval_dst_update_best_threshold"]
    return {"validation": validation}


def save(trainer: DSTTrainer, folder: Path) -> None:
    """Save model, processor, remote code and the trainer's state, in place of an earlier model and its results."""
    if not trainer.args.should_save:
        trainer.save_model(str(folder))  # it writes nothing, but takes part where the weights are gathered
        return
    with new_model_files(folder) as temporary:
        trainer.save_model(str(temporary))
        trainer.state.save_to_json(str(temporary / TRAINER_STATE_NAME))
        publish_state(temporary / TRAINER_STATE_NAME, folder)
