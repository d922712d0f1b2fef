"""Batches: what is sent, what becomes of each kind of result, what is paid, and what is said."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llm_fixtures import GOOD, KEY, MESSAGES, PRICES, SCHEMA, USD, FakeServer, Reply, fake_server, faulty, question_key

from prospect_hf.errors import DataError, UsageError
from prospect_hf.llm import batch as batch_module
from prospect_hf.llm import batch_files
from prospect_hf.llm.batch import BatchClient
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import RESEED, Answered, Question

pytest.importorskip("openai", reason="openai is not installed (extra llm)")

Make = Callable[..., BatchClient]


def word_of(request: dict[str, Any]) -> dict[str, str]:
    """The right answer to a question with a seed."""
    return {"word": f"tall {request['seed'] % RESEED}"}


def not_small(answer: dict[str, Any]) -> str | None:
    return "the word must not be small" if answer["word"] == "small" else None


def asked(count: int, **more: Any) -> list[Question]:
    return [Question(MESSAGES, SCHEMA, "word", seed, **more) for seed in range(count)]


def by_index(results: list[Answered]) -> list[Answered]:
    return sorted(results, key=lambda result: result.index)


def submitted(server: FakeServer, number: int) -> list[dict[str, Any]]:
    """The lines of a batch's file."""
    batch = server.batches.batches[f"batch_{number}"]
    return [json.loads(line) for line in server.batches.files[batch["input_file_id"]].splitlines()]


def test_questions_are_asked_in_a_batch_at_half_the_price(
    batch_client: Make, client: Callable[..., LLMClient], tmp_path: Path, key: str
) -> None:
    settings = {"extra_body": {"top_k": 20}, **PRICES}
    with fake_server(word_of_reply) as server:
        made = batch_client(server, **settings)
        results = by_index(list(made.answers(asked(5), tmp_path / "b", progress=False)))
        assert [result.answer for result in results] == [{"word": f"tall {seed}"} for seed in range(5)]
        assert all(result.tries == 1 and not result.cached and result.error is None for result in results)
        assert results[0].usd == pytest.approx(USD / 2) and results[0].input_tokens == 100
        usd = pytest.approx(5 * USD / 2)
        assert made.spent == {"requests": 5, "cached": 0, "input_tokens": 500, "output_tokens": 50, "usd": usd}
        (batch,) = server.batches.batches.values()
        assert batch["endpoint"] == "/v1/chat/completions" and batch["completion_window"] == "24h"
        lines = submitted(server, 0)
        assert len({line["custom_id"] for line in lines}) == 5 and not server.requests
        # A single call asks the same, and finds the same answers.
        single = client(server, **settings)
        assert single.ask_many(asked(5), progress=False) == [result.answer for result in results]
        assert not server.requests and single.spent["cached"] == 5
        single.ask(MESSAGES, SCHEMA, "word", seed=9)
        assert {**lines[0]["body"], "seed": 9} == server.requests[0] and lines[0]["url"] == "/v1/chat/completions"
        # And a batch finds those of single calls; nothing is submitted for these.
        again = batch_client(server, **settings)
        questions = [Question(MESSAGES, SCHEMA, "word", 9), *asked(5)]
        kept = list(again.answers(questions, tmp_path / "c", progress=False))
        assert [result.index for result in kept] == list(range(6)) and all(result.cached for result in kept)
        assert len(server.batches.batches) == 1 and again.spent["usd"] == 0 and kept[1].usd == pytest.approx(USD / 2)


def word_of_reply(request: dict[str, Any]) -> Reply:
    return Reply(word_of(request), paid=True)


def test_all_faults_at_once_none_lost_and_none_paid_twice(batch_client: Make, tmp_path: Path, key: str) -> None:
    script = faulty(word_of, wrong=lambda request: {"word": "small"})
    with fake_server(script) as server:
        made = batch_client(server, batch_requests=16)
        results = by_index(list(made.answers(asked(32, check=not_small), tmp_path / "b", progress=False)))
    assert [result.answer for result in results] == [{"word": f"tall {seed}"} for seed in range(32)]
    assert len(server.paid) == 32 and set(server.paid.values()) == {1}
    assert {result.tries for result in results} >= {1, 2, 3} and any(result.raw for result in results)


