"""The settings of model and training: dataclasses that the Hydra configuration is parsed into."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any

from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from configuration_dst_smolvlm import TOKENS_PER_FRAME
from prospect_hf.errors import UsageError
from prospect_hf.hub.published import is_secret
from prospect_hf.training.loss_arguments import LossArguments

# The smallest value of each count; transformers would refuse them late, in the words of another library, or never.
LEAST = {
    "look_steps": 0,
    "look_pairs": 1,
    "look_batch_size": 1,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
}


@dataclass
class DSTTrainingArguments(LossArguments, TrainingArguments):
    """All of ``transformers.TrainingArguments``, those of the losses, and the settings of the first stage.

    Other defaults than there: ``remove_unused_columns`` and ``logging_nan_inf_filter`` are off (a loss that is not
    finite must be seen), and so is ``disable_tqdm`` whatever the level of logging. Memory is pinned for CUDA alone.

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
    look_batch_size: int = field(default=24, metadata={"help": "Sessions per device and step in the first stage."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must be off: the labels of the heads would be removed."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})
    disable_tqdm: bool | None = field(
        default=False, metadata={"help": "Draw no progress bars: each log of the losses is a line, on a terminal too."}
    )

    ddp_timeout: int = field(
        default=86400,
        metadata={"help": "Seconds that processes wait for each other; the first encodes all frames meanwhile."},
    )

    def __post_init__(self) -> None:
        self.given = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.init and not is_secret(f.name) and not _is_librarys_default(f, getattr(self, f.name))
        }
        super().__post_init__()
        # A batch has more frames than clips, so accelerate cannot cut it where it would, for streamed data.
        self.accelerator_config.dispatch_batches = False
        if self.device.type != "cuda":
            self.dataloader_pin_memory = False
        if self.remove_unused_columns:
            raise ValueError("training.remove_unused_columns must be false: the labels of the heads would be removed.")
        self.check_losses()
        # transformers takes any other number below 1 for -1 and trains for all epochs.
        if self.max_steps < 1 and self.max_steps != -1:
            raise UsageError(
                "training.max_steps must be 1 or more, or -1 to train for training.num_train_epochs, not "
                f"{self.max_steps}."
            )
        if not self.num_train_epochs > 0:
            raise UsageError(f"training.num_train_epochs must be above 0, not {self.num_train_epochs:g}.")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise UsageError(f"training.{name} must be {least} or more, not {getattr(self, name)}.")
        missing = [name for name in self.report_to if name not in get_available_reporting_integrations()]
        if missing:
            raise UsageError(
                f"training.report_to={missing[0]}: that tracker is not installed; install it or leave it out."
            )
        if self.push_to_hub:
            raise UsageError(
                "training.push_to_hub would publish before results and card are written: upload the finished folder, "
                "hf upload OWNER/NAME FOLDER."
            )
        if self.use_liger_kernel:
            raise UsageError("training.use_liger_kernel has no effect on this model: leave it out.")
        if self.muon_learning_rate is not None and not self.muon_learning_rate > 0:
            raise ValueError(f"training.muon_learning_rate must be positive, not {self.muon_learning_rate}.")

    def for_first_stage(self) -> DSTTrainingArguments:
        """The arguments of the first stage: ``look_steps`` steps of ``look_batch_size``, no evaluation, no checkpoint.

        Raises:
            UsageError: a setting needs an evaluation.
        """
        return self._replaced(
            "the first stage (training.look_steps), which is not evaluated",
            max_steps=self.look_steps,
            per_device_train_batch_size=self.look_batch_size,
            gradient_accumulation_steps=1,
            train_sampling_strategy="random",
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
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
        freeze_vision: do not train the vision tower and the connector.
    """

    name_or_path: str | None = None
    freeze_vision: bool = False

    def __post_init__(self) -> None:
        if self.tokens_per_frame is not None and self.tokens_per_frame not in TOKENS_PER_FRAME:
            allowed = ", ".join(map(str, TOKENS_PER_FRAME))
            raise UsageError(f"model.tokens_per_frame must be one of {allowed}, not {self.tokens_per_frame!r}.")
        for name, value in vars(self).items():
            if type(value) is int and value < 1:
                raise UsageError(f"model.{name} must be 1 or more, not {value}.")
        if self.hidden_size % self.heads:
            raise UsageError(f"model.hidden_size={self.hidden_size} must be a multiple of model.heads={self.heads}.")
