"""A server for tests that answers as an OpenAI-compatible one does, by a script, on this machine only.

``fake_server(script)`` gives the script's replies; ``faulty(good)`` is a script that fails in all the ways that servers
and models do, the same for the same question and the same number of its try, whatever the concurrency. The server has
the endpoints of single calls, of files and of batches (llm_batch_fixtures.py), and counts what is paid, so that a test
can kill its client and ask whether anything was paid twice.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from llm_batch_fixtures import FakeBatches

from prospect_hf.llm.questions import REJECTED, RESEED

USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
TOLD = REJECTED.partition("{")[0]


@dataclass
class Reply:
    """What the server answers: a chat completion with ``content``, or ``body`` as it is.

    Args:
        content: of the message; a dict is written as JSON.
        usage: tokens, or None to tell none.
        wait_s: before the answer.
        dropped: whether the connection is lost in the middle of the answer; in a batch, its line is missing.
        expired: in a batch, whether the request expires.
        paid: whether the answer counts in ``FakeServer.paid``.
    """

    content: str | dict[str, Any] | None = None
    status: int = 200
    body: str | None = None
    refusal: str | None = None
    finish_reason: str = "stop"
    usage: dict[str, int] | None = field(default_factory=lambda: dict(USAGE))
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    dropped: bool = False
    expired: bool = False
    paid: bool = False

    def text(self) -> str:
        """The body of the reply."""
        if self.body is not None:
            return self.body
        content = json.dumps(self.content) if isinstance(self.content, dict) else self.content
        message = {"role": "assistant", "content": content, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return json.dumps(completion | ({"usage": self.usage} if self.usage is not None else {}))


@dataclass
class FakeServer:
    """A running server: where it is, and what it was asked.

    Args:
        url: the ``base_url``.
        requests: the single requests' JSON bodies, in order.
        headers: their headers, by small letters.
        most_at_once: the most requests that were there at a time.
        paid: question (:func:`question_key`) -> replies marked ``paid`` that a single call or a batch got.
        hold_after: after so many paid replies of single calls, further requests get no answer until this number is
            changed: a client that is killed meanwhile has lost nothing.
        held: requests that wait so.
        batches: the endpoints of files and batches.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    paid: Counter[str] = field(default_factory=Counter)
    hold_after: int | None = None
    held: int = 0
    batches: FakeBatches = field(default_factory=FakeBatches)


Script = Sequence[Reply] | Callable[[dict[str, Any]], Reply]


