"""Writes one shard: the rows of whole sessions as one Parquet file, and how often each label occurs in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.layout import Shard
from prospect_hf.dataset.row_maker import SCHEMA, session_table
from prospect_hf.files import replacing
from prospect_hf.sessions import Session

# What ``Dataset.to_parquet`` writes too: chunks that end where the content says so, which the Hub stores once for all
# versions of a file, and an index of the pages, by which a viewer reads a few rows.
CHUNKING = dict(datasets.config.DEFAULT_CDC_OPTIONS)
# A reader loads a row group whole. The dataset viewer takes groups of up to 300 MB; `datasets` aims at 100 MB.
GROUP_ROWS, GROUP_BYTES = 100_000, 64 << 20
COUNTED = ("speaking", "dst_update", "states_after")


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be written: ``sessions`` are the rows' sessions in order; the other fields are those of ``Shard``."""

    path: str
    source: str
    split: str
    sessions: tuple[Session, ...]

    @property
    def rows(self) -> int:
        """The number of rows that it will have."""
        return sum(rows_of(session) for session in self.sessions)


@dataclass(frozen=True)
class WrittenShard:
    """A shard as it lies on the disk, and how often each value of each column of ``COUNTED`` occurs in it."""

    shard: Shard
    labels: dict[str, Counter[int]] = field(default_factory=dict)


def rows_of(session: Session) -> int:
    """The number of rows of a session: one per frame."""
    return session.num_frames - session.first_frame


def write_shard(planned: PlannedShard, folder: Path) -> WrittenShard:
    """Write the rows of a shard to ``folder / planned.path``, whole or not at all."""
    labels: dict[str, Counter[int]] = {column: Counter() for column in COUNTED}
    path = folder / planned.path
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, _writer(sink) as writer:
        for group in row_groups(map(session_table, planned.sessions)):
            for column, counter in labels.items():
                counter.update(_value_counts(group.column(column)))
            writer.write_table(group, row_group_size=GROUP_ROWS)
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(CHUNKING)})
    shard = Shard(
        path=planned.path,
        source=planned.source,
        split=planned.split,
        rows=planned.rows,
        sessions=len(planned.sessions),
        bytes=path.stat().st_size,
        sha256=file_hash(path),
    )
    return WrittenShard(shard, labels)


def _writer(sink: Any) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink, SCHEMA, compression="zstd", use_content_defined_chunking=CHUNKING, write_page_index=True
    )


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join tables to row groups of at most ``GROUP_ROWS`` rows and about ``GROUP_BYTES``; a larger table is cut."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        most = min(GROUP_ROWS, max(1, GROUP_BYTES * len(table) // max(table.nbytes, 1)))
        for begin in range(0, len(table), most):
            part = table.slice(begin, most)
            if waiting and (rows + len(part) > GROUP_ROWS or size + part.nbytes > GROUP_BYTES):
                yield pa.concat_tables(waiting)
                waiting, rows, size = [], 0, 0
            waiting.append(part)
            rows, size = rows + len(part), size + part.nbytes
    if waiting:
        yield pa.concat_tables(waiting)


def _value_counts(column: pa.ChunkedArray) -> dict[int, int]:
    """How often each value of an int8 column, or of a column of int8 lists, occurs."""
    total = np.zeros(256, np.int64)
    for chunk in column.chunks:
        values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
        total += np.bincount(values.to_numpy(zero_copy_only=True).view(np.uint8), minlength=256)
    return {int(np.uint8(byte).view(np.int8)): int(total[byte]) for byte in np.flatnonzero(total)}
