"""Settings of a run's life: when it ends early, and what is measured in the middle of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transformers import TrainingArguments

# A metric whose name ends so is better when it is smaller.
SMALLER_IS_BETTER = ("loss", "perplexity", "calibration_error")


@dataclass
class RunArguments(TrainingArguments):
    """The part of ``DSTTrainingArguments`` that says how a run goes on and ends."""

    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "End the training after this many evaluations without improvement of metric_for_best_model, which "
            "is then task_score unless it is given; none: train to the end."
        },
    )
    free_validation_sessions: int = field(
        default=0,
        metadata={
            "help": "Validation sessions that the model follows by itself at each evaluation during the training "
            "(metrics eval_free_*); 0: none."
        },
    )

    if TYPE_CHECKING:  # of TrainingArguments, which sets them itself
        metric_for_best_model: str | None = None
        greater_is_better: bool | None = None

    def choose_best_metric(self) -> None:
        """Choose the best checkpoint by the task score where no metric is given, and say which way it improves."""
        wanted = self.load_best_model_at_end or self.early_stopping_patience is not None or self.save_strategy == "best"
        if wanted and self.metric_for_best_model is None:
            self.metric_for_best_model = "task_score"
        if self.metric_for_best_model is not None and self.greater_is_better is None:
            self.greater_is_better = not self.metric_for_best_model.endswith(SMALLER_IS_BETTER)

    def check_run(self) -> None:
        """Raise ``ValueError`` for a value outside its range, or one that would have no effect."""
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(
                f"training.early_stopping_patience must be 1 or more, not {self.early_stopping_patience}; leave it out "
                "to train to the end."
            )
        if self.free_validation_sessions < 0:
            raise ValueError(
                f"training.free_validation_sessions must be 0 or more, not {self.free_validation_sessions}."
            )
        for name in ("early_stopping_patience", "free_validation_sessions", "load_best_model_at_end"):
            value = vars(self)[name]
            if value and self.eval_strategy == "no":
                raise ValueError(
                    f"training.{name}={'true' if value is True else value} has no effect without evaluations: set "
                    "training.eval_strategy to steps or epoch."
                )

    @property
    def best_metric(self) -> str | None:
        """The name of ``metric_for_best_model`` in the log of an evaluation."""
        name = self.metric_for_best_model
        return name if name is None or name.startswith("eval_") else f"eval_{name}"
