"""The limits of a run in money, requests and tokens are never passed, and what was paid is kept."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from llm_fixtures import MESSAGES, PRICES, SCHEMA, USD, Reply, fake_server

from prospect_hf.errors import UsageError
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import Question, request_of

pytest.importorskip("openai", reason="openai is not installed (extra llm)")

Make = Callable[..., LLMClient]


def test_the_cost_cap_is_never_passed_and_a_second_run_goes_on(client: Make) -> None:
    questions = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(12)]
    with fake_server([Reply({"word": "tall"}, wait_s=0.01)]) as server:
        bound = request_of(questions[0], client(server).arguments, "max_tokens")
        most = (len(json.dumps(bound, ensure_ascii=False).encode()) + 2048 * 4.0) / 1e6
        settings = {"concurrency": 6, **PRICES, "max_usd": most + 3.5 * USD}
        asked = client(server, **settings)
        with pytest.raises(UsageError, match=r"llm.max_usd: \$0.0006 of \$.* is spent in 4 requests, .* raise the"):
            asked.ask_many(questions, progress=False)
        # Four fit: the fifth might have cost more than what was left.
        assert len(server.requests) == 4 and asked.spent["usd"] == pytest.approx(4 * USD)
        again = client(server, **settings)
        with pytest.raises(UsageError, match=r"llm.max_usd"):
            again.ask_many(questions, progress=False)
        assert again.spent["cached"] == 4 and again.spent["requests"] == 4
        last = client(server, concurrency=6, **PRICES)
        assert last.ask_many(questions, progress=False) == [{"word": "tall"}] * 12
        assert last.spent["cached"] == 8 and len(server.requests) == 12


def test_requests_on_their_way_count_for_the_cost_cap(client: Make) -> None:
    with fake_server([Reply({"word": "tall"}, wait_s=0.1)]) as server:
        request = json.dumps(
            request_of(Question(MESSAGES, SCHEMA, "word"), client(server).arguments, "max_tokens"), ensure_ascii=False
        )
        most = (len(request.encode()) + 2048 * 4.0) / 1e6
        asked = client(server, concurrency=4, max_usd=1.5 * most, **PRICES)
        asked.ask_many([Question(MESSAGES, SCHEMA, "word", seed) for seed in range(4)], progress=False)
    assert server.most_at_once == 1 and asked.spent["requests"] == 4


def test_the_request_cap_counts_attempts(client: Make) -> None:
    with fake_server([Reply("no")]) as server:
        asked = client(server, max_requests=3, max_retries=9)
        with pytest.raises(UsageError, match=r"llm.max_requests: all 3 requests are used; raise the limit and run"):
            asked.ask(MESSAGES, SCHEMA, "word")
        assert len(server.requests) == 3


def test_without_told_usage_the_most_is_counted(client: Make) -> None:
    with fake_server([Reply({"word": "tall"}, usage=None)]) as server:
        asked = client(server, max_output_tokens=50, **PRICES)
        asked.ask(MESSAGES, SCHEMA, "word")
    spent = asked.spent
    assert spent["output_tokens"] == 50 and spent["input_tokens"] and spent["usd"]
    assert spent["usd"] == pytest.approx((spent["input_tokens"] + 50 * 4) / 1e6)


def test_the_token_cap_is_never_passed_and_a_second_run_goes_on(client: Make) -> None:
    questions = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(8)]
    with fake_server([Reply({"word": "tall"}, wait_s=0.01)]) as server:
        request = request_of(questions[0], client(server).arguments, "max_tokens")
        most = len(json.dumps(request, ensure_ascii=False).encode()) + 2048
        asked = client(server, concurrency=4, max_tokens_total=most + 250)
        with pytest.raises(UsageError, match=r"llm.max_tokens_total: 330 of \d+ tokens are used in 3 requests, and"):
            asked.ask_many(questions, progress=False)
        assert asked.spent["requests"] == 3 and len(server.requests) == 3
        assert len(client(server).ask_many(questions, progress=False)) == 8 and len(server.requests) == 8
