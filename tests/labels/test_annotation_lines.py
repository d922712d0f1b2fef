"""Annotation lines: each line that is not blank becomes a line, or is left out with its reason."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prospect_hf.labels.annotation_lines import AnnotationLine, LineKind, Remark, parse_annotation, parsing_facts
from prospect_hf.labels.segments import (
    CONTINUES,
    NEGATIVE,
    NO_INTERVAL,
    NO_TEXT,
    NO_TIME,
    NO_VALID_TIME,
    NOT_AFTER_START,
    OTHER_FORM,
    START_OR_DONE,
    SUMMARY,
    WITHOUT_WORDS,
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
    annotation = parse_annotation(line)
    assert annotation.lines == (AnnotationLine(1, start, end, "fill kettle"),) and not annotation.left_out


@pytest.mark.parametrize("bullet", ["- ", " - ", "    - ", "\t* ", "• ", "– ", "+ ", "- - ", "* -  ", "- 1. "])
@pytest.mark.parametrize(("time", "start", "end"), [(line[: -len("fill kettle")], a, b) for line, a, b in TAKEN])
def test_a_line_below_a_bullet_has_the_same_times(bullet: str, time: str, start: float, end: float) -> None:
    if not time.startswith("1. "):
        assert parse_annotation(f"{bullet}{time} fill kettle").lines == (
            AnnotationLine(1, start, end, "fill kettle", "child"),
        )


LEFT_OUT = {
    NEGATIVE: ["[-3.0s-5.0s] a", "-3s-5s a", "[−3s–5s] a", "[1s--2s] a", "-3s: a", " - [-3s] a"],
    NOT_AFTER_START: ["[5s-3s] a", "[5s-5s] a", "[0:10-0:09.5] a", "- [5s-3s] a", "- [5s-3s] user: a"],
    NO_INTERVAL: ["[5.0s] a", "5.0s: a", "[1:20] a", "(5) a"],
    NO_VALID_TIME: ["[1:75-2:00] a", "[1:61:00-1:62:00] a", "[1,234s-2,345s] a", f"[1s-{'9' * 5000}s] a", "- [1:75] a"],
    NO_TEXT: ["[3s-5s]", "3s-5s:", "[3s-5s", "- [3s]", "[3s-5s] (mistake: wrong order)"],
    START_OR_DONE: ["[3s-5s] start", "[3s-5s] Done", "- [3s] start", " - [3s-5s] Done."],
    WITHOUT_WORDS: ['- [3s] user: ""', "- [3s] assistant:", '- [3s] assistant: "..."'],
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
        "- a [3s-5s]",
        "- at 3 min a",
    ],
    SUMMARY: [
        "Summary: The user made tea.",
        "Summary: at 3.5s it ends",
        "**Summary:** tea",
        "SUMMARY - tea",
        " - Summary:",
    ],
    NO_TIME: ["5 toothpicks", "Trim 1/2 inch", "- look around", "Making tea", "1. Fill the kettle"],
}


@pytest.mark.parametrize(("reason", "line"), [(reason, line) for reason, lines in LEFT_OUT.items() for line in lines])
def test_a_line_that_is_none_of_its_own_has_a_reason(reason: str, line: str) -> None:
    annotation = parse_annotation(f"\n{line}")
    (one,) = annotation.left_out
    assert (one.number, one.reason, annotation.lines) == (2, reason, ())


@pytest.mark.parametrize("line", ["", " \t ", "\u00a0", "\ufeff"])
def test_a_blank_line_is_none(line: str) -> None:
    assert parse_annotation(f"{line}\n{line}") == parse_annotation("")


SPEECH: list[tuple[str, LineKind, str]] = [
    ('assistant: "Turn it."', "assistant", "Turn it."),
    ('user: "And do what?"', "user", "And do what?"),
    ("User : “Oh, this one”", "user", "Oh, this one"),
    ("ASSISTANT: fine", "assistant", "fine"),
    ('user: "You said "no" twice"', "user", 'You said "no" twice'),
    ('user: "open', "user", "open"),
    ('user: "I made an (error: none)"', "user", "I made an (error: none)"),
    ("user: done", "user", "done"),
    ("user: ‘Is it?’", "user", "Is it?"),
    ("user: 'it’s on'", "user", "it’s on"),
    ("user: 'tis on", "user", "'tis on"),
    ("user: ‚Ja‘", "user", "Ja"),
    ("user: „Ja“", "user", "Ja"),
    ("user: »Ja«", "user", "Ja"),
    ("user: 「はい」", "user", "はい"),
    ('assistant: "Yes" (nods)', "assistant", '"Yes" (nods)'),
]


@pytest.mark.parametrize(("said", "kind", "words"), SPEECH)
@pytest.mark.parametrize(("time", "end"), [(" - [10.9s]", None), ("[10.9s]", None), ("10.9s-12s", 12.0)])
def test_speech_is_no_action(said: str, kind: LineKind, words: str, time: str, end: float | None) -> None:
    annotation = parse_annotation(f"{time} {said}")
    assert annotation.lines == (AnnotationLine(1, 10.9, end, words, kind),)


REMARKS = [
    ("turn it (mistake: wrong order)", "mistake", "wrong order"),
    ("turn it (ERROR: It slips. The user (left) lost it.)", "mistake", "It slips. The user (left) lost it."),
    ('turn it (correction of "turn that")', "correction", "turn that"),
    ("turn it [Error - slips", "mistake", "slips"),
    ("turn (mistake) it", "mistake", ""),
    ("(mistake: early) turn it", "mistake", "early"),
    ('turn it (correction of "that") (mistake: late)', "correction", "that; late"),
    ("turn it", None, ""),
    ("ERROR: turn it", "mistake", ""),
    ("Mistake: turn it (error: late)", "mistake", "late"),
    ("turn it - Error: it slips", "mistake", "it slips"),
    ("turn it, correction : too far", "correction", "too far"),
    ("turn it; errors: too far", "mistake", "too far"),
]


@pytest.mark.parametrize(("said", "remark", "words"), REMARKS)
@pytest.mark.parametrize("bullet", ["", " - "])
def test_a_remark_is_no_part_of_the_text(said: str, remark: str | None, words: str, bullet: str) -> None:
    (line,) = parse_annotation(f"{bullet}[1s-2s] {said}").lines
    assert (line.text, line.remark, line.remark_text) == ("turn it", remark, words)


@pytest.mark.parametrize(
    "said", ["look for errors (mistaken part)", "fix the error: turn it", "tap error", "mistake - error"]
)
def test_a_mistake_that_is_no_remark_stays_in_the_text(said: str) -> None:
    (line,) = parse_annotation(f"[1s-2s] {said}").lines
    assert (line.text, line.remark) == (said, None)


def test_a_child_belongs_to_the_segment_above() -> None:
    annotation = parse_annotation(
        "- [0.5s] open tap\n"
        "[1s-2s] fill kettle\n"
        " - [1.2s] lift\n"
        "   - [1.4s-1.6s] tilt\n"
        "[1.7s] user: hm\n"
        "[4s-3s] boil\n"
        " - [3.1s] wait\n"
        "[5s-6s] pour\n"
        " - [5.5s] assistant: slowly\n"
    )
    assert [(line.text, line.parent) for line in annotation.lines] == [
        ("open tap", None),
        ("fill kettle", None),
        ("lift", 1),
        ("tilt", 1),
        ("hm", 1),
        ("wait", None),  # its segment is left out
        ("pour", None),
        ("slowly", 6),
    ]


def test_a_line_without_a_time_continues_the_line_above() -> None:
    annotation = parse_annotation(
        "Making tea\n"
        "[1s-2s] fill the kettle with half-\n"
        "cold water -\n"
        "  and (mistake: too\n"
        "  much of it)\n"
        ' - [3s] user: "wait\n'
        'for 20 minutes"\n'
        " - [4s]\n"
        "look\n"
        "\n"
        "a note\n"
        "[5s-6s] pour\n"
        "- slowly\n"
        "and carefully\n"
        "Summary: The user\n"
        "made tea.\n"
        "\n"
        "It took 3 min.\n"
        "[7s-8s] drink\n"
    )
    assert [(line.number, line.text, line.remark_text) for line in annotation.lines] == [
        (2, "fill the kettle with half-cold water - and", "too much of it"),
        (6, "wait for 20 minutes", ""),
        (8, "look", ""),
        (12, "pour", ""),
        (19, "drink", ""),
    ]
    assert {line.number: line.reason for line in annotation.left_out} == {
        **dict.fromkeys((1, 11, 13, 14), NO_TIME),
        **dict.fromkeys((3, 4, 5, 7, 9), CONTINUES),
        **dict.fromkeys((15, 16, 18), SUMMARY),
    }


def test_a_line_with_a_time_within_continues_no_complete_line() -> None:
    annotation = parse_annotation("[1s-2s] stir\nfor 20 minutes")
    assert [line.text for line in annotation.lines] == ["stir"]
    assert [line.reason for line in annotation.left_out] == [OTHER_FORM]


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
    opening, closing = draw(st.sampled_from([*map(tuple, ["[]", "()", "{}", "<>", "【】", "  ", "[ ", '""', "||"])]))
    time = opening + first + draw(BLANKS) + draw(st.sampled_from(["", second])) + closing
    text = draw(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12))
    mark = draw(st.sampled_from(["", "", "", "- ", "• ", "-", "1. ", "Step 3: ", "at "]))
    line = draw(BLANKS) + mark + time + draw(st.sampled_from([" ", ": ", "", "\t"])) + text
    return line if draw(st.booleans()) else f"{draw(BLANKS)}text {time}"


def check_that_no_line_vanishes(text: str) -> None:
    annotation = parse_annotation(text)
    numbers = sorted([line.number for line in annotation.lines] + [line.number for line in annotation.left_out])
    visible = (unicodedata.normalize("NFKC", line) for line in text.splitlines())
    assert numbers == [
        number
        for number, line in enumerate(visible, start=1)
        if any(not (character.isspace() or unicodedata.category(character) == "Cf") for character in line)
    ]
    for line in annotation.lines:
        assert line.start >= 0 and line.text
        assert line.end is not None or line.kind != "segment"
        assert line.end is None or line.start < line.end
        assert line.parent is None or annotation.lines[line.parent].kind == "segment"


@given(st.lists(timed_lines(), max_size=5))
def test_no_line_with_a_time_vanishes(lines: list[str]) -> None:
    check_that_no_line_vanishes("\n".join(lines))
    assert not {NO_TIME, CONTINUES} & {one.reason for line in lines for one in parse_annotation(line).left_out}, (
        "a line with a time was taken for one without"
    )


PIECES = st.sampled_from(
    [
        "[1s-2s] ",
        "- ",
        "[3.5s] ",
        "user: ",
        '"',
        "(mistake: ",
        ")",
        "(correction of ",
        "Summary: ",
        "Done",
        "\n",
        "\n\n",
        "a ",
    ]
)


@given(st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=30).map("".join)))
def test_every_line_of_any_text_is_accounted_for_once(text: str) -> None:
    check_that_no_line_vanishes(text)


WORDS = st.lists(st.sampled_from(["turn", "the", "kettle", "on", "чай", "水", "it's", "no. 3"]), min_size=1, max_size=6)


@st.composite
def annotation_lines(draw: st.DrawFn) -> AnnotationLine:
    """A line as a reader would make it; its number and its parent are those of its place, and not set here."""
    kind: LineKind = draw(st.sampled_from(get_args(LineKind)))
    start = draw(st.integers(0, 9999)) / 10
    end = start + draw(st.integers(1, 99)) / 10 if kind == "segment" or draw(st.booleans()) else None
    remark: Remark | None = draw(st.sampled_from([None, *get_args(Remark)])) if kind in ("segment", "child") else None
    text = " ".join(draw(WORDS))
    words = " ".join(draw(WORDS)) if remark else ""
    return AnnotationLine(0, start, None if end is None else round(end, 1), text, kind, None, remark, words)


def written(line: AnnotationLine) -> str:
    """The line as ``all_step_descriptions`` has it."""
    time = f"[{line.start}s]" if line.end is None else f"[{line.start}s-{line.end}s]"
    said = f'{line.kind}: "{line.text}"' if line.kind in ("user", "assistant") else line.text
    remark = {
        None: "",
        "mistake": f" (mistake: {line.remark_text})",
        "correction": f' (correction of "{line.remark_text}")',
    }
    return f"{'' if line.kind == 'segment' else ' - '}{time} {said}{remark[line.remark]}"


@given(st.lists(annotation_lines(), max_size=8), st.integers(12, 60))
def test_what_is_written_is_read_back(lines: list[AnnotationLine], width: int) -> None:
    annotation = parse_annotation("\n".join(map(written, lines)))
    segment, expected = None, []
    for place, line in enumerate(lines):
        expected.append(replace(line, number=place + 1, parent=None if line.kind == "segment" else segment))
        segment = place if line.kind == "segment" else segment
    assert annotation.lines == tuple(expected) and not annotation.left_out
    # The same text, wrapped at blanks: only the numbers of the lines differ.
    wrapped = parse_annotation("\n".join("\n".join(wrap(written(line), width)) for line in lines))
    assert [replace(line, number=0) for line in wrapped.lines] == [replace(line, number=0) for line in expected]
    assert {line.reason for line in wrapped.left_out} <= {CONTINUES}


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of about ``width`` characters; the first one holds the time."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}"
    return lines


@given(st.integers(0, 10**5), st.integers(1, 10**4), st.sampled_from(DASHES))
def test_one_time_reads_the_same_in_seconds_and_on_the_clock(start: int, length: int, dash: str) -> None:
    end = start + length

    def clock(time: int) -> str:
        return f"{time // 3600}:{time // 60 % 60:02d}:{time % 60:02d}"

    (one,) = parse_annotation(f"[{start}.0s{dash}{end}.0s] fill").lines
    (two,) = parse_annotation(f"{clock(start)} {dash} {clock(end)} fill").lines
    assert one == two and (one.start, one.end) == (start, end)


def test_every_line_of_the_real_annotations_is_taken_or_has_a_reason(shared_data: Path) -> None:
    found = {}
    for path in sorted((shared_data / "proassist/processed_data").glob("*/generated_dialogs/*.json")):
        for record in json.loads(path.read_text()):
            text = record["parsed_video_anns"]["all_step_descriptions"]
            check_that_no_line_vanishes(text)
            annotation = parse_annotation(text)
            found[path.parts[-3]] = parsing_facts(annotation)
    counted = {
        source: (facts["segments"], facts["children"], facts["speech"], facts["remarks"], facts["left_out"])
        for source, facts in found.items()
    }
    assert counted == {
        "assembly101": (22, 0, 0, 5, {}),
        "ego4d": (10, 267, 0, 0, {}),
        "egoexolearn": (79, 0, 0, 0, {}),
        "epickitchens": (329, 0, 0, 0, {}),
        "holoassist": (9, 33, 48, 3, {SUMMARY: 1}),
        "wtag": (12, 0, 21, 0, {START_OR_DONE: 2}),
    }
