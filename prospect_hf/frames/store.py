"""Frame files: one Arrow file per video, row index = absolute frame index.

ProAssist's format: an Arrow IPC *stream* with one string column ``frame`` of base64 JPEG pictures. The file is
memory-mapped, so reading one frame decodes one picture and does not load the file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from PIL import Image

from prospect_hf.errors import DataError
from prospect_hf.files import replacing
from prospect_hf.frames.arrow_stream import open_stream
from prospect_hf.frames.base import Frames
from prospect_hf.frames.pictures import open_picture

ROWS_PER_BATCH = 64


@dataclass(frozen=True)
class StoredFacts:
    """What a frame file says about itself: its metadata, and the number of frames, None where the file is damaged."""

    metadata: Mapping[str, str]
    count: int | None


def write_frames(path: Path, jpegs: Iterable[bytes], metadata: Mapping[str, str] | None = None) -> int:
    """Write encoded JPEG pictures to ``path`` in one atomic step; returns the number of pictures."""
    schema = pa.schema([("frame", pa.string())], metadata=dict(metadata) if metadata else None)
    count = 0
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        batch: list[str] = []
        for jpeg in jpegs:
            batch.append(base64.b64encode(jpeg).decode("ascii"))
            count += 1
            if len(batch) == ROWS_PER_BATCH:
                writer.write_batch(pa.record_batch([pa.array(batch, pa.string())], schema=schema))
                batch = []
        if batch:
            writer.write_batch(pa.record_batch([pa.array(batch, pa.string())], schema=schema))
    return count


def stored_facts(path: Path) -> StoredFacts | None:
    """What a frame file says about itself, without reading its pictures; None where it is no frame file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            with pa.ipc.open_stream(file) as stream:
                metadata = stream.schema.metadata or {}
            texts = {name.decode(): value.decode() for name, value in metadata.items()}
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
    try:
        return StoredFacts(texts, stored_count(path))
    except DataError:
        return StoredFacts(texts, None)


class FrameStore(Frames):
    """The frames of one video in an Arrow file.

    Raises ``DataError`` where the file is missing or not a frame store, or a frame is outside it or cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._column = _frame_column(path, to_read=True)

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: int) -> Image.Image:
        jpeg = io.BytesIO(self.encoded(index))
        return open_picture(jpeg, f"{self.path}: frame {index}", lambda picture: picture.convert("RGB"))

    def encoded(self, index: int) -> bytes:
        """The JPEG picture of absolute frame ``index`` as it is stored."""
        self.check_index(index)
        try:
            return base64.b64decode(self._column[index].as_py(), validate=True)
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.path}: frame {index} is not a base64 JPEG picture ({error}).") from error


def stored_count(path: Path) -> int:
    """How many frames a frame file has. No picture is read, so that a corpus is counted in seconds.

    Raises ``DataError`` as ``FrameStore`` does, but for damage inside of the pictures.
    """
    return len(_frame_column(path, to_read=False))


def _frame_column(path: Path, to_read: bool) -> pa.ChunkedArray:
    try:
        table = open_stream(path, "frames", to_read)
    except FileNotFoundError:
        raise DataError(f"{path}: no such frame file; check data.root, or set data.frames=rendered.") from None
    if "frame" not in table.column_names:
        raise DataError(f"{path}: no column 'frame' among {table.column_names}; expected base64 JPEG strings.")
    kind = table.schema.field("frame").type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{path}: the column 'frame' holds {kind}; expected base64 JPEG strings.")
    return table.column("frame")