def test_a_rejected_answer_goes_into_a_further_batch_that_tells_the_fault(batch_client: Make, tmp_path: Path) -> None:
    def script(request: dict[str, Any]) -> Reply:
        return Reply(
            {"word": "small"} if request["seed"] % RESEED == 1 and request["seed"] < 2 * RESEED else GOOD.content
        )

    with fake_server(script) as server:
        made = batch_client(server, **PRICES)
        results = by_index(list(made.answers(asked(3, check=not_small), tmp_path / "b", progress=False)))
        assert [result.answer for result in results] == [{"word": "tall"}] * 3
        assert [result.tries for result in results] == [1, 3, 1] and results[1].usd == pytest.approx(3 * USD / 2)
        assert results[1].raw == ('{"word": "small"}',) * 2
        assert len(submitted(server, 0)) == 3
        for number in (1, 2):
            (line,) = submitted(server, number)
            told = line["body"]["messages"]
            assert told[:2] == MESSAGES and len(told) == 4 and "must not be small" in told[3]["content"]
        # Once more than the retries, and it is a failure with all that was said.
        made = batch_client(server, max_retries=1, temperature=0.5)
        (failed,) = [
            one for one in made.answers(asked(3, check=not_small), tmp_path / "b", progress=False) if one.error
        ]
        assert failed.index == 1 and isinstance(failed.error, DataError) and failed.tries == 2 and len(failed.raw) == 2
        assert str(failed.error) == "m gave no usable answer for 'word' in 2 attempts: the word must not be small."


def test_a_cut_answer_gets_twice_the_room(batch_client: Make, tmp_path: Path) -> None:
    with fake_server([Reply('{"word": "ta', finish_reason="length")]) as server:
        made = batch_client(server, max_output_tokens=50, max_retries=9)
        (failed,) = made.answers(asked(1), tmp_path / "b", progress=False)
        assert [submitted(server, number)[0]["body"]["max_tokens"] for number in range(3)] == [50, 100, 200]
        assert len(server.batches.batches) == 3 and "no complete answer for 'word' in 200 tokens" in str(failed.error)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Reply(expired=True), "gave no result in a batch .*batch_expired.* in 2 attempts; run again later"),
        (Reply(dropped=True), "a batch that is completed has no result, in 2 attempts"),
        (Reply(body=json.dumps({"error": {"message": f"oh {KEY}"}}), status=500), "HTTP 500 in a batch .*<key>"),
        (Reply(body="{}", status=400), "HTTP 400 in a batch"),
    ],
    ids=["expired", "without a line", "500", "400"],
)
def test_a_request_without_a_result_is_asked_again_then_told(
    batch_client: Make, tmp_path: Path, key: str, bad: Reply, told: str
) -> None:
    tries: list[int] = []

    def script(request: dict[str, Any]) -> Reply:
        if request["seed"] != 1:
            return GOOD
        tries.append(1)
        return bad if len(tries) == 1 else GOOD

    with fake_server(script) as server:
        results = list(batch_client(server).answers(asked(3), tmp_path / "b", progress=False))
        refused_for_good = bad.status == 400
        assert sum(result.answer is not None for result in results) == (2 if refused_for_good else 3)
        assert len(tries) == (1 if refused_for_good else 2)
    with fake_server(lambda request: bad) as server:
        made = batch_client(server, max_retries=1, temperature=0.1)
        (failed,) = made.answers(asked(1), tmp_path / "c", progress=False)
        with pytest.raises(UsageError, match=told):
            raise failed.error or AssertionError
        assert KEY not in str(failed.error) and made.spent["output_tokens"] == 0


