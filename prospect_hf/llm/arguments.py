"""What can be set about asking a language model: the ``llm`` group."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from prospect_hf.errors import UsageError
from prospect_hf.llm.address import check_address


@dataclass
class LLMArguments:
    """Which model is asked, where, how, and for how much money at most.

    Args:
        model: the model's name at the server.
        base_url: address of an OpenAI-compatible server, ``http://127.0.0.1:8000/v1``; none: the openai client's own
            (``OPENAI_BASE_URL``, else OpenAI).
        api_key_env: name of the environment variable whose key is sent to the server. Where it is unset, servers
            other than OpenAI's are asked without a key.
        temperature: 1.0 is all that OpenAI's reasoning models take; votes differ only where it is over 0.
        max_output_tokens: of an answer, with the reasoning before it.
        timeout_s: seconds that the server may be silent.
        max_retries: attempts after the first one, where an answer is malformed or refused, or the server fails.
        concurrency: requests at a time.
        usd_per_million_input, usd_per_million_output: what a million tokens costs, in dollars.
        max_usd, max_requests: what a run may spend; answers from the cache are free.
        cache_dir: where answers are kept.
    """

    model: str | None = None
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = 1.0
    max_output_tokens: int = 2048
    timeout_s: float = 120.0
    max_retries: int = 4
    concurrency: int = 4
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    max_usd: float | None = None
    max_requests: int | None = None
    cache_dir: str = "outputs/cache/llm"

    def __post_init__(self) -> None:
        if self.base_url is not None:
            check_address(self.base_url, "llm.base_url")
        # The message does not repeat the value: someone may have put the key itself there.
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise UsageError(
                "llm.api_key_env must name an environment variable, in capitals; it is not the key itself."
            )
        if not 0 <= self.temperature <= 2:
            raise UsageError(f"llm.temperature must be between 0 and 2, not {self.temperature}.")
        if self.max_retries < 0:
            raise UsageError(f"llm.max_retries must be at least 0, not {self.max_retries}.")
        counts = {
            "max_output_tokens": self.max_output_tokens,
            "concurrency": self.concurrency,
            "max_requests": self.max_requests,
        }
        for key, count in counts.items():
            if count is not None and count < 1:
                raise UsageError(f"llm.{key} must be at least 1, not {count}.")
        for key, amount in {"timeout_s": self.timeout_s, "max_usd": self.max_usd}.items():
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
        """Dollars a million tokens of input and output, where they are given."""
        if self.usd_per_million_input is None or self.usd_per_million_output is None:
            return None
        return self.usd_per_million_input, self.usd_per_million_output
