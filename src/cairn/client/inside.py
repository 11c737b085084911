"""Requests to an ASGI application of this process, without a server: live answers stream, which httpx's own transport cannot.

Laws. The application sees a caller on this machine. Closing an answer is what the client's going away is to a server: the
application is told, and then waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cairn.errors import Unreachable

if TYPE_CHECKING:
    import httpx

Message = MutableMapping[str, Any]
Asgi = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

#: Parts of an answer that wait for a slow reader before the application does.
PARTS_MAX = 16
#: Seconds an application has to end once its client is gone.
GONE_SECONDS = 5.0


def inside(app: Asgi) -> httpx.AsyncBaseTransport:
    """A transport for `Client(url, transport=…)` into an application that is open in this event loop."""
    import httpx

    class Inside(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            exchange = _Exchange(app, request, await request.aread())
            status, headers = await exchange.begin()
            return httpx.Response(status, headers=headers, stream=Parts(exchange))

    class Parts(httpx.AsyncByteStream):
        def __init__(self, exchange: _Exchange) -> None:
            self._exchange = exchange

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for part in self._exchange.parts():
                yield part

        async def aclose(self) -> None:
            await self._exchange.end()

    return Inside()


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: Asgi, request: httpx.Request, body: bytes) -> None:
        self._app = app
        self._scope = _scope(request)
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue(PARTS_MAX)
        self._begun: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """The application has answered; how. *Raises* Unreachable when it ended without."""
        self._task = asyncio.create_task(self._run(), name=f"{self._scope['method']} {self._scope['path']}")
        try:
            return await self._begun
        except asyncio.CancelledError:
            await self.end()
            raise

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            self._fail(str(error) or type(error).__name__)
        else:
            self._fail("it gave no answer")
        finally:
            if not self._gone.is_set():
                await self._parts.put(None)

    def _fail(self, why: str) -> None:
        if not self._begun.done():
            self._begun.set_exception(Unreachable(f"the application failed: {why}", was_sent=True))

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun.set_result((message["status"], list(message.get("headers", ()))))
        elif message.get("body") and not self._gone.is_set():
            await self._parts.put(message["body"])

    async def parts(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            yield part

    async def end(self) -> None:
        """Nobody reads on."""
        self._gone.set()
        while not self._parts.empty():  # whoever waits for room may go on
            self._parts.get_nowait()
        if self._task is not None:
            _, late = await asyncio.wait({self._task}, timeout=GONE_SECONDS)
            for task in late:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


def _scope(request: httpx.Request) -> dict[str, Any]:
    url = request.url
    raw_path, _, query = url.raw_path.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 0),
        "server": (url.host, url.port or 80),
    }
