"""What identifies the frames of a video, so that frames which somebody else extracted can be checked against them.

Of a few frames, two things are kept. The hash of the stored picture proves that a frame is the very same file. The look
of a frame (a difference hash and the mean colour) changes little where the picture is encoded or scaled again, and much
where it is another one. No picture can be made from either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from prospect_hf.errors import DataError
from prospect_hf.frames.base import Frames

MARKED = 8  # frames of a video
GRID = 8  # cells of a picture's look, in each direction
BITS = 2 * GRID * GRID
# A difference of fewer grey levels is noise of the encoding.
NOISE = 2
# Encoded again with a quality of 30 to 95 and scaled to 128 to 768 pixels, a frame differed from itself in up to 5 % of
# the bits (real video of 320x180 pixels) or 12 % (drawn pictures of 48x48 pixels), its mean in up to 5 %. Frames of
# other videos differed in at least 23 %, mostly in 43 %.
MOST_OF_A_FRAME, MOST_ON_AVERAGE = 0.22, 0.12
# Levels of 255 between mean colours. Encoding changes them by a few.
MOST_OF_COLOUR = 40
# How far frames may be shifted for a message to say so.
SHIFTS = (0, -1, 1, -2, 2)
# Another explanation is told where it leaves less than this share of the difference, and so many bits or levels less.
BETTER_SHARE, BETTER_BITS, BETTER_LEVELS = 0.5, 2, 2

Match = Literal["same", "alike", "counted"]


@dataclass(frozen=True)
class Mark:
    """What is kept of one frame.

    Args:
        index: absolute index of the frame.
        sha256: of the stored picture.
        look: see :func:`look_of`.
        colour: see :func:`colour_of`.
    """

    index: int
    sha256: str
    look: str
    colour: str


@dataclass(frozen=True)
class Fingerprint:
    """What identifies the frames of a video.

    Args:
        frames: how many there are.
        used: how many of them, from the first on, have labels.
        marks: of some of those.
    """

    frames: int
    used: int
    marks: tuple[Mark, ...]


def fingerprint(store: Frames, used: int) -> Fingerprint:
    """The fingerprint of a video's frames.

    Args:
        store: the frames.
        used: how many of them, from the first on, have labels; the marks lie among them.

    Raises:
        DataError: there are fewer, or a marked frame cannot be decoded.
    """
    check_length(store, used, str(store.path))
    marks = [
        Mark(index, hashlib.sha256(store.encoded(index)).hexdigest(), look_of(picture), colour_of(picture))
        for index in marked_frames(used)
        for picture in [store[index]]
    ]
    return Fingerprint(len(store), used, tuple(marks))


def marked_frames(used: int) -> list[int]:
    """The middle frames of ``MARKED`` equal parts of ``used`` frames, each once."""
    return sorted({(2 * part + 1) * used // (2 * MARKED) for part in range(MARKED)})


def look_of(picture: Image.Image) -> str:
    """The look of a picture: 128 bits, as 32 hex digits.

    Each cell of a grid of 8x8 is compared with its right and its lower neighbour: is that one brighter? (dHash, after
    N. Krawetz, "Kind of Like That", 2013.) The picture's shape does not matter, as for frames that were squeezed into a
    square.
    """
    grey = picture.convert("L").resize((GRID + 1, GRID + 1), Image.Resampling.BOX)
    cells = np.asarray(grey, np.int16)
    brighter = [cells[:-1, 1:] - cells[:-1, :-1] > NOISE, cells[1:, :-1] - cells[:-1, :-1] > NOISE]
    return np.packbits(np.stack(brighter).ravel()).tobytes().hex()


def colour_of(picture: Image.Image) -> str:
    """The mean colour of a picture, as in ``8f7a6b``: two hex digits each for red, green and blue."""
    return picture.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes().hex()


def check_length(store: Frames, used: int, video: str) -> None:
    """Raise ``DataError`` where ``store`` has fewer than ``used`` frames."""
    if len(store) < used:
        raise DataError(
            f"{store.path}: {len(store)} frames, but the rows of {video} go on to frame {used - 1}; extract the whole "
            "video, with as many frames a second as the rows have."
        )


def check_frames(store: Frames, known: Fingerprint | None, used: int, video: str) -> Match:
    """Check that ``store`` has the frames that the rows of ``video`` are about.

    Args:
        store: the frames at hand.
        known: the fingerprint of the right ones; without it, only the number of frames can be checked.
        used: how many frames have rows, if more than the fingerprint says.
        video: its name in messages.

    Returns:
        "same" (the marked frames are the very same files, and there are as many), "alike" (they look the same) or
        "counted" (there are enough).

    Raises:
        DataError: there are too few, or they are those of another video, of other times, or have other colours.
    """
    check_length(store, max(used, 0 if known is None else known.used), video)
    if known is None:
        return "counted"
    if len(store) == known.frames and all(
        hashlib.sha256(store.encoded(mark.index)).hexdigest() == mark.sha256 for mark in known.marks
    ):
        return "same"
    _check_looks(store, known.marks, video)
    _check_colours(store, known.marks, video)
    return "alike"


def _check_looks(store: Frames, marks: Sequence[Mark], video: str) -> None:
    shifts = {shift: _differences(store, marks, shift) for shift in SHIFTS}
    here = shifts[0]
    best = min(shifts, key=lambda shift: sum(shifts[shift]) / max(len(shifts[shift]), 1))
    # Means over the marked frames that have a frame at that shift.
    mean, least = (sum(found) / len(found) if found else 0.0 for found in (here, shifts[best]))
    if (mean - least) * BITS > BETTER_BITS and least < BETTER_SHARE * mean:
        middle = marks[len(marks) // 2].index
        raise DataError(
            f"{store.path}: frames of {video} are shifted: frame {middle + best} shows what must be frame {middle}; "
            "extract the video from its first frame on, with as many frames a second as the rows have."
        )
    worst = max(range(len(marks)), key=here.__getitem__)
    if here[worst] > MOST_OF_A_FRAME or mean > MOST_ON_AVERAGE:
        raise DataError(
            f"{store.path}: not the frames of {video}: frame {marks[worst].index} differs in {here[worst]:.0%} of its "
            f"look (a frame that was encoded again: below {MOST_OF_A_FRAME:.0%}), all {len(marks)} that were compared "
            f"in {mean:.0%}; extract the right video, upright and uncut, with as many frames a second as the rows have."
        )


def _differences(store: Frames, marks: Sequence[Mark], shift: int) -> list[float]:
    """The share of differing bits between each mark and the frame ``shift`` frames later, where there is one."""
    there = [mark for mark in marks if 0 <= mark.index + shift < len(store)]
    pictures = store.frames(mark.index + shift for mark in there)
    return [
        (int(mark.look, 16) ^ int(look_of(picture), 16)).bit_count() / BITS
        for mark, picture in zip(there, pictures, strict=True)
    ]


def _check_colours(store: Frames, marks: Sequence[Mark], video: str) -> None:
    wanted = np.array([list(bytes.fromhex(mark.colour)) for mark in marks], int)
    found = np.array([list(bytes.fromhex(colour_of(store[mark.index]))) for mark in marks], int)
    straight, swapped = np.abs(found - wanted), np.abs(found[:, ::-1] - wanted)
    if straight.mean() - swapped.mean() > BETTER_LEVELS and swapped.mean() < BETTER_SHARE * straight.mean():
        raise DataError(f"{store.path}: red and blue of {video} are exchanged; write the frames as RGB, not as BGR.")
    worst = int(straight.max(1).argmax())
    if straight[worst].max() > MOST_OF_COLOUR:
        raise DataError(
            f"{store.path}: frame {marks[worst].index} of {video} has another colour: on average #"
            f"{bytes(found[worst].tolist()).hex()} and not #{marks[worst].colour}; extract the video without a change "
            "of colours."
        )
