"""EgoExoLearn, coarse annotations: ``coarse_annotations.tar.gz``, or the folder ``l1`` that it unpacks to.

Steps: the segments, by their description; its numbered lines ("1. Cut it.\\n2. Set it aside.") are one text.
Turns: none; nobody speaks, and nothing says when an assistant should.
Mistakes: none are annotated.
Goal: the release names none, so it is the same sentence for every video.
Split: the coarse annotations state none; a hash of the video.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from prospect_hf.checked_json import as_dict, get_optional_text, parse_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.sources.annotations.archive import files_in_archive
from prospect_hf.sources.annotations.fields import decoded, get_seconds, read_text
from prospect_hf.sources.annotations.video import NO_LENGTH, AnnotatedSegment, AnnotatedVideo, VideoRecord

GOAL = "Carry out the demonstrated task"
ARCHIVE, FOLDER = "coarse_annotations.tar.gz", "l1"
NO_DURATION = "segment without the duration of its video: taken from the other segments"
DURATIONS = "segments state different durations of their video: the longest"
_NUMBER = re.compile(r"^\s*\d{1,3}\.\s+")


def videos(folder: Path) -> Iterator[VideoRecord]:
    """The videos of ``coarse_annotations.tar.gz`` in ``folder``, or else of its folder ``l1``."""
    archive, paths = folder / ARCHIVE, sorted((folder / FOLDER).glob("*.json"))
    if archive.is_file():
        for name, content in files_in_archive(archive):
            if name.endswith(".json"):
                origin = f"{archive}: {name}"
                uid = PurePosixPath(name).stem
                yield VideoRecord(uid, origin, partial(_video, uid, origin, partial(decoded, content, origin)))
    elif not paths:
        raise UsageError(f"{folder}: no {ARCHIVE} and no {FOLDER}/*.json; they are EgoExoLearn's coarse annotations.")
    else:
        for path in paths:
            yield VideoRecord(path.stem, str(path), partial(_video, path.stem, str(path), partial(read_text, path)))


def _video(uid: str, origin: str, read: Callable[[], str]) -> AnnotatedVideo:
    listed: Any = parse_json(read(), origin)
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{origin}: expected a list of segments with at least one.")
    segments: list[AnnotatedSegment] = []
    durations: list[float] = []
    repairs: Counter[str] = Counter()
    for number, value in enumerate(listed):
        where = f"{origin}: segment {number}"
        one = as_dict(value, where)
        text = " ".join(_NUMBER.sub("", line) for line in get_optional_text(one, "textAttribute_en", where).split("\n"))
        segments.append(
            AnnotatedSegment(get_seconds(one, "start", where, math.nan), get_seconds(one, "end", where), text)
        )
        duration = get_seconds(one, "duration", where) if "duration" in one else None
        if duration is None or not 0 < duration < math.inf:
            repairs[NO_DURATION] += 1
        else:
            durations.append(duration)
    if not durations:
        repairs = Counter({NO_LENGTH: 1})
    repairs[DURATIONS] = int(len(set(durations)) > 1)
    return AnnotatedVideo(
        video_uid=uid,
        goal=GOAL,
        segments=segments,
        duration=max(durations, default=None),
        origin=origin,
        repairs=repairs,
    )
