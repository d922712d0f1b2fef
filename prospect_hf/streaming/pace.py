"""Live pacing: which frames a model processes that is slower than the video.

Frames are dropped and never queued. A thread reads the source without a pause, because a camera or a network stream
that is not read piles up a backlog of its own. The thread keeps only the newest frame, and the model takes it when it
is ready. Dropped frames are counted and show as gaps in ``index``; ``time`` stays true. At most three frames are in
memory: the one waiting for the model, the one being read, and the one being processed.

Without pacing, iterate over the source itself: then no frame is dropped.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from types import TracebackType

from prospect_hf.streaming.frame_sources import SourceFrame, SourceFrames

# Closing waits this many seconds for a read that has begun; a silent URL or camera gives up sooner.
CLOSE_S = 20.0


class LivePace:
    """Iterates over the newest frames of a source; a context manager.

    Entering starts the reader; leaving stops it and closes the source. An error of the source is raised in the
    consumer, after the last frame that was read before it.

    Args:
        source: from ``frame_sources``; only the reader thread uses it.
        realtime: hold each frame of a stored video back until its time has come, counted from the first frame. Leave
            it off for cameras and live URLs, which deliver frames in real time.
        clock: returns seconds that never decrease.
        sleep: waits for a number of seconds; by default a wait that ends when the pace is closed.

    Attributes:
        dropped: number of frames that were replaced by a newer one before the model took them.
    """

    def __init__(
        self,
        source: SourceFrames,
        *,
        realtime: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.dropped = 0
        self._source, self._realtime, self._clock = source, realtime, clock
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._changed = threading.Condition()  # guards the four below and `dropped`
        self._newest: SourceFrame | None = None
        self._failure: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)

    def __enter__(self) -> LivePace:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> LivePace:
        return self

    def __next__(self) -> SourceFrame:
        """Wait for a frame that was not returned before.

        Raises:
            StopIteration: the source has ended, or the pace was closed.
            RuntimeError: outside of ``with``.
        """
        if self._thread.ident is None:
            raise RuntimeError("LivePace reads inside `with` only; write `with LivePace(source) as frames:`.")
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended or self._stop.is_set())
            frame, self._newest = self._newest, None
            if self._stop.is_set():
                raise StopIteration
            if frame is not None:
                return frame
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        raise StopIteration

    def close(self) -> None:
        """Stop the reader and close the source, after the read that has begun; safe to call twice, from any thread."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.ident is None:
            self._source.close()
            return
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            warnings.warn(
                f"The source has not answered for {CLOSE_S:g} s and was left open; it closes when it does.",
                stacklevel=2,
            )

    def _read(self) -> None:
        failure: BaseException | None = None
        try:
            try:
                self._pass_on()
            finally:
                self._source.close()  # here, since a generator cannot be closed from outside while it reads
        except BaseException as error:  # of any kind: the consumer raises it
            failure = error
        with self._changed:
            self._failure, self._ended = failure, True
            self._changed.notify_all()

    def _pass_on(self) -> None:
        start: float | None = None  # the clock's reading at which the video's time was zero
        for frame in self._source:
            if start is None:
                start = self._clock() - frame.time
            while self._realtime and not self._stop.is_set() and (early := start + frame.time - self._clock()) > 0:
                self._sleep(early)
            if self._stop.is_set():
                return
            with self._changed:
                self.dropped += self._newest is not None
                self._newest = frame
                self._changed.notify_all()
