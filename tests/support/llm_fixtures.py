"""A server for tests that answers as an OpenAI-compatible one does, by a script, on this machine only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 100, "completion_tokens": 10}


@dataclass
class Reply:
    """What the server answers: a chat completion with ``content``, or ``body`` as it is.

    Args:
        content: of the message; a dict is written as JSON.
        usage: tokens, or None to tell none.
        wait_s: before the answer.
        dropped: whether the connection is lost in the middle of the answer.
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
        requests: the requests' JSON bodies, in order.
        headers: the requests' headers, by small letters.
        most_at_once: the most requests that were there at a time.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0


Script = Sequence[Reply] | Callable[[dict[str, Any]], Reply]


@contextmanager
def fake_server(script: Script) -> Iterator[FakeServer]:
    """A server that gives the script's replies in turn, the last one again and again, or what a function gives."""
    lock, over, at_once = threading.Lock(), threading.Event(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.requests.append(request)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                number = len(server.requests) - 1
                at_once[0] += 1
                server.most_at_once = max(server.most_at_once, at_once[0])
            reply = script(request) if callable(script) else script[min(number, len(script) - 1)]
            over.wait(reply.wait_s)
            with lock:
                at_once[0] -= 1
            body = reply.text().encode()
            self.send_response(reply.status if self.path == "/v1/chat/completions" else 404)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if reply.dropped else body)
            self.close_connection = self.close_connection or reply.dropped

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
