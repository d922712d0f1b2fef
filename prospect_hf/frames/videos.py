"""Finds the videos of a source on disk, and the frame file that each of them belongs to."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prospect_hf.errors import DataError, UsageError
from prospect_hf.frames.opened import VIDEO_SUFFIXES
from prospect_hf.sessions import check_name, frames_file

# How sources release their videos: where a file's own name is not that of the video.
LAYOUTS = {
    "assembly101": (r"(?:.*/)?([^/]+)/(HMC_[^/]+|C\d[^/]*)\.\w+", r"\1__\2"),
    "holoassist": (r"(?:.*/)?([^/]+)/Export_py/Video_pitchshift\.\w+", r"\1"),
    "wtag": (r"(?:.*/)?([^/]+)/Video/Video\.\w+", r"\1"),
}
COLUMNS = ("video", "uid")


@dataclass(frozen=True)
class VideoTask:
    """What is sampled into one frame file.

    Attributes:
        store: the frame file's path, relative to the source's folder.
        videos: the files whose frames it holds, one behind the other.
    """

    store: str
    videos: tuple[Path, ...]


def find_videos(folder: Path, source: str, names: Path | None = None) -> list[VideoTask]:
    """The videos below ``folder``, one task a frame file, sorted by frame file.

    Args:
        folder: is searched with its subfolders; hidden files and folders are left out, links are followed.
        source: decides how files are named, see ``LAYOUTS`` and ``sessions.frames_file``.
        names: a csv file with the columns ``video`` and ``uid``; only the videos in it are taken.

    Raises:
        UsageError: there is no such folder, or no video in it.
        DataError: two videos belong to one frame file, a name is no valid file name, or ``names`` cannot be used.
    """
    if not folder.is_dir():
        raise UsageError(f"sample.videos={folder}: no such folder; give the one that holds the videos.")
    found: dict[str, list[Path]] = {}
    if names is not None:
        for video, uid in _named(names, folder):
            found.setdefault(frames_file(source, uid), []).append(video)
    else:
        for video in _below(folder):
            store = _store(source, video.relative_to(folder))
            check_name(PurePosixPath(store).name, f"{video}: the name of its frames")
            others = found.setdefault(store, [])
            if others:
                raise DataError(
                    f"{video}: {others[0]} has the same name, so both would be written to {store}; give their uids in "
                    "sample.names."
                )
            others.append(video)
    if not found:
        raise UsageError(f"{folder}: no video below this folder ({', '.join(VIDEO_SUFFIXES)}).")
    return [VideoTask(store, tuple(found[store])) for store in sorted(found)]


def _store(source: str, video: Path) -> str:
    """The frame file of a video whose path below the folder of videos is given."""
    pattern, name = LAYOUTS.get(source, ("", ""))
    match = re.fullmatch(pattern, video.as_posix())
    stem = video.stem if match is None else match.expand(name)
    # assembly101's labels are of "assembly_{recording}" and "disassembly_{recording}", its files of the recording.
    if source == "assembly101" and not stem.startswith(("assembly_", "disassembly_")):
        return f"frames/{stem}.arrow"
    return frames_file(source, stem)


def _below(folder: Path) -> Iterator[Path]:
    """The videos below a folder, in the order of their paths; a folder that links lead to twice is searched once."""
    searched: set[tuple[int, int]] = set()
    videos: list[Path] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        stat = os.stat(place)
        if (stat.st_dev, stat.st_ino) in searched:
            folders.clear()
            continue
        searched.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in files if not name.startswith("."))
        videos += (path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES)
    return iter(sorted(videos))


def _named(names: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Path and uid of each line of a csv file."""
    try:
        with names.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            if not set(COLUMNS) <= set(lines.fieldnames or ()):
                raise DataError(f"{names}: the columns are {lines.fieldnames}; the first line must name video and uid.")
            rows = [(lines.line_num, row["video"], row["uid"]) for row in lines]
    except OSError as error:
        raise UsageError(f"sample.names={names}: cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{names}: not a csv file in UTF-8 ({error}).") from error
    taken: dict[str, int] = {}
    for number, named, uid in rows:
        where = f"{names}: line {number}"
        if not named or not uid:
            raise DataError(f"{where}: 'video' and 'uid' must both be given.")
        relative = PurePosixPath(named)
        if relative.is_absolute() or ".." in relative.parts:
            raise DataError(f"{where}: {named!r} is no path below {folder}; give one without '..'.")
        check_name(uid, f"{where}: uid")
        if named in taken:
            raise DataError(f"{where}: {named!r} stands on line {taken[named]} too; leave one out.")
        taken[named] = number
        if not (folder / relative).is_file():
            raise DataError(f"{where}: {folder / relative}: no such file.")
        yield folder / relative, uid
