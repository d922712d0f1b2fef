"""Reads the pictures of a session's frames: from frame files, drawn from labels, or blank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.arguments import FRAME_SOURCES
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.frames.base import Frames
from prospect_hf.frames.opened import locate_frames, no_frames, open_frames, sources_folder
from prospect_hf.frames.rendered import render_timeline_frame

# Limit of the decoded pictures that a reader keeps in memory, so that later epochs over a small corpus decode nothing.
KEPT_BYTES = 2**30


def frames_path(root: Path, session: SessionRows) -> Path:
    """The stored frames of the session's video, in the corpus under ``root``, in whichever form they stand there.

    They are in ``{source}/frames`` of ``processed_data``; of ``root`` itself where there is no ``processed_data``, as
    with the sources' own annotations.

    Raises:
        DataError: there are none, or two forms of them, or the row names a place outside the corpus.
    """
    folder = sources_folder(root)
    found = locate_frames(folder, session.source, session.frames_file, f"session {session.session_id}")
    if found is None:
        raise no_frames(folder / session.source / session.frames_file)
    return found


class FrameReader:
    """Reads frames and preprocesses them for the vision tower.

    Args:
        root: the folder that holds ``processed_data``.
        frames: ``store`` reads the corpus' frame files; ``rendered`` draws a simple picture from each frame's labels,
            for annotations without video; ``blank`` returns one grey picture, a control without visual input.
        processor: the model's processor, which preprocesses pictures; drawn pictures have its frame size.
        keep: keep decoded pictures in memory, for later epochs.

    Raises:
        DataError: ``frames`` is another value.
    """

    def __init__(self, root: Path, frames: str, processor: DSTSmolVLMProcessor, keep: bool = True) -> None:
        if frames not in FRAME_SOURCES:
            raise DataError(f"data.frames must be one of {FRAME_SOURCES}, not {frames!r}.")
        self.root, self.frames, self.processor, self.keep = root, frames, processor, keep
        self._blank = np.full((processor.frame_size, processor.frame_size, 3), 128, np.uint8)
        self._paths: dict[tuple[str, str], Path] = {}
        self._open: dict[Path, Frames] = {}
        self._kept: dict[tuple[Path, int], np.ndarray] = {}
        self._kept_bytes = 0

    def inputs(self, session: SessionRows, begin: int, end: int) -> dict[str, torch.Tensor]:
        """The model input ``pixel_values`` ``[frames, 3, size, size]``, positions ``begin`` to ``end`` (exclusive)."""
        return {"pixel_values": self.processor.pixel_values(self.read(session, begin, end))}

    def read(self, session: SessionRows, begin: int, end: int) -> list[np.ndarray]:
        """Frames at positions ``begin`` to ``end`` (exclusive) of the session, each uint8 ``[height, width, 3]``."""
        if self.frames == "blank":
            return [self._blank] * (end - begin)
        if self.frames == "rendered":
            return [
                np.asarray(
                    render_timeline_frame(
                        session.video_uid,
                        session.first_frame + frame,
                        session.states_after[frame],
                        self.processor.frame_size,
                    )
                )
                for frame in range(begin, end)
            ]
        path = self.path(session)
        return [self._picture(path, session.first_frame + frame) for frame in range(begin, end)]

    def path(self, session: SessionRows) -> Path:
        """The stored frames of the session's video; errors as in :func:`frames_path`."""
        video = session.source, session.frames_file
        if video not in self._paths:
            self._paths[video] = frames_path(self.root, session)
        return self._paths[video]

    def _picture(self, path: Path, index: int) -> np.ndarray:
        picture = self._kept.get((path, index))
        if picture is None:
            store = self._open.get(path)
            if store is None:
                if len(self._open) >= 256:  # keeps the number of open files far from the system's limit
                    self._open.clear()
                store = self._open[path] = open_frames(path)
            picture = np.asarray(store[index])
            if self.keep and self._kept_bytes + picture.nbytes <= KEPT_BYTES:
                self._kept[path, index] = picture
                self._kept_bytes += picture.nbytes
        return picture
