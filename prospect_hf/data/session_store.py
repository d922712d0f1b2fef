"""Sessions on disk: read by position from memory-mapped files, so that a split is never held in memory.

A file has one record per session of a Parquet shard of frame rows: its texts, and its labels as bytes, which become
arrays without being copied. It is made when the shard is first needed, and kept under a name that is a hash of the
shard's content and of the code that reads rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import prospect_hf
from prospect_hf.code_fingerprint import code_fingerprint
from prospect_hf.data.by_position import ByPosition
from prospect_hf.data.kept_files import KeptFile, make_missing
from prospect_hf.data.session_rows import BATCH_ROWS, COLUMNS, ITEM, OF_SESSION, Items, SessionRows, sessions_of
from prospect_hf.dataset.layout import Manifest, Shard, check_files
from prospect_hf.errors import DataError

LABELS = ("speaking", "dst_update", "states_before", "states_after")
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in OF_SESSION),
        pa.field("steps", pa.list_(pa.string())),
        pa.field("first_frame", pa.int32()),
        pa.field("frames", pa.int32()),
        *(pa.field(name, pa.binary()) for name in LABELS),
        pa.field("items", pa.list_(ITEM)),
        pa.field("hash", pa.binary(32)),
    ]
)
# The code that determines a file's content.
CODE = ("data/session_rows.py", "data/session_store.py", "dataset/row_maker.py", "sessions.py")
# A record batch is written when its labels have this many bytes: what a writer holds in memory.
BATCH_BYTES = 1 << 22


class SessionStore(ByPosition[SessionRows]):
    """The sessions of files that :func:`write_sessions` wrote, in order.

    A session is made when it is asked for; its label arrays are views of the file. Worker processes get the paths and
    open the files again.

    Attributes:
        files, sessions_by_file, frames_by_file: the files, and how many sessions and frames each has.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in files]
        self.sessions_by_file = [table.num_rows for table in tables]
        self.frames_by_file = [sum(table["frames"].to_pylist()) for table in tables]
        self._batches = [batch for table in tables for batch in table.to_batches()]
        super().__init__(batch.num_rows for batch in self._batches)

    def __reduce__(self) -> tuple[type[SessionStore], tuple[list[Path]]]:
        return SessionStore, (self.files,)

    def _entry(self, piece: int, place: int) -> SessionRows:
        return _session(self._batches[piece], place)

    def column(self, name: str) -> list[Any]:
        """One column of all sessions: a name in ``SCHEMA``."""
        return [value for batch in self._batches for value in batch.column(name).to_pylist()]


def _session(batch: pa.RecordBatch, row: int) -> SessionRows:
    steps = batch.column("steps")[row].as_py()

    def labels(name: str, *shape: int) -> NDArray[np.int8]:
        array = np.frombuffer(batch.column(name)[row].as_buffer(), np.int8).reshape(-1, *shape)
        array.flags.writeable = False  # the file is mapped to be read alone: writing to it would end the process
        return array

    return SessionRows(
        **{name: batch.column(name)[row].as_py() for name in OF_SESSION},
        steps=steps,
        first_frame=batch.column("first_frame")[row].as_py(),
        speaking=labels("speaking"),
        dst_update=labels("dst_update"),
        states_before=labels("states_before", len(steps)),
        states_after=labels("states_after", len(steps)),
        items=Items(batch.column("items")[row].values),
    )


def session_hash(session: SessionRows) -> bytes:
    """SHA-256 of everything that is learned from a session, its frames aside."""
    facts = [session.session_id, session.source, session.video_uid, session.user_type, session.goal, session.steps]
    table = Items.of(session.items).table
    items = [table.field(number).to_pylist() for number in range(len(ITEM))]
    digest = hashlib.sha256(repr((facts, session.first_frame, len(session), items)).encode("utf-8", "replace"))
    for name in LABELS:
        digest.update(getattr(session, name).astype(np.int8, copy=False).tobytes())
    return digest.digest()


def write_sessions(sessions: Iterable[SessionRows], path: Path) -> None:
    """Write a file of sessions, which ``SessionStore`` reads."""
    with pa.ipc.new_file(str(path), SCHEMA) as writer:
        for some in _portions(sessions):
            writer.write_batch(_batch(some))


def _portions(sessions: Iterable[SessionRows]) -> Iterator[list[SessionRows]]:
    some: list[SessionRows] = []
    size = 0
    for session in sessions:
        some.append(session)
        size += session.states_after.size
        if size >= BATCH_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _batch(sessions: Sequence[SessionRows]) -> pa.RecordBatch:
    items = [Items.of(session.items).table for session in sessions]
    columns: dict[str, Any] = {
        **{name: [getattr(session, name) for session in sessions] for name in (*OF_SESSION, "steps", "first_frame")},
        "frames": [len(session) for session in sessions],
        **{
            name: [getattr(session, name).astype(np.int8, copy=False).tobytes() for session in sessions]
            for name in LABELS
        },
        "hash": [session_hash(session) for session in sessions],
        "items": pa.ListArray.from_arrays(
            pa.array(list(accumulate(map(len, items), initial=0)), pa.int32()), pa.concat_arrays(items)
        ),
    }
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def read_shard(path: Path) -> Iterator[SessionRows]:
    """The sessions of a Parquet file of frame rows; errors as in :func:`sessions_of`, with the file's name."""
    try:
        yield from sessions_of(_tables(path))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _tables(path: Path) -> Iterator[pa.Table]:
    try:
        # As dictionaries, the texts that a session repeats on each row are not copied for each row.
        file = pq.ParquetFile(path, read_dictionary=list(OF_SESSION))
        for batch in file.iter_batches(BATCH_ROWS, columns=list(COLUMNS), use_threads=False):
            yield pa.Table.from_batches([batch])
    except pa.ArrowException as error:
        raise DataError(f"it cannot be read as Parquet ({error}); build or download it again.") from error


def open_sessions(
    rows: Path, manifest: Manifest, shards: Sequence[Shard], cache_dir: Path, processes: int = 1
) -> SessionStore:
    """The sessions of some shards of a dataset; the files that are missing under ``cache_dir`` are made first.

    Args:
        rows: folder of the dataset.
        manifest: its manifest.
        shards: of the manifest, in the order of the sessions.
        cache_dir: the files are kept in its folder ``sessions``.
        processes: that read shards.

    Raises:
        DataError: a shard is not what the manifest states, or two sessions have one id.
    """
    files = [
        KeptFile(session_file(cache_dir, shard), shard.rows, partial(_convert, rows, manifest, shard))
        for shard in shards
    ]
    make_missing(files, "reading rows", processes)
    store = SessionStore([file.path for file in files])
    twice = [name for name, count in Counter(store.column("session_id")).items() if count > 1]
    if twice:
        raise DataError(f"{rows}: two sessions have the id {twice[0]}; build the rows again.")
    return store


def session_file(cache_dir: Path, shard: Shard) -> Path:
    """Where the sessions of a shard are kept."""
    code = code_fingerprint(Path(prospect_hf.__file__).parent, CODE)
    name = hashlib.sha256(f"{shard.sha256} {code}".encode()).hexdigest()[:32]
    return cache_dir / "sessions" / f"{name}.arrow"


def _convert(rows: Path, manifest: Manifest, shard: Shard, path: Path) -> None:
    check_files(rows, replace(manifest, shards=(shard,), sample=(), files={}))
    write_sessions(read_shard(rows / shard.path), path)
