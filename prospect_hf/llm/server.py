"""The connection to an OpenAI-compatible server: its address, its key, and its errors in this package's words."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prospect_hf.errors import UsageError
from prospect_hf.extras import missing
from prospect_hf.llm.address import check_address, is_loopback
from prospect_hf.llm.answers import TransientError, http_error, quoted
from prospect_hf.llm.arguments import LLMArguments

OPENAI_HOSTS = (".openai.com", ".openai.azure.com")


class Server:
    """A server and the key for it, which is read from the environment only.

    Args:
        arguments: the settings.

    Raises:
        UsageError: the model, the key or the openai package is missing, the address is invalid, or a setting holds the
            key.
    """

    def __init__(self, arguments: LLMArguments) -> None:
        if arguments.model is None or not arguments.model.strip():
            raise UsageError("Set llm.model=NAME, the language model to use.")
        try:
            import openai
        except ImportError:
            raise missing("Asking a language model", "openai", "llm") from None
        self._arguments = arguments
        self.address, host = address_of(arguments)
        key = os.environ.get(arguments.api_key_env, "").strip()
        if not key and host.endswith(OPENAI_HOSTS):
            raise UsageError(
                f"No API key: set the environment variable {arguments.api_key_env}, or set llm.base_url to a server "
                f"that needs none."
            )
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"The key in {arguments.api_key_env} holds a character that is not printable ASCII: set it again."
            )
        if key and self.address.startswith("http://") and not is_loopback(host):
            raise UsageError(
                f"The key in {arguments.api_key_env} would be sent to {host} unencrypted: use an https address, "
                "or, if the server needs no key, set llm.api_key_env to a variable that does not exist."
            )
        # Local servers often take a short dummy key such as "EMPTY", which is no secret and may occur in answers.
        self.secret = key if len(key) >= 8 else None
        self._check_settings()
        try:
            # A proxy cannot reach servers on the local machine.
            http_client = openai.DefaultHttpxClient(trust_env=not is_loopback(host))
        except (ImportError, ValueError, OSError) as error:  # its message may hold a proxy's password
            raise UsageError(
                f"The environment's proxy or certificates (HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE) cannot be used "
                f"({type(error).__name__})."
            ) from None
        self.limit_key = limit_key_of(host)
        # This package retries, and the openai client does not, so that every request is counted.
        self.openai = openai.OpenAI(
            api_key=key or "none",
            base_url=self.address,
            timeout=arguments.timeout_s,
            max_retries=0,
            http_client=http_client,
        )

    def _check_settings(self) -> None:
        """Raise ``UsageError`` where a setting holds the key: settings are shown, and stand in what is written."""
        settings = self._arguments
        texts = {
            "base_url": self.address,
            "model": str(settings.model),
            "cache_dir": settings.cache_dir,
            "extra_body": json.dumps(settings.extra_body, ensure_ascii=False),
        }
        for name, text in texts.items():
            if self.secret and self.secret in text:
                raise UsageError(
                    f"llm.{name} holds the key of {settings.api_key_env}: leave it out; the key is read from there."
                )

    def complete(self, request: dict[str, Any]) -> str:
        """The body of the server's reply to a chat completion. Errors as in :meth:`errors`."""
        with self.errors():
            body: str = self.openai.chat.completions.with_raw_response.create(**request).http_response.text
        return body

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Within it, the openai client's errors become this package's, without the key.

        Raises:
            TransientError: a later attempt may succeed.
            QuestionError: this request is refused; another may not be.
            UsageError: every request would be refused.
        """
        import openai

        try:
            yield
        except openai.APITimeoutError:
            message = f"{self.address} sent no data for {self._arguments.timeout_s:g} s"
            raise TransientError(message, "raise llm.timeout_s, or run again later", maybe_billed=True) from None
        except openai.APIConnectionError as error:
            message = f"{self.address} cannot be reached ({quoted(str(error.__cause__ or error), self.secret)})"
            hint = "check llm.base_url, and that the server runs"
            # By name, since openai's HTTP client depends on its version. A connection lost later may have been billed.
            billed = type(error.__cause__).__name__ != "ConnectError"
            raise TransientError(message, hint, maybe_billed=billed) from None
        except openai.APIStatusError as error:
            message = f"{self.address} answered HTTP {error.status_code} ({quoted(error.message, self.secret)})"
            retry_after = error.response.headers.get("retry-after")
            raise http_error(message, error.status_code, retry_after, self._arguments.api_key_env) from None


def address_of(arguments: LLMArguments) -> tuple[str, str]:
    """The server's address and its host.

    Raises:
        UsageError: the address is invalid; the message does not repeat it.
    """
    base_url = arguments.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    return base_url.rstrip("/"), check_address(base_url, "OPENAI_BASE_URL")


def limit_key_of(host: str) -> str:
    """The request's key with the limit of tokens: OpenAI's newer models reject ``max_tokens``, and most other servers
    ignore ``max_completion_tokens``, so that answers would have no limit."""
    return "max_completion_tokens" if host.endswith(OPENAI_HOSTS) else "max_tokens"
