"""State labels as step spans in seconds, and the state events that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prospect_hf.sessions import DSTEvent


@dataclass(frozen=True)
class Span:
    """Step ``step`` (0-based) is in progress from ``start`` to ``end``, in seconds; ``end`` None: never completed."""

    step: int
    start: float
    end: float | None


def span_events(spans: Sequence[Span]) -> tuple[DSTEvent, ...]:
    """The state events of ``spans``: one start per span, and one completion per span with an end."""
    events = [DSTEvent(span.start, span.step, "start") for span in spans]
    events += [DSTEvent(span.end, span.step, "complete") for span in spans if span.end is not None]
    return tuple(events)