def test_a_batch_that_expires_keeps_what_it_answered(batch_client: Make, tmp_path: Path) -> None:
    first = set(range(4))

    def script(request: dict[str, Any]) -> Reply:
        late = request["seed"] in first and request["seed"] % 2 == 1
        first.discard(request["seed"])
        return Reply(expired=True) if late else Reply(word_of(request), paid=True)

    with fake_server(script) as server:
        server.batches.ends[0] = "expired"
        results = by_index(list(batch_client(server).answers(asked(4), tmp_path / "b", progress=False)))
    assert [result.answer for result in results] == [{"word": f"tall {seed}"} for seed in range(4)]
    assert set(server.paid.values()) == {1} and len(submitted(server, 1)) == 2


def test_a_batch_that_fails_its_validation_is_submitted_again_then_told(
    batch_client: Make, tmp_path: Path, key: str
) -> None:
    error = {"code": "token_limit_exceeded", "message": f"Enqueued token limit reached, {KEY}", "line": None}
    with fake_server([GOOD]) as server:
        server.batches.invalid = {0: [error], 1: [error]}
        made = batch_client(server)
        results = list(made.answers(asked(2), tmp_path / "b", progress=False))
        assert [result.answer for result in results] == [GOOD.content] * 2 and len(server.batches.batches) == 3
        assert len([name for name in server.batches.files if name.startswith("file-")]) == 1  # uploaded once
        assert made.spent["requests"] == 2
    with fake_server([GOOD]) as server:
        server.batches.invalid = {number: [error] for number in range(4)}
        made = batch_client(server, max_retries=1, temperature=0.1)
        with pytest.raises(UsageError, match=r"refused a batch of 2 requests 2 times .*token limit reached, <key>"):
            list(made.answers(asked(2), tmp_path / "b", progress=False))
        assert made.spent["input_tokens"] == 0
        server.batches.invalid = {}
        made = batch_client(server, max_retries=1, temperature=0.1)
        assert len(list(made.answers(asked(2), tmp_path / "b", progress=False))) == 2


def test_a_batch_that_is_refused_while_others_run_waits_for_them(batch_client: Make, tmp_path: Path) -> None:
    with fake_server([GOOD]) as server:
        seen: list[str] = []
        server.batches.on = lambda stage: (
            seen.append(server.batches.batches["batch_0"]["status"]) if stage == "created" else None
        )
        server.batches.invalid = {1: [{"message": "limit"}], 2: [{"message": "limit"}]}
        made = batch_client(server, batch_requests=2, max_retries=0)
        assert len(list(made.answers(asked(6), tmp_path / "b", progress=False))) == 6
        assert seen[3:] == ["completed"] * 2


def test_a_line_that_fails_the_validation_does_not_keep_the_others(batch_client: Make, tmp_path: Path) -> None:
    with fake_server([GOOD]) as server:
        server.batches.invalid = {0: [{"code": "invalid", "message": "too long", "line": 2}]}
        results = by_index(list(batch_client(server).answers(asked(3), tmp_path / "b", progress=False)))
    assert [result.answer is None for result in results] == [False, True, False]
    assert "refused the request ('too long')" in str(results[1].error)


def test_a_batch_that_was_cancelled_is_not_submitted_again_unasked(batch_client: Make, tmp_path: Path) -> None:
    def script(request: dict[str, Any]) -> Reply:
        return Reply(dropped=request["seed"] == 1, content=word_of(request))

    with fake_server(script) as server:
        server.batches.ends[0] = "cancelled"
        got = []
        with pytest.raises(UsageError, match="batch_0 was cancelled before 1 of its requests were answered"):
            for result in batch_client(server).answers(asked(3), tmp_path / "b", progress=False):
                got.append(result.index)
        assert sorted(got) == [0, 2] and len(server.batches.batches) == 1
    with fake_server(word_of_reply) as server:
        results = batch_client(server).answers(asked(3), tmp_path / "c", progress=False)
        assert len(list(results)) == 3


