"""Trackers of a run: trackio, tensorboard and wandb, as transformers fills them, without paths of this machine."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from transformers.integrations import TensorBoardCallback, TrackioCallback

from prospect_hf.hub.published import public
from prospect_hf.training.trainer import DSTTrainer

RUNS = "runs"  # the folder in output_dir for tensorboard


class QuietTrackio(TrackioCallback):
    """trackio's callback without its messages, which speak of an upload where everything stays on the machine."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        with redirect_stdout(io.StringIO()):
            super().setup(*args, **kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        with redirect_stdout(io.StringIO()):
            super().on_train_end(*args, **kwargs)


def prepare_trackers(trainer: DSTTrainer, output: Path) -> None:
    """Before the training: where and under which name the trackers of a stage write.

    They record the model's configuration, which names the folder that it was loaded from.

    Args:
        trainer: of the stage; ``args.run_name`` is set where there is a tracker.
        output: the run's output folder.
    """
    if not trainer.args.report_to:
        return
    trainer.model.config.name_or_path = public(trainer.model.config.name_or_path, output)
    os.environ.setdefault("WANDB_PROJECT", trainer.args.project)
    callbacks = trainer.callback_handler.callbacks
    for place, callback in enumerate(callbacks):
        if type(callback) is TrackioCallback:
            callbacks[place] = QuietTrackio()
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            # The library's own name is the machine's; and a run that goes on would get a second one.
            callback.logging_dir = str(output / RUNS / str(trainer.args.run_name))


def finish_trackers(trainer: DSTTrainer) -> None:
    """After the last evaluation, which follows the training: what the trackers still hold reaches the disk."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, (TensorBoardCallback, TrackioCallback)):
            callback.on_train_end(trainer.args, trainer.state, trainer.control)
