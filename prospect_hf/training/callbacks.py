"""What happens at certain moments of a run, beside its progress bars (``progress.py``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prospect_hf.data.clips import ClipDataset
from prospect_hf.data.glimpses import GlimpseDataset


class NewEpoch(TrainerCallback):
    """Calls ``set_epoch`` of the training clips at the start of each epoch, in every process."""

    def __init__(self, clips: ClipDataset | GlimpseDataset) -> None:
        self.clips = clips

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.clips.set_epoch(int(state.epoch or 0))


class BestCheckpoint(TrainerCallback):
    """Finds the best checkpoint again when a run goes on: its state on disk names it without its path."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        best = Path(str(args.output_dir)) / f"checkpoint-{state.best_global_step}"
        if state.best_global_step and best.is_dir():
            state.best_model_checkpoint = str(best)
