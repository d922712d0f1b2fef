"""The steps of the training job: pack, first stage, encode, train on whole sessions, choose thresholds, save."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from adapters_dst_smolvlm import place_adapters
from modeling_dst_smolvlm import DSTSmolVLMForConditionalGeneration
from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.checkpoints import load_trained
from prospect_hf.data.arguments import DataArguments
from prospect_hf.data.clip_index import Clips, open_clips
from prospect_hf.data.clip_stream import ClipStream
from prospect_hf.data.clips import ClipCollator, ClipDataset, ClipInputs
from prospect_hf.data.encode import encoded_frames
from prospect_hf.data.features import FrameFeatures
from prospect_hf.data.glimpses import GlimpseDataset
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_store import SessionStore
from prospect_hf.errors import UsageError
from prospect_hf.hub.weights import new_model_files
from prospect_hf.processes import wait
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.calibration import calibrate
from prospect_hf.training.checkpoint_files import publish_state
from prospect_hf.training.free_validation import FreeValidation
from prospect_hf.training.losses import Balance
from prospect_hf.training.resume import Interrupted, first_stage_record
from prospect_hf.training.sharding import build_whole_models
from prospect_hf.training.splits import Splits
from prospect_hf.training.trackers import prepare_trackers
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
        UsageError: state texts are to be wrong, and the streams have none.
        DataError: a frame and its texts do not fit beside the plan.
    """
    if data.state_noise and not processor.state_feedback:
        raise UsageError(
            "data.state_noise makes state texts wrong, and with model.state_feedback=false there are none: unset one."
        )

    def clips_of(sessions: SessionStore) -> Clips:
        return open_clips(sessions, processor, data.max_seq_len, Path(data.cache_dir), data.processes)

    inputs = ClipInputs(
        processor,
        frames,
        data.text_dropout,
        args.seed,
        data.late_start,
        data.negative_rate,
        data.state_noise,
        named=True,
    )
    validation = ClipDataset(clips_of(splits.validation), ClipInputs(processor, frames, named=True))
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
    run: Mapping[str, Any],
    interrupted: Interrupted | None,
) -> dict[str, Any]:
    """The first stage: ``args.look_steps`` steps on glimpses, with its own optimiser.

    Its checkpoints lie in ``first_stage`` in the output folder. The last one is kept until the run has ended, so that
    no run repeats a finished first stage.

    Args:
        run: the record of the run.
        interrupted: a checkpoint of this stage to go on from.

    Returns:
        ``look_seconds``, those of this part; ``look_history``, the log of the whole stage; ``look_earlier_parts`` of
        a resumed stage.

    Raises:
        DataError: no training session has state labels and two frames.
        UsageError: the training settings cannot be used for this stage.
    """
    glimpses = GlimpseDataset(splits.train, processor, reader, args.look_pairs, args.seed, args.look_utterances)
    logger.info("First stage: %d pairs of frames of each of %d sessions.", glimpses.pairs, len(glimpses))
    trainer = DSTTrainer(
        model=model,
        args=args.for_first_stage(),
        train_dataset=glimpses,
        data_collator=ClipCollator(processor.tokenizer.pad_token_id),
        processing_class=processor,
        stage="first stage",
        run={**first_stage_record(run), "parts": interrupted.parts if interrupted else []},
        state_weight=args.look_state_weight,
    )
    prepare_trackers(trainer, Path(str(args.output_dir)))
    fitted = trainer.train(resume_from_checkpoint=str(interrupted.folder) if interrupted else None)
    looked: dict[str, Any] = {"look_seconds": float(fitted.metrics["train_runtime"])}
    looked["look_history"] = trainer.state.log_history
    return looked | ({"look_earlier_parts": interrupted.parts} if interrupted else {})


def encode_frames(
    model: DSTSmolVLMForConditionalGeneration,
    reader: FrameReader,
    splits: Splits,
    data: DataArguments,
    args: DSTTrainingArguments,
) -> FrameFeatures:
    """Encode the frames of all splits once, for a model whose vision tower does not change any more.

    Each of several processes encodes a share of the videos.

    Raises:
        UsageError: ``data.features`` has no features.
        DataError: a frame, or a feature file on disk, cannot be read.
    """
    return encoded_frames(model, reader, splits.sessions, data, progress=not args.disable_tqdm)


