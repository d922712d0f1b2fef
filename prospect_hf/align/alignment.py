"""What an aligner is given, and what it answers: the same of every aligner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prospect_hf.labels.annotation_lines import Annotation
from prospect_hf.labels.spans import Span
from prospect_hf.sessions import Step


@dataclass(frozen=True)
class Task:
    """A plan and the annotation of a video; ``origin`` names the record in messages."""

    origin: str
    goal: str
    steps: tuple[Step, ...]
    annotation: Annotation


@dataclass(frozen=True)
class Visit:
    """One stay at a step.

    Args:
        span: the step (0-based) and its seconds.
        lines: the indices in ``Annotation.lines`` that it is made of, in the order of time.
        confidence: the aligner's probability, 0 to 1, that these lines belong to this step.
        aligner: which aligner says so, "semantic", "words" or "llm".
    """

    span: Span
    lines: tuple[int, ...]
    confidence: float
    aligner: str


@dataclass(frozen=True)
class Alignment:
    """The result of an aligner.

    Args:
        visits: by start; a step may have several, or none.
        abstained: why each of the segments that belong to no step has none, by its index in ``Annotation.lines``.
        confidence: of the whole record, 0 to 1: the expected share of its frames on which all steps are right.
    """

    visits: tuple[Visit, ...]
    abstained: dict[int, str]
    confidence: float


# Raises DataError, with the reason, where the task cannot be aligned at all (no line, no step that any line matches).
Aligner = Callable[[Task], Alignment]
