"""Ego4D Goal-Step: ``goalstep_train.json`` and ``goalstep_val.json``, each with all the videos of a split.

Steps: the top-level segments, by their ``step_description``, or their ``step_category`` where it is empty. A segment
that is marked ``is_continued`` and has a new description continues the latest step of its category. Segments that are
marked irrelevant to the goal, and the substeps below a segment, are no steps; they are counted.
Turns: none; speech is not annotated.
Mistakes: none are annotated.
Split: the ``split`` of the file. ``*_unannotated.json``, the test videos without labels, are not read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, get, get_list, get_optional_text, get_text, load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.segments import BELOW_SEGMENT, IRRELEVANT
from prospect_hf.sources.annotations.fields import get_flag, get_seconds
from prospect_hf.sources.annotations.video import AnnotatedSegment, AnnotatedVideo, VideoRecord, by_start, step_key
from prospect_hf.sources.report import FILE_SPLITS

SPLITS = {file_split: split for split, file_split in FILE_SPLITS.items()}
CONTINUED = "continues a step in other words: joined to the latest step of its category"
CONTINUES_NOTHING = "continues a step that is not annotated: a step of its own"


def videos(folder: Path) -> Iterator[VideoRecord]:
    """The videos of all files ``goalstep_*.json`` in ``folder``."""
    paths = [path for path in sorted(folder.glob("goalstep_*.json")) if not path.stem.endswith("_unannotated")]
    if not paths:
        raise UsageError(f"{folder}: no goalstep_*.json; these are the annotation files of Ego4D Goal-Step.")
    for path in paths:
        release = as_dict(load_json(path), str(path))
        named = get_text(release, "split", str(path))
        if named not in SPLITS:
            raise DataError(f"{path}: 'split' is '{named[:40]}'; it must be one of {', '.join(SPLITS)}.")
        for number, value in enumerate(get_list(release, "videos", str(path))):
            uid = value.get("video_uid") if isinstance(value, dict) else None
            origin = f"{path}: videos[{number}]"
            yield VideoRecord(str(uid), origin, partial(_video, value, origin), SPLITS[named])


def _video(value: Any, origin: str) -> AnnotatedVideo:
    record = as_dict(value, origin)
    uid = get_text(record, "video_uid", origin)
    origin = f"{origin} ({uid})"
    repairs: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    segments, categories, continued = [], [], []
    for number, listed in enumerate(get_list(record, "segments", origin)):
        where = f"{origin}: segments[{number}]"
        one = as_dict(listed, where)
        left_out[BELOW_SEGMENT] += len(_substeps(one, where))
        if get_optional_text(one, "is_relevant", where) == "irrelevant":
            left_out[IRRELEVANT] += 1
            continue
        start, end = get_seconds(one, "start_time", where, math.nan), get_seconds(one, "end_time", where)
        category = get_optional_text(one, "step_category", where)
        segments.append(AnnotatedSegment(start, end, get_optional_text(one, "step_description", where) or category))
        categories.append(step_key(category))
        continued.append(get_flag(one, "is_continued", where))
    return AnnotatedVideo(
        video_uid=uid,
        goal=get_optional_text(record, "goal_description", origin) or get_text(record, "goal_category", origin),
        segments=_joined(segments, categories, continued, repairs),
        start=get_seconds(record, "start_time", origin, 0.0),
        duration=get_seconds(record, "end_time", origin),
        origin=origin,
        repairs=repairs,
        left_out=left_out,
    )


def _substeps(one: dict[str, Any], where: str) -> list[Any]:
    substeps = get(one, "segments", where)
    if not isinstance(substeps, list):
        raise DataError(f"{where}: 'segments' is no list; expected the list of substeps, which may be empty.")
    return substeps


def _joined(
    segments: list[AnnotatedSegment], categories: list[str], continued: list[bool], repairs: Counter[str]
) -> list[AnnotatedSegment]:
    """The segments; one that continues a step in other words gets the text of that step."""
    texts: set[str] = set()
    latest: dict[str, str] = {}  # category -> text of its latest step
    joined = list(segments)
    for number in sorted(range(len(segments)), key=lambda index: by_start(segments[index])):
        one, category = segments[number], categories[number]
        text = one.text
        if continued[number] and step_key(text) not in texts:
            if category and category in latest:
                text = latest[category]
                repairs[CONTINUED] += 1
            else:
                repairs[CONTINUES_NOTHING] += 1
        joined[number] = AnnotatedSegment(one.start, one.end, text)
        texts.add(step_key(text))
        latest[category] = text
    return joined
