"""When the next request may be sent: below the rates that the settings give, and not while the server asks to wait."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

# Longest sleep without a look whether the run has ended, or a request has used fewer tokens than it might have.
LOOK_S = 0.1
# What is added to a wait that the server asks for, at most, as a share of it: what was refused together is not sent
# together again.
JITTER = 0.25


def wait_for(stop: threading.Event, seconds: float) -> None:
    """Sleep until ``stop`` is set, but no longer than ``seconds``."""
    stop.wait(seconds)


class Pacer:
    """Holds requests back; the threads of one client share it.

    Requests are spread evenly: a server that counts by the second is kept to as well as one that counts by the minute.
    A request takes fewer tokens than it might, so what the requests so far took of their bound is expected of the next.

    Args:
        requests_per_minute, tokens_per_minute: the rates; None is no limit.
        clock: a monotonic clock in seconds.
        wait: sleeps until an event is set, but no longer than so many seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], None] = wait_for,
    ) -> None:
        self._seconds_a_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._seconds_a_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._wait, self._lock = clock, wait, threading.Lock()
        self._pause_ends = self._next_request = self._next_tokens = clock()
        self._pause_s = 0.0
        self._most = self._used = 0  # tokens of the requests so far

    def pause(self, seconds: float) -> None:
        """Send nothing for ``seconds``, from no thread; a longer pause that is under way stands."""
        with self._lock:
            ends = self._clock() + seconds
            if ends > self._pause_ends:
                self._pause_ends, self._pause_s = ends, seconds

    def take(self, most: int, stop: threading.Event) -> float:
        """Wait until a request with at most ``most`` tokens may be sent, or ``stop`` is set; what it is expected to
        take is for :meth:`settle`."""
        jitter, paused = random.uniform(0, JITTER), False
        while not stop.is_set():
            with self._lock:
                now = self._clock()
                paused = paused or now < self._pause_ends
                pause_ends = self._pause_ends + jitter * self._pause_s if paused else now
                wait_s = max(pause_ends, self._next_request, self._next_tokens) - now
                if wait_s <= 0:
                    expected = most * self._used / self._most if self._used else float(most)
                    self._next_request = max(self._next_request, now) + self._seconds_a_request
                    self._next_tokens = max(self._next_tokens, now) + expected * self._seconds_a_token
                    return expected
            self._wait(stop, min(wait_s, LOOK_S))
        return 0.0

    def settle(self, expected: float, most: int, used: int) -> None:
        """After a request, put the tokens that it used in place of those that were expected."""
        with self._lock:
            self._next_tokens += (used - expected) * self._seconds_a_token
            if used:
                self._most += most
                self._used += used
