"""Files of the cache that are made once: whole or not there, and checked by their content hash before they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from prospect_hf.content_hash import file_hash
from prospect_hf.errors import DataError
from prospect_hf.files import replacing, sole_writer, write_text
from prospect_hf.progress import Progress
from prospect_hf.workers import worker_pool

logger = logging.getLogger(__name__)

# A worker process takes seconds to start, in which this one makes files of so many rows.
ROWS_A_WORKER = 2_000_000


@dataclass(frozen=True)
class KeptFile:
    """A file of the cache.

    Args:
        path: where it is kept; its name says what it was made of.
        rows: number of frame rows that it is made of, for the progress.
        make: writes it to the given path; must be picklable, to be called in a worker process.
    """

    path: Path
    rows: int
    make: Callable[[Path], None]

    @property
    def mark(self) -> Path:
        """The file beside it with its content hash, which is written last."""
        return self.path.with_name(self.path.name + ".sha256")

    def is_whole(self) -> bool:
        """Whether it is there with the content that was written; a damaged file is told, and then made again."""
        if not (self.path.is_file() and self.mark.is_file()):
            return False
        if file_hash(self.path) == self.mark.read_text(encoding="utf-8", errors="replace").strip():
            return True
        logger.warning("%s: the file is damaged, its content hash is another one; it is made again.", self.path)
        return False


def make_missing(files: Sequence[KeptFile], what: str, processes: int = 1) -> None:
    """Make those of ``files`` that are not there; other processes that need them wait.

    Args:
        files: all in one folder.
        what: what is being done, for the progress.
        processes: worker processes at most, one for each ``ROWS_A_WORKER`` rows; 1 works in this process.

    Raises:
        DataError: from ``make``, or a worker process was killed.
    """
    if all(file.is_whole() for file in files):
        return
    with sole_writer(files[0].path.parent, wait=True):
        missing = [file for file in files if not file.is_whole()]
        rows = sum(file.rows for file in missing)
        workers = min(processes, len(missing), rows // ROWS_A_WORKER)
        with Progress(rows, what, "row") as bar:
            if workers <= 1:
                for file in missing:
                    bar.update(_make(file))
                return
            with worker_pool(workers) as pool:
                try:
                    for done in as_completed([pool.submit(_make, file) for file in missing]):
                        bar.update(done.result())
                except BrokenProcessPool:
                    raise DataError(
                        f"{what}: a worker process was killed, perhaps for lack of memory; run again with a smaller "
                        "data.processes (finished files are kept)."
                    ) from None


def _make(file: KeptFile) -> int:
    file.mark.unlink(missing_ok=True)
    with replacing(file.path) as temporary:
        file.make(temporary)
    write_text(file.mark, file_hash(file.path) + "\n")
    return file.rows
