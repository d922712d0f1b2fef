"""Which visitors are there: a page that is open holds a connection to the server.

gradio's page keeps one to ``heartbeat/SESSION`` as long as it is open, and whoever listens to a stream keeps one to
``queue/data``. A tab that is closed closes them. A connection that was lost closes nothing, so the system is told to
give up connections whose other end does not answer.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from starlette.types import ASGIApp, Receive, Scope, Send

# Seconds without an answer after which a connection counts as lost.
SILENT_S = 15


class Presence:
    """ASGI middleware that counts the open connections of each session.

    Args:
        app: what is served.
        connections: session -> number of its connections; changed here.
    """

    def __init__(self, app: ASGIApp, connections: Counter[str]) -> None:
        self.app, self.connections = app, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and count it while it lasts if it is one of those that a page keeps open."""
        session = session_of(scope) if scope["type"] == "http" else None
        if session is None:
            await self.app(scope, receive, send)
            return
        self.connections[session] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.connections[session] -= 1
            if not self.connections[session]:
                del self.connections[session]


def session_of(scope: Scope) -> str | None:
    """The session whose page keeps this connection open; None for any other request."""
    path = str(scope["path"])
    found = re.search(r"/heartbeat/([^/]+)$", path)
    if found:
        return found[1]
    if path.endswith("/queue/data"):
        return parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [None])[0]
    return None


def give_up_silent(page: gr.Blocks) -> None:
    """Close the connections of a served page whose other end has not answered for ``SILENT_S`` seconds.

    The options are set on the listening socket; connections inherit them. A system that does not know one goes
    without: there a lost connection is noticed later, and the limit of a stream's time holds.
    """
    options: list[tuple[int, Any, int]] = [(socket.SOL_SOCKET, "SO_KEEPALIVE", 1)]
    options += [(socket.IPPROTO_TCP, "TCP_KEEPIDLE", SILENT_S - 5), (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5)]
    # In milliseconds; also for a client that takes nothing from a connection that it keeps open.
    options += [(socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 1000 * SILENT_S)]
    for server in page.server.servers:
        for listening in server.sockets:
            for level, name, value in options:
                if hasattr(socket, name):
                    listening.setsockopt(level, getattr(socket, name), value)
