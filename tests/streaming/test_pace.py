"""Live pacing: the newest frame, the right count of those that were passed over, and a thread that always ends."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
from PIL import Image

from prospect_hf.streaming import pace
from prospect_hf.streaming.frame_sources import SourceFrame, SourceFrames
from prospect_hf.streaming.pace import LivePace

PICTURE = Image.new("RGB", (2, 2))


def frame(index: int, fps: float = 2.0) -> SourceFrame:
    return SourceFrame(index, index / fps, PICTURE)


class Gate:
    """A source that yields what the test hands it, and lets the test wait until the reader wants more."""

    def __init__(self) -> None:
        self.given: list[SourceFrame | BaseException | None] = []
        self.changed = threading.Condition()
        self.wanting = False
        self.closed = False

    def frames(self) -> SourceFrames:
        try:
            while True:
                with self.changed:
                    self.wanting = True
                    self.changed.notify_all()
                    self.changed.wait_for(lambda: bool(self.given))
                    self.wanting = False
                    item = self.given.pop(0)
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.closed = True

    def give(self, *items: SourceFrame | BaseException | None) -> None:
        """Hand over; returns when the reader has passed all of it on (or has ended with it)."""
        with self.changed:
            self.given += items
            self.wanting = False
            self.changed.notify_all()
            if isinstance(items[-1], SourceFrame):
                assert self.changed.wait_for(lambda: self.wanting and not self.given, 10)


class Clock:
    """A clock that the test moves; ``sleep`` returns when it has been moved far enough."""

    def __init__(self) -> None:
        self.now = 100.0
        self.changed = threading.Condition()
        self.until: float | None = None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.changed:
            self.until = self.now + seconds
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.now >= self.until, 10)
            self.until = None

    def advance(self, seconds: float) -> None:
        with self.changed:
            self.now += seconds
            self.changed.notify_all()

    def wait_for_sleeper(self, until: float) -> None:
        """Until the reader sleeps to this moment (seconds after the start)."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.until is not None and abs(self.until - 100.0 - until) < 1e-9, 10)


def test_a_slow_consumer_gets_the_newest_frame_and_a_count() -> None:
    gate = Gate()
    with LivePace(gate.frames()) as frames:
        gate.give(frame(0))
        assert next(frames).index == 0 and frames.dropped == 0
        gate.give(frame(1), frame(2), frame(3))
        found = next(frames)
        assert (found.index, found.time, frames.dropped) == (3, 1.5, 2)
        gate.give(frame(7), frame(8))
        assert next(frames).index == 8 and frames.dropped == 3
        gate.give(frame(9), None)
        assert next(frames).index == 9
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(frames)
        assert frames.dropped == 3
    assert gate.closed


def test_a_quick_consumer_waits_and_loses_nothing() -> None:
    gate = Gate()
    found: list[int] = []
    with LivePace(gate.frames()) as frames:
        consumer = threading.Thread(target=lambda: found.extend(each.index for each in frames))
        consumer.start()
        for index in range(20):
            gate.give(frame(index))
            deadline = time.monotonic() + 10
            while len(found) <= index and time.monotonic() < deadline:
                time.sleep(0.0005)
            assert found == list(range(index + 1))
        gate.give(None)
        consumer.join(10)
        assert not consumer.is_alive() and frames.dropped == 0


def test_an_error_comes_after_the_last_frame_before_it() -> None:
    gate = Gate()
    with LivePace(gate.frames()) as frames:
        gate.give(frame(0), frame(1))
        gate.give(ValueError("the cable came off"))
        frames._thread.join(10)  # the error is there already when the frame is taken
        assert next(frames).index == 1 and frames.dropped == 1
        with pytest.raises(ValueError, match="the cable came off"):
            next(frames)
        with pytest.raises(StopIteration):
            next(frames)
    assert gate.closed


def test_an_error_wakes_a_waiting_consumer() -> None:
    gate = Gate()
    with LivePace(gate.frames()) as frames:
        threading.Timer(0.02, gate.give, [ValueError("gone")]).start()
        with pytest.raises(ValueError, match="gone"):
            next(frames)


