"""HoloAssist: ``labels/*.json``, one file a video, or the release's one file ``data-annotation-*.json``.

Steps: the coarse actions, by their sentence.
Turns: what was said. The instructor is the assistant and speaks at the start of an utterance; the student is the user,
whose words are known at their end. Turns stand in the order of their starts. Left out and counted: closing remarks and
remarks about the picture, which speak of the recording ("you can press stop"), and utterances without a word.
The purpose that the annotators gave an utterance becomes the intent in ``labels``.
Mistakes: the fine actions that are not marked as correct, with the explanation. The correct ones are no steps of the
plan; they are counted as below a segment.
Split: the lists ``train-*.txt``, ``val-*.txt`` and ``test-*.txt`` of the release, where they lie in the folder; else a
hash of the recording. Parts of one recording ("-Part1") are in one split.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, get_dict, get_list, get_optional_text, get_text, load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.segments import ABOUT_RECORDING, BELOW_SEGMENT, NO_VALID_TIME, SUMMARY, WITHOUT_WORDS
from prospect_hf.sessions import Mistake, Turn
from prospect_hf.sources.annotations.fields import clock_seconds, get_seconds, read_text
from prospect_hf.sources.annotations.video import DIALOGUE, AnnotatedSegment, AnnotatedVideo, VideoRecord
from prospect_hf.sources.report import FILE_SPLITS

# The purpose of the instructor's utterance, without the part that says who began -> intent.
INTENTS = {
    "describing high-level instruction": "instruction",
    "follow-up instruction": "instruction",
    "confirming the previous action": "feedback",
    "confirming past or future action": "feedback",
    "correct the wrong action": "correction",
    "opening remarks": "other",
    "other": "other",
}
RECORDING_PURPOSES = ("closing remarks", "adjusting to capture better quality video")
_PURPOSE = re.compile(r"(instructor|student)-(start-conversation|reply-to-student|reply-to-instructor)_(.+)")
_UNINTELLIGIBLE = re.compile(r"\W*\bunintell?i?gible\b\W*", re.IGNORECASE)
CORRECT, NONE = "Correct Action", "none"

SPEECH_OVERLAP = "speech overlaps the utterance above it: both kept"
SPEECH_UNSORTED = "speech starts before the utterance above it: sorted by time"
UNKNOWN_EVENT = "event of an unknown kind"
UNKNOWN_CORRECTNESS = "fine action that is marked neither correct nor wrong"
UNKNOWN_SPEAKER = "speech whose purpose names no speaker"


def videos(folder: Path) -> Iterator[VideoRecord]:
    """The videos of ``labels/*.json`` in ``folder``, or else of ``data-annotation-*.json``."""
    splits = _split_lists(folder)
    paths = sorted((folder / "labels").glob("*.json"))
    for path in paths:
        yield VideoRecord(path.stem, str(path), partial(_file, path), splits.get(path.stem))
    if paths:
        return
    releases = sorted(folder.glob("data-annotation-*.json"))
    if not releases:
        raise UsageError(f"{folder}: no labels/*.json and no data-annotation-*.json; they are HoloAssist's labels.")
    for path in releases:
        records = load_json(path)
        if not isinstance(records, list):
            raise DataError(f"{path}: expected a list of records, one per video.")
        for number, value in enumerate(records):
            uid = str(value.get("video_name")) if isinstance(value, dict) else ""
            origin = f"{path}: record {number}"
            yield VideoRecord(uid, origin, partial(_video, value, origin), splits.get(uid))


def _split_lists(folder: Path) -> dict[str, str]:
    """Video -> split, from the release's lists of video names; empty where there are none."""
    splits: dict[str, str] = {}
    for split, file_split in FILE_SPLITS.items():
        for path in sorted(folder.glob(f"{file_split}-*.txt")):
            for uid in read_text(path).split():
                if splits.setdefault(uid, split) != split:
                    raise DataError(f"{path}: video '{uid[:80]}' is in the list of {splits[uid]} too; keep one.")
    return splits


def _file(path: Path) -> AnnotatedVideo:
    video = _video(load_json(path), str(path))
    if video.video_uid != path.stem:
        raise DataError(f"{path}: 'video_name' is '{video.video_uid[:80]}', but the file is named after another video.")
    return video


def _video(value: Any, origin: str) -> AnnotatedVideo:
    record = as_dict(value, origin)
    uid = get_text(record, "video_name", origin)
    repairs: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    segments: list[AnnotatedSegment] = []
    mistakes: list[Mistake] = []
    speech: list[tuple[float, float, Turn]] = []
    for number, listed in enumerate(get_list(record, "events", origin)):
        where = f"{origin}: events[{number}]"
        event = as_dict(listed, where)
        kind, attributes = get_text(event, "label", where), get_dict(event, "attributes", where)
        start, end = get_seconds(event, "start", where, math.nan), get_seconds(event, "end", where)
        if kind == "Coarse grained action":
            sentence = get_optional_text(attributes, "Action sentence", where)
            segments.append(AnnotatedSegment(start, end, "" if sentence == NONE else sentence))
        elif kind == "Fine grained action":
            correctness = get_optional_text(attributes, "Action Correctness", where)
            if correctness in ("", NONE):
                left_out[UNKNOWN_CORRECTNESS] += 1
            elif correctness == CORRECT:
                left_out[BELOW_SEGMENT] += 1
            else:
                mistakes.append(Mistake(start, math.nan if end is None else end, _mistake(attributes, where)))
        elif kind == "Conversation":
            said = _said(start, end, attributes, where)
            if isinstance(said, str):
                left_out[said] += 1
            else:
                speech.append(said)
        else:
            left_out[SUMMARY if kind == "Narration" else UNKNOWN_EVENT] += 1
    repairs[SPEECH_UNSORTED] = sum(below[0] < above[0] for above, below in pairwise(speech))
    speech.sort(key=lambda one: one[0])
    repairs[SPEECH_OVERLAP] = sum(below[0] < above[1] for above, below in pairwise(speech))
    return AnnotatedVideo(
        video_uid=uid,
        goal=get_text(record, "taskType", origin),
        segments=segments,
        turns=[turn for _, _, turn in speech],
        mistakes=mistakes,
        duration=_duration(record, origin),
        user_type=DIALOGUE,
        origin=origin,
        repairs=repairs,
        left_out=left_out,
    )


def _duration(record: dict[str, Any], origin: str) -> float | None:
    """The length of the video in seconds; "raw" has the fraction that "seconds" lacks."""
    where = f"{origin}: videoMetadata"
    duration = get_dict(get_dict(record, "videoMetadata", origin), "duration", where)
    exact = clock_seconds(get_optional_text(duration, "raw", f"{where}: duration"))
    return get_seconds(duration, "seconds", f"{where}: duration") if math.isnan(exact) else exact


def _mistake(attributes: dict[str, Any], where: str) -> str:
    """What was done, and what is wrong with it: "press green button: The student clicks the wrong button."."""
    words = [get_optional_text(attributes, key, where) for key in ("Verb", "Adjective", "Noun")]
    action = " ".join(word.replace("_", " ") for word in words if word not in ("", NONE))
    explanation = get_optional_text(attributes, "Incorrect Action Explanation", where)
    return ": ".join(part for part in (action, explanation) if part not in ("", NONE)) or "wrong action"


def _said(start: float, end: float | None, attributes: dict[str, Any], where: str) -> tuple[float, float, Turn] | str:
    """(start, end, turn) of an utterance, or the reason why it is no turn."""
    purpose = _PURPOSE.fullmatch(get_optional_text(attributes, "Conversation Purpose", where).strip())
    text = get_optional_text(attributes, "Transcription", where).strip()
    if purpose is None:
        return UNKNOWN_SPEAKER
    if purpose[3] in RECORDING_PURPOSES:
        return ABOUT_RECORDING
    if text == NONE or not re.search(r"\w", _UNINTELLIGIBLE.sub("", text)):
        return WITHOUT_WORDS
    end = start if end is None or not end > start else end
    if not (math.isfinite(end) and start >= 0):
        return NO_VALID_TIME
    if purpose[1] == "student":
        return start, end, Turn("user", end, text)
    began = "initiative" if purpose[2] == "start-conversation" else "responsive"
    return start, end, Turn("assistant", start, text, f"{began}|{INTENTS.get(purpose[3], 'other')}")
