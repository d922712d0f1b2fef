"""The weights of a model folder: their hash, which ties results and card to them, and how new ones take their place."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prospect_hf.errors import UsageError
from prospect_hf.files import flush_files, temporary_path

WEIGHTS = "*.safetensors"
WEIGHTS_KEY = "weights_sha256"
# What tells about the weights beside it, and must never lie beside others.
ABOUT_WEIGHTS = ("results.json", "README.md", ".eval_results/prospect.yaml")


def weights_hash(folder: Path) -> str:
    """The SHA-256 of the folder's weights, as ``cat *.safetensors | sha256sum`` tells it.

    Raises:
        UsageError: the folder has no weights.
    """
    files = sorted(folder.glob(WEIGHTS))
    if not files:
        raise UsageError(f"{folder} has no model.safetensors; give the folder of a trained model.")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


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
        for path in sorted(temporary.iterdir(), key=lambda path: (path.suffix == ".safetensors", path.name)):
            if path.is_dir():
                shutil.rmtree(folder / path.name, ignore_errors=True)
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_results(folder: Path) -> None:
    """Remove what a model's folder says about its weights."""
    for name in ABOUT_WEIGHTS:
        (folder / name).unlink(missing_ok=True)
