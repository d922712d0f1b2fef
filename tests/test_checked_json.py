"""JSON that nobody has checked: what is wrong is one sentence, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.checked_json import (
    get_index,
    get_number,
    get_optional_text,
    get_text,
    json_lines,
    load_json,
    parse_json,
)
from prospect_hf.errors import DataError

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(texts, min_size=1))
def test_any_text_survives_a_file_of_json_lines(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    path.write_bytes("\r\n".join(json.dumps(text, ensure_ascii=False) for text in said).encode())
    assert [parse_json(line, str(number)) for number, line in json_lines(path)] == said


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "rows.jsonl"
    shown = separator if separator > "\x1f" else json.dumps(separator)[1:-1]
    path.write_text(f'"one{shown}two"\n\n"three"\n', encoding="utf-8")
    assert [(number, parse_json(line, "")) for number, line in json_lines(path)] == [
        (1, f"one{separator}two"),
        (3, "three"),
    ]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert load_json(tmp_path / "x.json") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9" * 5000, "file: a number cannot be read"),
        ("{nope", "file: invalid JSON"),
        ("[" * 100_000, "file: JSON nested too deeply"),
        ("", "file: invalid JSON"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_json(text, "file")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10**400, "is a whole number of more than 308 digits"),
        (-(10**400), "is a whole number of more than 308 digits"),
        (float("nan"), "is nan; expected a finite number"),
        (float("inf"), "is inf; expected a finite number"),
        (-1, "is -1; it must not be negative"),
        (True, "is true or false; expected a number"),
        ("3", "is text; expected a number"),
        (None, "is null; expected a number"),
    ],
)
def test_a_number_that_is_none(value: Any, message: str) -> None:
    for read in (get_number, get_index):
        with pytest.raises(DataError, match=rf"^record: 'time' {message}"):
            read({"time": value}, "time", "record")


def test_half_a_character_is_refused() -> None:
    record = parse_json('{"content": "Fill it \\ud83d"}', "file")
    for read in (get_text, get_optional_text):
        with pytest.raises(DataError, match=r"^file: 'content' holds half a character \(U\+D83D at place 8\)"):
            read(record, "content", "file")


def test_a_number_that_products_could_make_infinite_is_refused() -> None:
    with pytest.raises(DataError, match=r"no time, rate or index is over 1e\+15"):
        get_number({"end_ts": 1e308}, "end_ts", "here")
