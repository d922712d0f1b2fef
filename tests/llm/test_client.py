"""The LLM client: what it sends, keeps, retries, and says, against a scripted server; the key shows nowhere."""

from __future__ import annotations

import builtins
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llm_fixtures import GOOD, KEY, MESSAGES, PRICES, SCHEMA, USD, FakeServer, Reply, fake_server

from prospect_hf.errors import DataError, UsageError
from prospect_hf.llm import client as llm
from prospect_hf.llm.arguments import LLMArguments
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.questions import Question, request_of
from prospect_hf.settings import parse

pytest.importorskip("openai", reason="openai is not installed (extra llm)")

Make = Callable[..., LLMClient]


def test_a_question_is_sent_as_structured_output_and_answered(client: Make, key: str) -> None:
    with fake_server([GOOD]) as server:
        asked = client(server, temperature=0.25, max_output_tokens=77, **PRICES)
        assert asked.ask(MESSAGES, SCHEMA, "word", seed=5) == {"word": "tall"}
    assert server.requests == [
        {
            "model": "m",
            "messages": MESSAGES,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "word", "schema": SCHEMA, "strict": True},
            },
            "temperature": 0.25,
            "seed": 5,
            "max_tokens": 77,
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {key}"
    usd = pytest.approx(USD)
    assert asked.spent == {"requests": 1, "cached": 0, "input_tokens": 100, "output_tokens": 10, "usd": usd}
    assert KEY not in repr(asked) + repr(asked.arguments) + str(asked.spent)


def test_no_key_and_a_proxy_do_not_keep_from_a_server_on_this_machine(
    client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        with fake_server([GOOD]) as server:
            asked = client(server, max_retries=0)
            assert asked.ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}
    assert asked.spent["usd"] is None


def test_the_openai_clients_own_variable_names_the_server(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_server([GOOD]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
        assert client(server, base_url=None).ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}
        monkeypatch.setenv("OPENAI_BASE_URL", "http://me:pass@127.0.0.1/v1")
        with pytest.raises(UsageError, match="OPENAI_BASE_URL must be") as raised:
            client(server, base_url=None)
    assert "pass@" not in str(raised.value)


def test_no_key_goes_unencrypted_to_another_machine(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("")
    monkeypatch.setenv("OTHER_KEY", KEY)
    with pytest.raises(UsageError, match="unencrypted") as raised:
        client(server, base_url="http://gpu-box.example/v1", api_key_env="OTHER_KEY")
    assert KEY not in str(raised.value)
    client(server, base_url="https://gpu-box.example/v1", api_key_env="OTHER_KEY")
    client(server, base_url="http://127.0.0.1:9/v1", api_key_env="OTHER_KEY")
    monkeypatch.delenv("OTHER_KEY")
    client(server, base_url="http://gpu-box.example/v1", api_key_env="OTHER_KEY")


def test_openai_itself_needs_a_key(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("")
    with pytest.raises(UsageError, match="set the environment variable OTHER_KEY"):
        client(server, base_url=None, api_key_env="OTHER_KEY")
    monkeypatch.setenv("OTHER_KEY", KEY + "\n")
    asked = client(server, base_url=None, api_key_env="OTHER_KEY")
    request = request_of(Question(MESSAGES, SCHEMA, "word"), asked.arguments, asked._server.limit_key)
    assert "max_completion_tokens" in request and "max_tokens" not in request
    monkeypatch.setenv("OTHER_KEY", KEY + "…")
    with pytest.raises(UsageError, match="OTHER_KEY holds a character") as raised:
        client(server, api_key_env="OTHER_KEY", base_url=None)
    assert KEY not in str(raised.value)


def test_without_openai_the_message_names_the_extra(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "openai":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r'needs openai.*pip install -e "\.\[llm\]"'):
        client(FakeServer("http://127.0.0.1:1/v1"))


def test_a_rerun_costs_nothing(client: Make, key: str, tmp_path: Path) -> None:
    with fake_server([GOOD]) as server:
        client(server).ask(MESSAGES, SCHEMA, "word")
        again = client(server, max_retries=0, timeout_s=3.0, concurrency=1)
        assert again.ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}
        assert len(server.requests) == 1 and again.spent["cached"] == 1 and again.spent["requests"] == 0
        # All that decides an answer makes another question of it.
        again.ask(MESSAGES, SCHEMA, "word", seed=1)
        again.ask(MESSAGES[1:], SCHEMA, "word")
        again.ask(MESSAGES, SCHEMA | {"description": "a word"}, "word")
        client(server, temperature=0.0).ask(MESSAGES, SCHEMA, "word")
        client(server, max_output_tokens=5).ask(MESSAGES, SCHEMA, "word")
        client(server, model="other").ask(MESSAGES, SCHEMA, "word")
        client(server, base_url=server.url.replace("127.0.0.1", "localhost")).ask(MESSAGES, SCHEMA, "word")
        assert len(server.requests) == 8
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(kept) == 8 and all(path.suffix == ".json" and json.loads(path.read_text())["answer"] for path in kept)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"answer": {"word": 3}}', '{"answer": null}'])
def test_a_broken_file_of_the_cache_is_named(client: Make, tmp_path: Path, text: str) -> None:
    with fake_server([GOOD]) as server:
        client(server).ask(MESSAGES, SCHEMA, "word")
        (path,) = (tmp_path / "cache").rglob("*.json")
        path.write_text(text)
        with pytest.raises(DataError, match=path.name):
            client(server).ask(MESSAGES, SCHEMA, "word")
        path.unlink()
        assert client(server).ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}


