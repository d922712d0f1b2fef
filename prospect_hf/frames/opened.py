"""Opens a video's frames in whichever form they are stored: a frame file, a folder of pictures, or the video itself."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

from prospect_hf.content_hash import file_hash
from prospect_hf.errors import DataError
from prospect_hf.frames.base import Frames
from prospect_hf.frames.folder import PictureFolder
from prospect_hf.frames.store import FrameStore, stored_count
from prospect_hf.sessions import FPS

ARROW = ".arrow"
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif")


def open_frames(path: Path, fps: float = FPS) -> Frames:
    """The frames at ``path``: an ``.arrow`` frame file, a folder of numbered pictures, or a video file.

    Args:
        path: the file or folder.
        fps: frames per second at which a video is sampled; the other forms hold one picture a frame already.

    Raises:
        DataError: there is nothing, or what is there cannot be read.
    """
    if path.is_dir():
        return PictureFolder(path)
    if not path.exists():
        raise no_frames(path)
    if path.suffix == ARROW:
        return FrameStore(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        # Imported here: PyAV takes long to load, and most corpora are frame files.
        from prospect_hf.frames.video import VideoFile

        return VideoFile(path, fps)
    raise DataError(
        f"{path}: no form of frames that is known; give a {ARROW} frame file, a folder of pictures, or a video "
        f"({', '.join(VIDEO_SUFFIXES)})."
    )


def count_frames(path: Path) -> int:
    """How many frames are stored at ``path``, which is a frame file, a folder of pictures or a video.

    Raises:
        DataError: what is there cannot be read.
    """
    return stored_count(path) if path.suffix == ARROW and not path.is_dir() else len(open_frames(path))


def find_frames(path: Path) -> Path | None:
    """The frames of the video whose frame file would be ``path``: that file, or a folder or video of the same name.

    ``frames/v.arrow`` may stand there itself, as the folder ``frames/v/``, or as the video ``frames/v.mp4`` (any of
    ``VIDEO_SUFFIXES``, in small or capital letters).

    Returns:
        None where there is nothing.

    Raises:
        DataError: two of them stand side by side: which one the labels belong to cannot be told.
    """
    stem = path.name.removesuffix(ARROW)
    candidates = [path] if path.is_file() else []
    folder = path.with_name(stem)
    candidates += [folder] if folder.is_dir() else []
    for suffix in VIDEO_SUFFIXES:
        for name in (stem + suffix, stem + suffix.upper()):
            video = path.with_name(name)
            if video.is_file() and not any(os.path.samefile(video, other) for other in candidates):
                candidates.append(video)
    if len(candidates) > 1:
        first, second = candidates[:2]
        raise DataError(f"{first}: {second.name} stands beside it; a video has one form of frames, so move one away.")
    return candidates[0] if candidates else None


def sources_folder(root: Path) -> Path:
    """The folder in ``root`` that has one folder for each source: ``processed_data``, or ``root`` itself without it."""
    processed = root / "processed_data"
    return processed if processed.is_dir() else root


def locate_frames(sources: Path, source: str, frames_file: str, where: str) -> Path | None:
    """The stored frames of a video in ``sources / source``, in whichever form they stand there; None without any.

    Args:
        sources: the folder that has one folder for each source.
        source, frames_file: as in a row.
        where: the row, for messages.

    Raises:
        DataError: there are two forms of them, or the row names a place outside of ``sources``.
    """
    named = PurePosixPath(source, frames_file)
    if named.is_absolute() or ".." in named.parts:
        raise DataError(
            f"{where}: its frames are said to be at '{named}', which may lie outside of {sources}; check where the "
            "rows come from."
        )
    return find_frames(sources / named)


def frame_entries(folder: Path) -> list[Path]:
    """The stored frames in ``folder``, in all forms, sorted by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    kinds = (ARROW, *VIDEO_SUFFIXES)
    return sorted(
        path for path in folder.iterdir() if path.is_dir() or (path.is_file() and path.suffix.lower() in kinds)
    )


def no_frames(path: Path) -> DataError:
    """The error that a video has no frames at ``path``, nor beside it in another form."""
    return DataError(
        f"{path}: no such frame file; check data.root (a folder of pictures or a video of that name would do as well), "
        "or set data.frames=rendered."
    )


def frames_hash(path: Path) -> str:
    """SHA-256 of the content of stored frames, 64 hex digits: of a file's bytes, or a folder's names and bytes.

    Raises:
        DataError: they cannot be read.
    """
    try:
        if not path.is_dir():
            return file_hash(path)
        digest = hashlib.sha256()
        for picture in PictureFolder(path).files:
            digest.update(f"{picture.name}\0{file_hash(picture)}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    except FileNotFoundError:
        raise no_frames(path) from None
    except OSError as error:
        raise DataError(f"{path}: these frames cannot be read ({error.strerror}).") from error
