"""One client's connection: uvicorn's, on time and of bounded size. Written against uvicorn and httptools.

Laws. Whatever a client does not do in time ends its connection: the headers of a request, taking what was written for it,
coming back with the next one. The head of a request is counted as it arrives, in bytes and in fields; it is refused before it
is kept. Every refusal is the same envelope as the application's, and the client gets a moment to read it. Bodies are counted
by the application (`body.py`), which may run under another server; heads can only be counted here.

httptools and not h11: it costs a third of the CPU per request, and what it does not bound (h11 bounds the bytes of a head, not
their time) is bounded in this file.
"""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from cairn.framework.http import problems
from cairn.framework.http.body import LargeBodies
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.problems import Problem
from cairn.framework.http.responses import HARDENING
from cairn.framework.http.stalling import Stall, unsent

#: Seconds a refused client has to read why. Closing at once would reset the connection under what it is still sending.
LINGER_SECONDS = 1.0

#: What HTTP adds to a field: a colon, a space, a line's end.
FIELD_OVERHEAD_BYTES = 4


class Refused(Exception):
    """Raised inside of a parser's callback, to end the parsing."""


class Connection(HttpToolsProtocol):
    """A connection of `Serving`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: HttpLimits,
        connections_max: int,
        large: LargeBodies,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._connections_max = connections_max
        self._large = large
        self._refusal: Problem | None = None
        self._is_refused = False
        self._is_upgraded = False
        self._in_head = False
        self._in_message = False
        self._head_fed = 0
        self._head_parsed = 0
        self._head_timer: TimerHandle | None = None
        self._stall: Stall | None = None

    # --- its life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stall = Stall(self.loop, transport, self._limits.write_stall_seconds)
        if len(self.connections) > self._connections_max:
            # Whoever is refused here must not take the place of somebody else, so it gets no moment either.
            self.connections.discard(self)
            self._refuse(problems.unavailable("full", f"{self._connections_max:,} connections are open; try again."))
            transport.close()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        self._forget_stall()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: what is being answered may end, nothing else begins."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def unsent(self) -> int:
        """Bytes the client has not taken: ours, and the kernel's, which alone change while a slow client reads."""
        return unsent(self.transport)

    # --- reading

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        was_in_head = self._in_head
        super().data_received(data)
        if self._is_refused or self._is_upgraded or self.transport.is_closing():
            return
        if was_in_head and self._in_head:
            self._head_fed += len(data)  # httptools keeps an unfinished field to itself until it is whole
            if self._head_fed > self._limits.header_bytes:
                self._refuse(self._head_too_large())
                return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and (self._in_message or self.timeout_keep_alive_task is None):
            # The rest of a body that nobody wants counts like the head that has to follow it.
            self._await_head()

    def on_message_begin(self) -> None:
        self._in_head = self._in_message = True
        self._head_fed = self._head_parsed = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + FIELD_OVERHEAD_BYTES)
        if len(self.headers) >= self._limits.headers_max:
            self._refusal = self._head_too_large()
            raise Refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._forget_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            self._forget_head()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _unsupported_upgrade_warning(self) -> None:
        """Somebody asked for another protocol: the request is answered as it is, and nothing can follow it."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def _count(self, count: int) -> None:
        self._head_parsed += count
        if self._head_parsed > self._limits.header_bytes:
            self._refusal = self._head_too_large()
            raise Refused

    def _head_too_large(self) -> Problem:
        limits = self._limits
        details = f"At most {limits.header_bytes:,} bytes and {limits.headers_max} fields are accepted."
        return Problem("headers_too_large", 431, "The request's headers are too large.", details)

    # --- time

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.header_seconds, self._head_is_late)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._in_head:
            self._refuse(problems.request_timeout(f"The headers were not complete after {self._limits.header_seconds:g} s."))
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is not None:
            self._stall.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.end()

    # --- becoming a WebSocket

    def _should_upgrade(self) -> bool:
        """Only what can become a WebSocket; anything else is answered as the request it is."""
        return self.parser.get_method() == b"GET" and self._get_upgrade() == b"websocket"

    def handle_websocket_upgrade(self) -> None:
        """The connection is another's from now on. That one is imported by the first who asks for it."""
        from cairn.framework.http.connection_upgraded import Upgraded

        self._is_upgraded = True
        self._forget_head()
        self._unset_keepalive_if_required()
        self._forget_stall()
        self.ws_protocol_class = partial(Upgraded, limits=self._limits, large=self._large)  # type: ignore[assignment]
        super().handle_websocket_upgrade()

    # --- refusing

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser gives up, whoever made it."""
        self._refuse(self._refusal or problems.invalid_request("It is not HTTP."))

    def _refuse(self, problem: Problem) -> None:
        self._is_refused = True
        self._forget_head()
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # in the middle of an answer there is no room for another
            return
        body = problem.body()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **HARDENING,
            **problem.headers,
            "connection": "close",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {problem.status} \r\n{lines}\r\n".encode("latin-1") + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)


def connection_factory(limits: HttpLimits, connections_max: int) -> Any:
    """What uvicorn makes connections with."""
    large = LargeBodies(limits.large_bodies_max)
    return partial(Connection, limits=limits, connections_max=connections_max, large=large)