MALFORMED = {
    "prose": (Reply("Tall, I think."), "the answer is not of type object: 'Tall, I think.'"),
    "two answers": (Reply('{"word": "tall"} or {"word": "small"}'), "it contains 2 different answers"),
    "another in a fence": (Reply('```json\n{"words": "tall"}\n```'), "must have the keys word and no others"),
    "not a number": (Reply('{"word": NaN}'), "the answer is not of type object"),
    "a tool": (Reply(None, finish_reason="tool_calls"), "no text .finish_reason 'tool_calls'."),
    "only thoughts": (Reply("<think>Tall, I think."), "the answer is not of type object"),
    "another key": (Reply({"words": "tall"}), "must have the keys word and no others"),
    "another type": (Reply({"word": 3}), "the answer.word is not of type string"),
    "half a character": (Reply('{"word": "\\ud83d"}'), "the answer is not of type object"),
    "a key twice": (Reply('{"word": "tall", "word": "small"}'), "it has the key 'word' twice"),
    "a key twice in prose": (Reply('Here: {"word": "tall", "word": "tall"}'), "it has the key 'word' twice"),
    "deep": (Reply("[" * 100_000), "the answer is not of type object"),
    "refused": (Reply(refusal="I will not."), "the model refused .'I will not.'"),
    "filtered": (Reply("", finish_reason="content_filter"), "content filter"),
    "no content": (Reply(None), "the answer has no text .finish_reason 'stop'."),
    "no choices": (Reply(body='{"choices": []}'), "not a chat completion"),
    "a list": (Reply(body="[1]"), "not a chat completion: '.1.'"),
    "html": (Reply(body="<html>", headers={"Content-Type": "text/html"}), "not a chat completion: '<html>'"),
    "broken body": (Reply(body='{"choices'), "not a chat completion"),
    "the key": (Reply({"word": KEY}), "it contains the API key"),
    "the key, written otherwise": (
        Reply('{"word": "' + KEY.replace("s", "\\u0073", 1) + '"}'),
        "it contains the API key",
    ),
    "the key, broken": (Reply(KEY), "'<key>'"),
    "long": (Reply("no " * 9999), "no no…'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_answer_is_asked_for_again_then_told(client: Make, key: str, name: str) -> None:
    bad, told = MALFORMED[name]
    with fake_server([bad, bad, GOOD]) as server:
        assert client(server, max_retries=2).ask(MESSAGES, SCHEMA, "word", seed=1) == {"word": "tall"}
    # The same seed would bring the same answer, and a seed nearby is another vote's.
    assert [request["seed"] for request in server.requests] == [1, 1_000_001, 2_000_001]
    with fake_server([bad]) as server:
        asked = client(server, max_retries=1)
        with pytest.raises(DataError, match=told) as raised:
            asked.ask(MESSAGES, SCHEMA, "other")
        assert len(server.requests) == 2 and asked.spent["requests"] == 2
    message = str(raised.value)
    assert message.startswith("m gave no usable answer for 'other' in 2 attempts: ")
    assert KEY not in message and len(message) < 400 and "\n" not in message


ANSWERS = {
    "a fence": '```json\n{"word": "tall"}\n```',
    "a fence of tildes": 'Here it is:\n~~~\n{ "word":\n "tall" }\n~~~\nAnything else?',
    "a fence that is not closed": '```\n{"word": "tall"}',
    "thoughts": '<think>Perhaps {"word": "small"}? No.</think>\n\n{"word": "tall"}',
    "thoughts without a beginning": 'It is {"word": "small"}.\n</think>\n```json\n{"word": "tall"}```',
    "thoughts without an end": '<think>\nIt is {tall}.\n{"word": "tall"}',
    "the same twice": 'Draft: {"word": "tall"}\nFinal: {"word": "tall"}',
    "a byte order mark": '\ufeff{"word": "tall"}',
}


@pytest.mark.parametrize("name", ANSWERS)
def test_thoughts_and_fences_are_read_past(client: Make, key: str, name: str) -> None:
    with fake_server([Reply(ANSWERS[name])]) as server:
        assert client(server).ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}
        assert len(server.requests) == 1


def test_a_tag_inside_of_an_answer_is_part_of_it(client: Make) -> None:
    with fake_server([Reply({"word": "</think>"})]) as server:
        assert client(server).ask(MESSAGES, SCHEMA, "word") == {"word": "</think>"}


CUT = Reply('{"word": "ta', finish_reason="length")


def test_an_answer_that_was_cut_off_gets_twice_the_room(client: Make) -> None:
    with fake_server([CUT, GOOD]) as server:
        asked = client(server, max_output_tokens=50)
        assert asked.ask(MESSAGES, SCHEMA, "word", seed=3) == {"word": "tall"}
        assert [(one["max_tokens"], one["seed"]) for one in server.requests] == [(50, 3), (100, 3)]
        assert client(server, max_output_tokens=50).ask(MESSAGES, SCHEMA, "word", seed=3) == {"word": "tall"}
        assert len(server.requests) == 2  # kept under the question as it was asked
    with fake_server([CUT]) as server:
        told = "no complete answer for 'word' in 200 tokens: it was cut off; raise llm.max_output_tokens"
        with pytest.raises(DataError, match=told):
            client(server, max_output_tokens=50, max_retries=9).ask(MESSAGES, SCHEMA, "word")
        assert [one["max_tokens"] for one in server.requests] == [50, 100, 200]
    with fake_server([Reply({"word": "tall"}, finish_reason="length")]) as server:
        assert client(server).ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}  # complete all the same
    empty = fake_server([Reply(None, finish_reason="length")])
    with empty as server, pytest.raises(DataError, match=r"raise llm\.max_output_tokens"):
        client(server).ask(MESSAGES, SCHEMA, "word")


