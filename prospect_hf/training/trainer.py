"""The trainer of the four heads: one loss per head, each a mean over its own labels.

The labels of each head are counted over the whole gradient-accumulation window (and over all processes) before the
first backward pass. So 4 micro-batches of 2 give the same step as one batch of 8, even where they contain different
numbers of a rare label.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import PrinterCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from prospect_hf.data.clip_stream import ClipStream
from prospect_hf.data.clips import ClipDataset
from prospect_hf.errors import UsageError
from prospect_hf.sessions import IGNORE
from prospect_hf.training.arguments import DSTTrainingArguments
from prospect_hf.training.callbacks import EveryWeightLearns, NewEpoch
from prospect_hf.training.checkpoint_files import checkpoints, step_of
from prospect_hf.training.clip_metrics import HEAD_LABELS, ClipRow, clip_decisions, head_metrics
from prospect_hf.training.free_validation import FreeValidation, free_metrics
from prospect_hf.training.loss_arguments import LOSSES
from prospect_hf.training.losses import Balance, decision_weights, head_losses, label_counts, mean_losses
from prospect_hf.training.memory.advice import advised, lower
from prospect_hf.training.optimizer import muon_optimizer
from prospect_hf.training.progress import StageProgress
from prospect_hf.training.resumable_trainer import ResumableTrainer
from prospect_hf.training.samplers import ByLength

logger = logging.getLogger(__name__)

VISION_TOWER = r"model\.vision_model"
MOST_CLIPS = 16  # that a message names


class DSTTrainer(ResumableTrainer):
    """A trainer for batches of ``ClipCollator``; logs each loss by name and evaluates each head.

    The evaluation is teacher-forced: the streams contain the reference's texts. ``prospect_hf.evaluation.free_running``
    evaluates the model on streams that contain its own texts.

    Args:
        *args, **kwargs: of ``transformers.Trainer``.
        stage: name of what is trained, for the progress bar.
        run: what each checkpoint says about the run that wrote it (``prospect_hf.training.resume.run_record``).
        balance: label counts of the sessions, for ``training.class_weights=data``.
        free_validation: sessions that the model follows by itself at each evaluation of the training.
        state_weight: factor on the states' loss in the first half of the training; then it falls evenly, to 1 at the
            end.

    Raises:
        UsageError: free validation, and each process holds a part of the model alone.
    """

    args: DSTTrainingArguments
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        *args: Any,
        stage: str = "training",
        run: Mapping[str, Any] | None = None,
        balance: Balance | None = None,
        free_validation: FreeValidation | None = None,
        state_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, run=run, **kwargs)
        if free_validation is not None and self.is_sharded:
            raise UsageError(
                "training.free_validation_sessions needs a whole model in each process, which FSDP and ZeRO-3 do not "
                "give: set it to 0."
            )
        if self.args.sharding == "FSDP" and not self.is_fsdp_enabled:
            raise UsageError("accelerate cuts models up on accelerators alone: on a CPU start the run without FSDP.")
        if self.is_fsdp_enabled:
            self._prepare_fsdp(self.accelerator.state.fsdp_plugin)
        # compute_loss divides by the counts of the whole window: the library must not divide by the number of batches.
        self.loss_is_scaled_for_ga = True
        self.class_weights = decision_weights(self.args, balance)
        self.free_validation = free_validation
        self.state_weight = state_weight
        self._clips: list[str] = []  # the names of the clips of the accumulation window
        self._loss_totals = torch.zeros(len(LOSSES), device=self.args.device)
        self._steps_in_totals = 0
        if not isinstance(self.train_dataset, ClipStream):  # a stream counts its epochs itself
            self.add_callback(NewEpoch(self.train_dataset))
        self.remove_callback(PrinterCallback if self.args.disable_tqdm else DEFAULT_PROGRESS_CALLBACK)
        self.add_callback(EveryWeightLearns(self.accelerator))
        self.progress = StageProgress(stage)
        self.add_callback(self.progress)

    def _prepare_fsdp(self, plugin: Any) -> None:
        """Settings of accelerate's plugin that no configuration file has to know."""
        # The frozen vision tower is not called in a step. With gradients that are accumulated and added up in another
        # type than the weights', torch fails at a part of the model that was never put together.
        plugin.ignored_modules = "|".join(filter(None, (plugin.ignored_modules, VISION_TOWER)))
        if plugin.mixed_precision_policy is not None:
            # accelerate would also add up the processes' gradients in bfloat16: those of rare labels would be lost.
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As ``transformers.Trainer.train``; an error or Ctrl-C leaves no open bar."""
        try:
            output = super().train(*args, **kwargs)
        finally:
            self.progress.close()
        self._check_weights()
        return output

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

    # -- losses -------------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor]:
        """The window's micro-batches, and the numbers of labels in it (``[4, 2]``, see ``label_counts``)."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._clips = [name for batch in batches for name in batch.pop("clips", [])]
        if batches:
            self._ignore_repeated(batches[-1], self.train_dataset)
        counts = torch.zeros(len(LOSSES), 2, device=device)
        for batch in batches:
            counts += label_counts(batch, self.args).to(device)
        self._steps_in_totals += 1
        return batches, self.accelerator.reduce(counts, reduction="sum")

    def _ignore_repeated(self, batch: dict[str, torch.Tensor], clips: Any) -> None:
        """Take the labels from the clips that only fill up the last batch of an epoch over several processes.

        accelerate repeats the first clips there; a single process has a smaller batch in their place. accelerate's own
        count of the clips in the last batch is missing in a resumed epoch.
        """
        if self.args.world_size == 1 or not self.accelerator.gradient_state.end_of_dataloader:
            return
        rows = len(batch["labels"])
        in_last_batch = len(clips) % (rows * self.args.world_size)
        if in_last_batch:
            first_repeated = max(in_last_batch - self.args.process_index * rows, 0)
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
        counts = num_items_in_batch if torch.is_tensor(num_items_in_batch) else label_counts(inputs, self.args)
        sums, outputs = self.loss_sums(model, inputs)
        means = mean_losses(sums, counts)
        loss = (means * means.new_tensor(self._weights())).sum()
        if not torch.isfinite(loss):
            named = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSSES, means.tolist(), strict=True))
            raise self._not_finite(f"The loss is not finite at step {self.state.global_step} ({named})")
        if model.training:
            self._loss_totals += means.detach()
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, the counts are not
        return (loss, outputs) if return_outputs else loss

    def _weights(self) -> list[float]:
        """The weights of the four losses at this step of the training."""
        weights = self.args.loss_weights
        if self.state_weight != 1:
            left = min(1.0, 2 - 2 * self.state.global_step / self.state.max_steps)
            weights["dst_state"] *= 1 + (self.state_weight - 1) * left
        return list(weights.values())

    def loss_sums(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """The four losses summed over their labels (``[4, 2]``, see ``head_losses``), and the model's output.

        The losses are those of the training, also in eval mode, where decisions are divided by their temperatures.
        """
        outputs = model(**{n: value for n, value in inputs.items() if n not in HEAD_LABELS}, use_cache=False)
        learned = outputs
        if not model.training:
            config = self.model.config
            learned = replace(
                outputs,
                speaking_logits=outputs.speaking_logits * config.speaking_temperature,
                dst_update_logits=outputs.dst_update_logits * config.dst_update_temperature,
            )
        return head_losses(learned, inputs, self.args, self.class_weights), outputs

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As the library; raises ``FloatingPointError`` before a step that would break the weights."""
        norm = super()._get_grad_norm(model, grad_norm)
        # With fp16, gradients overflow at times, and the scaler leaves out such a step.
        if not self.args.fp16 and not math.isfinite(float(norm)):
            raise self._not_finite(f"The gradients are not finite at step {self.state.global_step} (norm {norm:.4g})")
        return norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As ``ResumableTrainer``; weights that are not finite take the place of no good checkpoint."""
        self._check_weights()
        super()._save_checkpoint(model, trial)

    def _check_weights(self) -> None:
        """Raise ``FloatingPointError`` where a step with finite gradients made a weight infinite."""
        for name, weight in self.model.named_parameters():
            if weight.requires_grad and not self.is_sharded and not torch.isfinite(weight).all():
                raise self._not_finite(f"The weights are not finite after step {self.state.global_step} ({name})")

    def _not_finite(self, what: str, clips: Sequence[str] | None = None) -> FloatingPointError:
        """The error that names the clips, by default those of the window, and the last checkpoint before it."""
        clips = self._clips if clips is None else clips
        shown = ", ".join(clips[:MOST_CLIPS]) + (" ..." if len(clips) > MOST_CLIPS else "")
        before = [one for one in checkpoints(Path(str(self.args.output_dir))) if step_of(one) <= self.state.global_step]
        last = f"{before[0]} is the last checkpoint before it" if before else "no checkpoint was saved before it"
        if before[1:] and step_of(before[0]) == self.state.global_step:  # was it the clips, or these weights?
            last += f", with the weights that gave it, and {before[1]} the one before"
        return FloatingPointError(f"{what}, in the clips {shown or '(not named)'}: {last}.")

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
        """Decisions and losses of every clip; only these, and no logits, are gathered over processes.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        model = self._wrap_model(self.model, training=False, dataloader=dataloader)
        model.eval()
        rows: list[ClipRow] = []
        self.progress.begin_evaluation(len(dataloader), self.args, self.state)
        size = self.args.per_device_eval_batch_size
        with advised(lower("the evaluation", "per_device_eval_batch_size", size, "data.max_seq_len lower")):
            for inputs in dataloader:
                clips = inputs.pop("clips", [])
                self._ignore_repeated(inputs, dataloader.dataset)
                inputs = self._prepare_inputs(inputs)
                with self.compute_loss_context_manager():
                    sums, outputs = self.loss_sums(model, inputs)
                if not torch.isfinite(sums).all():
                    raise self._not_finite(
                        f"The loss of the evaluation is not finite at step {self.state.global_step}", clips
                    )
                batch = clip_decisions(outputs, inputs, sums, label_counts(inputs, self.args))
                rows.extend(self.accelerator.gather_for_metrics(batch, use_gather_object=True))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        owners = cast(ClipDataset, dataloader.dataset).clips.owners
        metrics = head_metrics(rows, self.args.loss_weights, self.model.config, owners)
        if self.free_validation is not None and self.is_in_train:
            config = self.model.config  # a decision without a label has no best threshold
            speaking = metrics.get("speaking_best_threshold_1s", config.speaking_threshold)
            update = metrics.get("dst_update_best_threshold_1s", config.dst_update_threshold)
            share = self.args.process_index, self.args.world_size
            counts = self.free_validation.counts(self.model, (speaking, update), *share)
            metrics |= free_metrics(gather_object(counts))
        return EvalLoopOutput(
            predictions=rows,
            label_ids=None,
            metrics={f"{metric_key_prefix}_{name}": value for name, value in metrics.items()},
            num_samples=len(rows),
        )

    def validation_rows(self) -> tuple[list[ClipRow], list[int]]:
        """What the model decides on each validation clip (``clip_decisions``), and the session of each clip."""
        rows = self.predict(self.eval_dataset, metric_key_prefix="eval").predictions
        return rows, self.eval_dataset.clips.owners
