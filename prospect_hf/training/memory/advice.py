"""What to set where the GPU's memory runs out in a part of a run all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RunOutOfMemory(MemoryError):
    """The GPU's memory ran out in training; the message says what the plan was and what to set."""


@contextmanager
def advised(advice: str | None) -> Iterator[None]:
    """Where the GPU's memory runs out, say what to set.

    Args:
        advice: of ``check_memory``, or of a part of a run with a knob of its own.

    Raises:
        RunOutOfMemory: in place of torch's error, if there is advice.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        if advice is None:
            raise
        raise RunOutOfMemory(advice) from error


def lower(what: str, name: str, value: int, otherwise: str) -> str:
    """Half of a setting, or ``otherwise`` where it is 1 already.

    Args:
        what: the part of the run, for the message.
        name: of the setting in ``training``.
    """
    knob = f"training.{name}={value // 2}" if value > 1 else otherwise
    return f"{what} had training.{name}={value}; set {knob}"
