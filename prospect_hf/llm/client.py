"""Questions to a language model behind an OpenAI-compatible server; answers are JSON of a given schema.

Judging and label generation ask thousands of questions, which cost money, of servers that fail now and then. So every
answer is kept on disk, an interrupted run goes on where it was, and requests and dollars are counted and capped. The
key stays in the environment: it is no setting, and it is cut out of whatever a server says.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from prospect_hf.errors import DataError, UsageError
from prospect_hf.extras import missing
from prospect_hf.llm.address import check_address, is_loopback
from prospect_hf.llm.answers import MAX_WAIT_S, PassingError, answer_in, keep, kept_answer, refusal, shown, usage
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.ledger import Ledger

# Seconds before the second attempt; they double with each one, up to MAX_WAIT_S, unless the server says how long.
FIRST_WAIT_S = 0.5
# A malformed answer is asked for again with another seed, far from the seeds of other questions.
RESEED = 1_000_000
# OpenAI's newer models refuse max_tokens; most other servers ignore max_completion_tokens, and would write on and on.
OPENAI_HOSTS = (".openai.com", ".openai.azure.com")


@dataclass(frozen=True)
class Question:
    """What is asked: chat messages, the strict JSON schema of the answer with its name, and the seed of sampling."""

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]
    name: str
    seed: int = 0


class LLMClient:
    """Asks a server and remembers its answers; any number of threads may use one client.

    Raises:
        UsageError: no model, no key, no openai package, or an address that cannot be used.
    """

    def __init__(self, arguments: LLMArguments) -> None:
        if arguments.model is None:
            raise UsageError("Give llm.model=NAME, the model to ask.")
        try:
            import openai
        except ImportError:
            raise missing("Asking a language model", "openai", "llm") from None
        self.arguments = arguments
        base_url = arguments.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self._host = check_address(base_url, "OPENAI_BASE_URL")
        self.address = base_url.rstrip("/")
        key = os.environ.get(arguments.api_key_env, "").strip()
        if not key and self._host.endswith(OPENAI_HOSTS):
            raise UsageError(
                f"No key: set the environment variable {arguments.api_key_env}, or give llm.base_url of a server "
                f"that needs none."
            )
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"The key in {arguments.api_key_env} holds a character that no key has: set it again.")
        if key and base_url.startswith("http://") and not is_loopback(self._host):
            raise UsageError(
                f"{self._host} would be sent the key in {arguments.api_key_env} unencrypted: take an https address, or "
                "give llm.api_key_env of a variable that is not set if the server needs none."
            )
        # Servers of one's own are given words like "EMPTY" as a key: no secret, and they may stand in answers.
        self._secret = key if len(key) >= 8 else None
        try:
            # A proxy of the environment does not know this machine's own servers.
            http_client = openai.DefaultHttpxClient(trust_env=not is_loopback(self._host))
        except (ImportError, ValueError, OSError) as error:  # its message may hold a proxy's password
            raise UsageError(
                f"The environment's proxy or certificates (HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE) cannot be used "
                f"({type(error).__name__})."
            ) from None
        try:
            Path(arguments.cache_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"llm.cache_dir={arguments.cache_dir} cannot be made ({error.strerror}).") from error
        # Retries are ours, so that every request is counted.
        self._openai = openai.OpenAI(
            api_key=key or "none",
            base_url=base_url,
            timeout=arguments.timeout_s,
            max_retries=0,
            http_client=http_client,
        )
        self._ledger = Ledger(arguments.prices, arguments.max_usd, arguments.max_requests, arguments.cache_dir)

    @property
    def spent(self) -> dict[str, float | None]:
        """``requests`` sent, answers found ``cached``, ``input_tokens``, ``output_tokens`` and ``usd`` of this client.

        A request whose use the server did not tell, such as one that timed out, counts as the most it can have used:
        a token for each byte of it, and ``max_output_tokens``. ``usd`` is None without prices.
        """
        return self._ledger.facts()

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], name: str, seed: int = 0
    ) -> dict[str, Any]:
        """The answer to one question, from the cache where it was asked before.

        Args:
            messages: dicts of ``role`` and ``content``.
            schema: strict JSON schema of an object: ``type``, ``enum``, ``properties``, ``items``, all keys required.
            name: of the schema; letters, digits, ``_`` and ``-``.
            seed: of sampling, as far as the server heeds it; another seed is another answer.

        Raises:
            UsageError: the server cannot be asked, or a cap is reached.
            DataError: no answer that fits the schema after all attempts, or a broken file in the cache.
        """
        return self._ask(Question(messages, schema, name, seed), threading.Event())

    def ask_many(self, questions: Sequence[Question], progress: bool = True) -> list[dict[str, Any]]:
        """Answers in the questions' order, ``concurrency`` at a time; the first error ends the run.

        Requests on their way are awaited and kept, so a second run asks only for what is missing.

        Raises:
            UsageError, DataError: as ``ask``.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(self.arguments.concurrency) as pool:
            futures = [pool.submit(self._ask, question, stop) for question in questions]
            try:
                with tqdm(total=len(futures), desc=f"asking {self.arguments.model}", disable=not progress) as bar:
                    for future in as_completed(futures):
                        future.result()
                        bar.update()
            except BaseException:
                stop.set()  # the pool still runs all questions, but none asks any more
                raise
        return [future.result() for future in futures]

    def _ask(self, question: Question, stop: threading.Event) -> dict[str, Any]:
        request = self._request(question)
        path = self._path(request)
        if path.exists():
            answer = kept_answer(path, question.schema)
            self._ledger.found()
            return answer
        wait_s, attempts = FIRST_WAIT_S, self.arguments.max_retries + 1
        for attempt in range(attempts):
            if stop.is_set():
                raise CancelledError
            try:
                answer = answer_in(self._send(request, stop), question.schema, self._secret)
            except PassingError as failure:
                if attempt + 1 == attempts:
                    raise UsageError(f"{failure}, in {attempts} attempts; {failure.hint}.") from None
                stop.wait(wait_s if failure.wait_s is None else failure.wait_s)
                wait_s = min(2 * wait_s, MAX_WAIT_S)
            except DataError as failure:
                if attempt + 1 == attempts:
                    raise DataError(
                        f"{self.arguments.model} gave no usable answer for {question.name!r} in {attempts} attempts: "
                        f"{failure}."
                    ) from None
                request["seed"] += RESEED
            else:
                keep(path, {"name": question.name, "model": self.arguments.model, "answer": answer})
                return answer
        raise AssertionError("the last attempt returns or raises")

    def _request(self, question: Question) -> dict[str, Any]:
        limit = "max_completion_tokens" if self._host.endswith(OPENAI_HOSTS) else "max_tokens"
        return {
            "model": self.arguments.model,
            "messages": [dict(message) for message in question.messages],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": question.name, "schema": dict(question.schema), "strict": True},
            },
            "temperature": self.arguments.temperature,
            "seed": question.seed,
            limit: self.arguments.max_output_tokens,
        }

    def _path(self, request: Mapping[str, Any]) -> Path:
        """The answer's file, named after all that decides the answer."""
        name = hashlib.sha256(json.dumps([self.address, request]).encode()).hexdigest()
        return Path(self.arguments.cache_dir) / name[:2] / f"{name}.json"

    def _send(self, request: Mapping[str, Any], stop: threading.Event) -> str:
        """The body of the server's reply to one request."""
        import openai

        # A token is a byte at least.
        most = len(json.dumps(request, ensure_ascii=False).encode()), self.arguments.max_output_tokens
        self._ledger.reserve(most)
        used = 0, 0
        try:
            if stop.is_set():  # while this thread waited for money
                raise CancelledError
            used = most  # a reply that was lost may have been paid for
            body: str = self._openai.chat.completions.with_raw_response.create(**request).http_response.text
            used = usage(body) or most
            return body
        except openai.APITimeoutError:
            told = f"{self.address} said nothing for {self.arguments.timeout_s:g} s"
            raise PassingError(told, "raise llm.timeout_s, or run again later") from None
        except openai.APIConnectionError as error:
            used = 0, 0
            told = f"{self.address} cannot be reached ({shown(str(error.__cause__ or error), self._secret)})"
            raise PassingError(told, "check llm.base_url, and that the server runs") from None
        except openai.APIStatusError as error:
            used = 0, 0
            told = f"{self.address} answered HTTP {error.status_code} ({shown(error.message, self._secret)})"
            retry_after = error.response.headers.get("retry-after")
            raise refusal(told, error.status_code, retry_after, self.arguments.api_key_env) from None
        finally:
            self._ledger.settle(most, used)
