"""Requests are sent below the rates of the settings, and nobody sends while the server asks to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from llm_fixtures import MESSAGES, SCHEMA, Reply, fake_server

from prospect_hf.llm import client as llm
from prospect_hf.llm.client import LLMClient
from prospect_hf.llm.pacing import JITTER, Pacer
from prospect_hf.llm.questions import Question

Make = Callable[..., LLMClient]


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def wait(self, stop: threading.Event, seconds: float) -> None:
        self.seconds += seconds


def times(pacer: Pacer, clock: Clock, tokens: list[int], used: list[int] | None = None) -> list[float]:
    """When each of some requests is sent, in seconds from now; each uses all its tokens, or those given."""
    start, sent = clock.seconds, []
    for number, most in enumerate(tokens):
        expected = pacer.take(most, threading.Event())
        sent.append(clock.seconds - start)
        pacer.settle(expected, most, most if used is None else used[number])
    return sent


def test_requests_are_spread_over_the_minute() -> None:
    clock = Clock()
    pacer = Pacer(120, None, clock.now, clock.wait)
    assert times(pacer, clock, [9] * 4) == pytest.approx([0, 0.5, 1.0, 1.5])
    clock.seconds += 100  # what was not sent in time is not sent all at once later
    assert times(pacer, clock, [9] * 3) == pytest.approx([0, 0.5, 1.0])


def test_tokens_are_spread_over_the_minute_and_those_that_were_not_used_are_given_back() -> None:
    clock = Clock()
    pacer = Pacer(None, 6000, clock.now, clock.wait)
    assert times(pacer, clock, [100, 300, 100]) == pytest.approx([0, 1, 4])
    clock.seconds += 100
    assert times(pacer, clock, [1000] * 3, used=[100] * 3) == pytest.approx([0, 1, 2])
    # Requests on their way are expected to take what those before them took.
    clock.seconds += 100
    pacer = Pacer(None, 6000, clock.now, clock.wait)
    pacer.settle(pacer.take(1000, threading.Event()), 1000, 100)
    clock.seconds, start = clock.seconds + 100, clock.seconds + 100
    for number in range(4):
        pacer.take(1000, threading.Event())
        assert clock.seconds - start == pytest.approx(number)
    pacer = Pacer(None, 6000, clock.now, clock.wait)
    # More than a minute's tokens is sent all the same, and what follows waits for it.
    clock.seconds += 100
    assert times(pacer, clock, [9000, 1]) == pytest.approx([0, 90])


def test_without_rates_nothing_waits() -> None:
    clock = Clock()
    assert times(Pacer(None, None, clock.now, clock.wait), clock, [10**6] * 5) == [0] * 5


def test_a_pause_holds_everybody_and_a_shorter_one_does_not_end_it() -> None:
    clock = Clock()
    pacer = Pacer(None, None, clock.now, clock.wait)
    pacer.pause(20)
    pacer.pause(5)
    (sent,) = times(pacer, clock, [1])
    assert 20 <= sent <= 20 * (1 + JITTER)
    clock.seconds += 10
    assert times(pacer, clock, [1]) == [0]


def test_the_end_of_a_run_ends_a_wait() -> None:
    pacer, stop = Pacer(None, None), threading.Event()
    pacer.pause(1000)
    threading.Timer(0.05, stop.set).start()
    started = time.monotonic()
    pacer.take(1, stop)
    assert time.monotonic() - started < 20


def test_one_answer_with_retry_after_holds_all_threads(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a shared pause, the other threads would send their questions within the second."""
    pytest.importorskip("openai", reason="openai is not installed (extra llm)")
    monkeypatch.setattr(llm, "FIRST_WAIT_S", 1000.0)
    sent: list[float] = []

    def script(request: dict[str, Any]) -> Reply:
        sent.append(time.monotonic())
        slow = Reply(body="{}", status=429, headers={"Retry-After": "1"})
        return slow if len(sent) == 1 else Reply({"word": "tall"}, wait_s=0.02)

    with fake_server(script) as server:
        questions = [Question(MESSAGES, SCHEMA, "word", seed) for seed in range(4)]
        asked = client(server, concurrency=1)
        answers = asked.answers(questions)
        others = threading.Thread(target=lambda: asked.ask_many(questions[2:], progress=False))
        first = threading.Thread(target=lambda: list(answers))
        first.start()
        while not sent:
            time.sleep(0.005)
        time.sleep(0.1)  # the 429 is read
        others.start()
        first.join()
        others.join()
    assert len(sent) == 5 and min(sent[1:]) - sent[0] >= 0.95


def test_the_rates_of_the_settings_are_kept_to(client: Make) -> None:
    pytest.importorskip("openai", reason="openai is not installed (extra llm)")
    with fake_server([Reply({"word": "tall"})]) as server:
        started = time.monotonic()
        asked = client(server, requests_per_minute=600, concurrency=4)
        asked.ask_many([Question(MESSAGES, SCHEMA, "word", seed) for seed in range(5)], progress=False)
        assert time.monotonic() - started >= 0.4
        # A request may take over 2,000 tokens, 10 s at this rate, and takes 110, half a second.
        started = time.monotonic()
        asked = client(server, tokens_per_minute=220 * 60, concurrency=1)
        asked.ask_many([Question(MESSAGES, SCHEMA, "word", seed) for seed in range(5, 8)], progress=False)
        assert 0.95 <= time.monotonic() - started < 9
