"""Writes one shard: the rows of whole sessions as one Parquet file, and how often each label occurs in it."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from prospect_hf.content_hash import file_hash
from prospect_hf.dataset.layout import Shard
from prospect_hf.dataset.row_maker import SCHEMA, SCHEMA_WITH_IMAGES, session_tables
from prospect_hf.errors import DataError
from prospect_hf.files import replacing
from prospect_hf.frames.base import Frames
from prospect_hf.frames.opened import find_frames, no_frames, open_frames
from prospect_hf.frames.pictures import open_picture
from prospect_hf.sessions import Session

# What ``Dataset.to_parquet`` writes too: pages that end where the content says so, which the Hub stores once for all
# versions of a file, and an index of the pages, by which a viewer reads a few rows.
CHUNKING = dict(datasets.config.DEFAULT_CDC_OPTIONS)
# A reader loads a row group whole, and ``datasets`` aims at 100 MB at most.
GROUP_ROWS, GROUP_BYTES = 100_000, 64 << 20
PICTURES_AT_ONCE = 64
COUNTED = ("speaking", "dst_update", "states_after")


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be written.

    Args:
        path, source, split: as in ``Shard``.
        sessions: whose rows it has, in order.
        work: its part of the whole build, in kB of annotations; for the progress.
    """

    path: str
    source: str
    split: str
    sessions: tuple[Session, ...]
    work: int = 0

    @property
    def rows(self) -> int:
        """The number of rows that it will have."""
        return sum(map(rows_of, self.sessions))


@dataclass(frozen=True)
class WrittenShard:
    """A shard as it lies on the disk.

    Args:
        shard: its entry in the manifest.
        labels: column of ``COUNTED`` -> value -> how often it occurs.
        work: as in ``PlannedShard``.
    """

    shard: Shard
    labels: dict[str, dict[int, int]]
    work: int


def rows_of(session: Session) -> int:
    """The number of rows of a session: one per frame."""
    return session.num_frames - session.first_frame


def write_shard(planned: PlannedShard, folder: Path, frames: dict[str, Path] | None) -> WrittenShard:
    """Write the rows of a shard to ``folder / planned.path``, whole or not at all.

    Args:
        planned: the shard.
        folder: that its path is relative to.
        frames: source -> the folder that a session's ``frames_file`` is relative to; None for rows without pictures.

    Raises:
        DataError: a picture is missing or broken.
    """
    shard = Shard(planned.path, planned.source, planned.split, planned.rows, len(planned.sessions), 0, "")
    schema = SCHEMA if frames is None else SCHEMA_WITH_IMAGES
    return write_tables(folder, shard, _tables(planned.sessions, frames), schema, planned.work)


def write_tables(
    folder: Path, shard: Shard, tables: Iterable[pa.Table], schema: pa.Schema, work: int = 0
) -> WrittenShard:
    """Write ``tables``, all of ``schema``, as the file of ``shard``, whose size and hash are filled in."""
    labels: dict[str, Counter[int]] = {column: Counter() for column in COUNTED}
    path = folder / shard.path
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, _writer(sink, schema) as writer:
        for group in row_groups(tables):
            for column, counter in labels.items():
                counter.update(value_counts(group.column(column)))
            writer.write_table(group, row_group_size=GROUP_ROWS)
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(CHUNKING)})
    counted = {column: dict(sorted(counts.items())) for column, counts in labels.items()}
    return WrittenShard(replace(shard, bytes=path.stat().st_size, sha256=file_hash(path)), counted, work)


def _writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with the settings of ``Dataset.to_parquet``, but for zstd: pictures are stored as they are."""
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    pictures = [leaf for leaf in leaves if leaf.startswith("image.")]
    return pq.ParquetWriter(
        sink,
        schema,
        compression={leaf: "none" if leaf in pictures else "zstd" for leaf in leaves},
        use_dictionary=[leaf for leaf in leaves if leaf not in pictures],
        column_encoding=dict.fromkeys(pictures, "PLAIN") or None,
        use_content_defined_chunking=CHUNKING,
        write_page_index=True,
    )


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """The names that Parquet gives to the columns of a value of type ``kind``."""
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return _leaves(f"{path}.list.element", kind.value_type) if pa.types.is_list(kind) else [path]


def _tables(sessions: Iterable[Session], frames: dict[str, Path] | None) -> Iterator[pa.Table]:
    for session in sessions:
        for table in session_tables(session):
            if frames is None:
                yield table
            else:
                yield from _with_pictures(table, session, frames[session.source])


def _with_pictures(table: pa.Table, session: Session, folder: Path) -> Iterator[pa.Table]:
    try:
        path = find_frames(folder / session.frames_file)
        if path is None:
            raise no_frames(folder / session.frames_file)
        yield from picture_tables(table, open_frames(path, session.fps))
    except DataError as error:
        raise DataError(
            f"{session.origin}: no picture of video '{session.video_uid}' ({error}) Build the rows with images=false, "
            "or write the video's frames again."
        ) from error


def picture_tables(table: pa.Table, store: Frames) -> Iterator[pa.Table]:
    """The rows of one video in parts, with the column ``image``: the bytes of each frame as they are stored.

    Each frame is decoded once, at an eighth of its size: no broken one is published.

    Raises:
        DataError: a frame is missing or broken.
    """
    kind = SCHEMA_WITH_IMAGES.field("image").type
    for first in range(0, len(table), PICTURES_AT_ONCE):
        part = table.slice(first, PICTURES_AT_ONCE)
        pictures = []
        for frame, video_uid in zip(part["frame_index"].to_pylist(), part["video_uid"].to_pylist(), strict=True):
            stored = store.encoded(frame)
            open_picture(io.BytesIO(stored), f"{store.path}: frame {frame}", _decoded)
            pictures.append({"bytes": stored, "path": f"{video_uid}_{frame:06d}.jpg"})
        yield pa.table([*part.columns, pa.array(pictures, kind)], schema=SCHEMA_WITH_IMAGES)


def _decoded(picture: Image.Image) -> Image.Image:
    picture.draft("RGB", (1, 1))
    picture.load()
    return picture


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


def value_counts(column: pa.ChunkedArray) -> dict[int, int]:
    """How often each value of an int8 column, or of a column of int8 lists, occurs."""
    total = np.zeros(256, np.int64)
    for chunk in column.chunks:
        values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
        total += np.bincount(values.to_numpy(zero_copy_only=True).view(np.uint8), minlength=256)
    return {int(np.uint8(byte).view(np.int8)): int(total[byte]) for byte in np.flatnonzero(total)}
