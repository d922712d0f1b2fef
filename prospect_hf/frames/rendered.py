"""Pictures for annotations without video: the states of the plan's steps as a grid of coloured cells.

With them, training runs on real annotations before the videos are there. The pictures show the state labels, so results
on them say nothing about vision; reports and model cards must state this.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prospect_hf.sessions import COMPLETED, IGNORE, IN_PROGRESS, NOT_STARTED

COLOURS = {
    NOT_STARTED: (40, 60, 150),
    IN_PROGRESS: (200, 160, 30),
    COMPLETED: (40, 160, 60),
    IGNORE: (120, 120, 120),
}
_NOISE = 40  # largest change of a pixel, in grey levels


def render_timeline_frame(
    video_uid: str, frame_index: int, states: Sequence[int] | NDArray[np.integer], size: int = 64
) -> Image.Image:
    """The RGB picture ``[size, size]`` of absolute frame ``frame_index``: one cell per step, in reading order.

    ``states`` ``[steps]`` are the states after the frame's events (0, 1, 2, or -100 = unknown, drawn grey). The noise
    is seeded by video and frame, so a frame always gives the same picture.
    """
    columns = math.ceil(math.sqrt(len(states)))
    rows = math.ceil(len(states) / columns)
    cells = np.full((rows * columns, 3), 90, np.uint8)
    cells[: len(states)] = [COLOURS[int(state)] for state in states]
    # Each pixel takes its nearest cell, for any number of steps and any size.
    row = np.arange(size) * rows // size
    column = np.arange(size) * columns // size
    picture = cells.reshape(rows, columns, 3)[row][:, column].astype(np.int16)
    random = np.random.default_rng((zlib.crc32(video_uid.encode("utf-8")), frame_index))
    picture += random.integers(-_NOISE, _NOISE + 1, (size, size, 1), dtype=np.int16)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
