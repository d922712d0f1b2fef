"""Several processes of one run: how they wait, what the first does for all, and what each does a share of.

``torchrun`` and ``accelerate launch`` start them. They wait here for work that takes minutes or days (building rows,
encoding frames), so these functions have a group of connections of their own, on the CPU: it has no time limit, and a
process that ends closes its connections, which the others notice within seconds. The training steps use the group that
accelerate made, with the limit ``training.ddp_timeout``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from prospect_hf.machine import first_process, process_number, processes

T = TypeVar("T")
NO_LIMIT = timedelta(days=365)


@cache
def _group() -> Any:
    """The connections, made at the first use: all processes call the functions below in the same order."""
    import torch.distributed

    return torch.distributed.new_group(backend="gloo", timeout=NO_LIMIT)


def wait() -> None:
    """Return when all processes of the run have come here.

    Raises:
        RuntimeError: from torch.distributed, where a process has ended.
    """
    if processes() > 1:
        import torch.distributed

        torch.distributed.barrier(group=_group())


def leave() -> None:
    """Wait for the others at the end of a run, then close the connections: a launcher may end a run that one leaves."""
    if processes() > 1:
        import torch.distributed

        wait()
        torch.distributed.destroy_process_group()
        _group.cache_clear()


@contextmanager
def in_turn() -> Iterator[None]:
    """What the block writes, the first process writes for all; on a machine with a disk of its own, its first process.

    The block runs in the first process, then in the first process of each other machine, then in all others: each
    finds what the ones before it have written where it can see it.
    """
    turn = 0 if first_process() else 1 if process_number(local=True) == 0 else 2
    for _ in range(turn):
        wait()
    yield
    for _ in range(2 - turn):
        wait()


def of_first(make: Callable[[], T]) -> T:
    """What ``make`` gives in the first process, in all processes."""
    if processes() == 1:
        return make()
    import torch.distributed

    given = [make() if first_process() else None]
    torch.distributed.broadcast_object_list(given, src=0, group=_group())
    return given[0]  # type: ignore[return-value]  # the first process has put it there


def of_each(value: T) -> list[T]:
    """The values of all processes, in the order of their numbers, in all processes."""
    if processes() == 1:
        return [value]
    import torch.distributed

    values: list[Any] = [None] * processes()
    torch.distributed.all_gather_object(values, value, group=_group())
    return values


def share(sizes: Sequence[int], number: int, count: int) -> list[int]:
    """The items of share ``number`` (from 0) of ``count``, as positions in ``sizes``, in order.

    No item is in two shares, and all shares have about the same size: the largest items are dealt first, each to the
    share that is smallest so far. Every process that is given the same sizes comes to the same shares.
    """
    loads = [0] * count
    own = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        smallest = loads.index(min(loads))
        loads[smallest] += sizes[place]
        if smallest == number:
            own.append(place)
    return sorted(own)
