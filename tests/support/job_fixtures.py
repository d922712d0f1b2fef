"""Settings of a run that ends in seconds: short recordings, and a model that is built in no time."""

from __future__ import annotations

from collections.abc import Sequence

from model_fixtures import SIZE

from prospect_hf.cli import main


def train(arguments: Sequence[str]) -> int:
    """The exit code of ``prospect train``, in this process."""
    return main(["train", *arguments])


def evaluate(arguments: Sequence[str]) -> int:
    """The exit code of ``prospect evaluate``, ``compare`` or ``report``, in this process."""
    named = bool(arguments) and arguments[0] in ("compare", "report")
    return main([*([] if named else ["evaluate"]), *arguments])


def stream(arguments: Sequence[str]) -> int:
    """The exit code of ``prospect stream``, in this process."""
    return main(["stream", *arguments])


SETTINGS = [
    "data.sources=[wtag,ego4d]",
    "data.recordings.train=2",
    "data.recordings.val=1",
    "data.recordings.test=1",
    "data.max_seq_len=400",
    f"data.scene.image_size={SIZE}",
    "data.scene.supersample=1",
    "data.scene.steps=[2,2]",
    "data.scene.distractors=[0,0]",
    "data.scene.prelude=[3,3]",
    "data.scene.idle=[0,1]",
    f"model.image_size={SIZE}",
    "model.patch_size=4",
    "model.scale_factor=1",
    "model.hidden_size=32",
    "model.vision_layers=1",
    "model.text_layers=1",
    "model.heads=2",
    "model.vocab_size=400",
    "model.copy_steps=2",
    "training.look_steps=2",
    "training.look_batch_size=2",
    "training.max_steps=3",
    "training.per_device_train_batch_size=2",
    "training.logging_steps=1",
    "training.use_cpu=true",
]
