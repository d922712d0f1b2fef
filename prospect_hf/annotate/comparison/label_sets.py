"""Reads a set of state labels in any of the forms in which labels lie about: folders, lists, lines, one record.

A record need not hold more than ``video_uid`` and labels. What else it says of its video is kept: source, plan,
annotation, length, and who made the labels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import (
    as_dict,
    get_dict,
    get_list,
    get_number,
    get_optional_text,
    get_text,
    json_lines,
    json_records,
    load_json,
    parse_json,
)
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.label_files import NOT_STATED, made_by, parse_spans
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import SOURCES, Step, check_name, check_time
from prospect_hf.sources.knowledge import parse_steps
from prospect_hf.sources.report import FILE_SPLITS

DST = "dst"
# The folders below which label files, a corpus, and the failures of ``prospect annotate`` hold one folder a source.
_BASES = ("", "processed_data", "failed")
_ID = re.compile(r"S([1-9][0-9]{0,3})")

Key = tuple[str, str]  # source, "" where nothing tells it; video_uid


@dataclass(frozen=True)
class SetRecord:
    """What a record says of a video.

    Args:
        source: one of ``SOURCES``, or "" where nothing tells it.
        uid, where: its video_uid; file and record, for messages.
        goal: of the task, "" where the record has none.
        plan: the texts of the steps; empty where the record states no plan.
        annotation: the text of the annotation lines, or "".
        start_s, end_s: the seconds that the record covers, as it says; ``end_s`` None where it does not.
        entries: the list of labels as it stands; None where there are none.
        made_by: aligner, version and language model, or "not stated".
        fault: why its labels cannot be used, or "".
    """

    source: str
    uid: str
    where: str
    goal: str = ""
    plan: tuple[str, ...] = ()
    annotation: str = ""
    start_s: float = 0.0
    end_s: float | None = None
    entries: list[Any] | None = None
    made_by: str = NOT_STATED
    fault: str = ""

    @property
    def names(self) -> dict[int, str]:
        """0-based step -> what this record calls it: by its plan, else by the labels' own names."""
        if self.plan:
            return dict(enumerate(self.plan))
        numbers = [(_number(entry), entry) for entry in map(_entry, self.entries or [])]
        texts = {number: entry.get("name") for number, entry in numbers if number is not None}
        return {number: text if isinstance(text, str) else "" for number, text in texts.items()}

    def spans(self, steps: tuple[Step, ...], key: str) -> tuple[Span, ...]:
        """Its labels. Raises ``DataError`` where they are not valid, or are none."""
        where = f"{self.where} ({self.uid})"
        if key != DST:
            where += f", labels at '{key}'"
        return parse_spans({DST: [_entry(entry) for entry in self.entries or []]}, steps, where)


@dataclass
class LabelSet:
    """The records of a label set.

    Args:
        name: as it was given.
        key: where a record holds its labels.
        records: by source and video_uid.
        refused: (place, reason) of each record that is none.
        files: the files that were read.
        ignored: the JSON files of a folder that hold no labels.
    """

    name: str
    key: str
    records: dict[Key, SetRecord] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)

    def add(self, record: SetRecord) -> None:
        """Take a record in. Of two of one video, that with labels counts; different labels are a fault."""
        key = (record.source, record.uid)
        known = self.records.get(key)
        if known is None or (known.entries is None and record.entries is not None):
            self.records[key] = record
        elif record.entries is not None and record.entries != known.entries:
            fault = f"{known.where} and {record.where} have different labels of {record.uid}; keep one of the two."
            self.records[key] = replace(known, fault=fault)

    def makers(self) -> Counter[str]:
        """How many records each aligner has made, where they say so."""
        return Counter(record.made_by for record in self.records.values() if record.made_by != NOT_STATED)


def read_label_set(given: str) -> LabelSet:
    """The label set at ``given``: a folder or a file, with ``#KEY`` where the labels are not at ``dst``.

    A folder holds label files as :class:`prospect_hf.labels.label_files.LabelFiles` finds them, with or without a
    folder for each source, or is a corpus with ``processed_data``. A file is a list of records, a record, or JSON lines
    with a record a line. An entry of the labels is an object, or a list of id, start and end.

    Raises:
        UsageError: there is no such file or folder, the folder holds no label file, or no key follows "#".
        DataError: a file is no JSON, or no record has labels.
    """
    name, key = given, DST
    if not Path(given).exists() and "#" in given:
        name, _, key = given.rpartition("#")
        if not key:
            raise UsageError(f"{given}: give the key of the labels after #, or leave # out.")
    found = _read(Path(name), given, key)
    if all(record.entries is None for record in found.records.values()):
        reasons = [record.fault for record in found.records.values()] + [reason for _, reason in found.refused]
        raise DataError(f"{given}: none of {len(reasons)} records has labels; the first: {reasons[0]}")
    return found


def read_corpus(root: Path) -> LabelSet:
    """The records of a corpus for what they say of their videos, without labels; errors as :func:`read_label_set`."""
    return _read(root, str(root), "")


