"""The frames of the rows' videos, where they are at hand: how many there are, and some of them to show."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from prospect_hf.dataset.inspection.blocks import Block
from prospect_hf.errors import DataError
from prospect_hf.frames.opened import find_frames, open_frames
from prospect_hf.frames.pictures import open_picture


def inside(name: str) -> bool:
    """Whether a path of the rows stays inside of its folder."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", "\0", ":"}


class Videos:
    """The frames of the videos under ``root`` / source, which holds the rows' ``frames_file``.

    Attributes:
        missing: videos whose frames are not there; none where no root was given.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.missing: set[Path] = set()
        self._lengths: dict[Path, tuple[int | None, str]] = {}

    def outside(self, block: Block) -> Iterator[tuple[int, int, str]]:
        """(row, frame, what is wrong) of each session of a block that is not inside of its video."""
        if self.root is None:
            return
        frames, rates = block.numbers("frame_index"), block.numbers("fps")
        last = np.maximum.reduceat(frames, block.starts)
        for begin, frame in zip(block.starts.tolist(), last.tolist(), strict=True):
            path = self.path(block, begin)
            if path is None:
                continue
            length, fault = self._length(path, float(rates[begin]))
            if fault:
                yield begin, int(frames[begin]), fault
            elif length is not None and frame >= length:
                yield begin, frame, f"the video has {length} frames ({path.name})"

    def path(self, block: Block, row: int) -> Path | None:
        """Where the frames of a row's video are looked for; None without a root, or where the path leaves it."""
        source, name = (str(block.table[column][row].as_py()) for column in ("source", "frames_file"))
        return self.root / source / name if self.root is not None and inside(name) and inside(source) else None

    def _length(self, path: Path, fps: float) -> tuple[int | None, str]:
        """The number of frames, None where there are none at hand; and what is wrong with them, "" for nothing."""
        if path not in self._lengths:
            length, fault = None, ""
            try:
                stored = find_frames(path)
                if stored is None:
                    self.missing.add(path)
                else:
                    length = len(open_frames(stored, fps))
            except DataError as error:
                fault = str(error).rstrip(".")
            self._lengths[path] = length, fault
        return self._lengths[path]

    def pictures(self, block: Block, row: int, frames: Sequence[int]) -> list[tuple[int, Image.Image]]:
        """(frame, picture) of those ``frames`` of a row's video that are at hand and can be decoded."""
        path, fps = self.path(block, row), float(block.numbers("fps")[row])
        stored = find_frames(path) if path is not None and self._length(path, fps)[0] is not None else None
        if stored is None:
            return []
        store, found = open_frames(stored, fps), []
        for frame in frames:
            with suppress(DataError):  # beyond the end, or no picture: the strip has a gap there
                found.append((frame, store[frame]))
        return found


def stored_pictures(path: Path, session: str, frames: Sequence[int]) -> list[tuple[int, Image.Image]]:
    """(frame, picture) of a session's ``frames``, from the column of pictures of a file of rows."""
    chosen = [("session_id", "==", session), ("frame_index", "in", list(frames))]
    found = []
    for row in pq.read_table(path, columns=["frame_index", "image"], filters=chosen).to_pylist():
        content = (row["image"] or {}).get("bytes")
        if content:
            with suppress(DataError):  # no picture: the strip has a gap there
                found.append((row["frame_index"], open_picture(io.BytesIO(content), path.name, _rgb)))
    return found


def _rgb(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB")
