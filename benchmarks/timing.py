"""How the benchmarks take times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def median_seconds(repeats: int, *methods: Callable[[], object]) -> list[float]:
    """Median seconds of each method; the methods run alternately."""
    times: list[list[float]] = [[] for _ in methods]
    for _ in range(repeats):
        for method, taken in zip(methods, times, strict=True):
            began = time.perf_counter()
            method()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]