def _read(path: Path, name: str, key: str) -> LabelSet:
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder; give a folder of label files, or a JSON file of records.")
    found = LabelSet(name, key)
    for file in _files(path) if path.is_dir() else [path]:
        source = next((part for part in reversed(file.parts) if part in SOURCES), "")
        alone = file.suffix != ".jsonl" and not _opens_list(file)
        values = iter([(str(file), load_json(file))]) if alone else _values(file)
        for number, (where, value) in enumerate(values):
            if number == 0 and path.is_dir() and not _is_record(value, key):
                found.ignored.append(file)
                break
            if number == 0:
                found.files.append(file)
            try:
                record = parse_json(value, where) if isinstance(value, str) else value
                found.add(_record(as_dict(record, where), source, where, key, file.stem if alone else None))
            except DataError as error:
                found.refused.append((where, str(error).removeprefix(f"{where}: ")))
    if not found.records and not found.refused:
        looked = f" ({len(found.ignored)} JSON files hold no records of videos)" if found.ignored else ""
        raise UsageError(
            f"{path}: no label file{looked}; expected records with 'video_uid' and 'dst' in SOURCE/SPLIT.jsonl, "
            "SOURCE/SPLIT.json, SOURCE/UID.json or UID.json."
        )
    return found


def _files(folder: Path) -> list[Path]:
    """The JSON files of a folder where labels may lie: of the folder itself and of each source's."""
    sources = [folder / base / source for base in _BASES for source in SOURCES]
    folders = [place / below for place in (folder, *sources) for below in ("", "generated_dialogs")]
    folders += [place / split for place in folders for split in FILE_SPLITS.values()]
    return [
        path
        for place in folders
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.suffix in (".json", ".jsonl") and path.is_file()
    ]


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each record of a list; of JSON lines the value is a text, to be parsed one by one."""
    if path.suffix == ".jsonl":
        yield from ((f"{path}: line {number}", line) for number, line in json_lines(path))
    else:
        yield from ((f"{path}: record {number}", value) for number, value in enumerate(json_records(path)))


def _opens_list(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(4096).lstrip()[:1] == "["


def _is_record(value: Any, key: str) -> bool:
    """Whether a value of a file looks like one of a video, as the first of a label file does."""
    if isinstance(value, str):
        try:
            value = parse_json(value, "")
        except DataError:
            return True  # a damaged line is told, not passed over
    return isinstance(value, dict) and ("video_uid" in value or key in value)


def _record(value: dict[str, Any], source: str, where: str, key: str, stem: str | None) -> SetRecord:
    """What a record says; ``stem`` is the name of its file where it is alone there, which names a video too."""
    uid = stem if stem is not None and "video_uid" not in value else get_text(value, "video_uid", where)
    check_name(uid, f"{where}: video_uid")
    stated = [get_optional_text(value, "source", where)]
    annotation, about, goal = "", {}, get_optional_text(value, "inferred_goal", where)
    if value.get("parsed_video_anns") is not None:
        about = get_dict(value, "parsed_video_anns", where)
        annotation = get_optional_text(about, "all_step_descriptions", where)
        stated.append(get_optional_text(about, "dataset", where).split("-")[0])  # "ego4d-goalstep"
    found = SetRecord(
        next((name for name in stated if name in SOURCES), source),
        uid,
        where,
        goal,
        annotation=annotation or get_optional_text(value, "all_step_descriptions", where),
    )
    try:
        start, end = _covered(about, where)
        found = replace(found, start_s=start, end_s=end, plan=_plan(value, where), made_by=made_by(value))
    except DataError as error:
        found = replace(found, fault=str(error))
    if not key:
        return found
    entries = value.get(key)
    if isinstance(entries, list) and entries:
        return replace(found, entries=entries)
    return replace(found, fault=found.fault or _without_labels(value, key, where))


def _without_labels(value: dict[str, Any], key: str, where: str) -> str:
    if isinstance(value.get("reason"), str):  # as ``prospect annotate`` lists its failures
        return f"{where}: no labels ({value['reason']})"
    if key not in value:
        return f"{where}: the record has no '{key}'."
    try:
        get_list(value, key, where)
    except DataError as error:
        return str(error)
    raise AssertionError(f"{where}: '{key}' holds labels")


def _covered(about: dict[str, Any], where: str) -> tuple[float, float | None]:
    """The seconds that a record covers by its ``parsed_video_anns``."""
    times = {}
    for name in ("video_start_time", "duration"):
        if about.get(name) is not None:
            times[name] = get_number(about, name, where)
            check_time(times[name], f"{where}: '{name}'")
    start = times.get("video_start_time", 0.0)
    return start, start + times["duration"] if "duration" in times else None


def _plan(value: dict[str, Any], where: str) -> tuple[str, ...]:
    """The plan of a record: ``steps``, a list of texts, or the numbered steps of ``inferred_knowledge``."""
    if isinstance(value.get("steps"), list):
        texts = get_list(value, "steps", where)
        return tuple(get_text({"steps": text}, "steps", where) for text in texts)
    knowledge = get_optional_text(value, "inferred_knowledge", where)
    if not knowledge:
        return ()
    return tuple(step.text for step in parse_steps(knowledge, f"{where}: 'inferred_knowledge'"))


def _entry(value: Any) -> Any:
    """An entry of a list of labels; ``[id, start, end]`` as the object that it stands for."""
    if isinstance(value, list) and len(value) == 3:
        return {"type": "step", "id": value[0], "start_ts": value[1], "end_ts": value[2]}
    return value


def _number(entry: Any) -> int | None:
    """The 0-based step that an entry names, None where it names none."""
    name = entry.get("id") if isinstance(entry, dict) else None
    match = _ID.fullmatch(name) if isinstance(name, str) else None
    return None if match is None else int(match[1]) - 1
