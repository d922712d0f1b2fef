"""Client of OpenAI-compatible language-model servers; answers are JSON that fits a given schema.

Judging and label generation send thousands of requests, which cost money, to servers that sometimes fail. Every answer
is therefore cached on disk, an interrupted run continues where it stopped, and requests and dollars are counted and
limited. The API key is read from the environment only, and is removed from all text that a server returns.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prospect_hf.errors import DataError, UsageError
from prospect_hf.extras import missing
from prospect_hf.llm.address import check_address, is_loopback
from prospect_hf.llm.answers import (
    MAX_WAIT_S,
    CutOffError,
    QuestionError,
    TransientError,
    answer_in,
    http_error,
    load_answer,
    quoted,
    save_answer,
    usage,
)
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.ledger import Ledger
from prospect_hf.progress import Progress

# Wait before the second attempt, in seconds; it doubles with each attempt up to MAX_WAIT_S. Between half and all of it
# is waited, so that questions refused together are not asked together again. Retry-After overrides it.
FIRST_WAIT_S = 0.5
# Added to the seed after a malformed answer; larger than the distance between the seeds of two questions.
RESEED = 1_000_000
# OpenAI's newer models reject max_tokens; most other servers ignore max_completion_tokens, so answers had no limit.
# Bound of the limit that an answer gets which was cut off, as a multiple of llm.max_output_tokens.
MOST_TIMES = 4
# So many questions that fail one after another, without an answer between them, end a run.
GIVE_UP_AFTER = 3
# Failed questions whose reason is told.
TOLD_REASONS = 5
OPENAI_HOSTS = (".openai.com", ".openai.azure.com")


@dataclass(frozen=True)
class Question:
    """Chat messages, the strict JSON schema of the answer, the schema's name, the sampling seed, and a name to tell."""

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]
    name: str
    seed: int = 0
    title: str = ""


