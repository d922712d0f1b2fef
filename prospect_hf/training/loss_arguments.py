"""Settings of the four losses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from prospect_hf.errors import UsageError

LOSSES = ("speaking", "dst_update", "dst_state", "response")
DECISION_LOSSES = ("balanced", "focal", "cross_entropy")
FOCAL_GAMMA = 2.0


@dataclass
class LossArguments:
    """The part of ``DSTTrainingArguments`` that says what is learned from the labels."""

    speaking_loss_weight: float = field(default=1.0, metadata={"help": "Weight of the speaking decision's loss."})
    dst_update_loss_weight: float = field(default=1.0, metadata={"help": "Weight of the DST update's loss."})
    dst_state_loss_weight: float = field(default=1.0, metadata={"help": "Weight of the states' cross-entropy."})
    response_loss_weight: float = field(
        default=1.0, metadata={"help": "Weight of the text's cross-entropy: responses and state texts, end token too."}
    )
    decision_loss: str = field(
        default="balanced",
        metadata={
            "help": "Loss of the two decisions: balanced (the cross-entropy's mean over the positive frames and its "
            "mean over the negative ones, averaged; the first stage has focal in its place), focal or cross_entropy."
        },
    )
    focal_gamma: float | None = field(
        default=None, metadata={"help": "Exponent of decision_loss=focal, 0 or more; none: 2."}
    )
    class_weights: list[float] | str | None = field(
        default=None,
        metadata={
            "help": "Weights of the two classes in the focal loss and the cross-entropy of both decisions: [negative, "
            "positive], or data (for each decision from the label balance of the training split); none: 1, 1."
        },
    )

    def check_losses(self) -> None:
        """Raise ``UsageError`` for a value outside its range, or one that the decision loss does not use.

        It also sets ``focal_gamma`` to its default where the focal loss uses it.
        """
        for name, weight in self.loss_weights.items():
            if not 0 <= weight < math.inf:
                raise UsageError(f"training.{name}_loss_weight must be 0 or more and finite, not {weight}.")
        if self.decision_loss not in DECISION_LOSSES:
            raise UsageError(
                f"training.decision_loss must be one of {', '.join(DECISION_LOSSES)}, not {self.decision_loss!r}."
            )
        if self.decision_loss == "focal":
            self.focal_gamma = FOCAL_GAMMA if self.focal_gamma is None else self.focal_gamma
            if not 0 <= self.focal_gamma < math.inf:
                raise UsageError(f"training.focal_gamma must be 0 or more and finite, not {self.focal_gamma}.")
        elif self.focal_gamma is not None:
            raise UsageError(
                f"training.focal_gamma={self.focal_gamma:g} has no effect with training.decision_loss="
                f"{self.decision_loss}: leave it out, or set training.decision_loss=focal."
            )
        weights = self.class_weights
        if weights is None:
            return
        if self.decision_loss == "balanced":
            raise UsageError(
                "training.class_weights has no effect with training.decision_loss=balanced, which gives both classes "
                "the same weight: leave it out, or set training.decision_loss to focal or cross_entropy."
            )
        known = weights == "data" if isinstance(weights, str) else len(weights) == 2 and sum(weights) > 0
        if not known or not (isinstance(weights, str) or all(0 <= weight < math.inf for weight in weights)):
            raise UsageError(
                "training.class_weights must be data or two weights of 0 or more, [negative, positive], not both 0; "
                f"not {weights!r}."
            )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight by loss name."""
        return {
            "speaking": self.speaking_loss_weight,
            "dst_update": self.dst_update_loss_weight,
            "dst_state": self.dst_state_loss_weight,
            "response": self.response_loss_weight,
        }