def test_further_keys_of_a_request(client: Make, tmp_path: Path) -> None:
    with fake_server([GOOD]) as server:
        asked = client(server, extra_body={"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}})
        asked.ask(MESSAGES, SCHEMA, "word")
        assert server.requests[0]["top_k"] == 20
        assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
        assert "top_k" not in repr(asked.arguments)
        client(server).ask(MESSAGES, SCHEMA, "word")  # another question
        assert len(server.requests) == 2 and "top_k" not in server.requests[1]


FAILING = {
    408: "run again later",
    429: "lower llm.concurrency",
    500: "run again later",
    503: "run again later",
}


@pytest.mark.parametrize("status", FAILING)
def test_a_server_that_fails_is_asked_again_with_the_same_seed(client: Make, key: str, status: int) -> None:
    bad = Reply(body=json.dumps({"error": {"message": f"no room for {KEY}"}}), status=status)
    with fake_server([bad, bad, GOOD]) as server:
        asked = client(server, max_retries=2)
        assert asked.ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}
    assert [request["seed"] for request in server.requests] == [0, 0, 0]
    assert asked.spent["requests"] == 3 and asked.spent["input_tokens"] == 100
    with fake_server([bad]) as server:
        with pytest.raises(UsageError, match=f"HTTP {status} .*<key>.*in 3 attempts; .*{FAILING[status]}") as raised:
            client(server, max_retries=2).ask(MESSAGES, SCHEMA, "other")
        assert len(server.requests) == 3
    assert KEY not in str(raised.value) and server.url in str(raised.value)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "environment variable OPENAI_API_KEY"),
        (403, "environment variable OPENAI_API_KEY"),
        (404, "llm.model and llm.base_url"),
        (400, "check the llm settings"),
    ],
)
def test_a_request_that_is_refused_for_good_is_sent_once(client: Make, key: str, status: int, told: str) -> None:
    bad = Reply(body=json.dumps({"error": {"message": f"Bearer {KEY} is wrong"}}), status=status)
    with fake_server([bad]) as server:
        asked = client(server, **PRICES)
        with pytest.raises(UsageError, match=told) as raised:
            asked.ask(MESSAGES, SCHEMA, "word")
    assert len(server.requests) == 1 and KEY not in str(raised.value) and asked.spent["usd"] == 0


