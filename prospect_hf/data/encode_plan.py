"""Which frames of which videos are encoded: those that sessions need, or all stored frames below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from prospect_hf.data.features import DTYPES, FrameFeatures, drawn_content
from prospect_hf.data.reader import FrameReader
from prospect_hf.data.session_rows import SessionRows
from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.opened import ARROW, VIDEO_SUFFIXES, count_frames, open_frames
from prospect_hf.frames.pictures import PICTURE_FORMATS
from prospect_hf.processes import share


@dataclass(frozen=True)
class Video:
    """A video to be encoded.

    Args:
        name: as messages name it.
        frames: the absolute frames that are needed.
        read: the pictures ``[height, width, 3]`` from an absolute frame to another one (exclusive).
        path: the frame file or folder; None where pictures are drawn.
        content: what identifies pictures that are drawn.
    """

    name: str
    frames: range
    read: Callable[[int, int], list[np.ndarray]]
    path: Path | None = None
    content: str = ""


def videos_of(sessions: Sequence[SessionRows], reader: FrameReader) -> list[Video]:
    """The videos of ``sessions``, each with all frames that one of its sessions needs, in the sessions' order."""
    frames: dict[str, range] = {}
    made: dict[str, Video] = {}
    for index, session in enumerate(sessions):
        stored = reader.frames == "store"
        path = reader.path(session) if stored else None
        content = "" if stored else drawn_content(reader, session)
        name = f"{session.source}/{session.frames_file}" if stored else session.session_id
        own = range(session.first_frame, session.first_frame + len(session))
        key = str(path or content)
        frames[key] = span(frames.get(key, own), own)
        if key not in made:
            made[key] = Video(name, own, _session_pictures(reader, sessions, index), path, content)
    return [replace(video, frames=frames[key]) for key, video in made.items()]


def _session_pictures(
    reader: FrameReader, sessions: Sequence[SessionRows], index: int
) -> Callable[[int, int], list[np.ndarray]]:
    """Reads frames of a session's video by absolute index; the session is looked up anew, and not held."""

    def read(begin: int, end: int) -> list[np.ndarray]:
        session = sessions[index]
        return reader.read(session, begin - session.first_frame, end - session.first_frame)

    return read


def videos_below(root: Path) -> tuple[list[Video], list[str]]:
    """All stored frames below a folder, and the errors of those that cannot be opened.

    Frame files and videos count wherever they lie; a folder counts where pictures lie in it, and no such file.

    Raises:
        UsageError: there is no such folder, or no stored frames are below it.
    """
    if not root.is_dir():
        raise UsageError(f"encode.root={root}: no such folder; give one with frame files, pictures or videos below it.")
    videos, failures = [], []
    for path in _stored_below(root):
        try:
            frames = range(count_frames(path))
        except DataError as error:
            failures.append(str(error))
        else:
            videos.append(Video(path.relative_to(root).as_posix(), frames, _stored_pictures(path), path))
    if not videos and not failures:
        raise UsageError(f"encode.root={root} has no frame files, folders of pictures or videos below it.")
    return videos, failures


def _stored_below(root: Path) -> Iterator[Path]:
    pictures = {suffix for suffix, kind in Image.registered_extensions().items() if kind in PICTURE_FORMATS}
    pictures.discard(".gif")  # a video
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        suffixes = {name: Path(name).suffix.lower() for name in sorted(names) if not name.startswith(".")}
        stored = [name for name, suffix in suffixes.items() if suffix == ARROW or suffix in VIDEO_SUFFIXES]
        yield from (Path(folder, name) for name in stored)
        if not stored and not pictures.isdisjoint(suffixes.values()):
            inner.clear()
            yield Path(folder)


def _stored_pictures(path: Path) -> Callable[[int, int], list[np.ndarray]]:
    def read(begin: int, end: int) -> list[np.ndarray]:
        return [np.asarray(picture) for picture in open_frames(path).frames(range(begin, end))]

    return read


def span(a: range, b: range) -> range:
    """The frames from the first to the last of both."""
    return range(min(a.start, b.start), max(a.stop, b.stop))


def dealt(videos: Iterable[Video], number: int, count: int) -> list[Video]:
    """Share ``number`` (from 0) of ``count``: no video is in two shares, and all have about as many frames.

    Every process that is given the same videos in the same order comes to the same shares, in the videos' order.
    """
    in_order = list(videos)
    return [in_order[place] for place in share([len(video.frames) for video in in_order], number, count)]


def missing(features: FrameFeatures, videos: Iterable[Video]) -> list[Video]:
    """The videos of which a frame is not encoded yet, as far as that is known without reading a video."""
    found = []
    for video in videos:
        known = video.content or (
            features.known.get(video.path) if video.path is not None and video.path.exists() else None
        )
        if known is None or not covers(features.held(features.path_of(known)), video.frames):
            found.append(video)
    return found


def covers(held: range, wanted: range) -> bool:
    """Whether all wanted frames are held."""
    return held.start <= wanted.start and wanted.stop <= held.stop


def feature_bytes(tokens: int, hidden: int, dtype: str) -> int:
    """The bytes of a frame's features."""
    return tokens * hidden * DTYPES[dtype].itemsize
