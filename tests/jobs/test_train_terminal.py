"""What ``scripts/train.py`` shows on a terminal: one bar a stage, or lines where bars are turned off."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from job_fixtures import SETTINGS


def folders(place: Path) -> list[str]:
    """Settings that keep all that a run writes below ``place``."""
    return [
        f"data.root={place / 'corpus'}",
        f"data.cache_dir={place / 'cache'}",
        f"training.output_dir={place / 'out'}",
    ]


def run_in_terminal(repository: Path, cwd: Path, *arguments: str) -> str:
    """What the script writes to a terminal of 160 columns, as its standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    process = subprocess.Popen(
        [sys.executable, repository / "scripts" / "train.py", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    output = b""
    try:
        while part := os.read(ours, 4096):
            output += part
    except OSError:  # Linux's way of saying that the last writer closed the terminal
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=60) == 0, output.decode()
    return output.decode()


def test_a_terminal_shows_one_bar_a_stage(repository: Path, tmp_path: Path) -> None:
    written = run_in_terminal(repository, tmp_path, *SETTINGS, *folders(tmp_path))
    losses = r"loss \d\.\d{3} \(speaking \d\.\d{3}, update \d\.\d{3}, state \d\.\d{3}, text \d\.\d{3}\)"
    left = r"\d\d:\d\d left"
    for bar in (
        rf"first stage 1/2 \|█+ *\| {left}, {losses}, lr ",
        rf"whole sessions 2/3 \|█+.? *\| {left}, {losses}, lr ",
        rf"evaluation 1/1 \|█+\| {left}, {losses}, (task score \d\.\d{{3}}, )?joint state accuracy",
        r"encoding frames (\d+)/\1 \|",
        rf"following sessions 2/2 \|█+\| {left}",
    ):
        assert re.search(bar, written), (bar, written)
    # Each bar ends its line once; it is drawn again in the same line until then.
    ends = [line.split("\r")[-1] for line in written.replace("\r\n", "\n").split("\n")]
    for stage in ("first stage", "encoding frames", "whole sessions", "evaluation", "following sessions"):
        assert sum(line.startswith(f"{stage} ") for line in ends) == 1, (stage, ends)
    assert "Writing model shards" not in written and "{'loss'" not in written and "%, " not in written


@pytest.mark.slow
def test_bars_can_be_turned_off(repository: Path, tmp_path: Path) -> None:
    written = run_in_terminal(repository, tmp_path, *SETTINGS, *folders(tmp_path), "training.disable_tqdm=true")
    assert "█" not in written and re.search(r"whole sessions 3/3, 100 %, took 0:\d\d: loss ", written)
