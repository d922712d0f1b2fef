"""Reads what annotation releases are written in: csv files and times."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

from prospect_hf.checked_json import get
from prospect_hf.errors import DataError

_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2}(?:\.\d+)?)")


def read_text(path: Path) -> str:
    """The text of ``path``; errors as in :func:`decoded`."""
    return decoded(path.read_bytes(), str(path))


def decoded(data: bytes, where: str) -> str:
    """The text of ``data``. Raises ``DataError`` where it is no UTF-8 text; a byte order mark is taken."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 text ({error.reason} at byte {error.start}); save the file as UTF-8."
        ) from None
    if "\0" in text:
        raise DataError(f"{where}: the text has null characters, so it is in another encoding; save the file as UTF-8.")
    return text


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells without outer blanks) of each row of a csv file; rows without any text are passed over.

    Raises ``DataError`` where the file is no UTF-8 text or no csv.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: no valid csv ({error}).") from None


def number(text: str) -> float:
    """The number in a cell; NaN where it is none."""
    try:
        return math.nan if "_" in text else float(text)  # Python reads 1_000 as a number
    except ValueError:
        return math.nan


def clock_seconds(text: str) -> float:
    """The seconds of "HH:MM:SS.ff" or "MM:SS"; NaN where it is no such time."""
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return math.nan
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    if seconds >= 60 or (found[1] is not None and minutes >= 60):
        return math.nan
    return hours * 3600 + minutes * 60 + seconds


@overload
def get_seconds(record: dict[str, Any], key: str, where: str, missing: float) -> float: ...


@overload
def get_seconds(record: dict[str, Any], key: str, where: str) -> float | None: ...


def get_seconds(record: dict[str, Any], key: str, where: str, missing: float | None = None) -> float | None:
    """``record[key]``, any number; ``missing`` where there is none. ``video.session`` judges whether it is a time.

    Raises ``DataError`` where it is no number.
    """
    value = record.get(key)
    if value is None:
        return missing
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: '{key}' is no number; expected a time in seconds.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def get_flag(record: dict[str, Any], key: str, where: str) -> bool:
    """``record[key]``, which must be true or false."""
    value = get(record, key, where)
    if not isinstance(value, bool):
        raise DataError(f"{where}: '{key}' is neither true nor false.")
    return value
