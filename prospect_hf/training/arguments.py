"""What can be set about a run: dataclasses that the Hydra configuration is parsed into."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from configuration_dst_smolvlm import TOKENS_PER_FRAME
from prospect_hf.errors import UsageError

LOSSES = ("speaking", "dst_update", "dst_state", "response")


@dataclass
class DSTTrainingArguments(TrainingArguments):
    """All of ``transformers.TrainingArguments``, and the weights of the four losses.

    Changed defaults: ``remove_unused_columns`` is off, ``logging_nan_inf_filter`` too, so that a loss that is not a
    number is seen.
    """

    speaking_loss_weight: float = field(default=1.0, metadata={"help": "Weight of the speaking decision's focal loss."})
    dst_update_loss_weight: float = field(default=1.0, metadata={"help": "Weight of the DST update's focal loss."})
    dst_state_loss_weight: float = field(default=1.0, metadata={"help": "Weight of the states' cross-entropy."})
    response_loss_weight: float = field(
        default=1.0, metadata={"help": "Weight of the text's cross-entropy: responses and state texts, end token too."}
    )
    focal_gamma: float = field(default=2.0, metadata={"help": "Focal loss exponent; 0 is cross-entropy."})
    focal_alpha: list[float] | None = field(
        default=None, metadata={"help": "Weights of the two classes (silent, speak) in the focal losses; none: 1, 1."}
    )
    resume_from_checkpoint: bool | str | None = field(
        default=None, metadata={"help": "true: go on from the last checkpoint of output_dir; or a checkpoint's folder."}
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
            "help": "Steps of a first stage that learns to see, from few frames of many sessions; after it the vision "
            "tower and the connector stay as they are."
        },
    )
    look_pairs: int = field(default=3, metadata={"help": "Pairs of frames of one session in the first stage."})
    look_batch_size: int = field(default=24, metadata={"help": "Sessions a device and step in the first stage."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: clips are no columns."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remove_unused_columns:
            raise ValueError("training.remove_unused_columns must be false: the labels of the heads would be removed.")
        for name, weight in self.loss_weights.items():
            if not weight >= 0:
                raise ValueError(f"training.{name}_loss_weight must be 0 or more, not {weight}.")
        if self.look_steps < 0 or self.look_pairs < 1 or self.look_batch_size < 1:
            raise ValueError("training.look_steps must be 0 or more, look_pairs and look_batch_size 1 or more.")
        if self.muon_learning_rate is not None and not self.muon_learning_rate > 0:
            raise ValueError(f"training.muon_learning_rate must be positive, not {self.muon_learning_rate}.")
        if not self.focal_gamma >= 0:
            raise ValueError(f"training.focal_gamma must be 0 or more, not {self.focal_gamma}.")
        if self.focal_alpha is not None and len(self.focal_alpha) != 2:
            raise ValueError(f"training.focal_alpha takes two weights (silent, speak), not {self.focal_alpha}.")

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight by loss name."""
        return {
            "speaking": self.speaking_loss_weight,
            "dst_update": self.dst_update_loss_weight,
            "dst_state": self.dst_state_loss_weight,
            "response": self.response_loss_weight,
        }


@dataclass
class ModelArguments:
    """Which model is trained.

    Args:
        name_or_path: a SmolVLM2 or DST-SmolVLM2 checkpoint (folder or Hub id); none builds the small model.
        tokens_per_frame: stream tokens that a frame takes: 1, 4, 9, 16 or full; none is 1 for a new model and what a
            DST-SmolVLM2 checkpoint was trained with.
        freeze_vision: keep vision tower and connector as they are.
        image_size, patch_size, scale_factor, hidden_size, vision_layers, text_layers, heads, vocab_size: the small
            model's shape (``prospect_hf.training.tiny.TinyShape``); not read with ``name_or_path``.
    """

    name_or_path: str | None = None
    tokens_per_frame: int | str | None = None
    freeze_vision: bool = False
    image_size: int = 48
    patch_size: int = 12
    scale_factor: int = 2
    hidden_size: int = 96
    vision_layers: int = 2
    text_layers: int = 2
    heads: int = 4
    vocab_size: int = 768

    def __post_init__(self) -> None:
        if self.tokens_per_frame is not None and self.tokens_per_frame not in TOKENS_PER_FRAME:
            allowed = ", ".join(map(str, TOKENS_PER_FRAME))
            raise UsageError(f"model.tokens_per_frame must be one of {allowed}, not {self.tokens_per_frame!r}.")
        for name, value in vars(self).items():
            if type(value) is int and value < 1:
                raise UsageError(f"model.{name} must be 1 or more, not {value}.")
        if self.hidden_size % self.heads:
            raise UsageError(f"model.hidden_size={self.hidden_size} must be a multiple of model.heads={self.heads}.")
