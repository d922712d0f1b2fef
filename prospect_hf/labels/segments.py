"""Parses the annotated segments of a video: one line of text per segment, with a start and an end.

People and programs write times in many ways, and a line that is not understood must not vanish: each line that bears a
time becomes a segment or is counted under the reason why not.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

# Why an annotation with a time is no segment. The first ones are no faults: the formats have such annotations.
BELOW_SEGMENT = "below a segment"
START_OR_DONE = "start or done"
IRRELEVANT = "irrelevant to the goal"
CORRECTION = "corrects a mistake"
SUMMARY = "a summary"
ABOUT_RECORDING = "speech about the recording"
WITHOUT_WORDS = "speech without a word"
NO_INTERVAL = "a point in time, without an end"
NEGATIVE = "a negative time"
NOT_AFTER_START = "the end is not after the start"
NO_VALID_TIME = "no valid time"
NO_TEXT = "no text"
OTHER_FORM = "a time in another form"
EXPECTED = (BELOW_SEGMENT, START_OR_DONE, IRRELEVANT, CORRECTION, SUMMARY, ABOUT_RECORDING, WITHOUT_WORDS)

_OPEN, _CLOSE = r"[\[({<«【〔〈《「『]", r"[\])}>»】〕〉》」』]"
_TIME = r"[+-]?(?:(?:\d+:){1,2}\d+(?:[.,]\d+)?|\d+(?:[.,]\d+)?|[.,]\d+)"
_UNIT = r" ?(?:s|secs?|seconds?)\b\.?"
_END = r"(?!\w|[:.,]\d)"  # a time is not cut out of a longer word or number
_NUMBER_IN_LIST = r"(?:\d{1,4}[.)] )?"
# "1-2", "1 - 2", "1 -- 2", "1 -> 2", "1 to 2", "1..2"; but "1--2" ends at minus 2.
_TO = r"(?: ?-+> ?| ?-{2,3} | ?- ?| ?(?:to|until|~|→|\.{2,3}) ?)"
_FIRST = rf"{_NUMBER_IN_LIST}(?P<open>{_OPEN}+ ?)?(?P<start>{_TIME})(?P<unit>{_UNIT})?"
_RANGE = re.compile(
    rf"{_FIRST}{_TO}(?P<end>{_TIME})(?P<unit2>{_UNIT})?{_END} ?{_CLOSE}*[ :;,|.-]*(?P<text>.*)", re.IGNORECASE
)
_POINT = re.compile(rf"{_FIRST}{_END}(?(open) ?{_CLOSE})", re.IGNORECASE)
_BULLET = re.compile(rf"[*•·◦‣▪]+|[-+]+(?= |{_OPEN})")  # "-3s" is a negative time
_NUMBER = r"[+-]?[.,]?\d+(?:[.,]\d+)?"
_BEARS_TIME = re.compile(
    "|".join(
        (
            r"\d ?(?:s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|ms|msecs?|milliseconds?|frames?)\b",  # 3s, 2 min
            r"\d ?[hm] ?\d",  # 1m20
            r"\d:\d",  # 1:20
            rf"{_OPEN} ?[+-]?[.,]?\d",  # (94.4
            r"\[[^\]]{0,40}\d",  # [from 94.4
            rf"{_OPEN} ?[+-]?(?:nan|none|null|inf|n/a|unknown|\?)",  # [nan-2
            r"^[+-]?\d+[.,]\d",  # 94.4 attach wheel
            rf"^{_NUMBER}(?:{_TO}|[ ,;|]+){_NUMBER}",  # 94-105 attach wheel
        )
    ),
    re.IGNORECASE,
)
_REMARK = re.compile(r"\((?:mistake|correction|error)\b.*$", re.IGNORECASE)


@dataclass(frozen=True)
class Segment:
    """One annotated top-level segment, in seconds. ``undoes`` marks mistakes and corrections."""

    start: float
    end: float
    text: str
    undoes: bool


def parse_segments(descriptions: str) -> tuple[tuple[Segment, ...], Counter[str]]:
    """The top-level segments of ``all_step_descriptions`` by time, and how many lines with a time are none, by reason.

    A line reads ``[94.4s-105.2s] attach wheel``. Brackets of other kinds or none, any dash, decimal commas, clock times
    (``1:34.4``, ``00:01:34``) and blanks before and within are taken, too. Lines below a segment open with a dash or
    another bullet. Lines without a time, such as summaries, are ignored.
    """
    segments: list[Segment] = []
    left_out: Counter[str] = Counter()
    for line in map(_plain, descriptions.splitlines()):
        read = _read_line(line)
        if isinstance(read, Segment):
            segments.append(read)
        elif read is not None:
            left_out[read] += 1
    segments.sort(key=lambda segment: (segment.start, segment.end))
    return tuple(segments), left_out


def reasons(counts: Mapping[str, int]) -> str:
    """Counts by reason for messages, the most frequent first: "below a segment: 12, a negative time: 1"."""
    return ", ".join(
        f"{reason}: {count}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _plain(line: str) -> str:
    """``line`` with one kind of dash, blank, digit width and bracket width, and without invisible characters."""
    characters = []
    for character in unicodedata.normalize("NFKC", line):
        category = unicodedata.category(character)
        if category == "Pd" or character in "\u2212\u2043":  # minus sign, hyphen bullet
            characters.append("-")
        elif category != "Cf":
            characters.append(character)
    return " ".join("".join(characters).split())


def _read_line(line: str) -> Segment | str | None:
    """The segment of a plain line, the reason why its time gives none, or None where it bears no time."""
    bullet = _BULLET.match(line)
    if bullet:
        return BELOW_SEGMENT if _BEARS_TIME.search(line[bullet.end() :].lstrip()) else None
    found = _RANGE.match(line)
    if found is None or not _marked(found, "unit2"):
        point = _POINT.match(line)
        if point and _marked(point):
            return NEGATIVE if "-" in point["start"] else NO_INTERVAL
        return OTHER_FORM if _BEARS_TIME.search(line) else None
    start, end, text = _seconds(found["start"]), _seconds(found["end"]), found["text"].strip()
    if not math.isfinite(start + end):
        return NO_VALID_TIME
    if "-" in found["start"] + found["end"]:
        return NEGATIVE
    if not text:
        return NO_TEXT
    if text.lower() in ("start", "done"):
        return START_OR_DONE
    if end <= start:
        return NOT_AFTER_START
    return Segment(start, end, _REMARK.sub("", text).strip(), _REMARK.search(text) is not None)


def _marked(found: re.Match[str], *units: str) -> bool:
    """Whether a number is marked as a time, by a bracket, a unit or a colon: "2-4 eggs" is none."""
    times = found["start"] + (found["end"] if "end" in found.groupdict() else "")
    return ":" in times or any(found[name] for name in ("open", "unit", *units))


def _seconds(time: str) -> float:
    """The seconds of "94.4", "94,4", "1:34.4" or "0:01:34", without its sign; NaN where it is no valid time.

    "1,234" is 1.234 in one country and 1234 in another, so it is none.
    """
    parts = time.lstrip("+-").replace(",", ".").split(":")
    if len(parts) == 1 and re.search(r",\d{3}$", time):
        return math.nan
    numbers = [float(part) for part in parts]
    if any(number >= 60 for number in numbers[1:]):
        return math.nan
    return sum(number * 60**power for power, number in enumerate(reversed(numbers)))
