"""Settings of the four losses."""

from __future__ import annotations

from dataclasses import dataclass, field

LOSSES = ("speaking", "dst_update", "dst_state", "response")


@dataclass
class LossArguments:
    """The part of ``DSTTrainingArguments`` that says what is learned from the labels."""

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

    def check_losses(self) -> None:
        """Raise ``ValueError`` for a value outside its range."""
        for name, weight in self.loss_weights.items():
            if not weight >= 0:
                raise ValueError(f"training.{name}_loss_weight must be 0 or more, not {weight}.")
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
