"""State labels as step spans in seconds, and the state events that follow from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prospect_hf.sessions import MONOTONE, REOPEN, DSTEvent

# What the annotated segments of one step mean, by source. "reopen": the step is in progress in each of them and
# completed after each. "monotone": it is in progress from its first start to its last end, and completed once. The
# reasons, measured on the annotations of docs/sources.md: how many steps are taken up again; what share of the time in
# progress would lie between segments under "monotone", and how many steps would be in progress at once.
STATE_RULES = {
    # 120 of 1,259 steps; 31 %, 0.6. Of 181 repeats 167 follow a "detach": the step was undone and is done again.
    "assembly101": REOPEN,
    # 193 of 871 steps; 47 %, 1.3. Of 504 repeats 349 are marked as continued: the step had not been completed.
    "ego4d": MONOTONE,
    # 13 of 6,676 steps: "Continue stir-frying." is said of two parts of the task, which are done and completed apart.
    "egoexolearn": REOPEN,
    # 830 of 3,352 actions; 91 %, 8.0. "open drawer" is completed, and done again.
    "epickitchens": REOPEN,
    # 2 of 304 steps; 1 %, 0.9. A step is done once; a repeat goes on with it.
    "holoassist": MONOTONE,
    # Segments are matched with the recipe in order, so a step has one span but where its work was interrupted.
    "wtag": REOPEN,
}
# A list of spans states what it states. Spans of segments that were aligned with a plan have the rule of their source:
# how its people take up a step again does not depend on the words that the step is called by.
STATED_SPANS = REOPEN

# Named rules that join the spans of one step.
JOINED = "overlaps or directly follows a span of its step: joined"
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


def overlaps(spans: Sequence[Span]) -> int:
    """How many of the spans, which are sorted by start, begin while another step is in progress."""
    count = 0
    latest, latest_step = -math.inf, -1  # the latest end of the spans above, and its step
    other = -math.inf  # the latest end of a span above of another step than that
    for span in spans:
        end = math.inf if span.end is None else span.end
        count += span.start < (other if span.step == latest_step else latest)
        if span.step == latest_step:
            latest = max(latest, end)
        elif end > latest:
            latest, latest_step, other = end, span.step, latest
        else:
            other = max(other, end)
    return count
