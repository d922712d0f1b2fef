"""How much time intervals cover together, and how much of it others leave uncovered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

# A start and an end, in seconds.
Interval = tuple[float, float]


def seconds_of(intervals: Iterable[Interval], without: Iterable[Interval] = ()) -> float:
    """The length of the union of ``intervals``, less what the intervals ``without`` cover of it."""
    outside = 0.0
    blocks = deque(union(without))
    for start, end in union(intervals):
        while blocks and blocks[0][0] < end:
            outside += max(blocks[0][0] - start, 0.0)
            start = max(start, blocks[0][1])
            if blocks[0][1] > end:
                break  # it may cover the next one too
            blocks.popleft()
        outside += max(end - start, 0.0)
    return outside


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same points as intervals that do not touch, by start; one that ends before it starts has no length."""
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined
