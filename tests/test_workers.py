"""Worker processes end with their parent, whatever ends it, and say nothing then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from prospect_hf import workers
from prospect_hf.workers import worker_pool

PARENT = """
import os, signal, time
from prospect_hf.jobs import command
from prospect_hf.jobs.command_entry import Command
from prospect_hf import workers
from prospect_hf.workers import worker_pool

def sleep(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

def job():
    with worker_pool(2) as pool:
        list(pool.map(sleep, [60, 60]))

if __name__ == "__main__":
    command._load = lambda path: job
    raise SystemExit(command.run_command(Command("x", "A job.", [], "x:run", arguments=lambda parser: None), [], "x"))
"""


def alive(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.exists() and "zombie" not in status.read_text()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes as Linux lists them")
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_do_not_outlive_their_parent(tmp_path: Path, kind: signal.Signals, repository: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    parent = subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(alive(pid) for pid in pids)
    if kind == signal.SIGINT:
        os.killpg(parent.pid, kind)  # a terminal sends it to all processes
    else:
        parent.send_signal(kind)
    _, told = parent.communicate(timeout=30)
    if kind != signal.SIGKILL:
        assert (parent.returncode, told) == (1, "stopped\n")
    until = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def blocked() -> set[signal.Signals]:
    return {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows knows no masks of signals")
def test_a_worker_gets_no_ctrl_c_even_while_it_starts() -> None:
    """Each would print a traceback; the parent alone handles it, and its own mask is as before."""
    with worker_pool(1) as pool:
        assert signal.SIGINT in pool.submit(blocked).result(60)
        assert signal.SIGINT not in blocked()


def test_a_pool_that_is_left_forgets_what_waits_before_its_workers_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its thread may print a traceback, if a worker ends while it sends a result."""
    known: list[int] = []

    def ending() -> list[Any]:
        known.append(sum(not (task.done() or task.running()) for task in waiting))
        return active_children()

    monkeypatch.setattr(workers, "active_children", ending)
    with pytest.raises(KeyboardInterrupt), worker_pool(2) as pool:
        waiting = [pool.submit(time.sleep, 0.001) for _ in range(5000)]
        waiting[0].result()
        raise KeyboardInterrupt
    assert known == [0]
