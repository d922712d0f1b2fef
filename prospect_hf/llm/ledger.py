"""Counts requests, tokens and dollars of a language-model client, and enforces their limits."""

from __future__ import annotations

import threading

from prospect_hf.errors import UsageError


class Ledger:
    """Counts spending and enforces the limits: each request reserves the most that it can cost before it is sent.

    A request that would exceed the limit together with those in flight waits for them, since most use far less than
    they reserve.

    Args:
        prices: dollars per million tokens of input and output.
        max_usd, max_requests: the limits; ``max_usd`` needs ``prices``.
        cache_dir: folder of the cached answers, for messages.
    """

    def __init__(
        self, prices: tuple[float, float] | None, max_usd: float | None, max_requests: int | None, cache_dir: str
    ) -> None:
        self.prices, self.max_usd, self.max_requests, self.cache_dir = prices, max_usd, max_requests, cache_dir
        self._change = threading.Condition()
        self._requests = self._cached = self._in_flight = 0
        self._used, self._reserved = (0, 0), (0, 0)

    def _usd(self, tokens: tuple[int, int]) -> float:
        prices = self.prices or (0.0, 0.0)
        return (tokens[0] * prices[0] + tokens[1] * prices[1]) / 1e6

    def reserve(self, most: tuple[int, int]) -> None:
        """Reserve the cost of a request that uses at most ``most`` tokens (input, output); waits where needed.

        Raises:
            UsageError: the request would exceed a limit.
        """
        advice = f"raise the limit and run again; answers so far are kept in {self.cache_dir}."
        with self._change:
            while self.max_usd is not None and self._usd(_sum(_sum(self._used, self._reserved), most)) > self.max_usd:
                if not self._in_flight:
                    raise UsageError(
                        f"llm.max_usd: ${self._usd(self._used):.4f} of ${self.max_usd:g} is spent in {self._requests} "
                        f"requests, and the next may cost ${self._usd(most):.4f}; {advice}"
                    )
                self._change.wait()
            if self.max_requests is not None and self._requests >= self.max_requests:
                raise UsageError(f"llm.max_requests: all {self.max_requests} requests are used; {advice}")
            self._requests += 1
            self._in_flight += 1
            self._reserved = _sum(self._reserved, most)

    def settle(self, most: tuple[int, int], used: tuple[int, int]) -> None:
        """After a request, replace its reservation ``most`` by the tokens ``used`` (input, output)."""
        with self._change:
            self._in_flight -= 1
            self._reserved = self._reserved[0] - most[0], self._reserved[1] - most[1]
            self._used = _sum(self._used, used)
            self._change.notify_all()

    def count_cached(self) -> None:
        """Count an answer that came from the cache."""
        with self._change:
            self._cached += 1

    def facts(self) -> dict[str, float | None]:
        """``requests``, ``cached``, ``input_tokens``, ``output_tokens`` and ``usd`` (None without prices)."""
        with self._change:
            return {
                "requests": self._requests,
                "cached": self._cached,
                "input_tokens": self._used[0],
                "output_tokens": self._used[1],
                "usd": None if self.prices is None else self._usd(self._used),
            }


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
