"""JSON that nobody has checked: what is wrong is one sentence, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prospect_hf import checked_json
from prospect_hf.checked_json import (
    get_index,
    get_number,
    get_optional_text,
    get_text,
    json_lines,
    json_records,
    load_json,
    parse_json,
)
from prospect_hf.errors import DataError, UsageError

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


# --- lists that are read entry by entry ---

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
places = st.floats(0, 1, exclude_max=True)


def outcome(read: Any, path: Path) -> tuple[str, Any]:
    """What ``read`` gives, or the sentence with which it refuses."""
    try:
        return "read", read(path)
    except DataError as error:
        return "refused", str(error)


@given(st.lists(values, max_size=5), st.sampled_from([1, 2, 7, 1 << 20]), st.sampled_from([None, 2]), places, places)
@example([12345], 2, None, 0.0, 0.0)  # a number that goes on in the next piece
@example([{"": None}], 1, None, 0.0, 0.25)  # begins like a text, and is none
def test_a_list_read_entry_by_entry_is_the_list_and_its_errors_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Any], chunk: int, indent: int | None, at: float, end: float
) -> None:
    """The whole file, and the file cut and with a piece left out; read in pieces of ``chunk`` characters."""
    path = tmp_path_factory.getbasetemp() / "list.json"
    text = json.dumps(entries, ensure_ascii=False, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checked_json, "CHUNK", chunk)
        first = int(at * len(text))
        cut = text[:first] + text[first + int(end * (len(text) - first)) :]
        for written in (text, f" \n{text}\n ", cut, text[:first], text + "]", text + "\x1c", f"x{text}"):
            path.write_text(written, encoding="utf-8")
            whole = outcome(load_json, path)
            if whole[0] == "read" and not isinstance(whole[1], list):
                whole = "refused", f"{path}: expected a list of records."
            assert outcome(lambda path: list(json_records(path)), path) == whole, written


def test_entries_before_a_faulty_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('[{"a": 1},\n {"a": 2},\n {"a": }]')
    records = json_records(path)
    assert [next(records), next(records)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(DataError, match=r"list\.json: invalid JSON \(Expecting value at line 3, column 8\)"):
        next(records)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[1, \u00fc]".encode("latin-1"), "not UTF-8 text .* at byte 4"),
        ("[1]".encode("utf-16"), "not UTF-8 text .* at byte 0"),
        (b"[" + b"9" * 5000 + b"]", "a number cannot be read"),
        (b"[" * 100_000, "JSON nested too deeply"),
        (b'{"a": [1]}', "expected a list of records"),
        (b"", "invalid JSON"),
    ],
)
def test_a_file_that_is_no_list_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"list\.json: {message}"):
        list(json_records(path))
    with pytest.raises(UsageError, match="no such file"):
        list(json_records(tmp_path / "none.json"))


def test_lines_of_another_encoding_are_named_by_their_byte(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'"a"\n' * 5000 + b'"\xfc"\n')
    with pytest.raises(DataError, match=r"not UTF-8 text .* at byte 20001"):
        list(json_lines(path))
