"""Many questions: side by side, in any order, with failures among them; what is wrong with an answer is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_fixtures import MESSAGES, PRICES, SCHEMA, USD, Reply, fake_server, faulty

from prospect_hf.errors import DataError, UsageError
from prospect_hf.llm import client as llm
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import RESEED, TOLD_CHARACTERS, Answered, Question

pytest.importorskip("openai", reason="openai is not installed (extra llm)")

Make = Callable[..., LLMClient]


def test_many_questions_keep_their_order_and_run_side_by_side(client: Make) -> None:
    def late_first(request: dict[str, Any]) -> Reply:
        return Reply({"word": str(request["seed"])}, wait_s=0.02 * (8 - request["seed"]))

    with fake_server(late_first) as server:
        questions = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(8)]
        answers = client(server, concurrency=4).ask_many(questions, progress=False)
        assert answers == [{"word": str(seed)} for seed in range(8)]
        assert 2 <= server.most_at_once <= 4
        assert client(server).ask_many([], progress=False) == []


def test_one_failed_question_does_not_keep_the_others_from_an_answer(client: Make) -> None:
    bad = {2: Reply("no"), 5: Reply(body="{}", status=400)}

    def some_bad(request: dict[str, Any]) -> Reply:
        seed = request["seed"] % RESEED
        return bad.get(seed, Reply({"word": str(seed)}))

    questions = [Question(MESSAGES, SCHEMA, "word", seed, "" if seed else "the first") for seed in range(9)]
    with fake_server(some_bad) as server:
        with pytest.raises(DataError, match=r"^2 of 9 questions have no answer, .*run again to ask these") as raised:
            client(server, max_retries=1).ask_many(questions, progress=False)
        told = str(raised.value)
        assert "question 3: m gave no usable answer" in told and "question 6: " in told and "HTTP 400" in told
        assert "the first" not in told and len(server.requests) == 10
        bad.clear()
        answers = client(server, max_retries=1).ask_many(questions, progress=False)
        assert len(server.requests) == 12  # only what failed is paid for
    assert answers == [{"word": str(seed)} for seed in range(9)]


def test_many_failures_are_named_and_some_explained(client: Make) -> None:
    with fake_server([Reply("no")]) as server:
        questions = [Question(MESSAGES, SCHEMA, "word", seed, f"session {seed}") for seed in range(7)]
        with pytest.raises(DataError, match=r"session 4: .*and, for such reasons, session 5, session 6\.$"):
            client(server, max_retries=0).ask_many(questions, progress=False)
        assert len(server.requests) == 7


def test_a_server_that_fails_again_and_again_is_given_up(client: Make) -> None:
    with fake_server([Reply(body="{}", status=500)]) as server:
        questions = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(50)]
        with pytest.raises(UsageError, match="HTTP 500"):
            client(server, max_retries=0, concurrency=1).ask_many(questions, progress=False)
        assert len(server.requests) < 8


@pytest.mark.parametrize("body", ["", "<html>Log in</html>", "[1]", '{"error": {"message": "overloaded"}}'])
def test_a_server_that_gives_no_models_replies_is_given_up(client: Make, body: str) -> None:
    with fake_server([Reply(body=body)]) as server:
        questions = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(50)]
        answered = []
        with pytest.raises(UsageError, match=r"not a chat completion: .*: check llm\.base_url"):
            for one in client(server, max_retries=0, concurrency=1).answers(questions):
                answered.append(one)
        assert len(server.requests) < 8 and all(one.error and one.raw == (body,) for one in answered)


def test_the_first_error_stops_the_rest(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "FIRST_WAIT_S", 1000.0)

    def one_bad(request: dict[str, Any]) -> Reply:
        if request["seed"] == 1:
            return Reply(body="{}", status=401, wait_s=0.1)
        if request["seed"] == 0:
            return Reply(body="{}", status=500)
        return Reply({"word": "tall"}, wait_s=0.2)

    with fake_server(one_bad) as server:
        questions = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(50)]
        asked = client(server, concurrency=3)
        # Were the one that waits for its second attempt not woken, this would take 1000 seconds.
        with pytest.raises(UsageError, match="HTTP 401"):
            asked.ask_many(questions, progress=False)
        assert len(server.requests) < 10
        assert client(server).ask(MESSAGES, SCHEMA, "word", seed=2) == {"word": "tall"}
        assert [request["seed"] for request in server.requests].count(2) == 1  # what was on its way is kept


def test_results_come_as_they_are_there_and_failures_among_them(client: Make, key: str) -> None:
    def script(request: dict[str, Any]) -> Reply:
        seed = request["seed"] % RESEED
        if seed == 0:
            assert others_came.wait(30)
        return Reply(f"No, {key}.") if seed == 1 else Reply({"word": str(seed)})

    others_came, got = threading.Event(), list[Answered]()
    questions = (Question(MESSAGES, SCHEMA, "word", seed) for seed in range(4))
    with fake_server(script) as server:
        asked = client(server, max_retries=1, concurrency=2, **PRICES)
        for answered in asked.answers(questions):
            got.append(answered)
            if len(got) == 3:
                others_came.set()
        again = list(
            client(server, max_retries=0, **PRICES).answers(Question(MESSAGES, SCHEMA, "word", 2) for _ in "ab")
        )
    assert got[-1].index == 0 and sorted(one.index for one in got) == [0, 1, 2, 3]
    (failed,) = [one for one in got if one.answer is None]
    assert failed.index == 1 and isinstance(failed.error, DataError) and failed.tries == 2 and not failed.cached
    assert failed.raw == ("No, <key>.", "No, <key>.") and "no usable answer" in str(failed.error)
    assert (failed.input_tokens, failed.output_tokens) == (200, 20) and failed.usd == pytest.approx(2 * USD)
    assert got[-1].answer == {"word": "0"} and got[-1].error is None and got[-1].raw == () and got[-1].tries == 1
    # A cached answer tells what was paid for it once.
    assert sorted((one.index, one.cached, one.tries) for one in again) == [(0, True, 1), (1, True, 1)]
    assert again[1].usd == pytest.approx(USD)


def test_questions_are_taken_as_they_are_needed(client: Make) -> None:
    taken = []

    def endless() -> Iterator[Question]:
        for seed in range(10**9):
            taken.append(seed)
            yield Question(MESSAGES, SCHEMA, "word", seed)

    with fake_server([Reply({"word": "tall"})]) as server:
        results = client(server, concurrency=2).answers(endless())
        assert [next(results).answer for _ in range(5)] == [{"word": "tall"}] * 5
        results.close()  # type: ignore[attr-defined]
        assert len(taken) <= 5 + llm.AHEAD * 2 and len(server.requests) <= len(taken)


def test_what_makes_all_fail_is_raised_after_the_answers_on_their_way(client: Make) -> None:
    def script(request: dict[str, Any]) -> Reply:
        if request["seed"] == 1:
            return Reply(body="{}", status=401, wait_s=0.05)
        return Reply({"word": "tall"}, wait_s=0.2)

    with fake_server(script) as server:
        got = []
        with pytest.raises(UsageError, match="HTTP 401"):
            for answered in client(server, concurrency=3).answers(
                Question(MESSAGES, SCHEMA, "word", seed) for seed in range(50)
            ):
                got.append(answered)
        assert {0, 2} <= {one.index for one in got} and len(server.requests) < 10
        # All that was paid for was yielded.
        assert len(got) == len(server.requests) - 1


def test_two_equal_questions_are_paid_once(client: Make) -> None:
    with fake_server([Reply({"word": "tall"}, wait_s=0.1)]) as server:
        got = list(client(server, concurrency=4).answers([Question(MESSAGES, SCHEMA, "word")] * 4))
        assert len(server.requests) == 1 and sorted(one.cached for one in got) == [False, True, True, True]


def not_small(answer: dict[str, Any]) -> str | None:
    return "the word must not be small" if answer["word"] == "small" else None


REJECTED = {
    "by the check": (Reply({"word": "small"}), '{"word": "small"}', "the word must not be small"),
    "by the schema": (Reply({"words": 1}), '{"words": 1}', "must have the keys word and no others"),
    "in a fence": (Reply('```\n{"word": "small"}\n```'), "```", "the word must not be small"),
    "after thoughts": (Reply('<think>Hm.</think>\n{"word": "small"}'), '{"word": "small"}', "must not be small"),
    "no JSON": (Reply("Tall."), "Tall.", "not of type object"),
    "nothing": (Reply(""), "(no text)", "not of type object"),
    "a refusal": (Reply(refusal="I will not."), "I will not.", "refused"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_the_next_try_is_told_what_was_wrong_with_the_last(client: Make, name: str) -> None:
    bad, shown, fault = REJECTED[name]
    question = Question(MESSAGES, SCHEMA, "word", check=not_small)
    with fake_server([bad, Reply({"word": "small"}), Reply({"word": "tall"})]) as server:
        (answered,) = client(server).answers([question])
        assert answered.answer == {"word": "tall"} and answered.tries == 3 and len(answered.raw) == 2
        first, second, third = (request["messages"] for request in server.requests)
        assert first == MESSAGES and second[:2] == MESSAGES and third[:2] == MESSAGES
        assert [message["role"] for message in second[2:]] == ["assistant", "user"]
        assert second[2]["content"].startswith(shown) and fault in second[3]["content"]
        assert third[2]["content"] == '{"word": "small"}' and len(third) == 4  # the last fault alone
        # The answer is kept under the question as it was asked.
        assert client(server).ask(MESSAGES, SCHEMA, "word") == {"word": "tall"} and len(server.requests) == 3


def test_a_reply_that_is_no_models_is_not_told_and_a_long_one_is_shortened(client: Make, key: str) -> None:
    long = Reply(f"{key} " + "no " * 9999)
    with fake_server([Reply(body="<html>"), Reply(body='{"choices": []}'), long, Reply({"word": "tall"})]) as server:
        (answered,) = client(server).answers([Question(MESSAGES, SCHEMA, "word")])
        assert [len(request["messages"]) for request in server.requests] == [2, 2, 2, 4]
    told = server.requests[3]["messages"][2]["content"]
    assert told.startswith("<key> no no") and len(told) == TOLD_CHARACTERS + 1
    assert answered.raw[:2] == ("<html>", '{"choices": []}')


def test_a_cached_answer_is_checked_again_and_its_successor_takes_its_place(client: Make, tmp_path: Path) -> None:
    questions = [Question(MESSAGES, SCHEMA, "word"), Question(MESSAGES, SCHEMA, "word", check=not_small)]
    with fake_server([Reply({"word": "small"}), Reply({"word": "tall"})]) as server:
        for question in (*questions, questions[1]):
            (answered,) = client(server).answers([question])
        assert answered.answer == {"word": "tall"} and answered.cached and len(server.requests) == 2
        assert server.requests[1]["messages"][2:] == [
            {"role": "assistant", "content": '{"word": "small"}'},
            {"role": "user", "content": server.requests[1]["messages"][3]["content"]},
        ]
    # Without an answer that passes, it is a failure, and the old answer is not given out.
    with fake_server([Reply({"word": "small"})]) as server:
        list(client(server).answers(questions[:1]))
        (failed,) = client(server, max_retries=1).answers(questions[1:])
        assert failed.answer is None and failed.raw == ('{"word": "small"}',) * 3 and len(server.requests) == 3


def test_faults_of_all_kinds_take_the_same_tries_whatever_the_concurrency(client: Make, tmp_path: Path) -> None:
    def good(request: dict[str, Any]) -> dict[str, str]:
        return {"word": f"tall {request['seed'] % RESEED}"}

    questions = [Question(MESSAGES, SCHEMA, "word", seed, check=not_small) for seed in range(40)]
    tries = []
    for concurrency in (1, 8):
        with fake_server(faulty(good, wrong=lambda request: {"word": "small"})) as server:
            got = list(client(server, concurrency=concurrency).answers(questions))
        assert set(server.paid.values()) == {1} and len(server.paid) == 40
        assert all(one.answer == {"word": f"tall {one.index}"} for one in got)
        tries.append(sorted((one.index, one.tries, one.raw) for one in got))
    assert tries[0] == tries[1] and len({raw for _, _, raws in tries[0] for raw in raws}) >= 8


def test_silence_is_waited_out_and_asked_again(client: Make) -> None:
    script = faulty(lambda request: {"word": "tall"}, most_faults=1, faults=["silent"])
    with fake_server(script) as server:
        got = list(
            client(server, concurrency=4, timeout_s=2.0).answers(
                Question(MESSAGES, SCHEMA, "word", n) for n in range(4)
            )
        )
    assert all(one.answer == {"word": "tall"} for one in got) and {one.tries for one in got} == {1, 2}
    assert set(server.paid.values()) == {1} and server.paid.total() == 4
