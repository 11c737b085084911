"""uvicorn's server, run and stopped our way. Written against uvicorn.

Laws. It owns no signal and no lifespan: who runs it says when to stop and keeps the application open around it. Stopping lets
nobody in, lets answers in flight end within their time, and then ends every connection; nothing is waited for for ever.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress

import uvicorn

from cairn.framework.http.access import Asgi
from cairn.framework.http.connection import Connection, connection_factory
from cairn.framework.http.limits import HttpLimits

#: Seconds between two refreshes of the Date header.
TICK_SECONDS = 1.0
#: Seconds the last written bytes get to leave once every answer is complete, and a stuck client to show that it is not.
FLUSH_SECONDS = 1.0


class Serving(uvicorn.Server):
    """One process's HTTP server over sockets that are given to it."""

    def __init__(self, app: Asgi, limits: HttpLimits, connections_max: int) -> None:
        config = uvicorn.Config(
            app,
            http=connection_factory(limits, connections_max),
            ws="none",  # what a connection becomes is in `connection.py`; nothing is loaded before
            ws_max_size=limits.message_bytes,
            ws_ping_interval=limits.ping_seconds,
            ws_ping_timeout=limits.ping_seconds,
            ws_per_message_deflate=False,  # no small message becomes a large one
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=limits.backlog,
            timeout_keep_alive=limits.idle_seconds,  # type: ignore[arg-type]
        )
        super().__init__(config)
        self._limits = limits
        self.listening = asyncio.Event()
        """Set once connections are accepted."""
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask for the end. *Idempotent*; the event loop's thread only."""
        self.should_exit = True
        self._stop.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for each in sockets or ():
            each.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        dropping = asyncio.create_task(self._drop_stuck(), name="stuck readers are dropped")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_seconds):
                while self.server_state.tasks:
                    await asyncio.wait(set(self.server_state.tasks))
        dropping.cancel()
        for task in set(self.server_state.tasks):
            task.cancel()
        await self._flush()

    async def _drop_stuck(self) -> None:
        """Whoever takes nothing at all of what it waits for is not waited for: it may be gone without a word."""
        before: dict[Connection, int] = {}
        while True:
            for each in self._connections():
                if each.flow.write_paused and each.unsent() >= before.get(each, each.unsent() + 1):
                    each.transport.abort()
            before = {each: each.unsent() for each in self._connections() if each.flow.write_paused}
            await asyncio.sleep(FLUSH_SECONDS)

    def _connections(self) -> list[Connection]:
        return [each for each in self.server_state.connections if isinstance(each, Connection)]

    async def _flush(self) -> None:
        """Whatever was written leaves, if the clients take it at once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                # Nobody says when the last buffer is empty: a look every now and then, for a moment.
                while self.server_state.tasks or any(each.transport.get_write_buffer_size() for each in self._connections()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
