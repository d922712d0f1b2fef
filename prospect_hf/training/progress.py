"""Progress of a training stage: one bar for its steps and one for each evaluation, with the losses beside them.

It takes the place of the two callbacks of transformers, which print each log as a dict, without step or total.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prospect_hf.progress import Progress

# Shown name of each loss, by its name in the logs.
LOSS_NAMES = {
    "speaking_loss": "speaking",
    "dst_update_loss": "update",
    "dst_state_loss": "state",
    "response_loss": "text",
}
FIGURES = {
    "eval_task_score": "task score",
    "eval_free_task_score": "free task score",
    "eval_joint_state_accuracy": "joint state accuracy",
    "eval_speaking_best_f1_1s": "best speaking F1 within 1 s",
    "eval_dst_update_best_f1_1s": "best update F1 within 1 s",
}


class StageProgress(TrainerCallback):
    """Shows the steps of one stage; every ``logging_steps`` steps the losses and the learning rate.

    Without a terminal, or with ``disable_tqdm``, each log becomes one line. Of several processes the first shows it.

    Args:
        stage: name of the stage.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.steps: Progress | None = None
        self.batches: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()  # of an attempt with a larger batch, where auto_find_batch_size is set
        if state.is_world_process_zero:
            self.steps = Progress(
                state.max_steps,
                self.stage,
                "step",
                initial=state.global_step,
                bar=not args.disable_tqdm,
                lines=False,
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.steps is not None:
            self.steps.update(state.global_step - self.steps.done)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        if self.steps is not None and "loss" in logs:
            self.steps.report(f"{losses_text(logs)}, lr {rate_text(logs['learning_rate'])}")

    def begin_evaluation(self, batches: int, args: TrainingArguments, state: TrainerState) -> None:
        """Count ``batches`` batches from now on; transformers has no callback for the beginning of an evaluation."""
        if state.is_world_process_zero:
            self.batches = Progress(batches, "evaluation", "batch", bar=not args.disable_tqdm)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.batches is not None:
            self.batches.update()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self._end_evaluation(metrics)

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self._end_evaluation(metrics)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the bars that are open, also where an error ended the stage."""
        self._close_evaluation()
        if self.steps is not None:
            self.steps.close()
            self.steps = None

    def _end_evaluation(self, metrics: Mapping[str, float]) -> None:
        if self.batches is not None and "eval_loss" in metrics:
            parts = [losses_text(metrics, "eval_")]
            parts += [f"{label} {metrics[name]:.3f}" for name, label in FIGURES.items() if name in metrics]
            self.batches.report(", ".join(parts))
        self._close_evaluation()

    def _close_evaluation(self) -> None:
        if self.batches is not None:
            self.batches.close()
            self.batches = None


def losses_text(logs: Mapping[str, float], prefix: str = "") -> str:
    """``loss 0.412 (speaking 0.011, update 0.009, state 0.017, text 0.375)``."""
    parts = ", ".join(f"{label} {logs[prefix + name]:.3f}" for name, label in LOSS_NAMES.items())
    return f"loss {logs[f'{prefix}loss']:.3f} ({parts})"


def rate_text(rate: float) -> str:
    """A learning rate with two digits: ``2.3e-3``; 0 is ``0``."""
    if not rate:
        return "0"
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{digits}e{int(exponent)}"
