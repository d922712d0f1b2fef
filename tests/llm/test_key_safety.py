"""The key stands in no file, no log record, no message and no result, whatever the server does with it."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_fixtures import KEY, MESSAGES, SCHEMA, FakeServer, Reply, fake_server, faulty

from prospect_hf.errors import DataError, UsageError
from prospect_hf.llm import batch as batch_module
from prospect_hf.llm.answers import without_key
from prospect_hf.llm.batch import BatchClient
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import RESEED, Answered, Question

pytest.importorskip("openai", reason="openai is not installed (extra llm)")

ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
TOLD = json.dumps({"error": {"message": f"wrong: Bearer {KEY}"}})
# What a server may say with the key in it; all of it is rejected, each time.
LEAKS = {
    "an answer": Reply({"word": KEY}),
    "an answer, escaped": Reply('{"word": "' + ESCAPED + '"}'),
    "an answer, partly escaped": Reply('{"word": "' + KEY.replace("-", "\\u002D") + '"}'),
    "an answer, escaped twice": Reply('{"words": "' + ESCAPED.replace("\\", "\\\\") + '"}'),
    "a key of the answer": Reply({KEY: "tall"}),
    "prose": Reply(f"Your key is {KEY}."),
    "thoughts": Reply(f"<think>{KEY}</think> {KEY}"),
    "thoughts, escaped": Reply(f'<think>{ESCAPED}</think>{{"words": 1}}'),
    "cut": Reply('{"word": "' + KEY, finish_reason="length"),
    "refusal": Reply(refusal=f"Not with {KEY}."),
    "finish reason": Reply(None, finish_reason=KEY),
    "HTML": Reply(body=f"<html>{KEY}</html>"),
    "no choices": Reply(body='{"choices": [], "key": "' + ESCAPED + '"}'),
    "400": Reply(body=TOLD, status=400),
    "429": Reply(body=TOLD, status=429),
    "500 as text": Reply(body=f"<html>{KEY}</html>", status=500),
    "500, escaped": Reply(body='{"error": {"message": "' + ESCAPED + '"}}', status=500),
}
FATAL = {"401": Reply(body=TOLD, status=401), "404": Reply(body=TOLD, status=404)}


@pytest.fixture
def watched(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[list[str]]:
    """A list of texts; after the test, the key is in none of them, and in no log, output or file."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    yield texts
    written = capsys.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    records = [str(record.__dict__) + record.getMessage() for record in caplog.get_records("call")]
    assert files and records and texts
    for text in [*texts, *records, written.out, written.err, *map(str, tmp_path.rglob("*"))]:
        assert KEY not in text and without_key(text, KEY) == text
    for path in files:
        assert without_key(path.read_bytes().decode("utf-8", "replace"), KEY).encode() == path.read_bytes()


def told(results: Iterator[Answered]) -> Iterator[str]:
    """All texts in some results, and what was raised at their end."""
    try:
        for result in results:
            yield repr(result) + json.dumps(result.raw) + str(result.error)
            if result.error is not None:
                yield "".join(traceback.format_exception(result.error))
    except (DataError, UsageError) as error:
        yield "".join(traceback.format_exception(error)) + repr(error)


def leaking(request: dict[str, Any]) -> Reply:
    return list(LEAKS.values())[request["seed"] % RESEED]


def quoting(answer: dict[str, Any]) -> str | None:
    return f"{answer['word']} is no word, and {KEY} none either"


def test_single_calls(client: Callable[..., LLMClient], watched: list[str]) -> None:
    with fake_server(leaking) as server:
        for seed, name in enumerate(LEAKS):
            made = client(server, max_retries=1)
            watched += told(made.answers([Question(MESSAGES, SCHEMA, "word", seed, name)]))
            watched += [repr(made), repr(made.arguments), str(made.spent)]
            assert all(KEY not in json.dumps(request) for request in server.requests)
    for reply in FATAL.values():
        with fake_server([reply]) as server:
            watched += told(client(server).answers([Question(MESSAGES, SCHEMA, "word")]))
    with fake_server([Reply({"word": "tall"})]) as server:
        watched += told(client(server, max_retries=1).answers([Question(MESSAGES, SCHEMA, "word", check=quoting)]))
        assert KEY not in json.dumps(server.requests)
    with fake_server(faulty(lambda request: {"word": "tall"})) as server:
        watched += told(client(server).answers(Question(MESSAGES, SCHEMA, "word", seed) for seed in range(20)))
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_batches(
    batch_client: Callable[..., BatchClient], watched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "PATIENCE", 2)

    def asked(server: FakeServer, folder: str, count: int = len(LEAKS)) -> None:
        questions = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(count)]
        made = batch_client(server, max_retries=1)
        watched.extend(told(made.answers(questions, tmp_path / folder)))
        watched.append(repr(made) + repr(made.arguments))
        assert all(KEY.encode() not in file for name, file in server.batches.files.items() if name.startswith("file-"))

    with fake_server(leaking) as server:
        asked(server, "leaks")
    with fake_server([Reply({"word": "tall"})]) as server:
        server.batches.invalid = {0: [{"message": KEY, "line": 1}, {"message": ESCAPED, "line": None}]}
        asked(server, "line", 2)
        server.batches.invalid = {number: [{"message": f"{KEY} {ESCAPED}"}] for number in range(9)}
        asked(server, "whole", 3)
        server.batches.refused = 401, TOLD.encode()
        asked(server, "key", 4)
        server.batches.refused = 200, TOLD.encode()
        asked(server, "nonsense", 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": f"http://127.0.0.1:1/{KEY}/v1"},
        {"model": KEY},
        {"cache_dir": f"{KEY}/cache"},
        {"extra_body": {"headers": [{"Authorization": f"Bearer {KEY}"}]}},
        {"extra_body": {KEY: 1}},
    ],
)
def test_no_setting_holds_the_key(
    client: Callable[..., LLMClient], key: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    (name,) = settings
    logging.getLogger().debug("something is logged")
    with pytest.raises(UsageError, match=rf"llm\.{name} holds the key of OPENAI_API_KEY") as raised:
        client(FakeServer("http://127.0.0.1:1/v1"), **settings)
    assert KEY not in str(raised.value) and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "text", [KEY, f"a {KEY}{KEY} b", ESCAPED, ESCAPED.replace("\\", "\\" * 4), json.dumps({"a": ESCAPED})]
)
def test_no_writing_of_the_key_is_left(text: str) -> None:
    cleaned = without_key(text, KEY)
    assert KEY not in cleaned and KEY not in cleaned.encode().decode("unicode_escape")
    assert without_key("a plain \\u0073ext \\\\", KEY) == "a plain \\u0073ext \\\\"
