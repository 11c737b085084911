"""The access log: one line per request or WebSocket when it is over, for people or, as JSON, for machines.

Laws. A line never holds a query, a header or a body: that is where secrets and what people say are. The path is written as it
was sent, so that nothing in it can break the line. Times are the injected clock's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from cairn.clock import Clock
from cairn.framework.http.request import raw_path
from cairn.framework.http.responses import Message, Receive, Scope, Send
from cairn.framework.http.sockets import WEBSOCKET
from cairn.harness.times import iso

logger = logging.getLogger("cairn.access")

#: The status of a WebSocket that was let in.
ACCEPTED = 101

#: Characters of a path that a line shows; ids may be long, lines should not.
PATH_CHARACTERS_MAX = 300

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class AccessLog:
    """An ASGI application that passes everything on and writes down what became of it."""

    def __init__(self, inner: Asgi, clock: Clock, *, json: bool = False) -> None:
        self._inner = inner
        self._clock = clock
        self._json = json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._inner(scope, receive, send)
            return
        line = _Line(send)
        began = self._clock.monotonic()
        try:
            await self._inner(scope, receive, line)
        finally:
            seconds = self._clock.monotonic() - began
            logger.info("%s", self._text(scope, line, seconds))

    def _text(self, scope: Scope, line: _Line, seconds: float) -> str:
        client = scope.get("client")
        facts: dict[str, Any] = {
            "at": iso(self._clock.wall()),
            "client": str(client[0]) if client else "-",
            "method": scope.get("method", WEBSOCKET),
            "path": _shown(raw_path(scope)),
            "status": line.status,
            "ms": round(seconds * 1000, 1),
            "bytes": line.bytes,
            "request": line.request,
        }
        if self._json:
            return msgspec.json.encode(facts).decode()
        return "{at} {client} {method} {path} {status} {ms}ms {bytes}B {request}".format(**facts)


class _Line:
    """`send`, counting what passes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        """0 when the client went away before there was an answer; of a WebSocket that we closed, the code."""
        self.bytes = 0
        self.request = "-"

    async def __call__(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start" | "websocket.accept":
                self.status = message.get("status", ACCEPTED)
                for name, value in message.get("headers", ()):
                    if name == b"x-request-id":
                        self.request = value.decode("latin-1")
            case "websocket.close":
                self.status = message["code"]
            case "websocket.send":
                self.bytes += len(message.get("bytes") or message.get("text") or b"")
            case _:
                self.bytes += len(message.get("body", b""))
        await self._send(message)


def _shown(path: bytes) -> str:
    text = "".join(character if character.isprintable() else "?" for character in path.decode("latin-1"))
    return text if len(text) <= PATH_CHARACTERS_MAX else f"{text[:PATH_CHARACTERS_MAX]}…"