def test_the_server_says_how_long_to_wait(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "FIRST_WAIT_S", 1000.0)
    with fake_server([Reply(body="{}", status=429, headers={"Retry-After": "0.02"}), GOOD]) as server:
        assert client(server).ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}
    with fake_server([Reply(body="{}", status=429, headers={"Retry-After": "3600"})]) as server:
        with pytest.raises(UsageError, match="asks to wait 3600 s"):
            client(server).ask(MESSAGES, SCHEMA, "other")
        assert len(server.requests) == 1


def test_the_wait_may_be_a_date(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "FIRST_WAIT_S", 0.01)
    past, far = "Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 21 Oct 2095 07:28:00 GMT"
    zone = past.replace("GMT", "+9999999999999999")
    for header in (past, past.replace("GMT", "-0000"), "soon", "-1", "", "9" * 400, "1e9", zone):
        with fake_server([Reply(body="{}", status=429, headers={"Retry-After": header}), GOOD]) as server:
            assert client(server, model=header or "m").ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}
    with fake_server([Reply(body="{}", status=503, headers={"Retry-After": far})]) as server:
        with pytest.raises(UsageError, match=r"asks to wait .* s: run again then"):
            client(server).ask(MESSAGES, SCHEMA, "other")
        assert len(server.requests) == 1


def test_a_silent_server_is_given_up_and_counted_at_the_most(client: Make, key: str) -> None:
    with fake_server([Reply({"word": "late"}, wait_s=30.0)]) as server:
        asked = client(server, timeout_s=0.1, max_retries=1, max_output_tokens=50, **PRICES)
        with pytest.raises(UsageError, match=r"sent no data for 0.1 s, in 2 attempts; raise llm.timeout_s"):
            asked.ask(MESSAGES, SCHEMA, "word")
        assert len(server.requests) == 2
    assert asked.spent["output_tokens"] == 100
    tokens = asked.spent["input_tokens"]
    assert tokens is not None and tokens > 2 * len("One word.Größe?".encode())


