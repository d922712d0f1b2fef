"""Settings that contradict each other, found before anything is read or built."""

from __future__ import annotations

from prospect_hf.data.arguments import DataArguments
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import DSTTrainingArguments, ModelArguments
from prospect_hf.training.build import longest_stream, vision_is_frozen


def check_settings(model: ModelArguments, data: DataArguments, args: DSTTrainingArguments) -> None:
    """Refuse settings of a training run that do not go together.

    Each group has checked its own settings before.

    Raises:
        UsageError: the first contradiction, with the settings to change; or the checkpoint cannot be used.
    """
    if args.look_steps and model.freeze_vision:
        raise UsageError("training.look_steps trains the vision tower and model.freeze_vision forbids it: unset one.")
    if args.mode == "heads" and model.decision_source == "lm":
        raise UsageError(
            "training.mode=heads trains the heads alone, and model.decision_source=lm decides without them: set "
            "training.mode=lora, or model.decision_source=heads."
        )
    elsewhere = [source for source in data.held_out_sources if source not in data.sources]
    if elsewhere:
        raise UsageError(
            f"data.held_out_sources names {elsewhere[0]}, which data.sources does not read: name one of "
            f"{', '.join(data.sources)}."
        )
    if not data.learned_sources:
        raise UsageError(
            f"data.held_out_sources holds out all of data.sources ({', '.join(data.sources)}), so that nothing is left "
            "to train on: hold out fewer."
        )
    positions = longest_stream(model)
    if data.max_seq_len > positions:
        raise UsageError(
            f"data.max_seq_len={data.max_seq_len} is more than the {positions} positions of the model: set it to "
            f"{positions} or less."
        )
    frozen = vision_is_frozen(model, args)
    if data.features is not None:
        _check_features(args, frozen)
    if data.streaming:
        _check_streaming(data, args)
    if args.sharding is not None:
        _check_sharding(args, frozen and not args.train_connector)


def _check_features(args: DSTTrainingArguments, frozen: bool) -> None:
    """Refuse encoded frames where a part of the model that encodes them changes in training.

    Args:
        frozen: neither vision tower nor connector is trained on whole sessions.
    """
    if args.train_connector:
        raise UsageError(
            "data.features was encoded with a connector that does not change, and training.train_connector=true "
            "trains it: unset one."
        )
    if args.look_steps or not frozen:
        raise UsageError(
            "data.features was encoded by a vision tower that does not change: set model.freeze_vision=true and "
            "training.look_steps=0, or unset data.features."
        )


def _check_sharding(args: DSTTrainingArguments, frozen: bool) -> None:
    """Raise ``UsageError`` where a setting does not go with weights that are cut up over the processes.

    Args:
        frozen: vision tower and connector are not trained, so that frames are encoded before.
    """
    plugin = args.deepspeed_plugin
    whole = plugin is not None and plugin.zero_stage < 3
    reasons = {
        "Muon turns whole matrices, and a process holds a part of each: set training.muon_learning_rate=null": (
            args.muon_learning_rate is not None
        ),
        "the first stage trains a small model, which needs no sharding: set training.look_steps=0": args.look_steps > 0,
        # A process with more frames calls the tower more often, and would wait for the others' parts of it for ever.
        "each process must call the vision tower equally often: set model.freeze_vision=true and "
        "training.train_connector=false": not (frozen or whole),
    }
    wrong = [reason for reason, holds in reasons.items() if holds]
    if wrong:
        raise UsageError(f"{args.sharding}: {'; '.join(wrong)}, or start the run without {args.sharding}.")


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
