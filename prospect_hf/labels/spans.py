"""State labels as step spans in seconds, and the state events that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prospect_hf.sessions import MONOTONE, REOPEN, DSTEvent

# What the annotated segments of one step mean, by source. "reopen": the step is in progress in each of them and
# completed after each. "monotone": it is in progress from its first start to its last end, and completed once.
# Measured on the annotations of docs/sources.md: steps with several segments; then, under "monotone", the share of the
# time in progress that lies between segments, and the mean number of steps in progress.
STATE_RULES = {
    "assembly101": REOPEN,  # 128 of 1,266 steps, 31 %, 0.6: a part is taken off and put on again
    "ego4d": MONOTONE,  # 195 of 871 steps, 47 %, 1.3: most are marked as continued, so they were not completed before
    "egoexolearn": REOPEN,
    "epickitchens": REOPEN,  # 841 of 3,183 actions, 90 %, 7.5: "open drawer" is done, and done again
    "holoassist": MONOTONE,  # 3 of 304 steps, 1 %, 0.9: a step is done once
    "wtag": REOPEN,
}
# How the spans came about decides where no segments were annotated for the steps themselves: a list of spans states
# what it states, and an alignment with a plan gives each step one span.
STATED_SPANS, ALIGNED_SPANS = REOPEN, MONOTONE

# Named rules that join the spans of one step.
JOINED = "overlaps or touches a span of its step: joined"
REOPENED = "step is taken up again: re-opened"
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


def merge_spans(spans: Sequence[Span], rule: str, *, pause: float = 0.0) -> tuple[tuple[Span, ...], Counter[str]]:
    """The spans that the state rule ``rule`` makes of ``spans``, by step and time, and its repairs by kind.

    Spans of one step that overlap, touch, or have at most ``pause`` seconds between them are joined. Others stay apart
    under "reopen" and become one span under "monotone".
    """
    repairs: Counter[str] = Counter()
    merged: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.step, one.start)):
        above = merged[-1] if merged else None
        if above is None or above.step != span.step:
            merged.append(span)
            continue
        apart = above.end is not None and span.start > above.end + pause
        kind = JOINED if not apart else ONE_SPAN if rule == MONOTONE else REOPENED
        repairs[kind] += 1
        if kind == REOPENED:
            merged.append(span)
        else:
            end = None if above.end is None or span.end is None else max(above.end, span.end)
            merged[-1] = Span(span.step, above.start, end)
    return tuple(merged), repairs
