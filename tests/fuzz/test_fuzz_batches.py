"""Damaged state of batches, and a server whose replies about batches are damaged."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fuzzing import Target, assert_no_fault, survey
from llm_fixtures import MESSAGES, SCHEMA, Reply
from mutations import damage_file, damaged_json, files_in, mutate_bytes, write_files

from prospect_hf.llm import batch as batch_module
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.batch import BatchClient
from prospect_hf.llm.cache import AnswerCache
from prospect_hf.llm.ledger import Ledger
from prospect_hf.llm.questions import Question

pytest.importorskip("openai", reason="openai is not installed (extra llm)")


class Damaging:
    """Stands for the openai client: files and batches whose replies are damaged now and then."""

    def __init__(self, rng: random.Random, share: float) -> None:
        self._rng, self._share = rng, share
        self._file, self._looks, self._mark = b"", 0, ""
        self.files = SimpleNamespace(
            with_raw_response=SimpleNamespace(create=self._upload),
            with_streaming_response=SimpleNamespace(content=self._content),
        )
        self.batches = SimpleNamespace(
            with_raw_response=SimpleNamespace(create=self._create, list=self._list, retrieve=self._retrieve)
        )

    def _reply(self, value: Any) -> Any:
        data = json.dumps(value).encode()
        if self._rng.random() < self._share:
            data = damaged_json(value, self._rng) if self._rng.random() < 0.7 else mutate_bytes(data, self._rng)
        return SimpleNamespace(http_response=SimpleNamespace(text=data.decode("utf-8", "replace")))

    def _upload(self, file: tuple[str, Any], purpose: str) -> Any:
        self._file = file[1].read()
        return self._reply({"id": "file-0", "purpose": purpose})

    def _create(self, **given: Any) -> Any:
        self._mark = given["metadata"]["run"]
        return self._reply({"id": "batch_0", "status": "validating", **given})

    def _list(self, **given: Any) -> Any:
        batch = {"id": "batch_0", "metadata": {"run": self._mark}}
        return self._reply({"data": [batch] if self._mark else [], "has_more": self._rng.random() < 0.3})

    def _retrieve(self, batch_id: str) -> Any:
        self._looks += 1
        if self._looks > 12:  # a server that never ends a batch is waited for
            self._share = 0.0
        status = self._rng.choice(["in_progress", "completed", "completed", "failed", "expired", "cancelled"])
        errors = (
            {"data": [{"message": "no", "line": self._rng.choice([1, 2, 99, None])}]} if status == "failed" else None
        )
        counts = {"total": 3, "completed": 1}
        files = {"output_file_id": "out", "error_file_id": self._rng.choice([None, "err"])}
        return self._reply({"id": "batch_0", "status": status, "errors": errors, "request_counts": counts, **files})

    @contextmanager
    def _content(self, name: str) -> Iterator[Any]:
        lines = []
        for line in self._file.splitlines():
            body = json.loads(Reply({"word": self._rng.choice(["tall", "small"])}).text())
            response: Any = {"status_code": self._rng.choice([200, 200, 200, 400, 500]), "body": body}
            item = {"custom_id": json.loads(line)["custom_id"], "response": response, "error": None}
            damaged = self._rng.random() < self._share
            lines.append(damaged_json(item, self._rng) if damaged else json.dumps(item).encode())
        yield SimpleNamespace(iter_bytes=lambda: iter([b"\n".join(lines) + b"\n"]))


def _check(answer: dict[str, Any]) -> str | None:
    return "too small" if answer["word"] == "small" else None


def _questions(count: int) -> list[Question]:
    return [Question(MESSAGES, SCHEMA, "word", seed, check=_check) for seed in range(count)]


# One connection serves all inputs, since it takes longest to make.
CLIENT: list[BatchClient] = []


def _client(folder: Path, rng: random.Random, share: float) -> BatchClient:
    settings: dict[str, Any] = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "poll_s": 1e-4, "max_retries": 1}
    settings |= {"usd_per_million_input": 1.0, "usd_per_million_output": 2.0, "max_usd": 1.0}
    if not CLIENT:
        CLIENT.append(BatchClient(LLMArguments(**settings, cache_dir=str(folder))))
    (made,) = CLIENT
    made.cache, made.ledger = AnswerCache(str(folder / "cache"), made.address), Ledger(made.arguments)
    made.server.openai = Damaging(rng, share)  # type: ignore[assignment]
    return made


def _ask(client: BatchClient, count: int, folder: Path) -> None:
    """Ask, and find one result of each question; an error may end the run before."""
    results = list(client.answers(_questions(count), folder, progress=False))
    assert sorted(result.index for result in results) == list(range(count))
    assert all((result.answer is None) != (result.error is None) for result in results)


def replies() -> Target:
    with tempfile.TemporaryDirectory() as place:
        _client(Path(place), random.Random(0), 0.0)

    def target(rng: random.Random, folder: Path) -> None:
        batch_module.PATIENCE = 4  # in the process of the trials alone
        _ask(_client(folder, rng, 0.3), 3, folder / "b")

    return target


def states() -> Target:
    """A run that was stopped with two batches on their way: one new, one with tries before it."""
    with tempfile.TemporaryDirectory() as place:
        made = _client(Path(place), random.Random(3), 0.0)
        run = made.answers(_questions(6), Path(place) / "b", progress=False)
        next(run)
        run.close()  # type: ignore[attr-defined]
        base = files_in(Path(place) / "b")

    def target(rng: random.Random, folder: Path) -> None:
        write_files(folder / "b", base)
        damage_file(rng.choice([path for path in sorted((folder / "b").iterdir()) if path.is_file()]), rng)
        _ask(_client(folder, rng, 0.0), 5, folder / "b")

    return target


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "replies about batches": (replies, 40),
    "state of batches": (states, 40),
}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_batches(name: str, tmp_path: Path) -> None:
    make, inputs = TARGETS[name]
    assert_no_fault(survey(name, make(), inputs, tmp_path))
