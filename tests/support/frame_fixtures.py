"""The frames of a video in each form in which they may be stored; each picture shows its number."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from video_fixtures import numbered, write_clip

from prospect_hf.frames.store import write_frames


def png(number: int) -> bytes:
    file = io.BytesIO()
    numbered(number).save(file, "PNG")
    return file.getvalue()


def arrow(folder: Path, name: str, frames: int) -> Path:
    write_frames(folder / f"{name}.arrow", map(png, range(frames)))
    return folder / f"{name}.arrow"


def pictures(folder: Path, name: str, frames: int) -> Path:
    (folder / name).mkdir(parents=True)
    for number in range(frames):
        (folder / name / f"{number}.png").write_bytes(png(number))
    return folder / name


def video(folder: Path, name: str, frames: int, suffix: str = ".mp4") -> Path:
    return counting_video(folder / f"{name}{suffix}", frames)


def counting_video(path: Path, frames: int = 6, first: int = 0) -> Path:
    """A video of 10 pictures a second that shows another number every half second, from ``first`` on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [numbered(first + at // 5) for at in range(5 * frames)]
    return write_clip(path, range(5 * frames), Fraction(1, 10), rate=10, pictures=shown)


# Form -> writes ``frames`` frames of a video of this name into a folder.
FORMS: dict[str, Callable[[Path, str, int], Path]] = {"arrow": arrow, "pictures": pictures, "video": video}
