"""The frames of the rows' videos, where they are at hand: how many there are, and some of them to show."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from prospect_hf.dataset.inspection.blocks import Block
from prospect_hf.errors import DataError
from prospect_hf.frames.base import Frames
from prospect_hf.frames.opened import find_frames, open_frames, sources_folder
from prospect_hf.frames.pictures import open_picture

# Videos that stay open, far from the system's limit of open files.
MOST_KNOWN = 128


def inside(name: str) -> bool:
    """Whether a path of the rows stays inside of its folder."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", "\0", ":"}


class Videos:
    """The videos of the rows: how many frames each has, and the frames themselves where they are at hand.

    Args:
        root: the folder that has the frames of each source in ``{source}/frames``, or ``processed_data`` with them;
            None where none are at hand.
        stated: the number of frames of each video, ``{source}/{frames_file}``, in the dataset's ``frames.json``.

    Attributes:
        missing: videos whose frames are not under ``root``; none where no root was given.
    """

    def __init__(self, root: Path | None, stated: Mapping[str, int]) -> None:
        self.root = None if root is None else sources_folder(root)
        self.stated = stated
        self.missing: set[str] = set()
        self._found: dict[str, tuple[Frames | None, str]] = {}

    def outside(self, block: Block) -> Iterator[tuple[int, int, str]]:
        """(row, frame, what is wrong) of each session of a block that is not inside of its video."""
        if self.root is None and not self.stated:
            return
        frames = block.numbers("frame_index")
        last = np.maximum.reduceat(frames, block.starts)
        for begin, frame in zip(block.starts.tolist(), last.tolist(), strict=True):
            name = self.name(block, begin)
            lengths = {"frames.json": self.stated[name]} if name in self.stated else {}
            store, fault = self._open(name, block, begin)
            if fault:
                yield begin, int(frames[begin]), fault
            if store is not None:
                lengths[store.path.name] = len(store)
            for where, length in lengths.items():
                if frame >= length:
                    yield begin, frame, f"the video has {length} frames ({where})"

    def name(self, block: Block, row: int) -> str:
        """The name of a row's video, which is where its frames are looked for."""
        return "/".join(str(block.table[column][row].as_py()) for column in ("source", "frames_file"))

    def _open(self, name: str, block: Block, row: int) -> tuple[Frames | None, str]:
        """The frames of a video, None where there are none at hand; and what is wrong with them, "" for nothing."""
        if self.root is None or not inside(name):
            return None, ""
        if name not in self._found:
            if len(self._found) >= MOST_KNOWN:
                self._found.clear()
            store, fault = None, ""
            try:
                path = find_frames(self.root / name)
                if path is None:
                    self.missing.add(name)
                else:
                    store = open_frames(path, float(block.numbers("fps")[row]))
                    len(store)  # a video is read through for its number of frames
            except DataError as error:
                store, fault = None, str(error).rstrip(".")
            self._found[name] = store, fault
        return self._found[name]

    def pictures(self, block: Block, row: int, frames: Sequence[int]) -> list[tuple[int, Image.Image]]:
        """(frame, picture) of those ``frames`` of a row's video that are at hand and can be decoded."""
        store = self._open(self.name(block, row), block, row)[0]
        found: list[tuple[int, Image.Image]] = []
        if store is None:
            return found
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
