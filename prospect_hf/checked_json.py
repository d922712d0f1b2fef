"""Typed access to unvalidated JSON; each error names the file, the record and the key.

``where`` names the record in messages. The ``get`` functions raise ``DataError`` for a missing key or a wrong value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prospect_hf.errors import DataError, UsageError

# No time, rate or index is larger; above it a float skips whole numbers, and products of two could be infinite.
LARGEST = 1e15


def load_json(path: Path) -> Any:
    """The JSON value in ``path``. Raises ``UsageError`` for a missing file, ``DataError`` for invalid JSON."""
    return parse_json(_read(path), str(path))


def json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of each non-empty line of ``path``, to be parsed one by one.

    Only a line feed ends a line: ``str.splitlines`` would cut texts at U+2028 and other characters that JSON allows.
    Errors as in :func:`load_json`.
    """
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if line.strip():
            yield number, line


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # a byte order mark is no part of the text
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file.") from None
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
