"""Reads what annotation releases are written in: csv files and times."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path

from prospect_hf.errors import DataError

_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2}(?:\.\d+)?)")


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells without outer blanks) of each row of a csv file; rows without any text are passed over.

    Raises ``DataError`` where the file is no UTF-8 text (a byte order mark is taken) or no csv.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save the file as UTF-8."
        ) from None
    if "\0" in text:
        raise DataError(f"{path}: the file has null characters, so it is no csv in UTF-8; save it as UTF-8.")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
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
        return float(text)
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
