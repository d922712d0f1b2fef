"""Writing a file whole or not at all: written beside its place under a name of its own, flushed, then renamed."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prospect_hf.errors import UsageError

PARTIAL = re.compile(r"\.\d+-[0-9a-f]{8}\.partial$")
STALE_S = 3600  # longer than any write takes between two of its steps


def temporary_path(path: Path) -> Path:
    """A path beside ``path`` that no other writer uses: two processes that write one file must not share it."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; when the block ends, that file takes the place of ``path``.

    Whatever happens, a power cut included, ``path`` holds either its old content or the whole new one: the new content
    is on the disk before the rename, since a file system may carry out a rename before the writes that preceded it.
    Where the block raises, the temporary file is removed and ``path`` stays as it was. Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is told without a name
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into; when the block ends, it takes the place of ``folder``.

    A folder that is not empty cannot be replaced in one step. Of a process that is killed between the two renames,
    ``folder`` is missing and its old content lies beside it as ``{name}.old``; it never holds parts of both.
    """
    temporary, old = temporary_path(folder), folder.with_name(folder.name + ".old")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        flush_files(temporary)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush_files(folder: Path) -> None:
    """Wait until the content of all files below ``folder`` is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def remove_stale(folder: Path) -> None:
    """Remove what killed processes were writing below ``folder``: temporary files and folders that nobody has touched
    for ``STALE_S`` seconds."""
    for path in folder.rglob("*.partial"):
        with suppress(FileNotFoundError):  # renamed or removed at this moment
            if PARTIAL.search(path.name) and time.time() - path.stat().st_mtime > STALE_S:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


@contextmanager
def sole_writer(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the right to write to ``folder``: two runs in one folder would mix their results and weights.

    The lock file lies beside the folder, so that it is never published with it. The system frees the lock of a process
    that ends, however it ends. What a killed process was writing is removed.

    Args:
        wait: until another process that holds it is done.

    Raises:
        UsageError: another process holds it, without ``wait``.
        OSError: the lock file cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    path.touch()  # what cannot be made is told at once: FileLock would wait for it
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"another run is writing to {folder}: wait for it, or give another output_dir.") from None
    try:
        remove_stale(folder)
        yield
    finally:
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with line feeds, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write ``value`` as JSON, whole or not at all.

    Raises:
        ValueError: a number in it is not finite, which JSON has no word for.
        TypeError: a value that JSON has no form for.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")
