"""The times that an annotation's lines open with, and the reasons why an annotation is no segment.

People and programs write times in many ways, and a line that is not understood must not vanish: each line that bears a
time is read, or has a reason why not.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

# Why an annotation is no segment. The first ones are no faults: the formats have such annotations.
BELOW_SEGMENT = "below a segment"
START_OR_DONE = "start or done"
IRRELEVANT = "irrelevant to the goal"
CORRECTION = "corrects a mistake"
SUMMARY = "a summary"
ABOUT_RECORDING = "speech about the recording"
WITHOUT_WORDS = "speech without a word"
CONTINUES = "continues the line above"
NO_TIME = "no time"
NO_INTERVAL = "a point in time, without an end"
NEGATIVE = "a negative time"
NOT_AFTER_START = "the end is not after the start"
NO_VALID_TIME = "no valid time"
NO_TEXT = "no text"
OTHER_FORM = "a time in another form"
EXPECTED = (
    BELOW_SEGMENT,
    START_OR_DONE,
    IRRELEVANT,
    CORRECTION,
    SUMMARY,
    ABOUT_RECORDING,
    WITHOUT_WORDS,
    CONTINUES,
    NO_TIME,
)

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
_POINT = re.compile(rf"{_FIRST}{_END}(?(open) ?{_CLOSE}+)[ :;,|.-]*(?P<text>.*)", re.IGNORECASE)
_BULLET = re.compile(rf"(?:(?:[*•·◦‣▪]+|[-+]+(?= |{_OPEN})) ?)+")  # "-3s" is a negative time
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


@dataclass(frozen=True)
class Times:
    """What a line opens with: ``start`` and ``end`` in seconds (None for a point in time); and the rest of it."""

    start: float
    end: float | None
    text: str


def reasons(counts: Mapping[str, int]) -> str:
    """Counts by reason for messages, the most frequent first: "below a segment: 12, a negative time: 1"."""
    return ", ".join(
        f"{reason}: {count}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def plain(line: str) -> str:
    """``line`` with one kind of dash, blank, digit width and bracket width, and without invisible characters."""
    characters = []
    for character in unicodedata.normalize("NFKC", line):
        category = unicodedata.category(character)
        if category == "Pd" or character in "\u2212\u2043":  # minus sign, hyphen bullet
            characters.append("-")
        elif category != "Cf":
            characters.append(character)
    return " ".join("".join(characters).split())


def without_bullet(line: str) -> str:
    """A plain line without the dashes or other bullets that it opens with; the same line where it opens with none."""
    bullet = _BULLET.match(line)
    return line[bullet.end() :].lstrip() if bullet else line


def read_times(line: str) -> Times | str | None:
    """The times that a plain line opens with, the reason why they are none, or None where it bears no time.

    A line reads ``[94.4s-105.2s] attach wheel``. Brackets of other kinds or none, any dash, decimal commas, clock times
    (``1:34.4``, ``00:01:34``) and a number of a list before are taken, too.
    """
    found = _RANGE.match(line)
    if found is None or not _marked(found, "unit2"):
        found = _POINT.match(line)
        if found is None or not _marked(found):
            return OTHER_FORM if _BEARS_TIME.search(line) else None
    written = [time for name, time in found.groupdict().items() if name in ("start", "end")]
    seconds = [_seconds(time) for time in written]
    if not all(map(math.isfinite, seconds)):
        return NO_VALID_TIME
    if any("-" in time for time in written):
        return NEGATIVE
    return Times(seconds[0], seconds[1] if len(seconds) > 1 else None, found["text"].strip())


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