def test_a_connection_that_is_lost_in_an_answer_is_tried_again_and_counted(client: Make, key: str) -> None:
    with fake_server([Reply({"word": "tall"}, dropped=True), GOOD]) as server:
        asked = client(server, max_output_tokens=50, **PRICES)
        assert asked.ask(MESSAGES, SCHEMA, "word") == {"word": "tall"}
        assert len(server.requests) == 2 and asked.spent["output_tokens"] == 60  # 50 may have been billed


def test_a_server_that_is_not_there_is_named(client: Make, key: str) -> None:
    with fake_server([GOOD]) as server:
        pass
    asked = client(server, max_retries=1, **PRICES)
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:\d+/v1 cannot be reached .*llm.base_url"):
        asked.ask(MESSAGES, SCHEMA, "word")
    assert asked.spent["requests"] == 2 and asked.spent["usd"] == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"base_url": "127.0.0.1:8000"}, "llm.base_url must be http"),
        ({"base_url": "http://me:word@host/v1"}, "llm.base_url must be http"),
        ({"base_url": "http://word@host/v1"}, "llm.base_url must be http"),
        ({"base_url": "https://host/v1?key=word"}, "llm.base_url must be http"),
        ({"base_url": "ftp://host"}, "llm.base_url must be http"),
        ({"base_url": "http://host:port"}, "llm.base_url must be http"),
        ({"api_key_env": "sk-word"}, "llm.api_key_env must name an environment variable"),
        ({"api_key_env": "word"}, "llm.api_key_env must name an environment variable"),
        ({"temperature": 2.5}, "llm.temperature must be between 0 and 2"),
        ({"temperature": float("nan")}, "llm.temperature must be between 0 and 2"),
        ({"max_output_tokens": 0}, "llm.max_output_tokens must be at least 1"),
        ({"concurrency": 0}, "llm.concurrency must be at least 1"),
        ({"max_requests": 0}, "llm.max_requests must be at least 1"),
        ({"max_retries": -1}, "llm.max_retries must be at least 0"),
        ({"timeout_s": 0.0}, "llm.timeout_s must be over 0"),
        ({"max_usd": float("inf"), **PRICES}, "llm.max_usd must be over 0"),
        ({"extra_body": {"model": "x", "top_k": 1}}, "llm.extra_body must not contain model: "),
        ({"extra_body": {"messages": []}}, "llm.extra_body must not contain messages: "),
        ({"extra_body": [1]}, "llm.extra_body must be"),
        ({"usd_per_million_input": 1.0}, "Give both"),
        ({"usd_per_million_input": -1.0, "usd_per_million_output": 1.0}, "must be at least 0"),
        ({"max_usd": 1.0}, "llm.max_usd needs llm.usd_per_million_input"),
        ({"api_key": "word"}, "did you mean llm.api_key_env"),
        ({"concurrency": "four"}, "llm.concurrency must be int"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        parse(LLMArguments, settings, "llm")
    assert "word" not in str(raised.value).replace("password", "")


def test_a_client_needs_a_model_and_a_place_to_keep_answers(client: Make, tmp_path: Path) -> None:
    for model in (None, "", " "):
        with pytest.raises(UsageError, match=r"llm.model=NAME"):
            client(FakeServer("http://127.0.0.1:1/v1"), model=model)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"llm.cache_dir="):
        client(FakeServer("http://127.0.0.1:1/v1"), cache_dir=str(tmp_path / "file" / "cache"))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that nobody can write to")
def test_a_folder_that_takes_no_answers_is_told_before_anything_is_paid(client: Make) -> None:
    with fake_server([GOOD]) as server:
        with pytest.raises(UsageError, match=r"llm.cache_dir=/proc/self cannot be written"):
            client(server, cache_dir="/proc/self").ask(MESSAGES, SCHEMA, "word")
        assert not server.requests
