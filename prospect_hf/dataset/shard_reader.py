"""Reads the shards of a dataset session by session, a few thousand rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prospect_hf.dataset.row_maker import SCHEMA
from prospect_hf.errors import DataError
from prospect_hf.sessions import HIGHEST_FPS, LONGEST_S

BATCH_ROWS = 16_384
# What a session can have; times and places are computed from them.
LIMITS = {"fps": (1e-3, HIGHEST_FPS), "frame_index": (0, LONGEST_S * HIGHEST_FPS)}


def shard_sessions(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of each session of a shard, in order.

    Args:
        path: the shard.
        columns: those of the tables; all but the pictures where not given. ``session_id`` must be one of them.

    Raises:
        DataError: the file is missing or damaged, or has not the columns of ``dst_frames`` with a value in every row.
    """
    waiting: list[pa.Table] = []
    current = None
    for batch in _batches(path, columns):
        ids = batch.column("session_id").combine_chunks().dictionary_encode()
        codes, names = ids.indices.to_numpy(), ids.dictionary.to_pylist()
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        for start, end in zip(starts, [*starts[1:], len(batch)], strict=True):
            name = names[codes[start]]
            if waiting and name != current:
                yield pa.concat_tables(waiting)
                waiting = []
            current = name
            waiting.append(batch.slice(start, end - start))
    if waiting:
        yield pa.concat_tables(waiting)


def _batches(path: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    names = SCHEMA.names if columns is None else columns
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow, names)
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                for name in names:
                    _check_values(path, name, batch.column(name))
                yield pa.Table.from_batches([batch])
    except FileNotFoundError:
        raise DataError(f"{path}: no such shard; build or download the dataset again.") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable shard ({' '.join(str(error).split())}).") from error


def _check_values(path: Path, name: str, values: pa.Array) -> None:
    if _has_nulls(values):
        raise DataError(f"{path}: a row without a value in '{name}'; build the dataset again.")
    if name in LIMITS and len(values):
        least, most = LIMITS[name]
        found = pc.min_max(values).as_py()
        if not (least <= found["min"] and found["max"] <= most) or pc.any(pc.is_nan(values.cast("float64"))).as_py():
            raise DataError(f"{path}: a row with {name} outside of {least:g} to {most:g}; build the dataset again.")


def _has_nulls(values: pa.Array) -> bool:
    if values.null_count:
        return True
    if pa.types.is_list(values.type):
        return _has_nulls(values.flatten())
    return pa.types.is_struct(values.type) and any(map(_has_nulls, values.flatten()))


def _check_columns(path: Path, found: pa.Schema, names: Sequence[str]) -> None:
    for name in names:
        if name not in found.names:
            raise DataError(f"{path}: no column '{name}'; it is no shard of dst_frames.")
        kind = found.field(name).type
        if kind != SCHEMA.field(name).type:
            raise DataError(f"{path}: column '{name}' holds {kind} and not {SCHEMA.field(name).type}.")
