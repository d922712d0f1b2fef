"""Opens Arrow IPC streams, in which ProAssist stores a video's frames and features: memory-mapped, and checked once."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from prospect_hf.content_hash import FileState, file_state
from prospect_hf.errors import DataError

# The end of an Arrow IPC stream: a continuation marker and a length of 0 (Arrow columnar format, IPC streaming format).
END_MARK = b"\xff\xff\xff\xff\x00\x00\x00\x00"
# Path -> the state in which this process validated it.
_VALIDATED: dict[Path, FileState] = {}


def open_stream(path: Path, of: str, to_read: bool = True) -> pa.Table:
    """The table in ``path``, memory-mapped.

    Args:
        path: the file.
        of: what the stream is of, for messages.
        to_read: whether its values are going to be read, so that all of them must be checked first. To count them, the
            heads of its parts are enough.

    Raises ``DataError`` where the file is no Arrow stream, is damaged, or was cut short; ``FileNotFoundError`` where it
    is missing.
    """
    try:
        with pa.memory_map(str(path), "r") as source:
            table = pa.ipc.open_stream(source).read_all()
        _validate(path, table, of, to_read)
    except FileNotFoundError:
        raise
    except PermissionError:
        raise DataError(f"{path}: this file of {of} cannot be read (permission denied).") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not an Arrow stream of {of} ({' '.join(str(error).split())}).") from error
    return table


def is_whole(path: Path) -> bool:
    """Whether the file has the end mark of a stream."""
    with path.open("rb") as file:
        file.seek(-min(len(END_MARK), path.stat().st_size), os.SEEK_END)
        return file.read() == END_MARK


def _validate(path: Path, table: pa.Table, of: str, to_read: bool) -> None:
    """Check the file's end and its buffers, once for each state of the file.

    Arrow trusts the offsets of a file: wrong ones read outside the buffer, which ends the process. A file that was cut
    between two batches reads as a shorter one.
    """
    state = file_state(path)
    if _VALIDATED.get(path) == state:
        return
    if not is_whole(path):
        raise DataError(f"{path}: the file has no end mark, so it was cut short; copy or write it again.")
    if not to_read:
        return
    try:
        table.validate(full=True)
    except UnicodeDecodeError as error:  # pyarrow's own message, which names a damaged column
        raise DataError(f"{path}: not an Arrow stream of {of} (damaged names: {error}).") from error
    _VALIDATED[path] = state
