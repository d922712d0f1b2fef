"""What a state label is: a step of the plan and the seconds it lasts; and the state events that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prospect_hf.sessions import DSTEvent


@dataclass(frozen=True)
class Span:
    """Step ``step`` (0-based) lasts from ``start`` to ``end`` seconds; ``end`` None = never completed."""

    step: int
    start: float
    end: float | None


def span_events(spans: Sequence[Span]) -> tuple[DSTEvent, ...]:
    """The state events of ``spans``: a start each, and a completion where there is an end."""
    events = [DSTEvent(span.start, span.step, "start") for span in spans]
    events += [DSTEvent(span.end, span.step, "complete") for span in spans if span.end is not None]
    return tuple(events)
