"""Pictures for a timeline whose video is not at hand: a plan's states drawn as a grid of coloured cells.

They let a real timeline go through the whole of training. They show the answer, so nothing about seeing follows from
what is learned on them; whoever uses them says so.
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
_NOISE = 40  # levels up and down at most


def render_timeline_frame(
    video_uid: str, frame_index: int, states: Sequence[int] | NDArray[np.integer], size: int = 64
) -> Image.Image:
    """The RGB picture [size, size] of absolute frame ``frame_index``: one cell a step, in reading order.

    ``states`` are the steps' states after the frame's events (0, 1, 2, or -100 = unknown, drawn grey). The noise on it
    follows from video and frame alone, so that a picture is the same wherever it is drawn.
    """
    columns = math.ceil(math.sqrt(len(states)))
    rows = math.ceil(len(states) / columns)
    cells = np.full((rows * columns, 3), 90, np.uint8)
    cells[: len(states)] = [COLOURS[int(state)] for state in states]
    # Nearest cell of each pixel: works for any number of steps at any size.
    row = np.arange(size) * rows // size
    column = np.arange(size) * columns // size
    picture = cells.reshape(rows, columns, 3)[row][:, column].astype(np.int16)
    random = np.random.default_rng((zlib.crc32(video_uid.encode("utf-8")), frame_index))
    picture += random.integers(-_NOISE, _NOISE + 1, (size, size, 1), dtype=np.int16)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