@contextmanager
def fake_server(script: Script) -> Iterator[FakeServer]:
    """A server that gives the script's replies in turn, the last one again and again, or what a function gives."""
    lock, over, at_once = threading.Lock(), threading.Event(), [0]

    def reply_to(request: dict[str, Any], number: int) -> Reply:
        return script(request) if callable(script) else script[min(number, len(script) - 1)]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each reply takes 40 ms

        def do_GET(self) -> None:
            self.send(*server.batches.get(urlsplit(self.path), self.ask_in_batch))

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/chat/completions":
                self.complete(json.loads(data))
            else:
                self.send(*server.batches.post(urlsplit(self.path), self.headers["Content-Type"], data))

        def ask_in_batch(self, request: dict[str, Any]) -> Reply:
            with lock:
                reply = reply_to(request, server.batches.asked)
                server.batches.asked += 1
                server.paid[question_key(request)] += reply.paid
            return reply

        def complete(self, request: dict[str, Any]) -> None:
            with lock:
                server.requests.append(request)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                number = len(server.requests) - 1
                at_once[0] += 1
                server.most_at_once = max(server.most_at_once, at_once[0])
                limit = server.hold_after
                hold = limit is not None and server.paid.total() >= limit
                server.held += hold
            reply = None if hold else reply_to(request, number)
            if reply is not None and reply.paid:
                with lock:
                    server.paid[question_key(request)] += 1
            while hold and server.hold_after == limit and not over.wait(0.01):
                pass
            if reply is not None:
                over.wait(reply.wait_s)
            with lock:
                at_once[0] -= 1
                server.held -= hold
            if reply is None:
                self.close_connection = True
            else:
                self.send(reply.status, reply.text().encode(), reply.headers, reply.dropped)

        def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, dropped: bool = False) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if dropped else body)
            self.close_connection = self.close_connection or dropped

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that did not wait for its answer is no news."""

    http = Server(("127.0.0.1", 0), Handler)
    server = FakeServer(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        http.shutdown()
        thread.join()
        http.server_close()


def question_key(request: dict[str, Any]) -> str:
    """Names the question of a request: the same for each of its tries, single or in a batch."""
    messages = request["messages"]
    asked = messages[:-2] if messages[-1]["content"].startswith(TOLD) else messages
    return hashlib.sha256(json.dumps([asked, request["seed"] % RESEED]).encode()).hexdigest()


KEY = "sk-very-secret-0123456789"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "system", "content": "One word."}, {"role": "user", "content": "Größe?"}]
GOOD = Reply({"word": "tall"})
PRICES = {"usd_per_million_input": 1.0, "usd_per_million_output": 4.0}
# What a reply costs that uses 100 and 10 tokens.
USD = (100 * 1.0 + 10 * 4.0) / 1e6
# The faults of servers and of models; each makes a reply from the good answer. Besides these, "wrong" is an answer that
# fits the schema and fails the check, which ``faulty`` is given.
SLOW = '{"error": {"message": "Rate limit reached"}}'
FAULTS: dict[str, Callable[[str], Reply]] = {
    "429 with Retry-After": lambda good: Reply(body=SLOW, status=429, headers={"Retry-After": "0.01"}),
    "429": lambda good: Reply(body=SLOW, status=429),
    "500": lambda good: Reply(body='{"error": {"message": "oh"}}', status=500),
    "503 as HTML": lambda good: Reply(body="<html>busy</html>", status=503, headers={"Content-Type": "text/html"}),
    "200 as HTML": lambda good: Reply(body="<html>hello</html>", headers={"Content-Type": "text/html"}),
    "dropped": lambda good: Reply(good, dropped=True),
    "cut JSON": lambda good: Reply(good[: len(good) // 2]),
    "length": lambda good: Reply(good[: len(good) // 2], finish_reason="length"),
    "prose": lambda good: Reply("I would say that the first lines belong to the first step, and so on."),
    "another language": lambda good: Reply('{"antwort": "Die ersten Zeilen gehören zum ersten Schritt."}'),
    "null": lambda good: Reply("null"),
    "empty": lambda good: Reply(""),
    "no choices": lambda good: Reply(body='{"choices": []}'),
    "refused": lambda good: Reply(refusal="I cannot help with that."),
    "filtered": lambda good: Reply("", finish_reason="content_filter"),
    "not JSON at all": lambda good: Reply(body='{"choices": [{"mess'),
    "silent": lambda good: Reply("", wait_s=60.0),
}  # fmt: skip
# All but the one that takes the client's whole llm.timeout_s.
QUICK = tuple(name for name in FAULTS if name != "silent")
# How the good answer is written, by turns; all of these are answers.
FORMS = ("{}", "```json\n{}\n```", "<think>Let me see [1, 2]...</think>\n{}", "Here it is:\n\n{}\n\nAnything else?")


def faulty(
    good: Callable[[dict[str, Any]], dict[str, Any]],
    wrong: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    most_faults: int = 3,
    faults: Sequence[str] = QUICK,
) -> Callable[[dict[str, Any]], Reply]:
    """A script: the first 0 to ``most_faults`` tries of a question fail, each in another way; then it is answered.

    What happens follows from the question and the number of its try alone. The good answer is marked ``paid``.

    Args:
        good: request -> its answer.
        wrong: request -> an answer that fits the schema and must be rejected; without it, there are no such.
        most_faults: at most ``llm.max_retries``, so that each question has an answer in the end.
        faults: those of ``FAULTS`` to use.
    """
    lock, tries = threading.Lock(), Counter[str]()

    def reply(request: dict[str, Any]) -> Reply:
        key = question_key(request)
        with lock:
            number = tries[key]
            tries[key] += 1
        draw = int(key[:8], 16)
        text = json.dumps(good(request))
        if number >= draw % (most_faults + 1):
            return Reply(FORMS[draw // 7 % len(FORMS)].replace("{}", text), paid=True)
        kinds = [*faults, *(["wrong"] if wrong is not None else [])]
        kind = kinds[(draw // 5 + number) % len(kinds)]
        return Reply(wrong(request)) if kind == "wrong" and wrong is not None else FAULTS[kind](text)

    return reply
