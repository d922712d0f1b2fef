"""A trainer whose run may be stopped at any moment: its checkpoints are whole or absent, and the best one is kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import Trainer, TrainerControl
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME

from adapters_dst_smolvlm import SUBFOLDER, WEIGHTS, load_trained_parts, place_adapters
from prospect_hf.errors import UsageError
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.callbacks import BestCheckpoint, EarlyStopping, find_best
from prospect_hf.training.checkpoint_files import PARTIAL, publish_state, put_in_place, remove_old, write_list
from prospect_hf.training.random_states import kept_random_states

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """``transformers.Trainer`` that can be killed at any moment, and whose evaluations change no later step.

    Args:
        *args, **kwargs: of ``transformers.Trainer``.
        run: what each checkpoint says about the run that wrote it (``prospect_hf.training.resume.run_record``).
    """

    args: DSTTrainingArguments
    control: TrainerControl
    is_in_train: bool

    def __init__(self, *args: Any, run: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.run = dict(run or {})
        self._saving_in: Path | None = None  # the folder of the checkpoint that is being written
        self.add_callback(BestCheckpoint())
        self.add_callback(EarlyStopping())

    @property
    def is_sharded(self) -> bool:
        """Whether the processes hold parts of the model's weights, and not each of them the whole model."""
        plugin = self.accelerator.state.deepspeed_plugin
        return bool(self.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the library, which under FSDP would write no weights that ``from_pretrained`` reads."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        weights = self.accelerator.get_state_dict(self.model)  # all processes take part; the first gets them
        # FSDP gives the model a class of its own, whose code and name would be saved with the weights.
        sharded, self.model.__class__ = type(self.model), type(self.model).__bases__[1]
        try:
            self._save(output_dir, state_dict=weights)
        finally:
            self.model.__class__ = sharded

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is not None:  # gathered from several processes: a tied weight is there twice
            state_dict = {name: w for name, w in state_dict.items() if name not in self.model.all_tied_weights_keys}
        with _no_library_bars():
            super()._save(output_dir, state_dict)
        # A pickle that contains this machine's paths and that nothing reads: it must not be published with the model.
        (Path(output_dir or str(self.args.output_dir)) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As the library; of a model with adapters, a checkpoint holds the trained parts alone, if it is not cut up."""
        if self.model.config.adapter is None or self.is_sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained_parts(self.model, Path(resume_from_checkpoint) / SUBFOLDER / WEIGHTS)

    def _load_best_model(self) -> None:
        if self.model.config.adapter is None or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            load_trained_parts(self.model, Path(str(self.state.best_model_checkpoint)) / SUBFOLDER / WEIGHTS)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._saving_in is None else str(self._saving_in)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the library, but into another folder, which takes its place when all its files are on the disk.

        A kill or a full disk while it is written leaves all earlier checkpoints as they were.
        """
        output, limit = Path(str(self.args.output_dir)), self.args.save_total_limit
        partial, name = output / PARTIAL, f"checkpoint-{self.state.global_step}"
        if self.args.should_save and partial.exists():
            shutil.rmtree(partial)  # of a run that was killed while it saved
        self.accelerator.wait_for_everyone()
        # The library would remove older checkpoints before the new one is whole.
        self.args.save_total_limit, self._saving_in = None, partial
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            find_best(self.state, output, saved_now=True)
            if self.args.should_save:
                self.state.save_to_json(str(partial / name / TRAINER_STATE_NAME))
                publish_state(partial / name / TRAINER_STATE_NAME, output)
                adapter = self.model.config.adapter
                if adapter is not None:  # their folder names the base by its path
                    place_adapters(partial / name, adapter["base_model"], output / name)
                write_list(partial / name, self.run)
                put_in_place(partial / name)
                best = self.state.best_model_checkpoint
                remove_old(output, limit, {output / name} if best is None else {output / name, Path(best)})
        finally:
            self.args.save_total_limit, self._saving_in = limit, None
            if self.args.should_save:
                shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _run_epoch(self, *, epoch: int, train_dataloader: Any, **kwargs: Any) -> None:
        """As the library, which would train one more step from a checkpoint of a run that is at its end."""
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        # In a resumed epoch of several processes, the library's loader without the first batches does not tell the
        # sampler its epoch: the clips would come in the order of the first one.
        train_dataloader.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **kwargs)

    def _evaluate(self, *args: Any, skip_scheduler: bool = False, **kwargs: Any) -> dict[str, float]:
        """As the library, which would evaluate once more where a run with ``eval_on_start`` goes on.

        Early stopping would count that evaluation twice. ``skip_scheduler`` marks the evaluation on start.
        """
        if skip_scheduler and self.state.global_step > 0:
            return {}
        metrics: dict[str, float] = super()._evaluate(*args, skip_scheduler=skip_scheduler, **kwargs)
        return metrics

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the library, with the random generators left as they were, so that a later step does not depend on it.

        Raises:
            UsageError: during the training, ``metric_for_best_model`` is none of the evaluation's metrics.
            StreamError: during the training, a session of the free validation exceeds the context.
        """
        with kept_random_states():
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        best = self.args.best_metric
        if self.is_in_train and best is not None and best not in metrics:
            if not any(best in entry for entry in self.state.log_history):
                raise UsageError(
                    f"training.metric_for_best_model={self.args.metric_for_best_model} is no metric of the evaluation, "
                    "or is undefined because the validation split has no label for it: give one of "
                    f"{', '.join(sorted(name.removeprefix('eval_') for name in metrics))}."
                )
            logger.warning("Step %d: %s is undefined and counts as no improvement.", self.state.global_step, best)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As the library, which raises where the metric is undefined; a new best model is always saved."""
        if self.args.best_metric is not None and self.args.best_metric not in metrics:
            return False
        better = bool(super()._determine_best_metric(metrics, trial))
        if better and self.args.load_best_model_at_end:
            self.control.should_save = True
        return better


@contextmanager
def _no_library_bars() -> Iterator[None]:
    """Without transformers' own bars, such as the one for writing a single file of weights."""
    shown = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.logging.enable_progress_bar()
