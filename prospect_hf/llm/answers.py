"""What the LLM client is made of: the ledger of its costs, strict JSON schemas, kept answers, refusals, addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json

# The longest wait between two attempts, in seconds.
MAX_WAIT_S = 60.0
# How much of what a server says is repeated in messages.
SHOWN_CHARACTERS = 200
# JSON Schema's types as Python's; True is an int in Python and no integer in JSON.
KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (NoneType,),
}
KEYWORDS = {"type", "enum", "properties", "required", "additionalProperties", "items", "description"}


class PassingError(Exception):
    """An attempt failed where another may not: what happened, what to do about it, and how long to wait, if told."""

    def __init__(self, told: str, hint: str, wait_s: float | None = None) -> None:
        super().__init__(told)
        self.hint, self.wait_s = hint, wait_s


def mismatch(value: Any, schema: Mapping[str, Any], at: str) -> str | None:
    """Where a value does not fit a strict schema, or None where it does.

    Strict as in structured outputs: an object has all its ``properties`` and no other keys.

    Raises:
        UsageError: the schema has a keyword that is not checked here.
    """
    if unknown := schema.keys() - KEYWORDS:
        raise UsageError(f"The schema of {at} has {', '.join(sorted(unknown))}, which no answer is checked for here.")
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(_is(value, kind) for kind in kinds):
        return f"{at} is no {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at} is none of {', '.join(map(repr, schema['enum']))}"
    inner: list[tuple[Any, Mapping[str, Any], str]] = []
    if isinstance(value, dict):
        keys = schema["properties"].keys()
        if value.keys() != keys:
            return f"{at} must have the keys {', '.join(keys)} and no others"
        inner = [(value[key], schema["properties"][key], f"{at}.{key}") for key in keys]
    elif isinstance(value, list):
        inner = [(item, schema["items"], f"{at}[{index}]") for index, item in enumerate(value)]
    return next((fault for part in inner if (fault := mismatch(*part)) is not None), None)


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def parsed(text: str) -> Any:
    """JSON that can be written again; None where it is none (``null`` is no answer and no reply either)."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # no infinity, no half of a character
    except (ValueError, RecursionError):
        return None
    return value


def usage(body: str) -> tuple[int, int] | None:
    """The tokens (input, output) that a chat completion says it used."""
    match parsed(body):
        case {"usage": {"prompt_tokens": int(given), "completion_tokens": int(written)}} if min(given, written) >= 0:
            return given, written
    return None


def answer_in(body: str, schema: Mapping[str, Any], secret: str | None) -> dict[str, Any]:
    """The answer in a chat completion. One that repeats the key is none: answers are kept and shown.

    Raises:
        DataError: what came instead of an answer that fits the schema.
    """
    match parsed(body):
        case {"choices": [{"message": {"refusal": str(words)}}, *_]} if words:
            raise DataError(f"it was refused ({shown(words, secret)})")
        case {"choices": [{"finish_reason": "content_filter"}, *_]}:
            raise DataError("the server's content filter held it back")
        case {"choices": [{"finish_reason": "length"}, *_]}:
            raise DataError("it was cut off: raise llm.max_output_tokens")
        case {"choices": [{"message": {"content": str(content)}}, *_]}:
            answer = parsed(content)
            if secret and secret in json.dumps(answer, ensure_ascii=False):
                raise DataError("it repeats the key")
            fault = mismatch(answer, schema, "the answer")
            if fault is None:
                return dict(answer)
            raise DataError(f"{fault}, but {shown(content, secret)}")
    raise DataError(f"the reply is no chat completion, but {shown(body, secret)}")


def kept_answer(path: Path, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The answer in a file that ``keep`` wrote.

    Raises:
        DataError: the file is broken.
    """
    kept = parsed(path.read_text(encoding="utf-8", errors="replace"))
    answer: Any = kept.get("answer") if isinstance(kept, dict) else None
    fault = mismatch(answer, schema, "the answer in it")
    if fault is not None:
        raise DataError(f"{path}: {fault}; delete the file, and the question is asked again.")
    return dict(answer)


def keep(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a file of the cache, whole or not at all."""
    write_json(path, dict(facts))


def refusal(told: str, status: int, retry_after: str | None, api_key_env: str) -> UsageError | PassingError:
    """What to raise where a server answers with an HTTP error: one that another attempt may mend, or one for good.

    Args:
        told: what happened, for the message.
        retry_after: the server's header: seconds to wait (dates are not heeded).
        api_key_env: the variable that holds the key.
    """
    if status in (408, 409, 429) or status >= 500:
        wait_s = float(retry_after) if retry_after and re.fullmatch(r"\d+(\.\d+)?", retry_after) else None
        if wait_s is not None and wait_s > MAX_WAIT_S:
            return UsageError(f"{told} and asks to wait {wait_s:g} s: run again then, answers so far are kept.")
        return PassingError(told, "run again later, or lower llm.concurrency; answers so far are kept", wait_s)
    if status in (401, 403):
        return UsageError(f"{told}: check the key in the environment variable {api_key_env}.")
    if status == 404:
        return UsageError(f"{told}: check llm.model and llm.base_url.")
    return UsageError(f"{told}: check the llm settings, and that this model can answer by a JSON schema.")


def shown(text: str, secret: str | None) -> str:
    """What a server says as messages may hold it: short, on one line, without the key."""
    if secret:
        text = text.replace(secret, "<key>")
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…")
