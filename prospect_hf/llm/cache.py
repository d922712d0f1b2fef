"""The cache of answers on disk: what was paid once is not paid again. Single calls and batches share it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json
from prospect_hf.llm.answers import mismatch, parsed
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.questions import Answered, Question, Tries, next_request, request_of, tries_in


class AnswerCache:
    """One file for each request that was answered, named by a hash of the server's address and the request.

    Raises:
        UsageError: the folder cannot be made, or takes no files.
    """

    def __init__(self, folder: str, address: str) -> None:
        self.folder, self.address = Path(folder), address
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Told now: an answer that cannot be kept would be paid and lost.
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise UsageError(f"llm.cache_dir={folder} cannot be written ({error.strerror}).") from error

    def key(self, request: Mapping[str, Any]) -> str:
        """64 hex digits that name a request to this server."""
        return hashlib.sha256(json.dumps([self.address, request]).encode()).hexdigest()

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / key[:2] / f"{key}.json"

    def load(self, key: str, schema: Mapping[str, Any]) -> tuple[dict[str, Any], Tries] | None:
        """The answer of a key and the tries it took; None where there is none. Errors as in :func:`load_answer`."""
        path = self.path(key)
        return load_answer(path, schema) if path.exists() else None

    def save(self, key: str, name: str, model: str, answer: dict[str, Any], tries: Tries) -> None:
        """Keep an answer, whole or not at all; ``name`` is the schema's."""
        paid = {name: value for name, value in tries.facts().items() if name != "raw"}
        write_json(self.path(key), {"name": name, "model": model, "answer": answer, **paid})


@dataclass(frozen=True)
class Unanswered:
    """A question that must be asked: the key of its answer, its first request, and what came before (see ``raw``)."""

    key: str
    request: dict[str, Any]
    tries: Tries


def looked_up(
    cache: AnswerCache, index: int, question: Question, arguments: LLMArguments, limit_key: str
) -> Answered | Unanswered:
    """What the cache knows of question ``index``, or the request to send.

    A cached answer that does not pass the question's check, which may have changed since, counts as a rejected one: the
    model is told its fault, and what it answers then takes its place. A broken file is the question's error.
    """
    request, tries = request_of(question, arguments, limit_key), Tries()
    key = cache.key(request)
    try:
        kept = cache.load(key, question.schema)
    except DataError as error:
        return tries.outcome(index, None, error)
    if kept is None:
        return Unanswered(key, request, tries)
    answer, paid = kept
    fault = question.fault(answer)
    if fault is None:
        return paid.outcome(index, answer, cached=True)
    said = json.dumps(answer, ensure_ascii=False)
    tries.raw.append(said)
    following = next_request(request, len(question.messages), DataError(fault), said, arguments, limit_key)
    return Unanswered(key, following or request, tries)


def load_answer(path: Path, schema: Mapping[str, Any]) -> tuple[dict[str, Any], Tries]:
    """A cached answer and the tries it took; files of earlier versions do not tell the tries, which count as none.

    Raises:
        DataError: the file is broken, or its answer does not fit the schema.
    """
    facts = parsed(path.read_text(encoding="utf-8", errors="replace"))
    answer: Any = facts.get("answer") if isinstance(facts, dict) else None
    fault = mismatch(answer, schema, "its answer")
    if fault is None:
        tries = tries_in(facts)
        if tries is not None:
            return dict(answer), replace(tries, raw=[])
        fault = "its tries, tokens and usd are not numbers from 0 up"
    raise DataError(f"{path}: {fault}; delete the file to ask the question again.")
