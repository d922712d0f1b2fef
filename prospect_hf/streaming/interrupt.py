"""Delays Ctrl-C to the end of the frame that is being processed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Raises ``KeyboardInterrupt`` for Ctrl-C after the current frame, so that the stream can be saved.

    A context manager; a second Ctrl-C raises at once.
    """

    def __init__(self) -> None:
        self._busy = self._asked = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._busy:  # the second Ctrl-C, or no frame is being processed
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def after_this(self) -> Iterator[None]:
        """Within this context Ctrl-C is delayed; leaving it raises ``KeyboardInterrupt`` if Ctrl-C was pressed."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise KeyboardInterrupt
