"""Typed access to unvalidated JSON; each error names the file, the record and the key.

``where`` names the record in messages. The ``get`` functions raise ``DataError`` for a missing key or a wrong value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from prospect_hf.errors import DataError, UsageError

# No time, rate or index is larger; above it a float skips whole numbers, and products of two could be infinite.
LARGEST = 1e15
# Characters of a list file that are read at a time.
CHUNK = 1 << 20
_BLANK = " \t\n\r"
_BLANKS = re.compile(f"[{_BLANK}]+")
_DECODE = json.JSONDecoder().raw_decode


def load_json(path: Path) -> Any:
    """The JSON value in ``path``. Raises ``UsageError`` for a missing file, ``DataError`` for invalid JSON."""
    return parse_json(_read(path), str(path))


def json_records(path: Path) -> Iterator[Any]:
    """The entries of the list in ``path``, one by one: memory holds the text of one entry, not that of the file.

    Errors as in :func:`load_json`, in the same words; they come when the faulty entry is reached. Raises ``DataError``
    where the file holds another value than a list.
    """
    try:
        yield from _entries(path)
    except (ValueError, RecursionError):
        # The error of the whole text says what is wrong in which line.
        if isinstance(load_json(path), list):
            raise
        raise DataError(f"{path}: expected a list of records.") from None


def _entries(path: Path) -> Iterator[Any]:
    with _opened(path) as file:
        text = file.read(CHUNK)
        while text and not text.strip(_BLANK):
            text = file.read(CHUNK)
        opening = _after_blanks(text, 0)
        if text[opening : opening + 1] != "[":
            raise ValueError("no list")
        at, mark = opening + 1, "["
        while mark != "]":
            found = _entry(text, at, mark)
            if found is None:
                piece = file.read(max(CHUNK, len(text) - at))  # doubles, so that a long entry is read few times
                if not piece:
                    raise ValueError("no entry, or no end of the list")
                text, at = text[at:] + piece, 0
                continue
            entries, mark, at = found
            yield from entries
        rest = text[at:]
        while not rest.strip(_BLANK):
            rest = file.read(CHUNK)
            if not rest:
                return
        raise ValueError("text after the list")


def _entry(text: str, at: int, opened_by: str) -> tuple[list[Any], str, int] | None:
    """The entry at ``at``, the mark behind it and the place behind that; None where the text must go on first.

    A number at the end of a piece may go on in the next one, so an entry is taken only with the mark behind it.
    """
    at = _after_blanks(text, at)
    if opened_by == "[" and text[at : at + 1] == "]":
        return [], "]", at + 1
    try:
        value, end = _DECODE(text, at)
    except (ValueError, RecursionError):
        return None
    end = _after_blanks(text, end)
    return ([value], text[end], end + 1) if text[end : end + 1] in (",", "]") else None


def _after_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return at if found is None else found.end()


def json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of each non-empty line of ``path``, to be parsed one by one.

    Only a line feed ends a line: ``str.splitlines`` would cut texts at U+2028 and other characters that JSON allows.
    Memory holds one line. Errors as in :func:`load_json`.
    """
    with _opened(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
        except UnicodeDecodeError:
            _read(path)  # its error names the byte
            raise


def _opened(path: Path) -> TextIO:
    try:
        # A byte order mark is no part of the text.
        return path.open(encoding="utf-8-sig", newline="\n")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file.") from None


def _read(path: Path) -> str:
    try:
        with _opened(path) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error


def parse_json(text: str, where: str) -> Any:
    """The JSON value in ``text``. Raises ``DataError`` for invalid JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: invalid JSON ({error.msg} at line {error.lineno}, column {error.colno}).") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise DataError(f"{where}: a number cannot be read ({str(error).split(';')[0]}).") from error
    except RecursionError:
        raise DataError(f"{where}: JSON nested too deeply.") from None


def as_dict(value: Any, where: str) -> dict[str, Any]:
    """``value``, which must be an object."""
    if not isinstance(value, dict):
        raise DataError(f"{where} is {_kind(value)}; expected an object.")
    return value


def get(record: dict[str, Any], key: str, where: str) -> Any:
    """``record[key]``, of any type."""
    if key not in record:
        raise DataError(f"{where}: key '{key}' is missing.")
    return record[key]


def get_dict(record: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """``record[key]``, which must be an object."""
    return as_dict(get(record, key, where), f"{where}: '{key}'")


def get_list(record: dict[str, Any], key: str, where: str) -> list[Any]:
    """``record[key]``, which must be a list with at least one entry."""
    value = get(record, key, where)
    if not isinstance(value, list):
        raise DataError(f"{where}: '{key}' is {_kind(value)}; expected a list.")
    if not value:
        raise DataError(f"{where}: '{key}' is an empty list; expected at least one entry.")
    return value


def get_text(record: dict[str, Any], key: str, where: str) -> str:
    """``record[key]``, which must be non-empty text."""
    value = get(record, key, where)
    if not isinstance(value, str):
        raise DataError(f"{where}: '{key}' is {_kind(value)}; expected text.")
    if not value.strip():
        raise DataError(f"{where}: '{key}' is empty text.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"U+{ord(value[error.start]):04X} at place {error.start}"
        raise DataError(f"{where}: '{key}' holds half a character ({half}), which no file can store.") from None
    return value


def get_optional_text(record: dict[str, Any], key: str, where: str) -> str:
    """``record[key]``, which must be text; "" where it is missing, null or empty."""
    value = record.get(key)
    if value is None or value == "":
        return ""
    return get_text(record, key, where)


def get_number(record: dict[str, Any], key: str, where: str) -> float:
    """``record[key]``, which must be a finite number of 0 or more (a time, a rate, an index)."""
    value = get(record, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: '{key}' is {_kind(value)}; expected a number.")
    try:
        number = float(value)
    except OverflowError:
        raise DataError(f"{where}: '{key}' is a whole number of more than 308 digits.") from None
    if not math.isfinite(number):
        raise DataError(f"{where}: '{key}' is {value}; expected a finite number.")
    if number < 0:
        raise DataError(f"{where}: '{key}' is {value}; it must not be negative.")
    if number > LARGEST:
        raise DataError(f"{where}: '{key}' is {number:g}; no time, rate or index is over {LARGEST:g}.")
    return number


def get_index(record: dict[str, Any], key: str, where: str) -> int:
    """``record[key]``, which must be a whole number of 0 or more."""
    number = get_number(record, key, where)
    if not number.is_integer():
        raise DataError(f"{where}: '{key}' is {number}; expected a whole number.")
    return int(number)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
