"""The pictures of a session's frames, wherever they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from processing_dst_smolvlm import DSTSmolVLMProcessor
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError
from prospect_hf.frames.rendered import render_timeline_frame
from prospect_hf.frames.store import FrameStore

FRAME_SOURCES = ("store", "rendered", "blank")
# Decoded pictures that a reader keeps: a second epoch over small videos decodes nothing.
KEPT_BYTES = 2**30


class FrameReader:
    """Reads frames and prepares them for the vision tower.

    Args:
        root: the folder that holds ``processed_data``.
        frames: ``store`` reads the sources' frame files; ``rendered`` draws a simple picture of each frame's labels
            for a timeline whose video is not there; ``blank`` shows one grey picture, the control that sees nothing.
        processor: of the model; it prepares the pictures, and drawn ones have its frame size.

    Raises:
        DataError: ``frames`` is none of these.
    """

    def __init__(self, root: Path, frames: str, processor: DSTSmolVLMProcessor) -> None:
        if frames not in FRAME_SOURCES:
            raise DataError(f"data.frames must be one of {FRAME_SOURCES}, not {frames!r}.")
        self.root, self.frames, self.processor = root, frames, processor
        self._blank = np.full((processor.frame_size, processor.frame_size, 3), 128, np.uint8)
        self._open: dict[Path, FrameStore] = {}
        self._kept: dict[tuple[Path, int], np.ndarray] = {}
        self._kept_bytes = 0

    def inputs(self, session: SessionRows, begin: int, end: int) -> dict[str, torch.Tensor]:
        """What the model takes for frames ``begin`` to ``end`` (positions in the session): ``pixel_values``."""
        return {"pixel_values": self.processor.pixel_values(self.read(session, begin, end))}

    def read(self, session: SessionRows, begin: int, end: int) -> list[np.ndarray]:
        """Frames ``begin`` to ``end`` (positions in the session), uint8 ``[height, width, 3]`` each."""
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
        """The frame file of the session's video."""
        return self.root / "processed_data" / session.source / session.frames_file

    def _picture(self, path: Path, index: int) -> np.ndarray:
        picture = self._kept.get((path, index))
        if picture is None:
            store = self._open.get(path)
            if store is None:
                if len(self._open) >= 256:  # keeps the number of open files far from the system's limit
                    self._open.clear()
                store = self._open[path] = FrameStore(path)
            picture = np.asarray(store[index])
            if self._kept_bytes + picture.nbytes <= KEPT_BYTES:
                self._kept[path, index] = picture
                self._kept_bytes += picture.nbytes
        return picture
