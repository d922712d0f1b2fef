"""Annotation lines: each line that bears a time becomes a segment or is counted with its reason."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.labels.segments import (
    BELOW_SEGMENT,
    NEGATIVE,
    NO_INTERVAL,
    NO_TEXT,
    NO_VALID_TIME,
    NOT_AFTER_START,
    OTHER_FORM,
    START_OR_DONE,
    parse_segments,
)

TAKEN: list[tuple[str, float, float]] = [
    ("[3.0s-5.5s] fill kettle", 3, 5.5),
    ("3.0s-5.5s fill kettle", 3, 5.5),
    ("  [3.0s-5.5s] fill kettle", 3, 5.5),
    ("\t[3.0s - 5.5s]\tfill kettle", 3, 5.5),
    ("\ufeff[3.0s-5.5s]: fill kettle", 3, 5.5),
    ("[3,0s-5,5s] fill kettle", 3, 5.5),
    ("[.5s-1s]fill kettle", 0.5, 1),
    ("(3 - 5.5) fill kettle", 3, 5.5),
    ("【3s-5.5s】fill kettle", 3, 5.5),
    ("<3 sec. to 5.5 seconds> fill kettle", 3, 5.5),
    ("[3s -- 5.5s] fill kettle", 3, 5.5),
    ("[1:20-1:35] fill kettle", 80, 95),
    ("0:01:20,500 --> 01:00:35.5 fill kettle", 80.5, 3635.5),
    ("[90:15-91:00] fill kettle", 5415, 5460),
    ("1. [3s-5.5s] fill kettle", 3, 5.5),
    ("[٣s-٥s] fill kettle", 3, 5),
    ("［３ｓ－５ｓ］ fill kettle", 3, 5),
    *((f"[3s{dash}5.5s] fill kettle", 3, 5.5) for dash in "-‐‑‒–—―−﹣－"),
]


@pytest.mark.parametrize(("line", "start", "end"), TAKEN)
def test_times_are_read_as_people_write_them(line: str, start: float, end: float) -> None:
    (segment,), left_out = parse_segments(line)
    assert (segment.start, segment.end, segment.text) == (start, end, "fill kettle") and not left_out


LEFT_OUT = {
    NEGATIVE: ["[-3.0s-5.0s] a", "-3s-5s a", "[−3s–5s] a", "[1s--2s] a", "-3s: a"],
    NOT_AFTER_START: ["[5s-3s] a", "[5s-5s] a", "[0:10-0:09.5] a"],
    NO_INTERVAL: ["[5.0s] a", "5.0s: a", "[1:20] a", "(5) a"],
    NO_VALID_TIME: ["[1:75-2:00] a", "[1:61:00-1:62:00] a", "[1,234s-2,345s] a", f"[1s-{'9' * 5000}s] a"],
    NO_TEXT: ["[3s-5s]", "3s-5s:", "[3s-5s"],
    BELOW_SEGMENT: [" - [3s-5s] a", "- 168.6s: a", "– [3s] a", "* 3s-5s a", "•[3s-5s] a"],
    START_OR_DONE: ["[3s-5s] start", "[3s-5s] Done"],
    OTHER_FORM: [
        "[nans-5s] a",
        "[None-None] a",
        "[1m20s-1m35s] a",
        "[9440ms-9900ms] a",
        "[1e3s-2e3s] a",
        "94.4-105.2 a",
        "94.4\t105.2\ta",
        "a [3s-5s]",
        "From 3s to 5s: a",
        "[t: 3-5] a",
        "00:01:20:05-00:01:22:06 a",
        "Summary: at 3.5s it ends",
    ],
}


@pytest.mark.parametrize(("reason", "line"), [(reason, line) for reason, lines in LEFT_OUT.items() for line in lines])
def test_a_line_with_a_time_that_is_no_segment_is_counted_with_its_reason(reason: str, line: str) -> None:
    assert parse_segments(line) == ((), {reason: 1})


@pytest.mark.parametrize("line", ["", "Summary: The user made tea.", "5 toothpicks", "Trim 1/2 inch", "- look around"])
def test_a_line_without_a_time_is_no_matter(line: str) -> None:
    assert parse_segments(line) == ((), {})


BLANKS = st.sampled_from(["", " ", "\t", "\u00a0", "   "])
DASHES = [chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) == "Pd"]
NUMBERS = st.one_of(
    st.integers(-20, 10**6).map(str),
    st.floats(-20, 1e6, allow_nan=False).map(lambda number: f"{number:.1f}"),
    st.floats(0, 1e5).map(lambda number: f"{number:.2f}".replace(".", ",")),
    st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda time: f"{time[0]}:{time[1]:02d}"),
    st.tuples(st.integers(0, 9), st.integers(0, 70), st.integers(0, 70)).map(
        lambda time: f"{time[0]}:{time[1]:02d}:{time[2]:02d}"
    ),
)
UNITS = st.sampled_from(["s", " s", "S", "sec", " sec.", " seconds", "m", " min", "ms", "h"])


@st.composite
def timed_lines(draw: st.DrawFn) -> str:
    """A line with a time: one or two numbers with a unit, in brackets or none, before or behind a text."""
    first = draw(NUMBERS) + draw(UNITS)
    second = draw(st.sampled_from([*DASHES, "−", "->", "to", "~", ".."])) + draw(BLANKS) + draw(NUMBERS) + draw(UNITS)
    opening, closing = draw(st.sampled_from(["[]", "()", "{}", "<>", "【】", "  ", "[ ", '""', "||"]))
    time = opening + first + draw(BLANKS) + draw(st.sampled_from(["", second])) + closing
    text = draw(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12))
    mark = draw(st.sampled_from(["", "", "", "- ", "• ", "-", "1. ", "Step 3: ", "at "]))
    line = draw(BLANKS) + mark + time + draw(st.sampled_from([" ", ": ", "", "\t"])) + text
    return line if draw(st.booleans()) else f"{draw(BLANKS)}text {time}"


@given(st.lists(timed_lines(), max_size=5))
def test_no_line_with_a_time_vanishes(lines: list[str]) -> None:
    segments, left_out = parse_segments("\n".join(lines))
    assert len(segments) + left_out.total() == len(lines)
    for segment in segments:
        assert 0 <= segment.start < segment.end and segment.text


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    segments, left_out = parse_segments(text)
    assert len(segments) + left_out.total() <= len(text.splitlines())


@given(st.integers(0, 10**5), st.integers(1, 10**4), st.sampled_from(DASHES))
def test_one_time_reads_the_same_in_seconds_and_on_the_clock(start: int, length: int, dash: str) -> None:
    end = start + length

    def clock(time: int) -> str:
        return f"{time // 3600}:{time // 60 % 60:02d}:{time % 60:02d}"

    (one,), _ = parse_segments(f"[{start}.0s{dash}{end}.0s] fill")
    (two,), _ = parse_segments(f"{clock(start)} {dash} {clock(end)} fill")
    assert one == two and (one.start, one.end) == (start, end)


def test_every_line_of_the_real_annotations_is_taken_or_counted(shared_data: Path) -> None:
    counted = {}
    for path in sorted((shared_data / "proassist/processed_data").glob("*/generated_dialogs/*.json")):
        text = "\n".join(
            record["parsed_video_anns"]["all_step_descriptions"] for record in json.loads(path.read_text())
        )
        segments, left_out = parse_segments(text)
        summaries = sum(line.startswith("Summary:") for line in text.splitlines())
        lines = sum(bool(line.strip()) for line in text.splitlines())
        assert len(segments) + left_out.total() + summaries == lines
        counted[path.parts[-3]] = (len(segments), left_out[BELOW_SEGMENT], left_out[START_OR_DONE])
    assert counted == {
        "assembly101": (22, 0, 0),
        "ego4d": (10, 267, 0),
        "egoexolearn": (79, 0, 0),
        "epickitchens": (329, 0, 0),
        "holoassist": (9, 81, 0),
        "wtag": (12, 22, 1),
    }
