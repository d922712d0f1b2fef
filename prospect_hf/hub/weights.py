"""The weights of a model folder: their hash, which ties results and card to them, and how new ones take their place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prospect_hf.content_hash import weights_hash
from prospect_hf.errors import UsageError
from prospect_hf.files import flush_files, temporary_path

WEIGHTS = "*.safetensors"
ADAPTER = "adapter"  # the folder that holds the weights of a folder of adapters
WEIGHTS_KEY = "weights_sha256"
# What tells about the weights beside it, and must never lie beside others.
ABOUT_WEIGHTS = ("results.json", "README.md", "train_report.html", ".eval_results/prospect.yaml")


def check_weights(folder: Path, recorded: object, what: Path) -> None:
    """Whether ``what`` is about the weights that lie in ``folder``.

    Args:
        recorded: the hash that ``what`` holds, None where it holds none.
        what: the file, for the message.

    Raises:
        UsageError: the folder has no weights, or other ones.
    """
    if recorded is None:
        raise UsageError(f"{what} does not name its weights ({WEIGHTS_KEY}): an earlier version wrote it; train again.")
    if recorded != weights_hash(folder):
        raise UsageError(
            f"{what} is not about the weights in {folder} ({WEIGHTS_KEY} differs): another run wrote them or they "
            "were changed; train or evaluate again, or copy the whole folder again."
        )


@contextmanager
def new_model_files(folder: Path) -> Iterator[Path]:
    """A temporary folder to save a model into; when the block ends, its files take their places in ``folder``.

    Old results, card and weights are removed before, and the new weights come last. Of a process that is killed,
    ``folder`` holds the old model with its results, or no weights, or the new ones: never weights beside the results or
    the configuration of others. The caller is the folder's only writer (``files.sole_writer``).
    """
    for killed in folder.glob("model.*.partial"):
        shutil.rmtree(killed)
    temporary = temporary_path(folder / "model")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        flush_files(temporary)
        remove_results(folder)
        for pattern in (WEIGHTS, WEIGHTS + ".index.json"):
            for path in folder.glob(pattern):
                path.unlink()
        shutil.rmtree(folder / ADAPTER, ignore_errors=True)
        for path in sorted(temporary.iterdir(), key=_weights_last):
            if path.is_dir():
                shutil.rmtree(folder / path.name, ignore_errors=True)
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _weights_last(path: Path) -> tuple[bool, str]:
    return path.suffix == ".safetensors" or path.name == ADAPTER, path.name


def remove_results(folder: Path) -> None:
    """Remove what a model's folder says about its weights."""
    for name in ABOUT_WEIGHTS:
        (folder / name).unlink(missing_ok=True)


__all__ = ["WEIGHTS_KEY", "check_weights", "new_model_files", "remove_results", "weights_hash"]
