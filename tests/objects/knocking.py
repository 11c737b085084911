"""A client of WebSockets in the same process: its frames go in as ASGI, no socket between.

async with knock(app, "/agents/counter/a?_pk=me") as line:
    await line.until(lambda: line.said("cf_agent_state"))
    line.say({"type": "rpc", "id": "1", "method": "add", "args": [1]})

Laws. What a client sends is a message, what it gets is what `send` was given: nothing in between makes it nicer. `closed` is
the code and the reason it was closed with, `status` what its handshake was refused with.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

#: Seconds for anything that is waited for. A guard against hanging, not a measurement.
PATIENCE_SECONDS = 20.0


class Line:
    """One WebSocket, as its client sees it."""

    def __init__(self, app: Any, scope: dict[str, Any]) -> None:
        self.is_open = False
        self.subprotocol: str | None = None
        self.headers: dict[str, str] = {}
        self.status = 0
        self.body = b""
        self.closed: tuple[int, str] | None = None
        self.texts: list[str | bytes] = []
        self._going: asyncio.Queue[Any] = asyncio.Queue()
        self._going.put_nowait({"type": "websocket.connect"})
        self._came = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self.task = asyncio.ensure_future(app(scope, self._going.get, self._send))
        self.task.add_done_callback(lambda _: self._came.set())

    @property
    def frames(self) -> list[dict[str, Any]]:
        """What it was sent and is JSON."""
        return [json.loads(text) for text in self.texts if isinstance(text, str) and text.startswith("{")]

    def said(self, type: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == type]

    def say(self, data: Any) -> None:
        """Send it: text and bytes as they are, anything else as JSON."""
        key = "bytes" if isinstance(data, bytes) else "text"
        self._going.put_nowait({"type": "websocket.receive", key: data if isinstance(data, str | bytes) else json.dumps(data)})

    def stick(self) -> None:
        """From now on the client takes nothing."""
        self._free.clear()

    def unstick(self) -> None:
        self._free.set()

    async def call(self, method: str, *args: Any, id: str = "call") -> dict[str, Any]:
        """The last frame that answers the call."""
        self.say({"type": "rpc", "id": id, "method": method, "args": list(args)})
        return await self.answer(id)

    async def answer(self, id: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [frame for frame in self.said("rpc") if frame["id"] == id and frame.get("done", not frame["success"])]

        await self.until(found)
        return found()[-1]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return when the condition holds. Raises what the App raised, and AssertionError when it never can."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                if self.task.done():
                    self.task.result()
                    assert condition(), f"it ended with {self.closed or self.status}: {self.texts}"
                    return
                self._came.clear()
                await self._came.wait()

    async def end(self) -> tuple[int, str]:
        """How it was closed, or refused: then the status and no reason."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.shield(self.task)
        return self.closed or (self.status, "")

    async def leave(self, code: int = 1000, reason: str = "") -> None:
        """The client closes it."""
        if not self.task.done():
            self._free.set()
            self._going.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait((self.task,))

    async def _send(self, message: Any) -> None:
        await self._free.wait()
        match message["type"]:
            case "websocket.accept":
                assert not self.is_open and not self.status
                self.is_open, self.subprotocol = True, message.get("subprotocol")
                self.headers = {name.decode(): value.decode() for name, value in message.get("headers", ())}
            case "websocket.send":
                assert self.is_open and self.closed is None
                self.texts.append(message["text"] if message.get("text") is not None else message["bytes"])
            case "websocket.close":
                assert self.closed is None
                self.closed = (message["code"], message.get("reason", "")) if self.is_open else (403, "")
            case "websocket.http.response.start":
                assert not self.is_open
                self.status = message["status"]
            case "websocket.http.response.body":
                self.body += message["body"]
        self._came.set()


@asynccontextmanager
async def knock(
    app: Any,
    target: str,
    headers: Mapping[str, str] = {},
    *,
    subprotocols: Sequence[str] = (),
    client: str = "127.0.0.1",
    mount: str = "",
) -> AsyncIterator[Line]:
    """The client asks for a WebSocket, and leaves at the end of the block."""
    path, _, query = (mount + target).partition("?")
    lines = {"host": "localhost", "upgrade": "websocket", "connection": "Upgrade", **headers}
    if subprotocols:
        lines["sec-websocket-protocol"] = ", ".join(subprotocols)
    line = Line(
        app,
        {
            "type": "websocket",
            "scheme": "ws",
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": mount,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in lines.items()],
            "client": (client, 5_000),
            "server": ("localhost", 80),
            "subprotocols": list(subprotocols),
            "extensions": {"websocket.http.response": {}},
        },
    )
    try:
        yield line
    finally:
        await line.leave()


async def verdict(app: Any, target: str, headers: Mapping[str, str] = {}, **more: Any) -> tuple[int, str] | None:
    """How it is refused, code or status and reason; None when the client is let in: it has heard whom it is connected to."""
    async with knock(app, target, headers, **more) as line:
        await line.until(lambda: line.texts or line.task.done())
        return None if line.texts else (line.closed or (line.status, ""))
