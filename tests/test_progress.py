"""Progress of a loop: sparse log lines without a terminal, one bar with the time left on one."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from prospect_hf import progress
from prospect_hf.progress import Progress, bars, clock


@pytest.fixture()
def time_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands until a test moves it: ``time_s[0]``."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_for_each_tenth_but_no_sooner_than_after_three_seconds(
    time_s: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Progress(100, "reading", "file") as bar:
        for _ in range(100):
            time_s[0] += 0.125
            bar.update()
    assert caplog.messages == [
        "reading 24/100, 24 %, 0:10 left",
        "reading 48/100, 48 %, 0:06 left",
        "reading 72/100, 72 %, 0:04 left",
        "reading 96/100, 96 %, 0:00 left",
        "reading 100/100, 100 %, took 0:12",
    ]


def test_a_slow_loop_shows_a_line_every_half_minute(time_s: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress(1000, "reading", "file", initial=500) as bar:
        for _ in range(4):
            time_s[0] += 15
            bar.update()
    # What was finished before does not count for the time left: 498 files at 15 s.
    assert caplog.messages == ["reading 502/1000, 50 %, 2:04:30 left", "reading 504/1000, 50 %, 2:04:00 left"]


def test_a_loop_that_ends_early_or_has_nothing_to_do_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(ValueError, match="broken"), Progress(5, "reading", "file") as bar:
        bar.update()
        raise ValueError("broken")
    for total in (0, 3):
        with Progress(total, "reading", "file", initial=total):
            pass
    with Progress(1, "reading", "file", show=False) as bar:
        bar.update()
        bar.report("note")
    assert caplog.messages == []


def test_reported_lines_end_with_their_note_and_are_not_repeated(
    time_s: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Progress(2, "training", "step") as bar:
        bar.report("before")
        bar.update()
        time_s[0] += 2
        bar.report("loss 0.5")
        bar.update()
        bar.report("loss 0.4")
    assert caplog.messages == [
        "training 0/2, 0 %, just begun: before",
        "training 1/2, 50 %, 0:02 left: loss 0.5",
        "training 2/2, 100 %, took 0:02: loss 0.4",
    ]


def test_a_terminal_gets_a_bar_and_no_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(4, "training", "step", initial=2) as bar:
        bar.update(2)
        bar.report("loss 0.4")
    last = capsys.readouterr().err.split("\r")[-1]
    assert "training 4/4 |██████████| " in last and " left, loss 0.4" in last
    assert caplog.messages == []
    with Progress(1, "training", "step", bar=False) as bar:
        bar.update()
    assert capsys.readouterr().err == "" and len(caplog.messages) == 1


def test_whoever_wants_lines_gets_no_bar_in_any_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    for drawn in (False, True):
        with bars(drawn), Progress(2, "reading", "file") as bar:
            bar.update(2)
        assert ("reading 2/2 |" in capsys.readouterr().err) == drawn


def test_the_clock() -> None:
    assert [clock(seconds) for seconds in (0, 45.4, 723, 3607)] == ["0:00", "0:45", "12:03", "1:00:07"]


@pytest.mark.parametrize("size", [(0, 0), (0, 120), (30, 0), (30, 120)])
def test_a_terminal_that_tells_no_size_shows_the_bar_too(size: tuple[int, int], repository: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    script = "from prospect_hf.progress import Progress\nwith Progress(2, 'counting', 'part') as parts: parts.update(2)"
    subprocess.run([sys.executable, "-c", script], cwd=repository, stderr=theirs, check=True)
    assert b"counting 2/2" in os.read(ours, 10_000)
    os.close(theirs)
    os.close(ours)


def test_parts_that_are_not_needed_do_not_count_for_the_time_left(time_s: list[float]) -> None:
    bar = Progress(100, "encoding", "frame", bar=False, show=False)
    time_s[0] += 10.0
    bar.update(20)
    bar.expect(-60)
    assert bar.line() == "encoding 20/40, 50 %, 0:10 left"
    bar.expect(20)
    assert bar.line() == "encoding 20/60, 33 %, 0:20 left"
