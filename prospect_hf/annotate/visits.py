"""From lines that belong to steps to visits of the steps: where a visit ends, and how probably it is right."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations

from prospect_hf.align.alignment import Task, Visit
from prospect_hf.annotate.windows import Row
from prospect_hf.labels.annotation_lines import AnnotationLine
from prospect_hf.labels.spans import Span

ALIGNER = "llm"
# An action that is annotated as a point in time lasts until the next line, and at most so many seconds.
LONGEST_POINT_S = 30.0
# Longest time in the middle of a visit in which no line of its step is.
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Assigned:
    """The step (0-based) of a line, and how probably it is right."""

    step: int
    confidence: float


def line_ends(lines: Sequence[AnnotationLine], all_rows: Sequence[Row]) -> dict[int, float]:
    """When each numbered line ends, in seconds, by its index.

    A point in time lasts until the next numbered line begins, until its segment ends, or for ``LONGEST_POINT_S``,
    whichever is first; a bound that is not after the point does not count.
    """
    starts = sorted({lines[row.index].start for row in all_rows if row.number is not None})
    ends: dict[int, float] = {}
    for row in all_rows:
        if row.number is None:
            continue
        line = lines[row.index]
        if line.end is not None:
            ends[row.index] = line.end
            continue
        bounds = [line.start + LONGEST_POINT_S, *starts[bisect_left(starts, line.start) + 1 :][:1]]
        if row.above is not None:
            segment_end = lines[all_rows[row.above].index].end
            bounds += [] if segment_end is None else [segment_end]
        ends[row.index] = min(bound for bound in bounds if bound > line.start)
    return ends


def visits_of(task: Task, all_rows: Sequence[Row], given: Mapping[int, Assigned]) -> tuple[Visit, ...]:
    """The visits of the steps, by start; the confidence of a visit is the mean of its lines.

    The lines of a step, in the order of time, make one visit as long as nothing separates them: a pause of more than
    ``LONGEST_PAUSE_S``, or a line of another step, a mistake or a correction that lies, at least in part, in the pause.
    Lines of no step do not separate, since people open drawers in the middle of a step.
    """
    lines = task.annotation.lines
    ends = line_ends(lines, all_rows)
    order = sorted(given, key=lambda index: (lines[index].start, ends[index], index))
    # What can lie in a pause, by start, and the latest end up to each. A step's own lines never lie in its pauses.
    work = sorted(
        [(lines[index].start, ends[index]) for index in order]
        + [(line.start, line.start if line.end is None else line.end) for line in lines if line.remark]
    )
    starts, latest = [start for start, _ in work], list(accumulate((end for _, end in work), max))
    groups: list[list[int]] = []
    open_visit: dict[int, tuple[list[int], float]] = {}
    for index in order:
        step, start = given[index].step, lines[index].start
        group, end = open_visit.get(step, ([], 0.0))
        before = bisect_left(starts, start)
        if not group or start > end + LONGEST_PAUSE_S or (start > end and latest[before - 1] > end):
            group = []
            groups.append(group)
        group.append(index)
        open_visit[step] = group, max(end, ends[index])
    visits = [
        Visit(
            Span(given[group[0]].step, lines[group[0]].start, max(ends[index] for index in group)),
            tuple(group),
            sum(given[index].confidence for index in group) / len(group),
            ALIGNER,
        )
        for group in groups
    ]
    return tuple(visits)


def plausibility(visits: Sequence[Visit], count: int) -> float:
    """A factor on all confidences, above 0 and up to 1: how much an answer looks like work on a plan.

    Three factors. Order: 1 where the visited steps begin in plan order, 0.5 where all begin in reverse (linear in the
    share of pairs in order). Spread: 1 where at least half of the plan's ``count`` steps are visited, else half plus
    the share that is visited. One at a time: the seconds in which at least one step is in progress, from its first
    start to its last end, divided by the summed seconds of the steps; a line with a wrong step makes that step longer.

    Args:
        visits: by start, each with an end.
        count: number of steps of the plan.
    """
    steps: dict[int, tuple[float, float]] = {}
    for visit in visits:
        start, end = steps.get(visit.span.step, (visit.span.start, -math.inf))
        steps[visit.span.step] = start, max(end, -math.inf if visit.span.end is None else visit.span.end)
    pairs = list(combinations(steps, 2))
    order = sum(one < other for one, other in pairs) / len(pairs) if pairs else 1.0
    busy, until = 0.0, -math.inf
    for start, end in steps.values():
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    one_at_a_time = busy / sum(end - start for start, end in steps.values())
    return (1 + order) / 2 * min(1.0, 0.5 + len(steps) / count) * one_at_a_time


def mean_confidence(visits: Sequence[Visit]) -> float:
    """The mean confidence of the visits, weighted by their seconds."""
    seconds = [visit.span.end - visit.span.start if visit.span.end is not None else 0.0 for visit in visits]
    total = sum(seconds)
    if total <= 0:
        return sum(visit.confidence for visit in visits) / len(visits)
    return sum(second * visit.confidence for second, visit in zip(seconds, visits, strict=True)) / total
