"""How a language model sees the annotation of a video: rows in the order of time, the assignable ones numbered.

A row is one annotated line. Segments and the actions below them have numbers, from 1. What somebody says is shown
without a number, because it says when something happens but is no work on a step; so are mistakes and corrections,
which belong to no step here as in every other reading of the annotations. Long annotations are shown in windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prospect_hf.labels.annotation_lines import Annotation, AnnotationLine
from prospect_hf.llm.quoting import json_without_tags, plain_line

# Longest text of a line, a step or the goal in a prompt, in characters; a longer text is shortened. Texts of the six
# sources are shorter by far.
MOST_TEXT = 300


@dataclass(frozen=True)
class Limits:
    """Of a window: its most rows, its most characters, and the rows that two neighbours share.

    The default is at most about 9,000 tokens of data, and an answer of at most about 3,500 tokens, which it has if no
    two neighbouring rows belong together.
    """

    rows: int = 200
    characters: int = 24_000
    overlap: int = 30


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Row:
    """One line as the model sees it.

    Args:
        index: in ``Annotation.lines``.
        number: by which an answer names it; None for a row that belongs to no step.
        text: the row itself, one line of text.
        above: position of the row of its segment; None for a segment, and for a line above the first.
    """

    index: int
    number: int | None
    text: str
    above: int | None


@dataclass(frozen=True)
class Window:
    """The rows from position ``start`` to ``end`` (exclusive); ``first`` and ``last`` are its numbers."""

    start: int
    end: int
    first: int
    last: int


def shown(text: str) -> str:
    """A text of the record as a JSON string of one line, shortened to ``MOST_TEXT`` characters."""
    plain = plain_line(text)
    return json_without_tags(plain if len(plain) <= MOST_TEXT else plain[:MOST_TEXT] + "…")


def has_number(line: AnnotationLine) -> bool:
    """Whether a line can belong to a step: an action that is neither a mistake nor a correction."""
    return line.kind in ("segment", "child") and line.remark is None


def rows(annotation: Annotation) -> tuple[Row, ...]:
    """All lines in the order of time, each segment followed by the lines below it."""
    lines = annotation.lines
    below: dict[int | None, list[int]] = {}
    for index in sorted(range(len(lines)), key=lambda one: (lines[one].start, one)):
        below.setdefault(lines[index].parent, []).append(index)
    made: list[Row] = []
    number = 0
    for top in below.get(None, []):
        position = len(made)
        for index in (top, *below.get(top, [])):
            line = lines[index]
            number += has_number(line)
            text = _row_text(line, number if has_number(line) else None, indented=index != top)
            made.append(Row(index, number if has_number(line) else None, text, None if index == top else position))
    return tuple(made)


def _row_text(line: AnnotationLine, number: int | None, indented: bool) -> str:
    """Such as ``12 6-9 "shift lever"``, ``assistant 11 "Go on."`` or ``mistake 4-5 "pull" "too early"``; times in s."""
    name = number if number is not None else line.remark if line.remark is not None else line.kind
    time = f"{line.start:.0f}" if line.end is None else f"{line.start:.0f}-{line.end:.0f}"
    remark = [shown(line.remark_text)] if line.remark is not None and line.remark_text else []
    return " ".join([f"{' ' * indented}{name}", time, shown(line.text), *remark])


def windows(all_rows: Sequence[Row], limits: Limits = DEFAULT_LIMITS) -> list[Window]:
    """Cut the rows into windows that overlap; windows without a numbered row are left out, since they ask nothing.

    Neighbours share ``limits.overlap`` rows, but at most half of the rows of the first one, and at most half of the
    most characters: so each window has a new row, as long as no row has more than half of the characters.
    """
    sizes = [len(row.text) + 1 for row in all_rows]
    made: list[Window] = []
    start = 0
    while start < len(all_rows):
        end, total = start, 0
        while (
            end < len(all_rows)
            and end - start < limits.rows
            and (end == start or total + sizes[end] <= limits.characters)
        ):
            total += sizes[end]
            end += 1
        numbers = [row.number for row in all_rows[start:end] if row.number is not None]
        if numbers:
            made.append(Window(start, end, numbers[0], numbers[-1]))
        if end == len(all_rows):
            break
        shared = min(limits.overlap, (end - start) // 2)
        while shared and sum(sizes[end - shared : end]) > limits.characters // 2:
            shared -= 1
        start = end - shared
    return made
