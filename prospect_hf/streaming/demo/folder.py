"""The folder of a running demo: uploads, gradio's cache, and what streams write. Nothing of it outlives the demo."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "prospect_hf_demo_"
LOCK, CACHE = "lock", "gradio"


@cache
def demo_folder() -> Path:
    """The folder of this process, made on the first call; gradio keeps its files in it from then on.

    It is removed when the process ends. The folders of demos that were killed are removed here.
    """
    base = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    base.mkdir(parents=True, exist_ok=True)
    remove_abandoned(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)).resolve()
    lock = FileLock(folder / LOCK, timeout=0)
    lock.acquire()  # the system frees it when the process ends, however it ends
    os.environ["GRADIO_TEMP_DIR"] = str(folder / CACHE)

    def remove() -> None:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def remove_abandoned(base: Path) -> None:
    """Remove the folders in ``base`` of demos that do not run any more."""
    for folder in base.glob(f"{PREFIX}*"):
        lock = folder / LOCK
        if folder.is_symlink() or not lock.is_file() or not os.access(lock, os.W_OK):
            continue  # of another user, or being made at this moment
        with suppress(Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def remove_files(paths: Collection[Path]) -> None:
    """Remove files, and the folders that are then empty."""
    for path in paths:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # something else lies in it
            path.parent.rmdir()


def old_files(folder: Path, age_s: float) -> list[Path]:
    """The files below ``folder`` that were written more than ``age_s`` seconds ago."""
    now, found = time.time(), []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # removed at this moment
            if path.is_file() and now - path.stat().st_mtime > age_s:
                found.append(path)
    return found
