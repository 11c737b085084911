"""A model provider on 127.0.0.1 that speaks the vendors' real streaming protocols, scripted, recording, able to fail.

Laws. Plain asyncio and HTTP/1.1, no framework; nothing here knows the client. One server speaks all protocols, told
apart by the path. Every request is recorded before it is answered; a client that leaves is noticed at once
(`dropped`), also while the server is silent. Ports are the kernel's choice and only on the loopback interface.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from types import ModuleType, TracebackType
from typing import Any

from cairn.testing.providers import anthropic, google, openai_chat, openai_responses
from cairn.testing.providers.http import Incoming, answer, chunk, read_request, stream_head
from cairn.testing.providers.script import Break, Fail, Hang, ProviderRequest, Reply, Script, Wire

_WIRES: dict[Wire, ModuleType] = {
    "anthropic": anthropic,
    "openai": openai_responses,
    "openai-chat": openai_chat,
    "google": google,
}

_PATHS: tuple[tuple[re.Pattern[str], Wire], ...] = (
    (re.compile(r"/messages(?:\?|$)"), "anthropic"),
    (re.compile(r"/responses(?:\?|$)"), "openai"),
    (re.compile(r"/chat/completions(?:\?|$)"), "openai-chat"),
    (re.compile(r"/models/([^/:]+):streamGenerateContent"), "google"),
)


class ProviderServer:
    """A scripted provider: `async with ProviderServer([Reply.of("hi")]) as server`.

    A list answers one request per reply, in order; a function is asked with each request. When a list is used up, the
    server answers 500 and says so, so that a test fails with the reason.
    """

    def __init__(self, script: Script = ()) -> None:
        self.requests: list[ProviderRequest] = []
        """Every request, in order of arrival."""
        self.keep_requests = True
        """Whether `requests` grows; off for servers that run long."""
        self.answered = 0
        """How many requests have come."""
        self.dropped = 0
        """How many streams the client left before their end."""
        self.open_streams = 0
        self.broken = 0
        """How many streams have come to the point where their reply breaks."""
        self.port = 0
        self._script = script
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> ProviderServer:
        """The server listens; `port` is set."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(WatchedReader(), self._accept), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()

    async def refuse(self) -> None:
        """From now on connections are refused; those that exist are closed."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, wire: Wire) -> str:
        """The base URL to give to a client of `wire`, as its vendor's has it."""
        return f"http://127.0.0.1:{self.port}" + ("/v1" if wire in ("openai", "openai-chat") else "")

    @property
    def environ(self) -> dict[str, str]:
        """The variables that send every provider's client here, for a process that is to be started."""
        return {
            "ANTHROPIC_BASE_URL": self.url("anthropic"),
            "ANTHROPIC_API_KEY": "loopback",
            "OPENAI_BASE_URL": self.url("openai"),
            "OPENAI_API_KEY": "loopback",
            "GEMINI_BASE_URL": self.url("google"),
            "GOOGLE_API_KEY": "loopback",
        }

    async def wait_until(self, condition: Any) -> None:
        """Returns when `condition(self)` holds; it is looked at whenever a request comes or a stream ends."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (incoming := await read_request(reader)) is not None:
                if not await self._respond(incoming, reader, writer):
                    return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _respond(self, incoming: Incoming, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request answered. False when the connection cannot be used again."""
        request = parse(incoming)
        if request is None:
            writer.write(answer(404, {"error": {"message": f"no such path: {incoming.path}"}}))
            await writer.drain()
            return True
        if self.keep_requests:
            self.requests.append(request)
        self.answered += 1
        number = self.answered
        await self._notify()
        reply = await self._reply(request, number)
        if reply is None:
            writer.write(answer(500, {"error": {"message": f"the script has no reply for request {number}"}}))
            await writer.drain()
            return True
        wire = _WIRES[request.wire]
        if isinstance(reply.fault, Fail):
            status, body = wire.error(reply.fault.kind)
            headers = list(reply.fault.headers)
            if reply.fault.retry_after is not None:
                headers.append(("retry-after", reply.fault.retry_after))
            writer.write(answer(status, body, headers))
            await writer.drain()
            return True
        return await self._stream(request, reply, number, reader, writer)

    async def _reply(self, request: ProviderRequest, number: int) -> Reply | None:
        if callable(self._script):
            made = self._script(request)
            return await made if inspect.isawaitable(made) else made
        return self._script[number - 1] if number <= len(self._script) else None

    async def _stream(
        self,
        request: ProviderRequest,
        reply: Reply,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        self.open_streams += 1
        assert isinstance(reader, WatchedReader)
        gone = asyncio.ensure_future(reader.gone.wait())
        work = asyncio.ensure_future(self._send(request, reply, number, writer))
        try:
            done, _ = await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if work in done and work.exception() is None:
                return work.result()
            self.dropped += 1
            return False
        finally:
            for task in (gone, work):
                task.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)
            self.open_streams -= 1
            await self._notify()

    async def _send(self, request: ProviderRequest, reply: Reply, number: int, writer: asyncio.StreamWriter) -> bool:
        """The reply is written, with its fault. False when the connection ended as part of it."""
        if isinstance(reply.fault, Hang):
            self.broken += 1
            await self._notify()
            await asyncio.Event().wait()
        wire = _WIRES[request.wire]
        events: list[bytes] = wire.stream(reply, request, number)
        fault = reply.fault if isinstance(reply.fault, Break) else None
        writer.write(stream_head(f"req_{number:04}"))
        for event in events if fault is None else events[: fault.after]:
            await self._write(event, reply, writer)
        if fault is None:
            writer.write(chunk(b""))
            await writer.drain()
            return True
        await self._break(fault, wire, writer)
        return False

    async def _write(self, data: bytes, reply: Reply, writer: asyncio.StreamWriter) -> None:
        size = reply.bytes_per_write or len(data)
        for start in range(0, len(data), size):
            writer.write(chunk(data[start : start + size]))
            await writer.drain()
            if reply.bytes_per_write:
                await asyncio.sleep(reply.seconds_between)

    async def _break(self, fault: Break, wire: ModuleType, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        self.broken += 1
        await self._notify()
        if fault.how == "stall":
            await asyncio.Event().wait()
        elif fault.how == "reset":
            reset(writer)
        elif fault.how == "garbage":
            writer.write(chunk(b'event: content_block_delta\ndata: {"type": <html>502 Bad Gateway</html>\n\n') + chunk(b""))
            await writer.drain()
        elif fault.how == "error":
            writer.write(b"".join(chunk(event) for event in wire.stream_error(fault.kind)) + chunk(b""))
            await writer.drain()
        elif fault.how == "close":
            # A polite end of the body in the middle of the vendor's sequence: what a restarted gateway looks like.
            writer.write(chunk(b""))
            await writer.drain()


class WatchedReader(asyncio.StreamReader):
    """A reader that says when the client has left, without taking a byte a next request may begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


def reset(writer: asyncio.StreamWriter) -> None:
    """The connection is gone with RST: nothing more is sent, the client's read fails."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def parse(incoming: Incoming) -> ProviderRequest | None:
    """What a client asked, in the vocabulary all protocols share; None for a path no protocol has."""
    for pattern, wire in _PATHS:
        match = pattern.search(incoming.path)
        if match is None:
            continue
        body: dict[str, Any] = json.loads(incoming.body or b"{}")
        if match.groups():
            body["model"] = match.group(1)
        facts = _WIRES[wire].facts(body)
        return ProviderRequest(
            wire=wire,
            method=incoming.method,
            path=incoming.path,
            headers=incoming.headers,
            raw=incoming.body,
            body=body,
            model=facts.model,
            system=facts.system,
            tools=facts.tools,
            entries=facts.entries,
        )
    return None


@contextlib.contextmanager
def serve_in_thread(script: Script = ()) -> Iterator[ProviderServer]:
    """A server on a thread of its own, for tests whose clients are other processes. Stopped on leaving."""
    ready = threading.Event()
    server: list[ProviderServer] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        leave = asyncio.Event()
        async with ProviderServer(script) as running:
            server.append(running)
            stop.append((asyncio.get_running_loop(), leave))
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="loopback-provider", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield server[0]
    finally:
        loop, leave = stop[0]
        loop.call_soon_threadsafe(leave.set)
        thread.join()
