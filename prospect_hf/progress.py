"""Progress of a long loop: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

from prospect_hf.machine import first_process

logger = logging.getLogger(__name__)

# Without a terminal, a line is due after a tenth of the work, but no sooner than 3 s after the one before it, and in
# any case after 30 s.
LINES, SHORTEST_WAIT_S, LONGEST_WAIT_S = 10, 3.0, 30.0
_bars = ContextVar("bars", default=True)
BAR = "{desc} {n_fmt}/{total_fmt} |{bar:10}| {remaining} left{postfix}"


class Progress:
    """Counts the finished parts of a loop and shows how long the rest will take.

    Args:
        total: number of parts.
        description: name of the loop.
        unit: what a part is, as in "session".
        initial: number of parts that were finished before the loop began; they do not count for the time left.
        show: false shows nothing. Of several processes of a run the first shows its own work.
        bar: false writes log lines on a terminal too.
        lines: without a bar, log lines while parts are finished; false logs only what ``report`` is given.
    """

    def __init__(
        self,
        total: int,
        description: str,
        unit: str,
        *,
        initial: int = 0,
        show: bool = True,
        bar: bool = True,
        lines: bool = True,
    ) -> None:
        self.total, self.description = total, description
        self.initial = self.done = self._done_at_line = initial
        self._show, self._lines = show and first_process(), lines
        self._started = self._time_of_line = time.monotonic()
        self._bar = None
        if self._show and bar and has_bars():
            self._bar = tqdm(total=total, initial=initial, desc=description, unit=unit, bar_format=BAR, **bar_size())

    def update(self, count: int = 1) -> None:
        """Count ``count`` more finished parts."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._lines and self.done < self.total and self._line_is_due():
            self.report()

    def expect(self, more: int) -> None:
        """There are ``more`` parts than was thought, or fewer: a negative number."""
        self.total += more
        if self._bar is not None:
            self._bar.total += more
            self._bar.refresh()

    def report(self, note: str = "") -> None:
        """Show ``note`` behind the bar, or log a line that ends with it."""
        if self._bar is not None:
            self._bar.set_postfix_str(note)
        elif self._show:
            self._done_at_line, self._time_of_line = self.done, time.monotonic()
            logger.info("%s", self.line(note))

    def line(self, note: str = "") -> str:
        """For example ``whole sessions 450/900, 50 %, 0:45 left: loss 0.412``."""
        seconds = time.monotonic() - self._started
        if self.done < self.total:
            done_here = self.done - self.initial
            rest = f"{clock(seconds / done_here * (self.total - self.done))} left" if done_here else "just begun"
        else:
            rest = f"took {clock(seconds)}"
        share = 100 * self.done // max(self.total, 1)
        return f"{self.description} {self.done}/{self.total}, {share} %, {rest}" + (f": {note}" if note else "")

    def close(self) -> None:
        """Leave the bar as it stands, or log the last line."""
        if self._bar is not None:
            self._bar.close()
        elif self._lines and self.done >= self.total and self.done > self._done_at_line:
            self.report()

    def _line_is_due(self) -> bool:
        waited = time.monotonic() - self._time_of_line
        part_done = LINES * (self.done - self._done_at_line) >= self.total
        return waited >= (SHORTEST_WAIT_S if part_done else LONGEST_WAIT_S)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def has_bars() -> bool:
    """Whether bars are drawn: standard error is a terminal, or this is a notebook, and nobody wants lines alone."""
    return _bars.get() and (sys.stderr.isatty() or "ipykernel" in sys.modules)


@contextmanager
def bars(drawn: bool) -> Iterator[None]:
    """Draw bars in this block, or write log lines on a terminal too."""
    before = _bars.set(drawn)
    try:
        yield
    finally:
        _bars.reset(before)


def bar_size() -> dict[str, Any]:
    """The size of the bar as tqdm's arguments: that of the terminal, as it changes.

    A terminal that tells no size, as one that a program opens, counts as 80 columns: tqdm would draw nothing there.
    """
    try:
        known = all(os.get_terminal_size(sys.stderr.fileno()))
    except (OSError, ValueError):  # a notebook's output
        known = True
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}


def clock(seconds: float) -> str:
    """``0:45``, ``12:03`` or ``1:00:07``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