def train_on_sessions(
    model: DSTSmolVLMForConditionalGeneration,
    processor: DSTSmolVLMProcessor,
    clips: PackedClips,
    args: DSTTrainingArguments,
    run: Mapping[str, Any],
    interrupted: Interrupted | None,
    balance: Balance,
    free_validation: FreeValidation | None,
) -> tuple[DSTTrainer, dict[str, Any]]:
    """The second stage: train on clips of whole sessions, from the checkpoint of an interrupted run if given.

    Args:
        run: the record of the run, for its checkpoints.
        balance: label counts of the sessions, for ``training.class_weights=data``.
        free_validation: for the evaluations during the training.

    Returns:
        The trainer, and ``steps``, ``train_seconds``, the numbers of ``parameters`` and ``trained_parameters``,
        ``class_weights`` (None: 1, 1) and, of a resumed run, ``earlier_parts``; the seconds are those of this part.

    Raises:
        UsageError: the training settings need a validation split, and there is none.
    """
    validated = len(clips.validation) > 0
    if not validated:
        kept = model.config.speaking_threshold, model.config.dst_update_threshold
        logger.info("There is no validation split: the thresholds stay at %.3f (speaking) and %.3f (update).", *kept)
    trainer = DSTTrainer(
        model=model,
        args=args if validated else args.without_evaluation(),
        train_dataset=clips.train,
        eval_dataset=clips.validation if validated else None,
        data_collator=ClipCollator(processor.tokenizer.pad_token_id),
        processing_class=processor,
        stage="whole sessions",
        run={**run, "parts": interrupted.parts if interrupted else []},
        balance=balance,
        free_validation=free_validation,
    )
    parameters, learned = model.num_parameters(), model.num_parameters(only_trainable=True)
    logger.info("Whole sessions: %.2f M parameters, %.2f M trained.", parameters / 1e6, learned / 1e6)
    prepare_trackers(trainer, Path(str(args.output_dir)))
    fitted = trainer.train(resume_from_checkpoint=str(interrupted.folder) if interrupted else None)
    trained = {"train_seconds": fitted.metrics["train_runtime"], "steps": trainer.state.global_step}
    trained |= {"parameters": parameters, "trained_parameters": learned}
    trained["class_weights"] = trainer.class_weights
    return trainer, trained | ({"earlier_parts": interrupted.parts} if interrupted else {})


def choose_thresholds(trainer: DSTTrainer) -> dict[str, Any]:
    """Choose thresholds and temperatures on the validation clips and put them into the model's configuration.

    Returns:
        As :func:`prospect_hf.training.calibration.calibrate`; empty without a validation split, where they stay.
    """
    return {} if trainer.eval_dataset is None else calibrate(trainer)


def whole_model(trainer: DSTTrainer, folder: Path) -> DSTSmolVLMForConditionalGeneration:
    """The trained model, whole, in each process: the trainer's own, or the one that was saved in ``folder``.

    Raises:
        UsageError: the trainer's processes hold parts of the model, and this machine does not see the folder.
    """
    if not trainer.is_sharded:
        return trainer.model
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is not on this machine: give a training.output_dir that all machines share.")
    build_whole_models()
    return load_trained(folder)[0]


def save(trainer: DSTTrainer, folder: Path) -> None:
    """Save model, processor, remote code and the trainer's state, in place of an earlier model and its results."""
    if trainer.args.should_save:
        with new_model_files(folder) as temporary:
            trainer.save_model(str(temporary))
            if trainer.model.config.adapter is not None:
                place_adapters(temporary, trainer.model.config.adapter["base_model"], folder)
            trainer.state.save_to_json(str(temporary / TRAINER_STATE_NAME))
            publish_state(temporary / TRAINER_STATE_NAME, folder)
    else:
        trainer.save_model(str(folder))  # it writes nothing, but takes part where the weights are gathered
    wait()
