"""Frame files: one Arrow file per video, row index = absolute frame index.

ProAssist's format: an Arrow IPC *stream* with one string column ``frame`` of base64 JPEG pictures. The file is
memory-mapped, so reading one frame decodes one picture and does not load the file.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from PIL import Image

from prospect_hf.content_hash import FileState, file_state
from prospect_hf.errors import DataError
from prospect_hf.files import replacing
from prospect_hf.frames.base import Frames
from prospect_hf.frames.pictures import open_picture

ROWS_PER_BATCH = 64
# The end of an Arrow IPC stream: a continuation marker and a length of 0 (Arrow columnar format, IPC streaming format).
END_MARK = b"\xff\xff\xff\xff\x00\x00\x00\x00"
# Path -> the state in which this process validated it.
_VALIDATED: dict[Path, FileState] = {}


def write_frames(path: Path, jpegs: Iterable[bytes]) -> int:
    """Write encoded JPEG pictures to ``path`` in one atomic step; returns the number of pictures."""
    schema = pa.schema([("frame", pa.string())])
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


class FrameStore(Frames):
    """The frames of one video in an Arrow file.

    Raises ``DataError`` where the file is missing or not a frame store, or a frame is outside it or cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pa.memory_map(str(path), "r") as source:
                table = pa.ipc.open_stream(source).read_all()
            self._validate(table)
        except FileNotFoundError:
            raise DataError(f"{path}: no such frame file; check data.root, or set data.frames=rendered.") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path}: not an Arrow stream of frames ({' '.join(str(error).split())}).") from error
        if "frame" not in table.column_names:
            raise DataError(f"{path}: no column 'frame' among {table.column_names}; expected base64 JPEG strings.")
        kind = table.schema.field("frame").type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"{path}: the column 'frame' holds {kind}; expected base64 JPEG strings.")
        self._column = table.column("frame")

    def _validate(self, table: pa.Table) -> None:
        """Check the file's end and its buffers, once for each state of the file.

        Arrow trusts the offsets of a file: wrong ones read outside the buffer, which ends the process. A file that was
        cut between two batches reads as a shorter one.
        """
        state = file_state(self.path)
        if _VALIDATED.get(self.path) == state:
            return
        with self.path.open("rb") as file:
            file.seek(-min(len(END_MARK), self.path.stat().st_size), os.SEEK_END)
            if file.read() != END_MARK:
                raise DataError(f"{self.path}: the file has no end mark, so it was cut short; copy or write it again.")
        try:
            table.validate(full=True)
        except UnicodeDecodeError as error:  # pyarrow's own message, which names a damaged column
            raise DataError(f"{self.path}: not an Arrow stream of frames (damaged names: {error}).") from error
        _VALIDATED[self.path] = state

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
