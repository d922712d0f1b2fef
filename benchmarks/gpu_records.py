"""What the measurements of ``gpu.py`` share: a budget of seconds, records that outlive a kill, times and memory.

Every section of ``gpu.py`` runs in a process of its own and appends one line of JSON to a file for each row, note,
error or skipped case, as soon as it has it. The file is read again to make the tables.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GIB = 2**30
Row = Mapping[str, Any]


class Budget:
    """Seconds that may still be spent, by the clock ``now``."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + seconds

    def left(self) -> float:
        """Seconds left, 0 or more."""
        return max(0.0, self._end - self._now())

    def share(self, weights: Sequence[float]) -> float:
        """The seconds of the first of several parts that have ``weights``: what earlier parts left is shared too."""
        return self.left() * weights[0] / sum(weights)


@dataclass
class Record:
    """One line of the records: ``kind`` is row, note, error, skipped or done."""

    section: str
    kind: str
    value: Any


class Records:
    """Appends the records of one section to a file, and prints them.

    Args:
        file: of all sections.
        section: whose records these are.
        budget: of the section.
    """

    def __init__(self, file: Path, section: str, budget: Budget) -> None:
        self.file, self.section, self.budget = file, section, budget
        self.failed = 0

    def add(self, kind: str, value: Any) -> None:
        """Append one record; it is on the disk when this returns."""
        line = json.dumps({"section": self.section, "kind": kind, "value": value})
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        shown = ", ".join(f"{key} {text_of(cell)}" for key, cell in value.items()) if kind == "row" else value
        print(f"[{self.section}] {'' if kind in ('row', 'note') else kind + ': '}{shown}", flush=True)

    def attempt(self, name: str, seconds: float, measure: Callable[[], Row | None]) -> None:
        """Record the row of ``measure``; where it would not fit into the budget or fails, record that instead.

        Args:
            name: of the case, for the message.
            seconds: what the case may need.
            measure: takes the measurement; None: it recorded what it has to say itself.
        """
        if self.budget.left() < seconds:
            self.add("skipped", f"{name}: needs about {seconds:.0f} s, {self.budget.left():.0f} s are left")
            return
        try:
            row = measure()
        # Whatever a driver, a kernel or a library throws, the measurements after this one must still be taken.
        except Exception as error:
            self.failed += 1
            traceback.print_exc()
            self.add("error", f"{name}: {type(error).__name__}: {first_line(error)}")
        else:
            if row is not None:
                self.add("row", dict(row))
        free_memory()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters."""
    return (str(error).splitlines() or [""])[0][:300]


def free_memory() -> None:
    """Give cached memory of the device back, so that the next case starts from its own."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def read_records(file: Path) -> list[Record]:
    """The records so far; a last line that a kill cut off is left out."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    return [Record(**json.loads(line)) for line in lines]


@dataclass
class SectionResult:
    """The records of one section, by kind."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float | None = None


def by_section(records: Sequence[Record], sections: Sequence[str]) -> dict[str, SectionResult]:
    """The records of each of ``sections``, in their order."""
    results = {name: SectionResult() for name in sections}
    for record in records:
        result = results[record.section]
        if record.kind == "done":
            result.seconds = record.value
        else:
            kinds = {"row": result.rows, "note": result.notes, "error": result.errors, "skipped": result.skipped}
            kinds[record.kind].append(record.value)
    return results


def markdown(title: str, heads: Mapping[str, str], results: Mapping[str, SectionResult]) -> str:
    """All tables as Markdown: one for each section that has rows, then its notes, errors and skipped cases.

    Args:
        title: of the page.
        heads: the heading of each section.
        results: of ``by_section``.
    """
    lines = [f"# {title}"]
    for name, result in results.items():
        lines += ["", f"## {heads[name]}"]
        if result.rows:
            columns = list(dict.fromkeys(column for row in result.rows for column in row))
            lines += ["", _line(columns), _line(["---"] * len(columns))]
            lines += [_line([text_of(row.get(column)) for column in columns]) for row in result.rows]
        said = [*result.notes, *(f"**Failed**: {text}" for text in result.errors)]
        said += [f"Skipped: {text}" for text in result.skipped]
        if result.seconds is None:
            said.append("Not finished.")
        lines += ["", *(f"- {text}" for text in said)] if said else []
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text_of(cell: Any) -> str:
    """A cell's text: three significant digits of a number below 1,000, a dash where nothing was measured."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return f"{cell:,}" if type(cell) is int else str(cell)


# -- the device -----------------------------------------------------------------------------------------------------


def median_ms(run: Callable[[], object], device: str, repeats: int, seconds: float, warm: int = 2) -> float:
    """Median milliseconds of ``run``, by CUDA events on a GPU, after ``warm`` runs that are not counted.

    Args:
        run: what is measured.
        device: where it runs.
        repeats: runs at most.
        seconds: no further run begins after these, warm runs included; one run is always counted.
        warm: runs before.
    """
    import torch

    budget, times = Budget(seconds), []
    for number in range(warm + repeats):
        if number > warm and not budget.left():
            break
        if device.startswith("cuda"):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
            taken = begin.elapsed_time(end)
        else:
            started = time.perf_counter()
            run()
            taken = (time.perf_counter() - started) * 1000
        if number >= warm:
            times.append(taken)
    return statistics.median(times)


def reset_peak(device: str) -> None:
    """Begin to measure the peak of the device's memory."""
    import torch

    free_memory()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> tuple[float | None, float | None]:
    """GiB of the device's memory at its peak: of tensors, and reserved from the driver. None without a GPU."""
    import torch

    if not device.startswith("cuda"):
        return None, None
    return torch.cuda.max_memory_allocated() / GIB, torch.cuda.max_memory_reserved() / GIB
