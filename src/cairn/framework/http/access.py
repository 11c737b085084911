"""The access log: one line per request when it has been answered, for people or, as JSON, for machines.

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
from cairn.harness.times import iso

logger = logging.getLogger("cairn.access")

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
        if scope["type"] != "http":
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
            "method": scope["method"],
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
        """0 when the client went away before there was an answer."""
        self.bytes = 0
        self.request = "-"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                if name == b"x-request-id":
                    self.request = value.decode("latin-1")
        else:
            self.bytes += len(message.get("body", b""))
        await self._send(message)


def _shown(path: bytes) -> str:
    text = "".join(character if character.isprintable() else "?" for character in path.decode("latin-1"))
    return text if len(text) <= PATH_CHARACTERS_MAX else f"{text[:PATH_CHARACTERS_MAX]}…"
