"""A question to a language model, its request, its next try after a rejected answer, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prospect_hf.errors import DataError
from prospect_hf.llm.answers import CutOffError, QuestionError, answer_in, parsed, without_key
from prospect_hf.llm.arguments import LLMArguments

# Added to the seed after a rejected answer; larger than the distance between the seeds of two questions.
RESEED = 1_000_000
# Bound of the limit that an answer gets which was cut off, as a multiple of llm.max_output_tokens.
MOST_TIMES = 4
# Characters of a rejected answer that are kept, and that the model sees again.
KEPT_CHARACTERS, TOLD_CHARACTERS = 20_000, 4_000
NO_TEXT = "(no text)"
REJECTED = (
    "That answer was rejected: {fault}. Answer the question again, with JSON that fits the schema and nothing else."
)


@dataclass(frozen=True)
class Question:
    """A question whose answer is JSON.

    Args:
        messages: dicts with ``role`` and ``content``.
        schema: strict JSON schema of an object: ``type``, ``enum``, ``properties``, ``items``, all keys required.
        name: name of the schema, from letters, digits, ``_`` and ``-``.
        seed: sampling seed, where the server supports it; part of the cache key.
        title: what messages call the question.
        check: the fault of an answer that fits the schema, as a clause without a period, or None. The model is told it
            and asked again. It is no part of the cache key: answers from the cache are checked too.
    """

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]
    name: str
    seed: int = 0
    title: str = ""
    check: Callable[[dict[str, Any]], str | None] | None = field(default=None, compare=False)

    def fault(self, answer: dict[str, Any]) -> str | None:
        """What ``check`` finds wrong in an answer that fits the schema; None where nothing is wrong."""
        return None if self.check is None else self.check(answer)


@dataclass(frozen=True)
class Answered:
    """What came of one question: an answer, or an error that is this question's own.

    Args:
        index: number of the question among those asked, from 0.
        answer: it fits the schema and passes the check; None where there is an ``error``.
        error: why there is no answer; its message is a sentence.
        tries: requests that were sent for the question. For a cached answer, ``tries``, the tokens and ``usd`` are
            those it took when it was paid.
        input_tokens, output_tokens: of all its requests.
        usd: their price in dollars; None without prices.
        cached: whether the answer came from the cache, so that nothing was paid for it now.
        raw: the texts of the rejected answers in order, shortened, without the API key.
    """

    index: int
    answer: dict[str, Any] | None
    error: DataError | QuestionError | None
    tries: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    cached: bool
    raw: tuple[str, ...]


@dataclass
class Tries:
    """The tries of one question so far: requests, tokens, dollars, and the rejected answers."""

    count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = None
    raw: list[str] = field(default_factory=list)

    def add(self, tokens: tuple[int, int], usd: float | None) -> None:
        """Count one request, its tokens (input, output) and its price."""
        self.count += 1
        self.input_tokens += tokens[0]
        self.output_tokens += tokens[1]
        self.usd = usd if self.usd is None or usd is None else self.usd + usd

    def facts(self) -> dict[str, Any]:
        """As JSON, for :func:`tries_in`."""
        paid = {"tries": self.count, "input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        return {**paid, "usd": self.usd, "raw": list(self.raw)}

    def outcome(
        self,
        index: int,
        answer: dict[str, Any] | None,
        error: DataError | QuestionError | None = None,
        cached: bool = False,
    ) -> Answered:
        """The question's result after these tries."""
        paid = self.count, self.input_tokens, self.output_tokens, self.usd
        return Answered(index, answer, error, *paid, cached, tuple(self.raw))


def tries_in(facts: Mapping[str, Any]) -> Tries | None:
    """The tries that ``Tries.facts`` told; what is missing counts as none. None where something is wrong."""
    match {**Tries().facts(), **facts}:
        case {
            "tries": int(count),
            "input_tokens": int(given),
            "output_tokens": int(written),
            "usd": int() | float() | None as usd,
            "raw": list(raw),
        } if min(count, given, written, usd or 0) >= 0 and all(isinstance(text, str) for text in raw):
            return Tries(count, given, written, usd, raw)
    return None


def request_of(question: Question, arguments: LLMArguments, limit_key: str) -> dict[str, Any]:
    """The chat completion that asks ``question``; ``limit_key`` is the server's word for the limit of tokens."""
    extra = {} if arguments.extra_body is None else {"extra_body": arguments.extra_body}
    return {
        "model": arguments.model,
        "messages": [dict(message) for message in question.messages],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": question.name, "schema": dict(question.schema), "strict": True},
        },
        "temperature": arguments.temperature,
        "seed": question.seed,
        limit_key: arguments.max_output_tokens,
        **extra,
    }


def accepted(body: str, question: Question, secret: str | None) -> dict[str, Any]:
    """The answer in a chat completion, which fits the schema and passes the check.

    Raises:
        CutOffError, DataError: as in :func:`answer_in`, or the check's fault.
    """
    answer = answer_in(body, question.schema, secret)
    fault = question.fault(answer)
    if fault is not None:
        raise DataError(without_key(fault, secret))
    return answer


def raw_answer(body: str, secret: str | None) -> str:
    """The text of the answer in a server's reply, or the reply itself where it has none; shortened, without the key."""
    text = _said(body)
    return without_key(body if text is None else text, secret)[:KEPT_CHARACTERS]


def next_request(
    request: Mapping[str, Any],
    asked: int,
    fault: DataError,
    said: str | None,
    arguments: LLMArguments,
    limit_key: str,
) -> dict[str, Any] | None:
    """The request after a rejected answer; None where another try is no use.

    An answer that was cut off gets twice the room. Any other is sent back with its fault: the last one only, so that
    the request does not grow.

    Args:
        request: the last one.
        asked: number of messages of the question itself.
        fault: why the answer was rejected.
        said: the rejected answer, without the key; None where the reply is not a model's.
        limit_key: the request's key with the limit of tokens.
    """
    if isinstance(fault, CutOffError):
        if request[limit_key] >= MOST_TIMES * arguments.max_output_tokens:
            return None
        return {**request, limit_key: 2 * request[limit_key]}
    messages = list(request["messages"][:asked])
    if said is not None:
        text = re.split(r"</think(?:ing)?>", said)[-1].strip() or NO_TEXT
        shown = text if len(text) <= TOLD_CHARACTERS else text[:TOLD_CHARACTERS] + "…"
        told = REJECTED.format(fault=str(fault).rstrip("."))
        messages += [{"role": "assistant", "content": shown}, {"role": "user", "content": told}]
    return {**request, "messages": messages, "seed": request["seed"] + RESEED}


def refused(question: Question, request: Mapping[str, Any], fault: DataError, attempts: int, limit_key: str) -> str:
    """The sentence that says why a question has no answer after its last request."""
    words = str(fault).rstrip(".")
    if isinstance(fault, CutOffError):
        return (
            f"{request['model']} gave no complete answer for {question.name!r} in {request[limit_key]} tokens: {words}."
        )
    return f"{request['model']} gave no usable answer for {question.name!r} in {attempts} attempts: {words}."


def said_in(body: str, secret: str | None) -> str | None:
    """What the model said in a chat completion, without the key; None where ``body`` is none."""
    text = _said(body)
    return None if text is None else without_key(text, secret)


def _said(body: str) -> str | None:
    match parsed(body):
        case {"choices": [{"message": {"content": str(content)}}, *_]}:
            return content
        case {"choices": [{"message": {"refusal": str(words)}}, *_]}:
            return words
        case {"choices": [{"message": {}}, *_]}:
            return ""
    return None
