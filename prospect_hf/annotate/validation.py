"""Validates the labels of one video before they are written: named rules that repair, refuse, or only note.

A rule that *repairs* changes or removes a span and leaves a ``Repair`` on the record. A rule that *refuses* raises
``DataError``: the video has no labels, and the message is the reason. A rule that *notes* changes nothing and counts
what real videos do have (steps in another order than the plan, several at once). Rules that the readers of the sources'
own annotations apply to segments have the same name here.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, get_args

from prospect_hf.align.alignment import Visit
from prospect_hf.annotate.records import Repair
from prospect_hf.annotate.seconds import seconds_of
from prospect_hf.errors import DataError, UsageError
from prospect_hf.labels.annotation_lines import AnnotationLine
from prospect_hf.labels.segments import NEGATIVE, NO_VALID_TIME, NOT_AFTER_START, reasons
from prospect_hf.labels.spans import JOINED, ONE_SPAN, STATE_RULES, Span, merge_spans, overlaps
from prospect_hf.sessions import FPS, MONOTONE, REOPEN, Step, check_time
from prospect_hf.sources.annotations.video import BEFORE_START, BEYOND_END, OUTSIDE, OVERLAP
from prospect_hf.timeline import frame_at

Overlaps = Literal["keep", "trim", "refuse"]
# A policy's state rule that is the one of the video's source.
SOURCE_RULE = "source"

# Rules that only the policy "trim" applies.
TRIMMED_END = "overlaps a step that starts later: cut where that one starts"
TRIMMED_START = "overlaps a step that starts with it and ends sooner: starts where that one ends"
SAME_TIMES = "lasts from the start to the end of another step: the less certain one removed"
# Every rule that repairs: those that remove a span, then those that change it. A joined span is part of another one.
REMOVES = (NO_VALID_TIME, NEGATIVE, NOT_AFTER_START, OUTSIDE, SAME_TIMES)
CHANGES = (BEFORE_START, BEYOND_END, JOINED, ONE_SPAN, TRIMMED_END, TRIMMED_START)

# Every rule that notes. It counts spans (overlaps, on no frame) or steps (out of order, without a span).
OUT_OF_ORDER = "step starts before a step above it in the plan: kept"
ON_NO_FRAME = "span starts and ends on one frame, so that no frame shows its step in progress: kept"
NO_SPAN = "step of the plan has no span"
NOTES = (OVERLAP, OUT_OF_ORDER, ON_NO_FRAME, NO_SPAN)


@dataclass(frozen=True)
class Bounds:
    """The annotated part of a video, in seconds; ``end_s`` None where the length of the video is not known.

    Raises ``DataError`` where a time is invalid, or the end is not after the start.
    """

    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        check_time(self.start_s, "The start of the video")
        if self.end_s is not None:
            check_time(self.end_s, "The end of the video")
            if self.end_s <= self.start_s:
                raise DataError(
                    f"The video ends at {self.end_s:g} s, which is not after its start at {self.start_s:g} s."
                )


@dataclass(frozen=True)
class Policy:
    """What the rules do where both answers can be right.

    Args:
        overlaps: of spans of different steps. "keep": both steps are in progress, as in the sources' own annotations,
            where people do several steps at once; "trim": a span ends where the next step's begins; "refuse": the video
            has no labels.
        state_rule: what several visits of one step mean. "reopen": they stay apart, and the step is completed after
            each; "monotone": the step is in progress from its first start to its last end; "source": as the video's
            source has it (``labels.spans.STATE_RULES``), which :meth:`of` puts in its place.
        min_coverage: the least share of the plan's steps that must have a span, 0 to 1. With 0 a single step is
            enough: people skip steps, and plans name steps that no annotation has.
        max_unexplained: the largest share of the annotated seconds that may lie outside all spans, 0 to 1. With 1 all
            may: people do other things between the steps of a plan.

    Raises:
        UsageError: a value is none of these.
    """

    overlaps: Overlaps = "keep"
    state_rule: str = REOPEN
    min_coverage: float = 0.0
    max_unexplained: float = 1.0

    def __post_init__(self) -> None:
        if self.overlaps not in get_args(Overlaps):
            raise UsageError(f"overlaps is '{self.overlaps}'; it must be {', '.join(get_args(Overlaps))}.")
        if self.state_rule not in (SOURCE_RULE, REOPEN, MONOTONE):
            raise UsageError(f"state_rule is '{self.state_rule}'; it must be {SOURCE_RULE}, {REOPEN} or {MONOTONE}.")
        for name, share in (("min_coverage", self.min_coverage), ("max_unexplained", self.max_unexplained)):
            if not 0 <= share <= 1:  # NaN is neither
                raise UsageError(f"{name} is {share}; it must be a share from 0 to 1.")

    def of(self, source: str) -> Policy:
        """The policy for the videos of ``source``."""
        return replace(self, state_rule=STATE_RULES[source]) if self.state_rule == SOURCE_RULE else self


@dataclass(frozen=True)
class Validated:
    """Labels that keep the label rules.

    Args:
        spans: by step and time; at least one.
        confidences: of each span, 0 to 1; of a joined span the lowest of its parts, since it is right where all are.
        repairs: what was changed, in the order of the rules; a span can be repaired more than once.
        notes: how often each rule of ``NOTES`` found something in the result.
        unexplained_s: annotated seconds outside all spans.
    """

    spans: tuple[Span, ...]
    confidences: tuple[float, ...]
    repairs: tuple[Repair, ...]
    notes: Mapping[str, int]
    unexplained_s: float


# A span and its confidence.
_Claim = tuple[Span, float]


def validate(
    visits: Sequence[Visit],
    steps: Sequence[Step],
    bounds: Bounds,
    policy: Policy = Policy(),
    lines: Sequence[AnnotationLine] = (),
) -> Validated:
    """The valid spans of ``visits``. No time is invented: each is one of a visit or of ``bounds``.

    Args:
        visits: of an aligner; in any order, with any times.
        steps: the plan.
        bounds: of the video.
        policy: see ``Policy``; that of a source (:meth:`Policy.of`).
        lines: of the annotation; without them nothing counts as unexplained.

    Raises:
        ValueError: the policy is not yet that of a source.
        DataError: the plan is empty, a visit names no step of it or has no valid confidence, a time is over a day, no
            span is left, or the policy refuses. The message is the reason; the caller names the video.
    """
    if policy.state_rule == SOURCE_RULE:
        raise ValueError("The state rule is that of a source; validate with policy.of(source).")
    if not steps:
        raise DataError("The plan has no step, so there is nothing to label.")
    repairs: list[Repair] = []
    claims = _inside([_claim(visit, steps) for visit in visits], bounds, repairs)
    if not claims:
        removed = reasons(Counter(repair.rule for repair in repairs))
        raise DataError(f"No step has a span ({f'removed: {removed}' if removed else 'the aligner found none'}).")
    claims = _joined(claims, REOPEN, JOINED, repairs)
    if policy.state_rule == MONOTONE:
        claims = _joined(claims, MONOTONE, ONE_SPAN, repairs)
    if policy.overlaps == "trim":
        claims = _trimmed(claims, bounds, repairs)
    spans = tuple(span for span, _ in claims)
    coverage = len({span.step for span in spans}) / len(steps)
    unexplained_s, annotated_s = _unexplained(spans, bounds, lines)
    notes = _notes(spans, len(steps), frame_at(bounds.start_s, FPS))
    if policy.overlaps == "refuse" and notes[OVERLAP]:
        raise DataError(f"{notes[OVERLAP]} of {len(spans)} spans begin while another step is in progress.")
    if coverage < policy.min_coverage:
        raise DataError(
            f"Only {len(steps) - notes[NO_SPAN]} of {len(steps)} steps have a span, which is under min_coverage "
            f"{policy.min_coverage:g}."
        )
    if annotated_s and unexplained_s / annotated_s > policy.max_unexplained:
        raise DataError(
            f"{unexplained_s:.1f} of {annotated_s:.1f} annotated seconds belong to no step, which is over "
            f"max_unexplained {policy.max_unexplained:g}."
        )
    confidences = tuple(confidence for _, confidence in claims)
    return Validated(spans, confidences, tuple(repairs), notes, unexplained_s)


def _claim(visit: Visit, steps: Sequence[Step]) -> _Claim:
    """The span of a visit and its confidence, both of which an aligner must have right."""
    if not 0 <= visit.span.step < len(steps):
        raise DataError(f"A visit is to step {visit.span.step + 1}; the plan has the steps S1 to S{len(steps)}.")
    if not 0 <= visit.confidence <= 1:  # NaN is neither
        raise DataError(f"A visit to {steps[visit.span.step].id} has the confidence {visit.confidence}, not 0 to 1.")
    return visit.span, visit.confidence


def _inside(claims: Sequence[_Claim], bounds: Bounds, repairs: list[Repair]) -> list[_Claim]:
    """The claims with valid times, cut to the video."""
    last = math.inf if bounds.end_s is None else bounds.end_s
    inside = []
    for span, confidence in claims:
        fault = _fault(span)
        if fault is None:
            check_time(span.start, f"The start of step S{span.step + 1}")
            if span.end is not None:
                check_time(span.end, f"The end of step S{span.step + 1}")
            if span.start >= last or (span.end is not None and span.end <= bounds.start_s):
                fault = OUTSIDE
        if fault is not None:
            repairs.append(_repair(fault, span, None))
            continue
        if span.start < bounds.start_s:
            span = _repaired(BEFORE_START, span, Span(span.step, bounds.start_s, span.end), repairs)
        if span.end is not None and span.end > last:
            span = _repaired(BEYOND_END, span, Span(span.step, span.start, last), repairs)
        inside.append((span, confidence))
    return inside


def _fault(span: Span) -> str | None:
    """Why a span has no valid times, whatever the video."""
    times = [span.start] if span.end is None else [span.start, span.end]
    if not all(map(math.isfinite, times)):
        return NO_VALID_TIME
    if min(times) < 0:
        return NEGATIVE
    return NOT_AFTER_START if span.end is not None and span.end <= span.start else None


def _joined(claims: Sequence[_Claim], state_rule: str, rule: str, repairs: list[Repair]) -> list[_Claim]:
    """The claims after ``merge_spans``, by step and time; a span that became part of another is a repair ``rule``."""
    waiting = deque(sorted(claims, key=lambda claim: (claim[0].step, claim[0].start)))
    joined = []
    for whole in merge_spans([span for span, _ in waiting], state_rule, pause=1 / FPS)[0]:
        parts = []
        while waiting and waiting[0][0].step == whole.step and waiting[0][0].start <= _end(whole):
            parts.append(waiting.popleft())
        changed = [span for span, _ in parts]
        if whole in changed:
            changed.remove(whole)
        repairs += [_repair(rule, span, whole) for span in changed]
        joined.append((whole, min(confidence for _, confidence in parts)))
    return joined


def _trimmed(claims: Sequence[_Claim], bounds: Bounds, repairs: list[Repair]) -> list[_Claim]:
    """The claims without overlaps, by step and time; those of one step must not overlap already."""
    last = math.inf if bounds.end_s is None else bounds.end_s
    waiting = [(span.start, _end(span), span.step, confidence) for span, confidence in claims]
    heapq.heapify(waiting)
    apart = []
    while waiting:
        start, end, step, confidence = heapq.heappop(waiting)
        while waiting and waiting[0][0] < end:
            span = _span(step, start, end)
            if waiting[0][0] > start:
                end = waiting[0][0]
                repairs.append(_repair(TRIMMED_END, span, _span(step, start, end)))
                break
            _, other_end, other_step, other_confidence = heapq.heappop(waiting)
            other = _span(other_step, start, other_end)
            if other_end > end and end < last:
                repairs.append(_repair(TRIMMED_START, other, _span(other_step, end, other_end)))
                heapq.heappush(waiting, (end, other_end, other_step, other_confidence))
            elif other_confidence > confidence:
                repairs.append(_repair(SAME_TIMES, span, None))
                end, step, confidence = other_end, other_step, other_confidence
            else:
                repairs.append(_repair(SAME_TIMES, other, None))
        apart.append((_span(step, start, end), confidence))
    return sorted(apart, key=lambda claim: (claim[0].step, claim[0].start))


def _notes(spans: Sequence[Span], steps: int, first_frame: int) -> dict[str, int]:
    """How often each rule of ``NOTES`` finds something in ``spans``, which are by step and time."""
    first: dict[int, float] = {}
    for span in spans:
        first.setdefault(span.step, span.start)
    starts = list(first.values())
    return {
        OVERLAP: overlaps(sorted(spans, key=lambda span: span.start)),
        OUT_OF_ORDER: sum(start < above for start, above in zip(starts[1:], accumulate(starts, max), strict=False)),
        ON_NO_FRAME: sum(_on_no_frame(span, first_frame) for span in spans),
        NO_SPAN: steps - len(first),
    }


def _on_no_frame(span: Span, first_frame: int) -> bool:
    """Whether the start and the end of a span have the same decision frame."""
    if span.end is None:
        return False
    start, end = (max(frame_at(time, FPS) - 1, first_frame) for time in (span.start, span.end))
    return start == end


def _unexplained(spans: Sequence[Span], bounds: Bounds, lines: Sequence[AnnotationLine]) -> tuple[float, float]:
    """The annotated seconds outside all spans, and all annotated seconds.

    Only segments count, and no mistakes or corrections: their remark says what they are.
    """
    last = math.inf if bounds.end_s is None else bounds.end_s
    annotated = [
        (max(line.start, bounds.start_s), min(line.end, last))
        for line in lines
        if line.kind == "segment" and line.remark is None and line.end is not None
    ]
    return seconds_of(annotated, [(span.start, _end(span)) for span in spans]), seconds_of(annotated)


def _end(span: Span) -> float:
    return math.inf if span.end is None else span.end


def _span(step: int, start: float, end: float) -> Span:
    return Span(step, start, None if math.isinf(end) else end)


def _repair(rule: str, before: Span, after: Span | None) -> Repair:
    return Repair(rule, before.step, (before.start, before.end), None if after is None else (after.start, after.end))


def _repaired(rule: str, before: Span, after: Span, repairs: list[Repair]) -> Span:
    """``after``; the repair is recorded."""
    repairs.append(_repair(rule, before, after))
    return after
