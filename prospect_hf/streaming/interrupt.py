"""Ctrl-C between two frames."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Ctrl-C between two frames and not in the middle of one, so that the stream can be saved; a context manager."""

    def __init__(self) -> None:
        self._busy = self._asked = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._busy:  # asked for twice, it ends at once
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def after_this(self) -> Iterator[None]:
        """What must not be broken off."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise KeyboardInterrupt