def test_stored_frames_are_due_at_their_time() -> None:
    clock = Clock()
    source = (frame(index) for index in range(4, 10))  # a range that starts at 2.0 s: due at once
    with LivePace(source, realtime=True, clock=clock, sleep=clock.sleep) as frames:
        clock.wait_for_sleeper(0.5)  # frame 4 has been passed on, frame 5 is held back
        assert next(frames).index == 4
        clock.advance(0.4)
        clock.wait_for_sleeper(0.5)
        assert frames._newest is None
        clock.advance(0.1)
        clock.wait_for_sleeper(1.0)
        assert next(frames).index == 5
        clock.advance(1.2)  # 6 and 7 become due, 8 does not
        clock.wait_for_sleeper(2.0)
        found = next(frames)
        assert (found.index, found.time, frames.dropped) == (7, 3.5, 1)
        clock.advance(5.0)
        with pytest.raises(StopIteration):
            while True:
                found = next(frames)
        assert found.index == 9 and frames.dropped <= 2


def test_live_frames_are_not_held_back() -> None:
    def never(seconds: float) -> None:
        raise AssertionError("slept")

    gate = Gate()
    with LivePace(gate.frames(), sleep=never) as frames:
        gate.give(frame(0), frame(1000))
        assert next(frames).index == 1000
        gate.give(None)


def test_a_real_clock_keeps_time() -> None:
    begin = time.monotonic()
    with LivePace((frame(index, 50.0) for index in range(6)), realtime=True) as frames:
        arrivals = [(each.index, time.monotonic() - begin) for each in frames]
    assert arrivals[-1][0] == 5
    for index, seconds in arrivals:
        assert seconds >= index / 50


def test_memory_is_bounded() -> None:
    """However many frames are passed over, those are gone."""
    pictures: list[weakref.ref[Image.Image]] = []

    def many() -> SourceFrames:
        for index in range(200):
            picture = Image.new("RGB", (2, 2))
            pictures.append(weakref.ref(picture))
            yield SourceFrame(index, index / 2, picture)
            del picture
            gc.collect(0)
            assert sum(each() is not None for each in pictures) <= 3

    with LivePace(many()) as frames:
        frames._thread.join(20)
        assert next(frames).index == 199 and frames.dropped == 199
        with pytest.raises(StopIteration):
            next(frames)


def test_leaving_early_ends_the_thread_and_closes_the_source() -> None:
    closed: list[str] = []

    def endless() -> SourceFrames:
        index = 0
        try:
            while True:
                yield frame(index, 1 / 60)
                index += 1
        finally:
            closed.append(threading.current_thread().name)

    for realtime in (False, True):  # the second one sleeps for a minute when it is told to stop
        begin = time.monotonic()
        with LivePace(endless(), realtime=realtime) as frames:
            assert next(frames).index >= 0
        assert not frames._thread.is_alive() and time.monotonic() - begin < 10
        with pytest.raises(StopIteration):
            next(frames)
        frames.close()
    assert closed == ["frames", "frames"]


def test_leaving_with_an_error_closes_too() -> None:
    gate = Gate()
    with pytest.raises(KeyError), LivePace(gate.frames()) as frames:
        gate.give(frame(0))
        threading.Timer(0.02, gate.give, [None]).start()
        raise KeyError("the model failed")
    assert gate.closed and not frames._thread.is_alive()


def test_closing_wakes_a_waiting_consumer() -> None:
    """At once, even while the source hangs."""
    gate = Gate()
    found: list[object] = []
    with LivePace(gate.frames()) as frames:
        consumer = threading.Thread(target=lambda: found.append(next(frames, "stopped")))
        consumer.start()
        closer = threading.Thread(target=frames.close)
        closer.start()
        consumer.join(5)
        assert found == ["stopped"] and closer.is_alive()
        gate.give(None)
        closer.join(10)
        assert gate.closed and not closer.is_alive()


def test_a_source_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "CLOSE_S", 0.05)
    gate = Gate()
    with pytest.warns(UserWarning, match=r"has not answered for 0\.05 s"), LivePace(gate.frames()) as frames:
        pass
    gate.give(frame(0), None)
    frames._thread.join(10)
    assert gate.closed


def test_without_entering_there_is_nothing_to_take() -> None:
    closed: list[bool] = []

    def source() -> SourceFrames:
        try:
            yield frame(0)
            yield frame(1)
        finally:
            closed.append(True)

    started = source()
    next(started)
    frames = LivePace(started)
    with pytest.raises(RuntimeError, match="with LivePace"):
        next(frames)
    frames.close()
    assert closed == [True]
