"""What a worker process gets of an object: it goes through a pipe, as ``DataLoader`` and ``worker_pool`` send it."""

from __future__ import annotations

from multiprocessing import Pipe
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def as_a_worker_gets_it(value: T) -> tuple[T, int]:
    """``value`` as it comes out of a pipe, and the number of bytes that went through."""
    ours, theirs = Pipe()
    sender = Thread(target=lambda: [ours.send(value), ours.send(value)])  # a pipe holds little
    sender.start()
    received: T = theirs.recv()
    size = len(theirs.recv_bytes())
    sender.join()
    return received, size
