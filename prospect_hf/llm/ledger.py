"""Counts requests, tokens and dollars of a language-model client, and enforces their limits."""

from __future__ import annotations

import threading

from prospect_hf.errors import UsageError
from prospect_hf.llm.arguments import LLMArguments

Tokens = tuple[int, int]


class LimitReached(UsageError):
    """A limit of the settings keeps the next request from being sent; what was answered is kept."""


class Ledger:
    """Counts spending and enforces the limits: what is sent reserves the most that it can cost beforehand.

    A single request that would exceed a limit together with those in flight waits for them, since most use far less
    than they reserve.

    Args:
        arguments: the prices and the limits.
    """

    def __init__(self, arguments: LLMArguments) -> None:
        self._arguments = arguments
        self._change = threading.Condition()
        self._requests = self._cached = self._in_flight = 0
        self._used, self._reserved = (0, 0), (0, 0)
        self._usd_used = self._usd_reserved = 0.0

    def usd(self, tokens: Tokens, share: float = 1.0) -> float | None:
        """The price in dollars of ``tokens`` (input, output) at a ``share`` of the full price; None without prices."""
        prices = self._arguments.prices
        return None if prices is None else share * (tokens[0] * prices[0] + tokens[1] * prices[1]) / 1e6

    def reserve(self, most: Tokens) -> None:
        """Reserve the cost of a request that uses at most ``most`` tokens (input, output); waits where needed.

        Raises:
            LimitReached: the request would exceed a limit.
        """
        with self._change:
            while (limit := self._exceeded(most, 1, 1.0)) is not None:
                if limit == "max_requests" or not self._in_flight:
                    raise LimitReached(
                        f"{self._spent(limit, most)}; raise the limit and run again; answers so far are kept in "
                        f"{self._arguments.cache_dir}."
                    )
                self._change.wait()
            self._take(most, 1, 1.0)

    def settle(self, most: Tokens, used: Tokens) -> None:
        """After a request, replace its reservation ``most`` by the tokens ``used`` (input, output)."""
        with self._change:
            self._give_back(most, 1, 1.0)
            self._pay(used, 1.0)
            self._change.notify_all()

    def exceeded(self, most: Tokens, requests: int, share: float) -> str | None:
        """The limit (a setting's name) that ``requests`` more would exceed at a ``share`` of the price, or None."""
        with self._change:
            return self._exceeded(most, requests, share)

    def reserve_batch(self, most: Tokens, requests: int, share: float) -> None:
        """Reserve the cost of a batch, whatever the limits: ask :meth:`exceeded` before it is submitted."""
        with self._change:
            self._take(most, requests, share)

    def settle_batch(self, most: Tokens, requests: int, used: Tokens, share: float) -> None:
        """After a batch, replace its reservation by the tokens ``used``."""
        with self._change:
            self._give_back(most, requests, share)
            self._pay(used, share)
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
                "usd": None if self._arguments.prices is None else self._usd_used,
            }

    def _exceeded(self, most: Tokens, requests: int, share: float) -> str | None:
        limits = self._arguments
        if limits.max_requests is not None and self._requests + requests > limits.max_requests:
            return "max_requests"
        if limits.max_tokens_total is not None and sum((*self._used, *self._reserved, *most)) > limits.max_tokens_total:
            return "max_tokens_total"
        usd = self._usd_used + self._usd_reserved + (self.usd(most, share) or 0.0)
        return "max_usd" if limits.max_usd is not None and usd > limits.max_usd else None

    def _spent(self, limit: str, most: Tokens) -> str:
        """What is spent of a limit, and what the next request may need."""
        limits = self._arguments
        if limit == "max_requests":
            return f"llm.max_requests: all {limits.max_requests} requests are used"
        if limit == "max_tokens_total":
            return (
                f"llm.max_tokens_total: {sum(self._used)} of {limits.max_tokens_total} tokens are used in "
                f"{self._requests} requests, and the next may take {sum(most)}"
            )
        return (
            f"llm.max_usd: ${self._usd_used:.4f} of ${limits.max_usd:g} is spent in {self._requests} requests, and the "
            f"next may cost ${self.usd(most):.4f}"
        )

    def _take(self, most: Tokens, requests: int, share: float) -> None:
        self._requests += requests
        self._in_flight += requests
        self._reserved = _sum(self._reserved, most)
        self._usd_reserved += self.usd(most, share) or 0.0

    def _give_back(self, most: Tokens, requests: int, share: float) -> None:
        self._in_flight -= requests
        self._reserved = self._reserved[0] - most[0], self._reserved[1] - most[1]
        # What rounding leaves must not keep the last request from being sent.
        self._usd_reserved = self._usd_reserved - (self.usd(most, share) or 0.0) if self._in_flight else 0.0

    def _pay(self, used: Tokens, share: float) -> None:
        self._used = _sum(self._used, used)
        self._usd_used += self.usd(used, share) or 0.0


def _sum(one: Tokens, other: Tokens) -> Tokens:
    return one[0] + other[0], one[1] + other[1]
