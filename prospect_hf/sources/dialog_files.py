"""Finds and reads the files of ``generated_dialogs``: lists with a record for each video, or a file for each video.

ProAssist writes a file for each video first (``train/{uid}.json``), joins them to a list (``train.json``), and filters
the lists by quality (``train_filtered.json``). The filter also divides its validation list into validation and test, so
the forms before it have no test split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prospect_hf.checked_json import as_dict, json_records, load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.sources.report import FILE_SPLITS

# The suffix of the filtered lists, and the one that names the folders with a file for each video.
FILTERED, PER_VIDEO = "_filtered", "/"


def dialog_files(root: Path, source: str, split: str, suffix: str = FILTERED) -> list[Path]:
    """The dialog files of ``split`` (train, validation or test): one list, or the files of the videos; empty for none.

    ``suffix`` says which: "_filtered" or another ending of the list's name, "" for the unfiltered list, "/" for the
    folder with a file for each video. The folder is also read where it is all that there is.

    Raises ``UsageError`` where the list that ``suffix`` names is missing and there are both a folder and other lists.
    """
    folder = root / "processed_data" / source / "generated_dialogs"
    name = FILE_SPLITS[split]
    listed = folder / f"{name}{suffix}.json"
    if suffix != PER_VIDEO and listed.is_file():
        return [listed]
    videos = sorted((folder / name).glob("*.json"))
    others = sorted(path.name for path in folder.glob(f"{name}*.json") if path.is_file())
    if videos and others and suffix != PER_VIDEO:
        raise UsageError(
            f"{folder}: there is no {listed.name}, but there are {', '.join(others)} and {name}/; say which to read: "
            f"suffix={others[0].removesuffix('.json').removeprefix(name) or repr('')}, or suffix={PER_VIDEO} for "
            f"{name}/."
        )
    return videos


def other_forms(root: Path, source: str) -> list[str]:
    """The names of all lists and folders of dialogs of ``source``, for the message that those asked for are missing."""
    folder = root / "processed_data" / source / "generated_dialogs"
    names = FILE_SPLITS.values()
    lists = [path.name for name in names for path in folder.glob(f"{name}*.json") if path.is_file()]
    return sorted([*lists, *(f"{name}/" for name in names if any((folder / name).glob("*.json")))])


def dialog_records(paths: list[Path], refuse: Callable[[str, DataError], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for messages, record) of each video in the files of ``dialog_files``, one by one.

    ``refuse`` is told of a record that is none. Raises ``DataError`` where a list is no list, or is empty.
    """
    for path in paths:
        if path.parent.name == "generated_dialogs":
            number = -1
            for number, value in enumerate(json_records(path)):
                origin = f"{path}: record {number}"
                try:
                    record = as_dict(value, origin)
                except DataError as error:
                    refuse(origin, error)
                    continue
                yield origin, record
            if number < 0:
                raise DataError(f"{path}: the list of records is empty.")
        else:
            try:
                record = _record_of_video(path)
            except DataError as error:
                refuse(str(path), error)
                continue
            yield str(path), record


def _record_of_video(path: Path) -> dict[str, Any]:
    """The record in the file of one video: an object, or a list of one."""
    value = load_json(path)
    if isinstance(value, list) and len(value) != 1:
        raise DataError(f"{path}: a list of {len(value)} records; the file of a video has one.")
    record = as_dict(value[0] if isinstance(value, list) else value, str(path))
    if record.get("video_uid", path.stem) != path.stem:
        raise DataError(f"{path}: the record is that of {record['video_uid']!r}; the file is named after its video.")
    return record
