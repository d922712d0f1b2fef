"""EPIC-KITCHENS-100: ``EPIC_100_train.csv``, ``EPIC_100_validation.csv`` and parts of them, with a narration a row.

Steps: the narrations, by their text: "open drawer" is one step that is done again and again.
Turns: none; a narration was spoken afterwards, to annotate the video.
Mistakes: none are annotated.
Goal: the release names none, so it is the same sentence for every video.
Length: the durations in ``EPIC_100_video_info.csv``, where it lies in the folder.
Split: the word "train" or "validation" in the file's name; where it has neither, a hash of the video. Files without
narrations (classes, the test split's times, retrieval) are not read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from prospect_hf.errors import DataError, UsageError
from prospect_hf.sources.annotations.fields import clock_seconds, csv_rows, number
from prospect_hf.sources.annotations.video import NO_LENGTH, AnnotatedSegment, AnnotatedVideo, VideoRecord

GOAL = "Work in the kitchen"
INFO = "EPIC_100_video_info.csv"
COLUMNS = ("narration_id", "video_id", "start_timestamp", "stop_timestamp", "narration")
# Words in the names of files of the release that hold no narrations.
_OTHER_FILES = re.compile(r"video_info|classes|tail|unseen|timestamps|retrieval|sentence", re.IGNORECASE)

TOO_SHORT = "row with fewer columns than the head of its file"
NARRATED_TWICE = "narration that two rows have: the first"


@dataclass
class _Rows:
    """The rows of one video in the files of one split."""

    origin: str
    segments: dict[str, AnnotatedSegment] = field(default_factory=dict)
    repairs: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def videos(folder: Path) -> Iterator[VideoRecord]:
    """The videos of the narration files in ``folder``; a video may be in several files of one split."""
    paths = [path for path in sorted(folder.glob("*.csv")) if not _OTHER_FILES.search(path.name)]
    if not paths:
        raise UsageError(f"{folder}: no csv file of narrations, such as EPIC_100_train.csv.")
    durations = _durations(folder / INFO)
    by_split: dict[str | None, dict[str, _Rows]] = {}
    for path in paths:
        _read(path, by_split.setdefault(_split(path), {}))
    for split, by_video in by_split.items():
        for uid, rows in by_video.items():
            yield VideoRecord(uid, rows.origin, partial(_video, uid, rows, durations.get(uid)), split)


def _split(path: Path) -> str | None:
    found = [split for split in ("train", "validation") if split in path.stem.lower()]
    if len(found) > 1:
        raise DataError(f"{path}: the name has both words train and validation; a file is of one split.")
    return found[0] if found else None


def _table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str] | None]]:
    """(line, cells in the order of ``columns``) of each row; None for the cells of a row that lacks one.

    Raises ``DataError`` where the head of the file lacks one of the columns, or has it twice.
    """
    rows = csv_rows(path)
    _, head = next(rows, (0, []))
    wrong = [name for name in columns if head.count(name) != 1]
    if wrong:
        raise DataError(
            f"{path}: the column {' and '.join(wrong)} must be there once; the file's columns are "
            f"{', '.join(cell[:40] for cell in head[:20]) or 'none'}."
        )
    places = [head.index(name) for name in columns]
    for line, cells in rows:
        yield line, [cells[place] for place in places] if len(cells) > max(places) else None


def _read(path: Path, videos: dict[str, _Rows]) -> None:
    """Add the rows of ``path`` to those of its split."""
    above: _Rows | None = None
    for line, cells in _table(path, COLUMNS):
        if cells is None or not cells[1]:
            if above is None:
                raise DataError(f"{path}: line {line}: the row names no video; mend it or remove it.")
            above.left_out[TOO_SHORT] += 1  # its own video is not known
            continue
        identity, uid, start, stop, narration = cells
        above = videos.setdefault(uid, _Rows(f"{path}: video {uid[:80]}"))
        if identity in above.segments:
            above.repairs[NARRATED_TWICE] += 1
        else:
            above.segments[identity] = AnnotatedSegment(clock_seconds(start), clock_seconds(stop), narration)


def _durations(path: Path) -> dict[str, float]:
    """Video -> seconds; empty where there is no such file."""
    durations: dict[str, float] = {}
    if not path.is_file():
        return durations
    for line, cells in _table(path, ("video_id", "duration")):
        seconds = number(cells[1]) if cells is not None else 0.0
        if cells is None or not 0 < seconds < float("inf"):
            raise DataError(f"{path}: line {line}: no duration in seconds; mend the row or remove it.")
        durations[cells[0]] = seconds
    return durations


def _video(uid: str, rows: _Rows, duration: float | None) -> AnnotatedVideo:
    return AnnotatedVideo(
        video_uid=uid,
        goal=GOAL,
        segments=list(rows.segments.values()),
        duration=duration,
        origin=rows.origin,
        repairs=rows.repairs + Counter({NO_LENGTH: int(duration is None)}),
        left_out=rows.left_out,
    )
