"""Reads state labels from disk: the ``dst`` list of step spans in a record or in a separate label file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import (
    as_dict,
    get_dict,
    get_list,
    get_number,
    get_text,
    json_lines,
    json_records,
    load_json,
    parse_json,
)
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import Step

# Of labels whose record does not say what made them.
NOT_STATED = "not stated"
_STEP_ID = re.compile(r"S([1-9][0-9]{0,3})")


def step_index(step_id: str, steps: Sequence[Step], where: str) -> int:
    """The 0-based index of a step id "S1" to "SK". Raises ``DataError`` for another id."""
    match = _STEP_ID.fullmatch(step_id)
    if match is None or int(match[1]) > len(steps):
        raise DataError(f"{where}: 'id' is {step_id[:40]!r}; the plan has the steps S1 to S{len(steps)}.")
    return int(match[1]) - 1


def parse_spans(record: dict[str, Any], steps: Sequence[Step], where: str) -> tuple[Span, ...]:
    """The spans in ``record["dst"]``, in seconds. A repeated id re-opens a step; ``end_ts`` null: never completed.

    Raises ``DataError`` where the list is empty, an entry is invalid, or the record states another plan in "steps".
    """
    _check_plan(record, steps, where)
    spans = []
    for number, value in enumerate(get_list(record, "dst", where)):
        at = f"{where}: dst[{number}]"
        entry = as_dict(value, at)
        kind = get_text(entry, "type", at)
        if kind != "step":
            raise DataError(f"{at}: 'type' is '{kind}'; only steps have a state.")
        step = step_index(get_text(entry, "id", at), steps, at)
        start = get_number(entry, "start_ts", at)
        end = None
        if "end_ts" not in entry or entry["end_ts"] is not None:
            end = get_number(entry, "end_ts", at)
            if end <= start:
                raise DataError(f"{at}: 'end_ts' {end} is not after 'start_ts' {start}.")
        spans.append(Span(step, start, end))
    return tuple(spans)


def _check_plan(record: dict[str, Any], steps: Sequence[Step], where: str) -> None:
    """Compare the texts in ``record["steps"]``, where there are such, with the plan: an id says nothing without it."""
    stated = record.get("steps")
    if not isinstance(stated, list) or not all(isinstance(text, str) for text in stated):
        return
    if len(stated) != len(steps):
        raise DataError(
            f"{where}: the labels are of a plan of {len(stated)} steps, not of {len(steps)}; label it again."
        )
    for step, text in zip(steps, stated, strict=True):
        if text.split() != step.text.split():
            raise DataError(
                f"{where}: the labels are of another plan, whose {step.id} is {text[:40]!r}, not {step.text[:40]!r}; "
                "label it again."
            )


def made_by(record: dict[str, Any]) -> str:
    """What made the labels of a record: the aligner, its version and the language model that its provenance names.

    Nothing depends on it but what reports tell, so a record without it, or with another thing there, is none the worse.
    """
    provenance = record.get("provenance")
    facts = provenance if isinstance(provenance, dict) else {}
    aligner, version, model = (
        " ".join(fact.split())[:200] if isinstance(fact := facts.get(key), str) else ""
        for key in ("aligner", "version", "model")
    )
    said = version if version.startswith(aligner) else f"{aligner} {version}".strip()
    return f"{said}, {model}" if said and model else said or NOT_STATED


class LabelFiles:
    """The label files of one source and split under ``root``; ``refuse(place, error)`` is told of each bad record.

    Records with ``video_uid`` and ``dst`` are read from ``{source}/{split}*.jsonl``, one a line, and from the lists in
    ``{source}/{split}*.json`` and ``{source}/generated_dialogs/{split}*.json``. A video that they do not contain is
    looked up in ``{source}/{split}/{uid}.json``, ``{source}/{uid}.json`` and ``{uid}.json``.

    Raises ``UsageError`` where ``root`` is not a folder.
    """

    def __init__(self, root: Path, source: str, file_split: str, refuse: Callable[[str, DataError], None]) -> None:
        if not root.is_dir():
            raise UsageError(f"{root}: no such folder; set dst_root to the folder of state label files.")
        dialogs = f"{source}/generated_dialogs/{file_split}*.json"
        self._lists = [f"{source}/{file_split}*.jsonl", f"{source}/{file_split}*.json", dialogs]
        self._singles = [f"{source}/{file_split}/{{uid}}.json", f"{source}/{{uid}}.json", "{uid}.json"]
        self._root = root
        self._records: dict[str, tuple[dict[str, Any], str]] = {}
        self._asked: set[str] = set()
        for path in sorted(path for pattern in self._lists for path in root.glob(pattern)):
            lines = path.suffix == ".jsonl"
            for number, value in json_lines(path) if lines else enumerate(json_records(path)):
                where = f"{path}: {'line' if lines else 'record'} {number}"
                try:
                    self._add(as_dict(parse_json(value, where) if lines else value, where), where)
                except DataError as error:
                    refuse(where, error)

    @property
    def unused(self) -> int:
        """The number of videos in the lists whose labels were not asked for."""
        return len(self._records.keys() - self._asked)

    def _add(self, record: dict[str, Any], where: str) -> None:
        uid = get_text(record, "video_uid", where)
        where = f"{where} ({uid})"
        if uid in self._records and self._records[uid][0].get("dst") != record.get("dst"):
            raise DataError(f"{where}: state labels differ from those in {self._records[uid][1]}; keep one of the two.")
        # Records can hold the whole dialog besides the labels.
        self._records.setdefault(
            uid, ({key: record[key] for key in ("dst", "steps", "provenance") if key in record}, where)
        )

    def find(self, uid: str, where: str) -> tuple[dict[str, Any], str]:
        """The record with the labels of video ``uid``, and its place for messages.

        ``where`` names the requesting record. Raises ``DataError`` where no file has labels of the video.
        """
        self._asked.add(uid)
        if uid in self._records:
            return self._records[uid]
        for pattern in self._singles:
            path = self._root / pattern.format(uid=uid)
            if path.is_file():
                value = load_json(path)
                record = as_dict(value[0] if isinstance(value, list) and len(value) == 1 else value, str(path))
                if record.get("video_uid", uid) != uid:
                    raise DataError(f"{path}: the labels are those of {record['video_uid']!r}, not of {uid}.")
                return record, str(path)
        patterns = ", ".join([*self._lists, *self._singles])
        raise DataError(f"{where}: no state labels for {uid} under {self._root}; expected in {patterns}.")


def segment_text(record: dict[str, Any], where: str) -> str:
    """The annotated segments of a record, as one text with a line per segment."""
    return get_text(
        get_dict(record, "parsed_video_anns", where), "all_step_descriptions", f"{where}: parsed_video_anns"
    )
