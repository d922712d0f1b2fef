"""Worker processes that end with their parent, however it ends, and that leave Ctrl-C to it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context, parent_process
from typing import Any

from prospect_hf.errors import UsageError

FORGET_S = 5.0  # seconds that are waited for the pool's thread


def shard_of(shard: str, key: str) -> tuple[int, int]:
    """The shard ``I/N`` of a job, part I of N (from 1), as (number from 0, count).

    Args:
        key: the setting's name, for the message.

    Raises:
        UsageError: it is not ``I/N`` with I from 1 to N.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"{key}={shard} must be I/N with I from 1 to N: {key}=3/8 is part 3 of 8.")
    return number - 1, count


@contextmanager
def worker_pool(
    processes: int, begin: Callable[..., object] | None = None, *given: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of worker processes; where the block raises, what they are at is not waited for.

    Args:
        processes: how many.
        begin: called with ``given`` in each worker before its first task.
    """
    # Spawned, not forked: the caller may hold threads (torch, arrow) that a fork would leave half-copied.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(begin, given))
    try:
        with _interrupt_held_back():
            for _ in range(processes):
                pool.submit(int)  # a process is started for each task while none is idle
        yield pool
    except BaseException:
        try:
            _forget_what_waits(pool)
        finally:
            for worker in active_children():
                worker.terminate()
        raise
    pool.shutdown()


def _forget_what_waits(pool: ProcessPoolExecutor) -> None:
    """Cancel the tasks that have not begun.

    The pool's own thread does so. It must have done it before the workers end: a pool that loses its workers sets an
    error on every task that it still knows, and of one that its caller has cancelled this prints a traceback.
    """
    with suppress(BrokenExecutor):
        last = pool.submit(int)
        pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + FORGET_S
        while not (last.running() or last.done()) and time.monotonic() < until:
            time.sleep(0.01)


def _begin(begin: Callable[..., object] | None, given: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent alone handles it
    if begin is not None:
        begin(*given)


def _end_with_parent() -> None:
    # Without this, a worker would go on after its parent was killed.
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Ctrl-C waits until the block ends; processes that are started in it never get one, not even while they start."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
