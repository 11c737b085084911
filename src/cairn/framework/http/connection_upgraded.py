"""A connection that became a WebSocket: uvicorn's, of bounded size and on time. Written against uvicorn and websockets.

Laws. It is imported by the first client that asks for one. Nothing is compressed, so no small message becomes a large one. A
message is counted as it arrives; a large one needs one of the few places there are. A client that takes nothing, or is not
there any more, ends its connection by itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from cairn.framework.http import problems
from cairn.framework.http.body import LargeBodies
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.problems import Problem
from cairn.framework.http.responses import HARDENING, JSON
from cairn.framework.http.stalling import Stall

#: Seconds a client has to close its side, once we have closed ours (uvicorn: 10 s).
CLOSE_SECONDS = 5.0


class Upgraded(WebSocketsSansIOProtocol):
    """A WebSocket of `Serving`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: HttpLimits,
        large: LargeBodies,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.close_timeout = CLOSE_SECONDS
        self._limits = limits
        self._large = large
        self._has_place = False
        self._arriving = 0
        self._stall: Stall | None = None

    # --- its life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._stall = Stall(self.loop, self.transport, self._limits.write_stall_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_stall()
        self._arriving = 0
        self._give_back()
        super().connection_lost(exc)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Nobody writes any more: who takes nothing of what is left is not waited for."""
        super().on_task_complete(task)
        self.loop.call_later(self.close_timeout, self.transport.abort)

    # --- reading

    def data_received(self, data: bytes) -> None:
        self._arriving += len(data)
        if self._arriving > self._limits.large_body_bytes and not self._has_place and not self._take():
            self._fail(1013, "large messages are being received; send it again")
            return
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            details = "The request line or a header is too long for a WebSocket."
            self._answer(Problem("headers_too_large", 431, "The request's headers are too large.", details))

    def handle_connect(self, event: Request) -> None:
        """The handshake, or the same envelope that any other request gets."""
        self._arriving = 0
        verdict = self.conn.accept(event)
        if verdict.status_code != 101:
            self.handshake_initiated = True
            said = (verdict.body or b"").decode(errors="replace").partition("\n")[0]
            self._answer(problems.invalid_request(said))
            return
        super().handle_connect(event)

    def send_receive_event_to_app(self) -> None:
        self._arriving = 0
        super().send_receive_event_to_app()

    async def receive(self) -> Any:
        self._give_back()  # whoever asks for the next message is done with this one
        return await super().receive()

    def _take(self) -> bool:
        try:
            self._large.take()
        except Problem:
            return False
        self._has_place = True
        return True

    def _give_back(self) -> None:
        if self._has_place and not self._arriving:
            self._has_place = False
            self._large.give_back()

    # --- writing

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is not None:
            self._stall.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.end()

    def keepalive_timeout(self) -> None:
        """It does not answer: a close frame is sent, and not waited for."""
        super().keepalive_timeout()
        self.loop.call_later(self.close_timeout, self.transport.abort)

    # --- ending

    def _fail(self, code: int, reason: str) -> None:
        if self.transport.is_closing():
            return
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def _answer(self, problem: Problem) -> None:
        body = problem.body()
        headers = Headers({**HARDENING, **problem.headers, "content-type": JSON, "content-length": str(len(body))})
        headers["connection"] = "close"
        self.handshake_complete = self.close_sent = True
        self.transport.write(Response(problem.status, "", headers, body).serialize())
        self.transport.close()