def test_large_files_are_split(batch_client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_server(word_of_reply) as server:
        made = batch_client(server, batch_requests=3)
        assert len(list(made.answers(asked(7), tmp_path / "b", progress=False))) == 7
        assert [len(submitted(server, number)) for number in range(3)] == [3, 3, 1]
        size = max(len(file) for file in server.batches.files.values() if b'"method"' in file)
        monkeypatch.setattr(batch_files, "BATCH_BYTES", size)
        made = batch_client(server, temperature=0.5)
        assert len(list(made.answers(asked(7), tmp_path / "b", progress=False))) == 7
        uploads = [file for name, file in server.batches.files.items() if name.startswith("file-")]
        assert len(uploads) >= 5 and max(map(len, uploads)) <= size


def test_equal_questions_are_paid_once_and_pass_their_own_checks(batch_client: Make, tmp_path: Path) -> None:
    questions = [*asked(1), *asked(1, check=not_small), *asked(1)]
    with fake_server([Reply({"word": "small"}), GOOD]) as server:
        results = by_index(list(batch_client(server).answers(questions, tmp_path / "b", progress=False)))
        assert [result.answer for result in results] == [GOOD.content] * 3 and server.batches.asked == 2
        assert [result.cached for result in results] == [False, True, True]


def test_a_batch_that_would_exceed_a_cap_is_not_submitted(batch_client: Make, tmp_path: Path) -> None:
    caps = {"max_requests": 3, "max_tokens_total": 8000, "max_usd": 0.0145}
    with fake_server([GOOD]) as server:
        for name, cap in caps.items():
            made = batch_client(server, **PRICES, **{name: cap})
            told = (
                rf"llm.{name}: 5 questions may take up to \d+ tokens and \$0.02\d+ in batches, and the first 3 of them"
            )
            with pytest.raises(UsageError, match=told):
                list(made.answers(asked(5), tmp_path / name, progress=False))
            assert len(list(made.answers(asked(3), tmp_path / name, progress=False))) == 3
            (tmp_path / "cache").rename(tmp_path / f"cache {name}")
    assert len(server.batches.batches) == 3


def test_a_further_batch_that_would_exceed_a_cap_waits_for_a_higher_one(batch_client: Make, tmp_path: Path) -> None:
    def script(request: dict[str, Any]) -> Reply:
        return Reply("no") if request["seed"] in (1, 2) else Reply(word_of(request), paid=True)

    with fake_server(script) as server:
        got = []
        with pytest.raises(UsageError, match=r"llm.max_requests: 2 requests that gave no answer may take"):
            for result in batch_client(server, max_requests=4).answers(asked(4), tmp_path / "b", progress=False):
                got.append(result.index)
        assert sorted(got) == [0, 3]
        rest = batch_client(server).answers(asked(4), tmp_path / "b", progress=False)
        assert sorted(result.index for result in rest if not result.cached) == [1, 2]
        assert set(server.paid.values()) == {1} and server.batches.asked == 6  # the first try was not repeated


def test_a_server_without_batches_is_named(batch_client: Make, tmp_path: Path) -> None:
    with fake_server([GOOD]) as server:
        made = batch_client(server, base_url=server.url.replace("/v1", "/v2"))
        with pytest.raises(UsageError, match=r"HTTP 404.*llm.batch=true needs a server with OpenAI's Batch API"):
            list(made.answers(asked(1), tmp_path / "b", progress=False))


def test_the_progress_is_told_once_for_each_change(
    batch_client: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prospect_hf.progress")
    with fake_server([GOOD]) as server:
        list(batch_client(server, batch_requests=1).answers(asked(2), tmp_path / "b"))
    notes = [record.message.partition(": ")[2] for record in caplog.records if record.name == "prospect_hf.progress"]
    assert notes == ["in_progress 0/1, in_progress 0/1", "finalizing 0/1, finalizing 0/1"]
    assert batch_module.PATIENCE > 10 and question_key(submitted(server, 0)[0]["body"])
