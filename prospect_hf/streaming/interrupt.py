"""Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) between two frames."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if sys.platform != "win32":
    SIGNALS.append(signal.SIGHUP)


class Interrupt:
    """Delays a stop to the end of the frame in progress, so that the stream can be saved; a context manager.

    A second stop ends the frame at once.
    """

    def __init__(self) -> None:
        self._busy = self._asked = False

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._busy:
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def after_this(self) -> Iterator[None]:
        """A block that a first stop does not break off; the stop is raised when the block ends."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise KeyboardInterrupt
