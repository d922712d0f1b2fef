"""The videos of a corpus, each once, with what an aligner is given."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prospect_hf.align.alignment import Task
from prospect_hf.annotate.validation import Bounds
from prospect_hf.checked_json import get_text
from prospect_hf.errors import DataError
from prospect_hf.labels.annotation_lines import parse_annotation
from prospect_hf.labels.label_files import segment_text
from prospect_hf.labels.segments import reasons
from prospect_hf.sessions import FPS, check_name
from prospect_hf.sources.dialog_files import dialog_records
from prospect_hf.sources.proassist import DialogRecord, source_folder


class Key(NamedTuple):
    """What names a video in a corpus; ``uid`` is empty for a record that names none."""

    source: str
    split: str
    uid: str


@dataclass(frozen=True)
class Video:
    """A video that can be labelled.

    Args:
        key: its source, split and uid.
        inputs: hash of all that its labels follow from: of goal, plan and annotation, a hyphen, and of its length.
        task: what an aligner is given.
        bounds: the seconds that labels may have. The end is that of the frame store; without one it is not known: the
            ``duration`` of a record is the length of the video in some sources, and of the annotation in others.
        stated_end: the end by ``duration`` in seconds, which labels may exceed but not by far.
    """

    key: Key
    inputs: str
    task: Task
    bounds: Bounds
    stated_end: float | None


@dataclass(frozen=True)
class Unusable:
    """A record that cannot be labelled, and why; ``origin`` is its file and number."""

    key: Key
    origin: str
    reason: str


class Corpus:
    """The videos in dialog files, read record by record; every iteration reads the files again.

    Args:
        root: folder that holds ``processed_data``.
        files: (source, split) -> its dialog files, in the order of the output.
    """

    def __init__(self, root: Path, files: Mapping[tuple[str, str], list[Path]]) -> None:
        self.root, self.files = root, files

    def videos(self) -> Iterator[Video | Unusable]:
        """Each video of the corpus.

        Raises:
            DataError: a file is no list of records, or two records of one split have the same ``video_uid`` and differ
                in what labels follow from.
        """
        for (source, split), paths in self.files.items():
            yield from _videos(source_folder(self.root, source), Key(source, split, ""), paths)


def _videos(folder: Path, key: Key, paths: list[Path]) -> Iterator[Video | Unusable]:
    """The videos of one source and split; ``key`` names no video yet."""
    known: dict[str, tuple[str, str]] = {}
    refused: list[Unusable] = []

    def refuse(origin: str, error: DataError) -> None:
        refused.append(Unusable(key, origin, reason_of(error, origin)))

    for origin, record in dialog_records(paths, refuse):
        yield from _emptied(refused)
        found = _video(record, folder, key, origin)
        if found.key.uid:
            facts = found.inputs if isinstance(found, Video) else found.reason
            first_facts, first = known.setdefault(found.key.uid, (facts, origin))
            if facts != first_facts:
                raise DataError(
                    f"{origin}: video_uid '{found.key.uid}' is that of {first} too, but their goals, plans, "
                    "annotations or lengths differ; give two videos two names, or keep one of the records."
                )
            if first != origin:
                continue
        yield found
    yield from _emptied(refused)


def _emptied(refused: list[Unusable]) -> Iterator[Unusable]:
    """What stands in the place of records and is none; the list is empty afterwards."""
    yield from refused
    refused.clear()


def _video(record: dict[str, Any], folder: Path, key: Key, origin: str) -> Video | Unusable:
    try:
        uid = get_text(record, "video_uid", origin)
        check_name(uid, f"{origin}: video_uid")
        key = key._replace(uid=uid)
        parsed = DialogRecord(record, folder, key.source, origin)
        text = segment_text(record, parsed.origin)
        annotation = parse_annotation(text)
        if not annotation.lines:
            counts = reasons(Counter(line.reason for line in annotation.left_out))
            raise DataError(f"{origin}: all_step_descriptions has no timed line{f' ({counts})' if counts else ''}.")
        end = None if parsed.stored_frames is None else parsed.stored_frames / FPS
        bounds = Bounds(parsed.first_frame / FPS, end)
    except DataError as error:
        return Unusable(key, origin, reason_of(error, origin, key.uid))
    texts = [parsed.goal, [step.text for step in parsed.steps], text]
    inputs = f"{_hash(texts)}-{_hash([bounds.start_s, bounds.end_s, parsed.stated_end])}"
    return Video(key, inputs, Task(parsed.origin, parsed.goal, parsed.steps, annotation), bounds, parsed.stated_end)


def _hash(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def reason_of(error: Exception, origin: str, uid: str = "") -> str:
    """The message of an error without the place, which is told beside it, so that equal reasons can be counted."""
    return str(error).removeprefix(origin).removeprefix(f" ({uid})").lstrip(": ")
