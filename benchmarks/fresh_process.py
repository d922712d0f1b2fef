"""Measurements in a fresh process: what it prints as JSON, and its resident memory (Linux)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def measured(script: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """What ``python script --measure ARGUMENTS`` prints in its last line, as JSON.

    Args:
        script: ``__file__`` of the benchmark.
        arguments: what its ``--measure`` takes, and other options.
        environment: variables that are set for it, beside those of this process.

    Raises:
        OSError: it failed; with the last line of its errors.
    """
    command = [sys.executable, script, "--measure", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise OSError(f"the measurement of {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def resident_bytes() -> int:
    """The resident memory of this process."""
    return _status_bytes("VmRSS")


def reset_peak() -> None:
    """Let ``peak_bytes`` count from now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_bytes() -> int:
    """The largest resident memory of this process since ``reset_peak``; ``ru_maxrss`` would include the parent's."""
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")
