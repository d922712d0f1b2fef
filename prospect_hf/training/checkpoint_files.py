"""The files of a training checkpoint: written beside its place, listed with their hashes, then renamed.

transformers writes a checkpoint's files one by one into its final folder. A run that is killed meanwhile leaves a
folder that looks like a checkpoint, and transformers goes on from it with whatever is there: without the optimiser's
state it takes a fresh one. The list tells a checkpoint whose files were damaged or lost later.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, get_dict, load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json
from prospect_hf.hub.published import public

# The list of files, and the record of the run that wrote them (``prospect_hf.training.resume.run_record``).
LIST = "checkpoint.json"
# The folder in output_dir in which a checkpoint is written before it gets its name.
PARTIAL = "partial"
BLOCK = 2**20


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint folder; -1 for a folder of another name."""
    found = re.fullmatch(r"checkpoint-(\d+)", folder.name, re.ASCII)
    return int(found[1]) if found else -1


def checkpoints(output: Path) -> list[Path]:
    """The checkpoint folders in ``output``, whole or not, the newest first."""
    folders = [path for path in output.glob("checkpoint-*") if path.is_dir() and step_of(path) >= 0]
    return sorted(folders, key=step_of, reverse=True)


def put_in_place(folder: Path) -> None:
    """Give a checkpoint in ``PARTIAL`` its place beside it, instead of an earlier run's checkpoint of that step."""
    place = folder.parent.parent / folder.name
    if place.exists():
        remove(place)
    folder.rename(place)


def write_list(folder: Path, run: Mapping[str, Any]) -> None:
    """Declare the checkpoint in ``folder`` whole: its files reach the disk, then their list is written.

    Args:
        folder: a checkpoint whose files are all written.
        run: the record of the run, as JSON values.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    content = {"files": {path.relative_to(folder).as_posix(): _stamp(path, flush=True) for path in paths}, "run": run}
    write_json(folder / LIST, {"sha256": _hash(content), **content})


def read_list(folder: Path) -> dict[str, Any]:
    """The list of a checkpoint: ``files`` and ``run``.

    Raises:
        DataError: it is damaged.
        UsageError: there is none.
    """
    content = as_dict(load_json(folder / LIST), LIST)
    digest = content.pop("sha256", None)
    if digest != _hash(content):
        raise DataError(f"{LIST} is damaged")
    get_dict(content, "files", LIST)
    get_dict(content, "run", LIST)
    return content


def fault_in_list(folder: Path) -> str | None:
    """Why the list of a checkpoint cannot be used; None for a list that can."""
    if not (folder / LIST).is_file():
        return f"it has no {LIST}, so saving it was interrupted"
    try:
        files = read_list(folder)["files"]
    except (DataError, UsageError):
        return f"{LIST} is damaged"
    if not any("optim" in name for name in files):
        return "it was saved without the optimizer's state (training.save_only_model=true)"
    return None


def fault_in_files(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, the list of which can be used; None for a whole checkpoint.

    It reads every file once.
    """
    for name, stamp in read_list(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != stamp[0]:
            return f"{name} has {path.stat().st_size} bytes in place of {stamp[0]}"
        if _stamp(path) != stamp:
            return f"{name} is damaged (its content differs from what was saved)"
    return None


def remove(folder: Path) -> None:
    """Remove a checkpoint, its list first: whenever this is interrupted, what is left is known as half."""
    (folder / LIST).unlink(missing_ok=True)
    shutil.rmtree(folder)


def remove_old(output: Path, limit: int | None, keep: set[Path]) -> None:
    """Remove checkpoints until ``limit`` are left: half ones first, then those of the lowest step; never ``keep``."""
    if limit is None or limit < 1:
        return
    removable = [path for path in checkpoints(output) if path not in keep]
    removable.sort(key=lambda path: ((path / LIST).is_file(), step_of(path)))
    for path in removable[: max(len(removable) + len(keep) - limit, 0)]:
        remove(path)


def _stamp(path: Path, flush: bool = False) -> list[Any]:
    """Size and SHA-256 of a file, which reaches the disk first if ``flush`` is set."""
    digest = hashlib.sha256()
    with path.open("rb+" if flush else "rb") as file:
        if flush:
            os.fsync(file.fileno())
        while block := file.read(BLOCK):
            digest.update(block)
    return [path.stat().st_size, digest.hexdigest()]


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def publish_state(path: Path, output: Path) -> None:
    """Write the trainer's state at ``path`` again, without the place of ``output`` on this machine."""
    write_json(path, public(json.loads(path.read_text(encoding="utf-8")), output))
