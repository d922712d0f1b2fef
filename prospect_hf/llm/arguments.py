"""Settings of the ``llm`` group: the language-model server, its prices and the spending limits."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from prospect_hf.errors import UsageError
from prospect_hf.llm.address import check_address

# Keys of a request that have settings of their own, or that would change what its reply is.
OWN_KEYS = {
    "model", "messages", "response_format", "temperature", "seed", "max_tokens", "max_completion_tokens", "stream", "n",
}  # fmt: skip


@dataclass
class LLMArguments:
    """The language-model server, the requests sent to it, and the spending limits.

    Args:
        model: the model's name on the server.
        base_url: address of an OpenAI-compatible server, such as ``http://127.0.0.1:8000/v1``; unset:
            ``OPENAI_BASE_URL``, or OpenAI where that is unset too.
        api_key_env: name of the environment variable with the key. Without a key, only servers other than OpenAI's can
            be used.
        temperature: sampling temperature; OpenAI's reasoning models accept 1.0 only, and votes differ only above 0.
        max_output_tokens: largest length of an answer in tokens, including its reasoning; an answer that is cut off is
            asked for again with twice as many, up to 4 times this number.
        timeout_s: longest wait for data from the server, in seconds.
        max_retries: further attempts after a malformed or refused answer or a server error.
        concurrency: number of simultaneous requests.
        requests_per_minute, tokens_per_minute: rates that are kept to; a token of input or of output counts as one.
        usd_per_million_input, usd_per_million_output: price of a million tokens, in dollars.
        max_usd, max_requests, max_tokens_total: limits of a run, the last in tokens of input and output together;
            cached answers count as nothing.
        cache_dir: folder of the cached answers.
        batch: ask through OpenAI's Batch API where a command can: at half the price, within 24 hours.
        batch_requests: largest number of requests of a batch; lower it where the server limits the tokens that wait.
        poll_s: time between two looks at a batch, in seconds.
        extra_body: further keys of each request, for what a server knows beside the common ones, such as
            ``{top_k: 20}``. They are shown nowhere, but they are no place for a key.
    """

    model: str | None = None
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = 1.0
    max_output_tokens: int = 2048
    timeout_s: float = 120.0
    max_retries: int = 4
    concurrency: int = 4
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    max_usd: float | None = None
    max_requests: int | None = None
    max_tokens_total: int | None = None
    cache_dir: str = "outputs/cache/llm"
    batch: bool = False
    batch_requests: int = 50_000
    poll_s: float = 30.0
    extra_body: dict[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.base_url is not None:
            check_address(self.base_url, "llm.base_url")
        # The message does not repeat the value, which may be the key itself by mistake.
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise UsageError(
                "llm.api_key_env must name an environment variable, in capitals; do not put the key itself here."
            )
        if not 0 <= self.temperature <= 2:
            raise UsageError(f"llm.temperature must be between 0 and 2, not {self.temperature}.")
        if self.max_retries < 0:
            raise UsageError(f"llm.max_retries must be at least 0, not {self.max_retries}.")
        if own := OWN_KEYS.intersection(self.extra_body or {}):
            raise UsageError(
                f"llm.extra_body must not contain {', '.join(sorted(own))}: this client sets them; use its settings."
            )
        counts = {
            "max_output_tokens": self.max_output_tokens,
            "concurrency": self.concurrency,
            "batch_requests": self.batch_requests,
            "max_requests": self.max_requests,
            "max_tokens_total": self.max_tokens_total,
        }
        for key, count in counts.items():
            if count is not None and count < 1:
                raise UsageError(f"llm.{key} must be at least 1, not {count}.")
        amounts = {
            "timeout_s": self.timeout_s,
            "poll_s": self.poll_s,
            "max_usd": self.max_usd,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
        }
        for key, amount in amounts.items():
            if amount is not None and not 0 < amount < math.inf:
                raise UsageError(f"llm.{key} must be over 0, not {amount}.")
        given, written = self.usd_per_million_input, self.usd_per_million_output
        if any(price is not None and not 0 <= price < math.inf for price in (given, written)):
            raise UsageError("llm.usd_per_million_input and llm.usd_per_million_output must be at least 0.")
        if (given is None) != (written is None):
            raise UsageError("Give both llm.usd_per_million_input and llm.usd_per_million_output, or neither.")
        if self.max_usd is not None and given is None:
            raise UsageError("llm.max_usd needs llm.usd_per_million_input and llm.usd_per_million_output.")

    @property
    def prices(self) -> tuple[float, float] | None:
        """Dollars per million tokens of input and output; None where they are not set."""
        if self.usd_per_million_input is None or self.usd_per_million_output is None:
            return None
        return self.usd_per_million_input, self.usd_per_million_output
