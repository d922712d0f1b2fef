"""State labels as step spans in seconds, and the state events that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prospect_hf.sessions import MONOTONE, REOPEN, DSTEvent

# What the annotated segments of one step mean, by source. "reopen": the step is in progress in each of them, and
# completed between them. "monotone": it is in progress from its first start to its last end.
STATE_RULES = {
    "assembly101": REOPEN,
    "ego4d": REOPEN,
    "egoexolearn": REOPEN,
    "epickitchens": REOPEN,
    "holoassist": REOPEN,
    "wtag": REOPEN,
}

# Named rules that join the spans of one step.
JOINED = "overlaps or touches a span of its step: joined to one"
TAKEN_UP_AGAIN = "step is taken up again: re-opened"
ONE_SPAN = "step is taken up again: in progress from its first start to its last end"


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


def merge_spans(spans: Sequence[Span], rule: str) -> tuple[tuple[Span, ...], Counter[str]]:
    """The spans that the state rule ``rule`` makes of ``spans``, by step and time, and its repairs by kind.

    Spans of one step that overlap or touch are joined. Spans of one step that are apart stay apart under "reopen" and
    become one span under "monotone".
    """
    repairs: Counter[str] = Counter()
    merged: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.step, one.start)):
        above = merged[-1] if merged and merged[-1].step == span.step else None
        if above is None:
            merged.append(span)
            continue
        apart = above.end is not None and span.start > above.end
        kind = JOINED if not apart else ONE_SPAN if rule == MONOTONE else TAKEN_UP_AGAIN
        repairs[kind] += 1
        if kind == TAKEN_UP_AGAIN:
            merged.append(span)
        else:
            end = None if above.end is None or span.end is None else max(above.end, span.end)
            merged[-1] = Span(span.step, above.start, end)
    return tuple(merged), repairs
