"""Reads ProAssist's stored features: what its own vision tower made of the frames of a video.

``features/{encoder}@{layer}/{video}.arrow`` is an Arrow IPC stream that the library datasets wrote. A row is a frame,
its index the absolute frame index. Each column is a layout of tokens: ``cls`` is the tower's class token, ``2x2`` its
patches pooled to four tokens, and so on; a value is a list of tokens, a token a list of ``hidden`` half floats.

They are features of that tower (SigLIP, 1152 wide), not of SmolVLM2's tower and connector, so the model cannot read
them: its frames are encoded anew. They tell how many frames a video has where its frame file is not at hand, and serve
analyses of one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prospect_hf.errors import DataError
from prospect_hf.frames.arrow_stream import open_stream


class StoredFeatures:
    """The features of one video, read by absolute frame index.

    Raises ``DataError`` where the file is missing or holds no such features; a pickle (``.pt``, ``.pkl``) is never
    loaded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix != ".arrow":
            raise DataError(
                f"{path}: features are read from Arrow streams (.arrow), not from '{path.suffix}' files, which can run "
                "code when they are loaded; encode the frames again."
            )
        try:
            self._table = open_stream(path, "features")
        except FileNotFoundError:
            raise DataError(f"{path}: no such file of features.") from None
        if not self._table.num_columns:
            raise DataError(f"{path}: the stream has no column; expected layouts such as 'cls' and '2x2'.")
        for field in self._table.schema:
            if not _is_tokens(field.type):
                raise DataError(
                    f"{path}: the column '{field.name}' holds {field.type}; expected lists of tokens, which are lists "
                    "of floats."
                )

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def layouts(self) -> tuple[str, ...]:
        """The names of the columns: ``cls``, ``2x2`` and so on."""
        return tuple(self._table.column_names)

    def read(self, begin: int, end: int, layouts: Sequence[str] = ("cls",)) -> NDArray[np.float16]:
        """The features ``[frames, tokens, hidden]`` of frames ``begin`` to ``end`` (exclusive), layouts side by side.

        Raises ``DataError`` where the file lacks one of the frames or layouts, or their tokens differ in number.
        """
        if not 0 <= begin < end <= len(self):
            raise DataError(f"{self.path}: no frames {begin} to {end - 1}; the file has frames 0 to {len(self) - 1}.")
        missing = [name for name in layouts if name not in self.layouts]
        if missing or not layouts:
            raise DataError(f"{self.path}: no layout {', '.join(missing)}; the file has {', '.join(self.layouts)}.")
        rows = self._table.slice(begin, end - begin)
        return np.concatenate([self._layout(rows.column(name), name, begin) for name in layouts], axis=1)

    def _layout(self, column: pa.ChunkedArray, name: str, begin: int) -> NDArray[np.float16]:
        frames = column.combine_chunks()
        tokens = frames.flatten()
        values = tokens.flatten()
        sizes = [set(pc.list_value_length(lists).to_pylist()) for lists in (frames, tokens)]
        if values.null_count or any(len(size) != 1 or size & {None, 0} for size in sizes):
            raise DataError(
                f"{self.path}: the frames {begin} to {begin + len(column) - 1} have not the same number of tokens and "
                f"values in '{name}'; encode the video again."
            )
        found = values.to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
        return np.asarray(found.reshape(len(column), sizes[0].pop(), sizes[1].pop()))


def _is_tokens(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    for _ in range(2):
        if not any(is_list(kind) for is_list in lists):
            return False
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))


def features_files(folder: Path, name: str) -> list[Path]:
    """The feature files of a video in the source's ``folder``, one for each encoder: ``features/*/{name}``."""
    return sorted(path for encoder in folder.glob("features/*") if (path := encoder / name).is_file())


def stored_length(folder: Path, name: str) -> int | None:
    """The number of frames that the feature files of a video have; None where there are none.

    Raises ``DataError`` where two encoders saw different numbers of frames.
    """
    counts = {path: len(StoredFeatures(path)) for path in features_files(folder, name)}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{path.relative_to(folder)}: {count}" for path, count in counts.items())
        raise DataError(f"{folder}: the feature files of one video have different numbers of frames ({told}).")
    return next(iter(counts.values()), None)
