"""The timed lines of a video's annotation, as ``all_step_descriptions`` writes them.

Each line that is not blank is a line of the annotation, or it is left out with its reason. The rules:

- A line with a time is a *segment*; below a dash or another bullet it is a *child* of the segment above. Blanks before
  a line mean nothing. A segment has a start and an end; a child may have a point in time.
- What a line says may be speech (``assistant: "..."``), and may have a remark (``(mistake: ...)``).
- A line without a time and without a bullet, directly below a line with a time, continues its text. So does one with a
  time in the middle of it, where a bracket or a quotation mark above is still open.
- ``start`` and ``Done`` are no actions. A summary goes on to the next line that opens with a time.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

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
    Times,
    plain,
    read_times,
    without_bullet,
)
from prospect_hf.words import continued

_SUMMARY = re.compile(r"[*#_ ]*summary[*_ ]*(?::|-|$)", re.IGNORECASE)
_SPEECH = re.compile(r"(?P<who>assistant|user) ?: ?(?P<words>.*)", re.IGNORECASE)
_REMARK = re.compile(r"[(\[{] ?(?P<what>mistake|error|correction)s?\b(?: of\b)?[ :;,-]*", re.IGNORECASE)
# A remark without brackets: at the start, or after a comma, a dash or the like, and with a colon.
_BARE_REMARK = re.compile(r"(?:^|(?P<before>.*?)[ ]?[,;.|-] ?)(?P<what>mistake|error|correction)s? ?: ?", re.IGNORECASE)
# Pairs of quotation marks. Where an utterance is cut off, the first ones stand alone; an apostrophe always does.
_QUOTED = (
    re.compile('["\u201c\u201e\u00ab\u00bb](?P<words>[^"\u201c\u201d\u00ab\u00bb]*)'),
    re.compile('["\u201c\u201e\u00ab\u00bb](?P<words>.*)["\u201c\u201d\u00ab\u00bb]'),
    re.compile("['\u2018\u201a](?P<words>.*)['\u2018\u2019]"),
    re.compile("[\u300c\u300e](?P<words>.*)[\u300d\u300f]"),
)
# Below a top-level line that is left out for one of these, a child has no segment.
_NO_SEGMENT = (NEGATIVE, NOT_AFTER_START, NO_VALID_TIME, NO_TEXT, START_OR_DONE, OTHER_FORM)

# A line that stands for itself, one below it, or what somebody says.
LineKind = Literal["segment", "child", "user", "assistant"]
# What a line says of the action: done wrongly, put right, or neither.
Remark = Literal["mistake", "correction"]


@dataclass(frozen=True)
class AnnotationLine:
    """One timed line.

    Args:
        number: its number in the text, from 1.
        start, end: seconds of the video; ``end`` None where the line gives a point in time, which a segment never does.
        text: what it says, without times, remark and quotation marks.
        kind: "segment" for a top-level line, "child" for an action below one, "user" or "assistant" for speech.
        parent: index of the segment above in ``Annotation.lines``; None for a segment, for a line above the first, and
            below a top-level line that is left out.
        remark: whether the line marks a mistake ("mistake", "ERROR") or a correction.
        remark_text: the words of the remark.
    """

    number: int
    start: float
    end: float | None
    text: str
    kind: LineKind = "segment"
    parent: int | None = None
    remark: Remark | None = None
    remark_text: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A line that is no line of its own: its number from 1, its text, and why (a reason of ``labels.segments``)."""

    number: int
    text: str
    reason: str


