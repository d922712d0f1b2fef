"""The trainer of the four heads: one loss per head, each a mean over its own labels.

The labels of each head are counted over the whole gradient-accumulation window (and over all processes) before the
first backward pass. So 4 micro-batches of 2 give the same step as one batch of 8, even where they contain different
numbers of a rare label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerControl
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK, TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from prospect_hf.data.clip_stream import ClipStream
from prospect_hf.data.clips import ClipDataset
from prospect_hf.sessions import IGNORE
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.callbacks import BestCheckpoint, NewEpoch
from prospect_hf.training.checkpoint_files import publish_state, remove, remove_old, write_list
from prospect_hf.training.clip_metrics import HEAD_LABELS, clip_decisions, head_metrics, label_counts
from prospect_hf.training.loss_arguments import LOSSES
from prospect_hf.training.losses import focal_loss, masked_cross_entropy
from prospect_hf.training.optimizer import muon_optimizer
from prospect_hf.training.progress import StageProgress
from prospect_hf.training.samplers import ByLength


class DSTTrainer(Trainer):
    """``transformers.Trainer`` for batches of ``ClipCollator``; logs each loss by name and evaluates each head.

    The evaluation is teacher-forced: the streams contain the reference's texts. ``prospect_hf.evaluation.free_running``
    evaluates the model on streams that contain its own texts.

    Args:
        *args, **kwargs: of ``transformers.Trainer``.
        stage: name of what is trained, for the progress bar.
        run: what each checkpoint says about the run that wrote it (``prospect_hf.training.resume.run_record``).
    """

    args: DSTTrainingArguments
    control: TrainerControl
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self, *args: Any, stage: str = "training", run: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        # compute_loss divides by the counts of the whole window: the library must not divide by the number of batches.
        self.loss_is_scaled_for_ga = True
        self.run = dict(run or {})
        self._loss_totals = torch.zeros(len(LOSSES), device=self.args.device)
        self._steps_in_totals = 0
        if not isinstance(self.train_dataset, ClipStream):  # a stream counts its epochs itself
            self.add_callback(NewEpoch(self.train_dataset))
        self.add_callback(BestCheckpoint())
        self.remove_callback(PrinterCallback if self.args.disable_tqdm else DEFAULT_PROGRESS_CALLBACK)
        self.progress = StageProgress(stage)
        self.add_callback(self.progress)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As ``transformers.Trainer.train``; an error or Ctrl-C leaves no open bar."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self.progress.close()

    def _get_train_sampler(self, train_dataset: ClipDataset | None = None) -> Sampler[int] | None:
        clips = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        # The library would decode every frame to find the lengths, which are known here.
        # A step's clips are of similar length, whatever the share of processes and accumulation in it.
        window = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return ByLength(window, clips.clips.lengths, self.args.seed)

    def _get_eval_sampler(self, eval_dataset: ClipDataset) -> Sampler[int]:
        return SequentialSampler(eval_dataset)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon if ``args.muon_learning_rate`` is set, else the optimiser that ``args.optim`` names."""
        if self.optimizer is None and self.args.muon_learning_rate is not None:
            self.optimizer = muon_optimizer(self.model if model is None else model, self.args)
        return super().create_optimizer(model)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        with _no_library_bars():
            super()._save(output_dir, state_dict)
        # A pickle that contains this machine's paths and that nothing reads: it must not be published with the model.
        (Path(output_dir or str(self.args.output_dir)) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the library, and then a list of the files, so that a checkpoint cut off by a kill is known as half."""
        output, limit = Path(str(self.args.output_dir)), self.args.save_total_limit
        folder = output / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.exists():
            remove(folder)  # of an earlier run, or half: its files must not mix with the new ones
        self.accelerator.wait_for_everyone()
        # The library would remove older checkpoints before the new one is whole.
        self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            publish_state(folder / TRAINER_STATE_NAME, output)
            write_list(folder, self.run)
            best = self.state.best_model_checkpoint
            remove_old(output, limit, {folder} if best is None else {folder, Path(best)})

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As the library, which would train one more step from a checkpoint at the run's last step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    # -- losses -------------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor]:
        """The window's micro-batches, and each loss's number of labels in it (``[4]``, in the order of ``LOSSES``)."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self._ignore_repeated(batches[-1])
        counts = torch.zeros(len(LOSSES), device=device)
        for batch in batches:
            counts += label_counts(batch).to(device)
        self._steps_in_totals += 1
        return batches, self.accelerator.reduce(counts, reduction="sum")

    def _ignore_repeated(self, batch: dict[str, torch.Tensor]) -> None:
        """Take the labels from the clips that only fill up the last batch of an epoch over several processes.

        accelerate repeats the first clips there; a single process has a smaller batch in their place.
        """
        loading = self.accelerator.gradient_state
        if self.args.world_size == 1 or not loading.end_of_dataloader or loading.remainder <= 0:
            return
        rows = len(batch["labels"])
        first_repeated = max(loading.remainder - self.args.process_index * rows, 0)
        for name in (*HEAD_LABELS, "labels"):
            batch[name][first_repeated:] = IGNORE

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Weighted sum of the four losses, each divided by its labels in the window (in this batch, if none is given).

        Raises:
            FloatingPointError: a loss is not finite; training on would only hide where it began.
        """
        counts = num_items_in_batch if torch.is_tensor(num_items_in_batch) else label_counts(inputs)
        sums, outputs = self.loss_sums(model, inputs)
        means = sums / counts.to(sums.device).clamp(min=1)
        loss = (means * means.new_tensor(list(self.args.loss_weights.values()))).sum()
        if not torch.isfinite(loss):
            named = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSSES, means.tolist(), strict=True))
            raise FloatingPointError(f"The loss is not finite at step {self.state.global_step} ({named}).")
        if model.training:
            self._loss_totals += means.detach()
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, the counts are not
        return (loss, outputs) if return_outputs else loss

    def loss_sums(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """The four losses summed over their labels (``[4]``), and the model's output."""
        outputs = model(**{n: value for n, value in inputs.items() if n not in HEAD_LABELS}, use_cache=False)
        gamma, alpha = self.args.focal_gamma, self.args.focal_alpha
        text_labels = (inputs["labels"][:, 1:] != IGNORE).sum()
        sums = (
            focal_loss(outputs.speaking_logits, inputs["speaking_labels"], gamma, alpha, IGNORE, "sum"),
            focal_loss(outputs.dst_update_logits, inputs["dst_update_labels"], gamma, alpha, IGNORE, "sum"),
            masked_cross_entropy(outputs.dst_state_logits, inputs["dst_state_labels"], IGNORE, "sum"),
            outputs.loss.float() * text_labels,
        )
        return torch.stack(sums), outputs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each loss by name to the training log: its mean over the steps since the last log."""
        steps = self._steps_in_totals
        if "loss" in logs and steps:
            totals = self.accelerator.reduce(self._loss_totals, reduction="sum")
            logs |= {f"{name}_loss": float(total) / steps for name, total in zip(LOSSES, totals, strict=True)}
            self._loss_totals, self._steps_in_totals = torch.zeros_like(self._loss_totals), 0
        super().log(logs, start_time)

    # -- evaluation ---------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Decisions and losses of every clip; only these, and no logits, are gathered over processes."""
        model = self._wrap_model(self.model, training=False, dataloader=dataloader)
        model.eval()
        rows: list[dict[str, np.ndarray]] = []
        self.progress.begin_evaluation(len(dataloader), self.args, self.state)
        for inputs in dataloader:
            self._ignore_repeated(inputs)
            inputs = self._prepare_inputs(inputs)
            with self.compute_loss_context_manager():
                sums, outputs = self.loss_sums(model, inputs)
            batch = clip_decisions(outputs, inputs, sums, label_counts(inputs))
            rows.extend(self.accelerator.gather_for_metrics(batch, use_gather_object=True))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        metrics = head_metrics(rows, self.args.loss_weights)
        return EvalLoopOutput(
            predictions=rows,
            label_ids=None,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(rows),
        )


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
