"""What a labelling run has done so far: a file to which one line is appended for each video.

A run may be killed at any moment, and its lines may have cost money. Each line is handed to the system as soon as it
is made, so that it survives the process, and to the disk every second, so that it survives the machine. Of a line that
was cut off the rest is removed when the file is opened again. Nothing else is ever removed: a video that is labelled
again, since its record has changed or its labels had failed, gets a further line, and its last one counts.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from prospect_hf.annotate.corpus import Key
from prospect_hf.annotate.records import Failure, LabelRecord
from prospect_hf.checked_json import as_dict, get_dict, get_text, parse_json
from prospect_hf.errors import DataError

logger = logging.getLogger(__name__)

SYNC_S = 1.0  # longest time that a line is not on the disk


@dataclass(frozen=True)
class Staged:
    """Where the last line of a video lies, in bytes, of which inputs it was made, and whether it holds a failure."""

    start: int
    size: int
    inputs: str
    failed: bool


Index = dict[Key, Staged]


def staged_lines(path: Path) -> tuple[Index, int]:
    """The last line of each video in a staging file, and the bytes of its whole lines; nothing where there is no file.

    Damaged lines are counted in the log: their videos are labelled again.
    """
    index: Index = {}
    size = damaged = 0
    if path.is_file():
        with path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # the run was killed while it wrote this line
                try:
                    key, inputs, failed = _head(line, str(path))
                    index[key] = Staged(size, len(line), inputs, failed)
                except DataError:
                    damaged += 1
                size += len(line)
    if damaged:
        logger.warning("%s: %d lines are damaged; their videos are labelled again.", path, damaged)
    return index, size


class Staging:
    """The staged lines of a run; whoever opens the file must be its only writer (``files.sole_writer``).

    Args:
        path: the file; it need not exist.

    ``index`` has the last line of each video.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.index, self._size = staged_lines(path)
        self._file = path.open("ab+", buffering=0)
        self._file.truncate(self._size)
        self._synced_at = time.monotonic()

    def add(self, key: Key, inputs: str, made: LabelRecord | Failure) -> None:
        """Append the labels of a video, or why it has none.

        Raises:
            OSError: the line cannot be written; the next run removes what was written of it.
        """
        failed = isinstance(made, Failure)
        facts = {"key": list(key), "inputs": inputs, "failure" if failed else "record": made.facts()}
        line = json.dumps(facts, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            if time.monotonic() - self._synced_at > SYNC_S:
                self._sync()
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
        self.index[key] = Staged(self._size, len(line), inputs, failed)
        self._size += len(line)

    def read(self, staged: Staged) -> LabelRecord | Failure:
        """The content of a line."""
        self._file.seek(staged.start)
        facts = as_dict(parse_json(self._file.read(staged.size).decode("utf-8"), str(self.path)), str(self.path))
        if staged.failed:
            return Failure.from_facts(get_dict(facts, "failure", str(self.path)), str(self.path))
        return LabelRecord.from_facts(get_dict(facts, "record", str(self.path)), str(self.path))

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._sync()
        finally:
            self._file.close()


def _head(line: bytes, where: str) -> tuple[Key, str, bool]:
    """Whose line it is, the hash of its inputs, and whether it holds a failure."""
    try:
        facts = as_dict(parse_json(line.decode("utf-8"), where), where)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text.") from error
    key = facts.get("key")
    if not (isinstance(key, list) and len(key) == 3 and all(isinstance(part, str) for part in key)):
        raise DataError(f"{where}: a line without a key.")
    failed = "failure" in facts
    made = get_dict(facts, "failure" if failed else "record", where)
    # Damage shows now, when the video can still be labelled again.
    one = (Failure if failed else LabelRecord).from_facts(made, where)
    if key != [one.source, one.split, one.video_uid]:
        raise DataError(f"{where}: the content of a line is of another video than its key.")
    return Key(*key), get_text(facts, "inputs", where), failed
