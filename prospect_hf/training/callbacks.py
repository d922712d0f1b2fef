"""What happens at certain moments of a run, beside its progress bars (``progress.py``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prospect_hf.data.clips import ClipDataset
from prospect_hf.data.glimpses import GlimpseDataset
from prospect_hf.errors import UsageError
from prospect_hf.training.run_arguments import RunArguments

logger = logging.getLogger(__name__)


class NewEpoch(TrainerCallback):
    """Calls ``set_epoch`` of the training clips at the start of each epoch, in every process."""

    def __init__(self, clips: ClipDataset | GlimpseDataset) -> None:
        self.clips = clips

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.clips.set_epoch(int(state.epoch or 0))


class EveryWeightLearns(TrainerCallback):
    """Stops a run whose first step gives a trained weight no gradient: it would stay as it is, and nothing would tell.

    DeepSpeed takes each gradient away as soon as it is there, so nothing is checked there.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.checked = accelerator.distributed_type == DistributedType.DEEPSPEED

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: Any
    ) -> None:
        if self.checked:
            return
        self.checked = True
        idle = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
        if idle:
            raise UsageError(
                f"{len(idle)} trained weights get no gradient from any loss ({', '.join(idle[:3])}): freeze them, or "
                "train them by a loss."
            )


class BestCheckpoint(TrainerCallback):
    """Finds the best checkpoint again when a run goes on: its state on disk names it without its path."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        find_best(state, Path(str(args.output_dir)))


def find_best(state: TrainerState, output: Path, saved_now: bool = False) -> None:
    """Set ``state.best_model_checkpoint`` to the checkpoint of the best step in ``output``, if it was saved.

    Args:
        saved_now: the checkpoint of the present step is about to be put there.
    """
    best = output / f"checkpoint-{state.best_global_step}"
    if state.best_global_step and (best.is_dir() or (saved_now and state.best_global_step == state.global_step)):
        state.best_model_checkpoint = str(best)


class EarlyStopping(TrainerCallback):
    """Ends the training after ``early_stopping_patience`` evaluations without improvement.

    It counts in the log of the run, which is in every checkpoint: a run that goes on stops where the uninterrupted one
    stops, also if it was killed after its last evaluation. The library's callback loses its count there.
    """

    def on_train_begin(self, args: RunArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._stop(args, state, control)

    def on_evaluate(self, args: RunArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._stop(args, state, control)

    def _stop(self, args: RunArguments, state: TrainerState, control: TrainerControl) -> None:
        values = [entry.get(str(args.best_metric)) for entry in state.log_history if "eval_loss" in entry]
        waited = without_improvement(values, bool(args.greater_is_better))
        if args.early_stopping_patience is not None and waited >= args.early_stopping_patience:
            logger.info("Step %d: no better %s in %d evaluations.", state.global_step, args.best_metric, waited)
            control.should_training_stop = True


def without_improvement(values: Sequence[float | None], greater: bool) -> int:
    """How many evaluations followed the best one; None is a metric that was undefined.

    Args:
        values: of one metric, in the order of the evaluations.
        greater: whether a greater value is better.
    """
    best: float | None = None
    waited = 0
    for value in values:
        better = value is not None and (best is None or (value > best if greater else value < best))
        best, waited = (value, 0) if better else (best, waited + 1)
    return waited