@dataclass(frozen=True)
class Annotation:
    """The lines of an annotation in the order of the text, and those that are none, each with its reason."""

    lines: tuple[AnnotationLine, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass
class _Entry:
    """A line of the text: its times, or the reason why it has none, and what it says."""

    number: int
    text: str
    below: bool
    found: Times | str
    said: str = ""


def parse_annotation(descriptions: str) -> Annotation:
    """The lines of ``all_step_descriptions``, by the rules of this module, and those that are left out."""
    lines: list[AnnotationLine] = []
    left_out: list[LeftOut] = []
    parent: int | None = None
    for entry in _entries(descriptions):
        line = entry.found if isinstance(entry.found, str) else _line(entry, entry.found, parent)
        if isinstance(line, str):
            left_out.append(LeftOut(entry.number, entry.text, line))
            if not entry.below and line in _NO_SEGMENT:
                parent = None
        else:
            lines.append(line)
            if line.kind == "segment":
                parent = len(lines) - 1
    return Annotation(tuple(lines), tuple(left_out))


def parsing_facts(annotation: Annotation) -> dict[str, Any]:
    """How many segments, children, lines of speech and remarks an annotation has, and its left-out lines by reason."""
    kinds = Counter(line.kind for line in annotation.lines)
    return {
        "segments": kinds["segment"],
        "children": kinds["child"],
        "speech": kinds["user"] + kinds["assistant"],
        "remarks": sum(line.remark is not None for line in annotation.lines),
        "left_out": dict(sorted(Counter(line.reason for line in annotation.left_out).items())),
    }


def _entries(descriptions: str) -> list[_Entry]:
    """The lines that are not blank, in order; a line that continues another is added to what that one says."""
    entries: list[_Entry] = []
    timed: _Entry | None = None  # the line with a time that the next line can continue
    in_summary = False
    for number, text in enumerate(map(plain, descriptions.splitlines()), start=1):
        if not text:
            timed = None
            continue
        bare = without_bullet(text)
        below = bare != text
        found = read_times(bare)
        entry = _Entry(number, text, below, NO_TIME if found is None else found)
        entries.append(entry)
        if isinstance(found, Times):
            entry.said = found.text
            timed, in_summary = entry, False
        elif found in (None, OTHER_FORM):
            in_summary = in_summary or _SUMMARY.match(bare) is not None
            if in_summary:
                entry.found, timed = SUMMARY, None
            elif timed is not None and not below and (found is None or _is_open(timed.said)):
                entry.found = CONTINUES
                timed.said = continued(timed.said, text)
            else:
                timed = None
        else:
            timed, in_summary = None, False
    return entries


def _line(entry: _Entry, times: Times, parent: int | None) -> AnnotationLine | str:
    """The line of an entry with times, or the reason why it is left out."""
    start, end = times.start, times.end
    speech = _SPEECH.fullmatch(entry.said)
    if speech:
        words = _unquoted(speech["words"])
        if not any(map(str.isalnum, words)):
            return WITHOUT_WORDS
        if end is not None and end <= start:
            return NOT_AFTER_START
        who: LineKind = "user" if speech["who"].lower() == "user" else "assistant"
        return AnnotationLine(entry.number, start, end, words, who, parent)
    text, remark, words = _without_remarks(entry.said)
    if not text:
        return NO_TEXT
    if text.lower().strip(" .!") in ("start", "done"):
        return START_OR_DONE
    if end is None and not entry.below:
        return NO_INTERVAL
    if end is not None and end <= start:
        return NOT_AFTER_START
    kind: LineKind = "child" if entry.below else "segment"
    return AnnotationLine(entry.number, start, end, text, kind, parent if entry.below else None, remark, words)


def _is_open(said: str) -> bool:
    """Whether a quotation mark or a bracket of the text is not closed yet."""
    return said.count('"') % 2 == 1 or said.count("(") > said.count(")")


def _unquoted(text: str) -> str:
    """The text without the quotation marks around it."""
    text = text.strip()
    for form in _QUOTED:
        if quoted := form.fullmatch(text):
            return quoted["words"].strip()
    return text


def _without_remarks(text: str) -> tuple[str, Remark | None, str]:
    """The text without its remarks; what the first of them marks, and the words of all."""
    kind: Remark | None = None
    words: list[str] = []
    while found := _REMARK.search(text):
        end = _closing(text, found.start())
        inner = text[found.end() : end].strip()
        words.append(_unquoted(inner) if inner.count('"') <= 2 else inner)
        kind = kind or _kind(found)
        text = f"{text[: found.start()].rstrip()} {text[end + 1 :].lstrip()}".strip()
    if bare := _BARE_REMARK.match(text):
        kind = kind or _kind(bare)
        rest = text[bare.end() :]
        if bare["before"]:  # "turn it, error: it slips"; but "error: turn it" says what was done
            words.append(rest)
        text = bare["before"] or rest
    return text, kind, "; ".join(word for word in words if word)


def _kind(remark: re.Match[str]) -> Remark:
    return "correction" if remark["what"].lower() == "correction" else "mistake"


def _closing(text: str, opening: int) -> int:
    """The place of the bracket that closes the one at ``opening``; the end of the text where none does."""
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place
    return len(text)
