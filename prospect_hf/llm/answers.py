"""Parses the replies of a language-model server, checks answers against strict JSON schemas."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from types import NoneType
from typing import Any

from prospect_hf.errors import DataError, UsageError

# Longest wait between two attempts, in seconds.
MAX_WAIT_S = 60.0
# Longest quotation of a server's text in a message.
SHOWN_CHARACTERS = 200
# JSON Schema type -> Python types. ``_has_type`` excludes bool from the numbers, although it is an int in Python.
KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (NoneType,),
}
# An escaped character in a JSON string, however often it was escaped.
ESCAPED = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|([/\"\\]))")
# No request takes more tokens; a server that tells more is wrong.
MOST_TOKENS = 10**9
# Most places of an answer at which an object is looked for.
MOST_OBJECTS = 1000
KEYWORDS = {"type", "enum", "properties", "required", "additionalProperties", "items", "description"}


class TransientError(Exception):
    """An attempt failed in a way that a later attempt may not.

    Args:
        message: what happened.
        hint: what the user can do about it.
        wait_s: seconds to wait before the next attempt, where the server gives them.
        maybe_billed: whether the attempt may have been paid for.
    """

    def __init__(self, message: str, hint: str, wait_s: float | None = None, maybe_billed: bool = False) -> None:
        super().__init__(message)
        self.hint, self.wait_s, self.maybe_billed = hint, wait_s, maybe_billed


class QuestionError(UsageError):
    """One question has no answer for a reason that may be its own: others may still be answered."""


class NoCompletionError(DataError):
    """The reply is none of a model: the server, or what stands before it, answered something else."""


class CutOffError(DataError):
    """The answer was cut off by its limit of tokens: with the same limit, it would be cut off again."""


def mismatch(value: Any, schema: Mapping[str, Any], at: str) -> str | None:
    """Describe the first violation of a strict schema, or return None; ``at`` names the value in the description.

    Strict as in structured outputs: an object has all its ``properties`` and no other keys.

    Raises:
        UsageError: the schema has a keyword that is not supported here.
    """
    if unknown := schema.keys() - KEYWORDS:
        raise UsageError(
            f"The schema of {at} has unsupported keywords {', '.join(sorted(unknown))}; use only "
            f"{', '.join(sorted(KEYWORDS))}."
        )
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(_has_type(value, kind) for kind in kinds):
        return f"{at} is not of type {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at} is not one of {', '.join(map(repr, schema['enum']))}"
    inner: list[tuple[Any, Mapping[str, Any], str]] = []
    if isinstance(value, dict):
        keys = schema["properties"].keys()
        if value.keys() != keys:
            return f"{at} must have the keys {', '.join(keys)} and no others"
        inner = [(value[key], schema["properties"][key], f"{at}.{key}") for key in keys]
    elif isinstance(value, list):
        inner = [(item, schema["items"], f"{at}[{index}]") for index, item in enumerate(value)]
    return next((fault for part in inner if (fault := mismatch(*part)) is not None), None)


def _has_type(value: Any, kind: str) -> bool:
    return isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


# Keys and values of a JSON object -> the object.
Pairs = Callable[[list[tuple[str, Any]]], dict[str, Any]]


def parsed(text: str, pairs: Pairs | None = None) -> Any:
    """The JSON value of ``text``; None where it is invalid, or cannot be written as strict JSON in UTF-8.

    ``pairs`` makes an object of its keys and values.
    """
    try:
        value = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=pairs)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # rejects infinity, NaN and lone surrogates
    except (ValueError, RecursionError):
        return None
    return value


def usage(body: str) -> tuple[int, int] | None:
    """The tokens (input, output) that a chat completion reports; None where it reports none."""
    match parsed(body):
        case {"usage": {"prompt_tokens": int(given), "completion_tokens": int(written)}}:
            return (given, written) if 0 <= min(given, written) <= max(given, written) <= MOST_TOKENS else None
    return None


def answer_in(body: str, schema: Mapping[str, Any], secret: str | None) -> dict[str, Any]:
    """The answer in a chat completion.

    Args:
        body: the server's reply.
        schema: the strict schema of the answer.
        secret: the API key; an answer that contains it is rejected, since answers are stored and displayed.

    Raises:
        CutOffError: the answer is not complete, because it reached its limit of tokens.
        NoCompletionError: the reply is no chat completion.
        DataError: the reply has no answer that fits the schema; the message is a clause that gives the reason.
    """
    match parsed(body):
        case {"choices": [{"message": {"refusal": str(words)}}, *_]} if words:
            raise DataError(f"the model refused ({quoted(words, secret)})")
        case {"choices": [{"finish_reason": "content_filter"}, *_]}:
            raise DataError("the server's content filter withheld it")
        case {"choices": [{"finish_reason": "length", "message": {"content": content}}, *_]}:
            try:
                return _fitting(content or "", schema, secret)
            except DataError:
                raise CutOffError("it was cut off; raise llm.max_output_tokens") from None
        case {"choices": [{"message": {"content": str(content)}}, *_]}:
            return _fitting(content, schema, secret)
        case {"choices": [{"message": {"content": None}, "finish_reason": reason}, *_]}:
            raise DataError(f"the answer has no text (finish_reason {quoted(str(reason), secret)})")
    raise NoCompletionError(f"the reply is not a chat completion: {quoted(body, secret)}")


def _fitting(content: str, schema: Mapping[str, Any], secret: str | None) -> dict[str, Any]:
    """The one answer in the text of a message; errors as in :func:`answer_in`.

    Models write their thoughts, code fences and explanations around it. Two different answers are none: the second may
    be a quotation.
    """
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return dict(pairs)

    whole = parsed(content, once)
    objects = [whole] if whole is not None else list(_objects(re.split(r"</think(?:ing)?>", content)[-1], once))
    found = [value for value in objects if mismatch(value, schema, "the answer") is None]
    if secret and secret in json.dumps(objects, ensure_ascii=False):
        raise DataError("it contains the API key")
    if twice:  # a reader of JSON takes the last of two values, which may be the wrong one
        raise DataError(f"it has the key {quoted(twice[0], secret)} twice")
    if not found:
        fault = mismatch(objects[0] if len(objects) == 1 else None, schema, "the answer")
        raise DataError(f"{fault}: {quoted(content, secret)}")
    if any(value != found[0] for value in found):
        raise DataError(f"it contains {len(found)} different answers: {quoted(content, secret)}")
    return dict(found[0])


def _objects(text: str, pairs: Pairs) -> Iterator[Any]:
    """The JSON objects in a text, without those inside of others; ``pairs`` as in :func:`parsed`."""
    decoder, end = json.JSONDecoder(), 0
    for start in islice(re.finditer(r'\{\s*"', text), MOST_OBJECTS):
        if start.start() < end:
            continue
        try:
            end = decoder.raw_decode(text, start.start())[1]
        except (ValueError, RecursionError):
            continue
        value = parsed(text[start.start() : end], pairs)
        if value is not None:
            yield value


def http_error(message: str, status: int, retry_after: str | None, api_key_env: str) -> UsageError | TransientError:
    """The exception for an HTTP error status: ``TransientError`` where another attempt may succeed.

    Args:
        message: what happened.
        status: the HTTP status.
        retry_after: the header ``Retry-After``: seconds to wait, or a date.
        api_key_env: name of the environment variable with the key.
    """
    if status in (408, 409, 429) or status >= 500:
        wait_s = _seconds(retry_after or "")
        if wait_s is not None and wait_s > MAX_WAIT_S:
            return UsageError(f"{message} and asks to wait {wait_s:g} s: run again then; answers so far are kept.")
        return TransientError(message, "run again later, or lower llm.concurrency; answers so far are kept", wait_s)
    if status in (401, 403):
        return UsageError(f"{message}: check the key in the environment variable {api_key_env}.")
    if status == 404:
        return UsageError(f"{message}: check llm.model and llm.base_url.")
    return QuestionError(f"{message}: check the llm settings, and that this model supports JSON schemas.")


def _seconds(retry_after: str) -> float | None:
    """The wait in seconds that the header asks for; None where it is neither a number nor a date."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", retry_after):
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):  # the latter for a zone that is absurdly far away
        return None
    if until.tzinfo is None:  # "-0000": a time in UTC
        until = until.replace(tzinfo=timezone.utc)
    return max((until - datetime.now(timezone.utc)).total_seconds(), 0.0)


def quoted(text: str, secret: str | None) -> str:
    """A server's text for use in messages: shortened, on one line, with the API key removed."""
    text = without_key(text, secret)
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…")


def without_key(text: str, secret: str | None) -> str:
    """A server's text without the API key; nothing of a text that holds it written with JSON's escapes."""
    if not secret:
        return text
    text = text.replace(secret, "<key>")
    plain = ESCAPED.sub(lambda escape: chr(int(escape[1], 16)) if escape[1] else escape[2], text)
    return "<a text with the API key>" if secret in plain else text
