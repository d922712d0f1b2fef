"""The timed lines of a video's annotation, as ``all_step_descriptions`` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# A line that stands for itself, one below it, or what somebody says.
LineKind = Literal["segment", "child", "user", "assistant"]
# What a line says of the action: done wrongly, put right, or neither.
Remark = Literal["mistake", "correction"]


@dataclass(frozen=True)
class AnnotationLine:
    """One timed line.

    Args:
        number: its number in the text, from 1.
        start, end: seconds of the video; ``end`` None where the line gives a point in time.
        text: what it says, without times, remark and quotation marks.
        kind: "segment" for a top-level line, "child" for an action below one, "user" or "assistant" for speech.
        parent: index of the segment above in ``Annotation.lines``; None for a segment, and for a line above the first.
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
    """A line that is no timed line: its number from 1, its text, and why (a reason of ``labels.segments``)."""

    number: int
    text: str
    reason: str


@dataclass(frozen=True)
class Annotation:
    """The lines of an annotation in the order of the text, and those that are none, each with its reason."""

    lines: tuple[AnnotationLine, ...]
    left_out: tuple[LeftOut, ...] = ()
