"""Attaches frames to rows that name them: decoded where a row is read, checked where a video is first opened."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from prospect_hf.dataset.frame_fingerprints import Video, load_fingerprints
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.base import Frames
from prospect_hf.frames.fingerprint import Fingerprint, Match, check_frames
from prospect_hf.frames.opened import locate_frames, open_frames, sources_folder

# The columns that say where the frame of a row is.
REFERENCE = ("source", "frames_file", "fps", "frame_index")
IMAGE = "image"
# Videos that stay open; far from the system's limit of open files.
MOST_OPEN = 128


def with_frames(
    rows: datasets.Dataset | datasets.IterableDataset, frames: Path, fingerprints: Path | None = None
) -> datasets.Dataset | datasets.IterableDataset:
    """The rows with their frames in a column ``image``: RGB pictures, decoded when a row is read.

    Args:
        rows: of ``load_dataset``, streamed or not, with the columns ``REFERENCE``.
        frames: the folder that has the frames of each source in ``{source}/frames``, or ``processed_data`` with them.
        fingerprints: the ``frames.json`` of the dataset. Without it, nothing tells the right frames from others; only
            their number is checked.

    Raises:
        UsageError: a column or a folder is missing. When a row is read, also:
        DataError: its video has no frames there, or they are not the right ones, or the frame cannot be decoded.
    """
    known = None if fingerprints is None else load_fingerprints(fingerprints)
    attach = AttachFrames(FrameFolder(frames, known))
    if isinstance(rows, datasets.IterableDataset):
        return rows.map(attach, batched=True)
    missing = set(REFERENCE) - set(rows.column_names)
    if missing:
        raise UsageError(f"the rows have no column {', '.join(sorted(missing))}, which says where their frames are.")
    return rows.with_transform(attach)


class FrameFolder:
    """The frames of many videos, each checked when it is opened.

    Args:
        folder: see ``with_frames``.
        known: the fingerprints by the name of the video; None without any.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path, known: Mapping[str, Fingerprint] | None) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder of frames.")
        self.folder = sources_folder(folder)
        self.known = known
        self.open = functools.lru_cache(MOST_OPEN)(self._open)

    def __reduce__(self) -> tuple[Any, ...]:
        # For worker processes, which open the videos themselves.
        return FrameFolder, (self.folder, self.known)

    def path(self, video: Video) -> Path:
        """Where the frames of a video are. Raises ``DataError`` where they are not."""
        path = locate_frames(self.folder, video.source, video.frames_file, f"the rows of {video.name}")
        if path is None:
            raise DataError(
                f"{self.folder / video.name}: no frames of this video (a frame file, a folder of pictures or a video "
                "of that name); extract them, or leave out the rows of such videos."
            )
        return path

    def _open(self, video: Video) -> Frames:
        store = open_frames(self.path(video), video.fps)
        self.check(store, video, 0)
        return store

    def check(self, store: Frames, video: Video, used: int) -> Match:
        """Check the frames of a video; ``used`` of them have rows. Errors and results as of ``check_frames``."""
        known = None if self.known is None else self.known.get(video.name)
        return check_frames(store, known, used, video.name)


class AttachFrames:
    """Adds the column ``image`` to a batch of rows; the function that ``with_transform`` and ``map`` are given."""

    def __init__(self, frames: FrameFolder) -> None:
        self.frames = frames

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The batch with its pictures, in the order of its rows."""
        missing = set(REFERENCE) - set(batch)
        if missing:
            raise UsageError(f"rows are read without {', '.join(sorted(missing))}, which says where their frames are.")
        references = zip(*(batch[name] for name in REFERENCE), strict=True)
        return {**batch, IMAGE: [self._frame(*reference) for reference in references]}

    def _frame(self, source: str, frames_file: str, fps: float, frame: int) -> Image.Image:
        return self.frames.open(Video(source, frames_file, fps))[frame]
