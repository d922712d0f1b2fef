"""The ledger of a language model's costs: requests, tokens and dollars, kept under their caps."""

from __future__ import annotations

import threading

from prospect_hf.errors import UsageError


class Ledger:
    """Counts what is spent, and keeps it under the caps: a request reserves the most that it can use.

    A request that does not fit beside those on their way waits for them, since they mostly use far less.

    Args:
        prices: dollars a million tokens of input and output.
        max_usd, max_requests: the caps; ``max_usd`` needs ``prices``.
        kept: where answers are kept, for messages.
    """

    def __init__(
        self, prices: tuple[float, float] | None, max_usd: float | None, max_requests: int | None, kept: str
    ) -> None:
        self.prices, self.max_usd, self.max_requests, self.kept = prices, max_usd, max_requests, kept
        self._change = threading.Condition()
        self._requests = self._cached = self._on_way = 0
        self._used, self._reserved = (0, 0), (0, 0)

    def _usd(self, tokens: tuple[int, int]) -> float:
        prices = self.prices or (0.0, 0.0)
        return (tokens[0] * prices[0] + tokens[1] * prices[1]) / 1e6

    def reserve(self, most: tuple[int, int]) -> None:
        """Before a request that uses at most ``most`` tokens (input, output).

        Raises:
            UsageError: it would go over a cap.
        """
        go_on = f"answers so far are kept in {self.kept}: raise it and run again to go on."
        with self._change:
            while self.max_usd is not None and self._usd(_sum(_sum(self._used, self._reserved), most)) > self.max_usd:
                if not self._on_way:
                    raise UsageError(
                        f"llm.max_usd: ${self._usd(self._used):.4f} of ${self.max_usd:g} is spent in {self._requests} "
                        f"requests, and the next may cost ${self._usd(most):.4f}; {go_on}"
                    )
                self._change.wait()
            if self.max_requests is not None and self._requests >= self.max_requests:
                raise UsageError(f"llm.max_requests: all {self.max_requests} requests are used; {go_on}")
            self._requests += 1
            self._on_way += 1
            self._reserved = _sum(self._reserved, most)

    def settle(self, most: tuple[int, int], used: tuple[int, int]) -> None:
        """After the request: what it reserved, and the tokens that it used."""
        with self._change:
            self._on_way -= 1
            self._reserved = self._reserved[0] - most[0], self._reserved[1] - most[1]
            self._used = _sum(self._used, used)
            self._change.notify_all()

    def found(self) -> None:
        """An answer came from the cache."""
        with self._change:
            self._cached += 1

    def facts(self) -> dict[str, float | None]:
        """``requests``, ``cached``, ``input_tokens``, ``output_tokens`` and ``usd``, None without prices."""
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