class LLMClient:
    """Sends questions to a server and caches the answers; threads may share one client.

    Raises:
        UsageError: the model, the key or the openai package is missing, or the address is invalid.
    """

    def __init__(self, arguments: LLMArguments) -> None:
        if arguments.model is None:
            raise UsageError("Set llm.model=NAME, the language model to use.")
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
                f"No API key: set the environment variable {arguments.api_key_env}, or set llm.base_url to a server "
                f"that needs none."
            )
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"The key in {arguments.api_key_env} holds a character that is not printable ASCII: set it again."
            )
        if key and base_url.startswith("http://") and not is_loopback(self._host):
            raise UsageError(
                f"The key in {arguments.api_key_env} would be sent to {self._host} unencrypted: use an https address, "
                "or, if the server needs no key, set llm.api_key_env to a variable that does not exist."
            )
        # Local servers often take a short dummy key such as "EMPTY", which is no secret and may occur in answers.
        self._secret = key if len(key) >= 8 else None
        try:
            # A proxy cannot reach servers on the local machine.
            http_client = openai.DefaultHttpxClient(trust_env=not is_loopback(self._host))
        except (ImportError, ValueError, OSError) as error:  # its message may hold a proxy's password
            raise UsageError(
                f"The environment's proxy or certificates (HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE) cannot be used "
                f"({type(error).__name__})."
            ) from None
        try:
            Path(arguments.cache_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"llm.cache_dir={arguments.cache_dir} cannot be created ({error.strerror}).") from error
        # This class retries, and the openai client does not, so that every request is counted.
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
        """``requests`` sent, ``cached`` answers, ``input_tokens``, ``output_tokens`` and ``usd`` of this client.

        A request without reported usage, such as one that timed out, counts as its upper bound: one input token per
        byte, and ``max_output_tokens``. ``usd`` is None without prices.
        """
        return self._ledger.facts()

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], name: str, seed: int = 0
    ) -> dict[str, Any]:
        """The answer to one question; a question asked before is answered from the cache.

        Args:
            messages: dicts with ``role`` and ``content``.
            schema: strict JSON schema of an object: ``type``, ``enum``, ``properties``, ``items``, all keys required.
            name: name of the schema, from letters, digits, ``_`` and ``-``.
            seed: sampling seed, where the server supports it; part of the cache key.

        Raises:
            UsageError: the server cannot be used, or a limit is reached.
            DataError: no attempt gave an answer that fits the schema, or a cache file is broken.
        """
        return self._ask(Question(messages, schema, name, seed), threading.Event())

    def ask_many(self, questions: Sequence[Question], progress: bool = True) -> list[dict[str, Any]]:
        """Answers in the order of the questions, ``concurrency`` at a time.

        A question without a usable answer does not keep the others from being asked. What makes all of them fail, such
        as a wrong key, a limit that is reached or a server that fails three questions in a row, ends the run at once.
        All answers are cached, so a second run asks only the remaining questions.

        Raises:
            DataError: at the end, with the questions that have no answer and the reasons.
            UsageError, DataError: as in ``ask``.
        """
        stop = threading.Event()
        failed: dict[int, DataError | QuestionError] = {}
        in_a_row = 0
        with ThreadPoolExecutor(self.arguments.concurrency) as pool:
            futures = {pool.submit(self._ask, question, stop): index for index, question in enumerate(questions)}
            try:
                with Progress(len(futures), f"asking {self.arguments.model}", "question", show=progress) as bar:
                    for future in as_completed(futures):
                        try:
                            future.result()
                            in_a_row = 0
                        except (DataError, QuestionError) as error:
                            failed[futures[future]] = error
                            in_a_row += isinstance(error, QuestionError)
                            if in_a_row == GIVE_UP_AFTER:
                                raise
                        bar.update()
            except BaseException:
                stop.set()  # the pool still runs the remaining questions, but they send no request
                raise
        if failed:
            raise DataError(self._told(questions, failed))
        return [future.result() for future in futures]

    def _told(self, questions: Sequence[Question], failed: Mapping[int, Exception]) -> str:
        """A sentence with the failed questions, and the reasons of the first of them."""
        names = {index: questions[index].title or f"question {index + 1}" for index in sorted(failed)}
        reasons = [f"{name}: {str(failed[index]).rstrip('.')}" for index, name in names.items()]
        unexplained = list(names.values())[TOLD_REASONS:]
        rest = [f"and, for such reasons, {', '.join(unexplained)}"] if unexplained else []
        return (
            f"{len(failed)} of {len(questions)} questions have no answer, the others are kept in "
            f"{self.arguments.cache_dir}; run again to ask these alone: {'; '.join([*reasons[:TOLD_REASONS], *rest])}."
        )

    def _ask(self, question: Question, stop: threading.Event) -> dict[str, Any]:
        request = self._request(question)
        path = self._path(request)
        if path.exists():
            answer = load_answer(path, question.schema)
            self._ledger.count_cached()
            return answer
        limit = self._limit_key()
        wait_s, attempts = FIRST_WAIT_S, self.arguments.max_retries + 1
        for attempt in range(attempts):
            if stop.is_set():
                raise CancelledError
            try:
                answer = answer_in(self._send(request, stop), question.schema, self._secret)
            except TransientError as failure:
                if attempt + 1 == attempts:
                    raise QuestionError(f"{failure}, in {attempts} attempts; {failure.hint}.") from None
                stop.wait(random.uniform(wait_s / 2, wait_s) if failure.wait_s is None else failure.wait_s)
                wait_s = min(2 * wait_s, MAX_WAIT_S)
            except CutOffError as failure:
                if attempt + 1 == attempts or request[limit] >= MOST_TIMES * self.arguments.max_output_tokens:
                    raise DataError(
                        f"{self.arguments.model} gave no complete answer for {question.name!r} in {request[limit]} "
                        f"tokens: {failure}."
                    ) from None
                request[limit] *= 2
            except DataError as failure:
                if attempt + 1 == attempts:
                    raise DataError(
                        f"{self.arguments.model} gave no usable answer for {question.name!r} in {attempts} attempts: "
                        f"{failure}."
                    ) from None
                request["seed"] += RESEED
            else:
                save_answer(path, {"name": question.name, "model": self.arguments.model, "answer": answer})
                return answer
        raise AssertionError("the last attempt returns or raises")

    def _request(self, question: Question) -> dict[str, Any]:
        extra = {} if self.arguments.extra_body is None else {"extra_body": self.arguments.extra_body}
        return {
            "model": self.arguments.model,
            "messages": [dict(message) for message in question.messages],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": question.name, "schema": dict(question.schema), "strict": True},
            },
            "temperature": self.arguments.temperature,
            "seed": question.seed,
            self._limit_key(): self.arguments.max_output_tokens,
            **extra,
        }

    def _limit_key(self) -> str:
        return "max_completion_tokens" if self._host.endswith(OPENAI_HOSTS) else "max_tokens"

    def _path(self, request: Mapping[str, Any]) -> Path:
        """The cache file of a request, named by a hash of address and request."""
        name = hashlib.sha256(json.dumps([self.address, request]).encode()).hexdigest()
        return Path(self.arguments.cache_dir) / name[:2] / f"{name}.json"

    def _send(self, request: Mapping[str, Any], stop: threading.Event) -> str:
        """The body of the server's reply to one request."""
        import openai

        # Upper bound of the input tokens: a token has at least one byte.
        most = len(json.dumps(request, ensure_ascii=False).encode()), request[self._limit_key()]
        self._ledger.reserve(most)
        used = 0, 0
        try:
            if stop.is_set():  # it was set while this thread waited in reserve()
                raise CancelledError
            used = most  # a request may be billed even if its reply is lost
            body: str = self._openai.chat.completions.with_raw_response.create(**request).http_response.text
            used = usage(body) or most
            return body
        except openai.APITimeoutError:
            message = f"{self.address} sent no data for {self.arguments.timeout_s:g} s"
            raise TransientError(message, "raise llm.timeout_s, or run again later") from None
        except openai.APIConnectionError as error:
            # By name, since openai's HTTP client depends on its version. A connection lost later may have been billed.
            if type(error.__cause__).__name__ == "ConnectError":
                used = 0, 0
            message = f"{self.address} cannot be reached ({quoted(str(error.__cause__ or error), self._secret)})"
            raise TransientError(message, "check llm.base_url, and that the server runs") from None
        except openai.APIStatusError as error:
            used = 0, 0
            message = f"{self.address} answered HTTP {error.status_code} ({quoted(error.message, self._secret)})"
            retry_after = error.response.headers.get("retry-after")
            raise http_error(message, error.status_code, retry_after, self.arguments.api_key_env) from None
        finally:
            self._ledger.settle(most, used)
