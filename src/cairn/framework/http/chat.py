"""A chat client's WebSocket: the published `useAgentChat` (`@cloudflare/ai-chat`), unmodified, on an agent's conversation.

Laws. The socket owns nothing: what a client does is durable before it is told so, what it is told comes from the log, and any
process may have its next connection. What a client changes is done in the order in which it said it; what it only asks is
answered beside that.

    chat_request    what a client says, read            chat_parts      what it is shown of a conversation
    chat_frames     what it is told, written            chat_scene      where the conversation stands
    chat_writes     what it changes                     chat_handshake  how it comes to a stream that runs
    chat_view       the log, as it is told
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cairn.framework.http import chat_frames as frames
from cairn.framework.http.chat_transcripts import FileAddresses
from cairn.framework.http.chat_view import View
from cairn.framework.http.chat_writes import Writes
from cairn.framework.http.responses import JSON, NO_STORE, send_bytes
from cairn.framework.http.sockets import FAILED

if TYPE_CHECKING:
    from cairn.framework.http.request import Request
    from cairn.framework.http.responses import Send
    from cairn.framework.http.service import Service
    from cairn.framework.http.sockets import Socket

logger = logging.getLogger("cairn.http")

#: Changes of one client that wait for their turn; it is not heard while there are as many.
WAITING_MAX = 32

#: What is done in order, and what is answered at once. A transcript that a client would impose is neither: the log has its own.
_CHANGES = frozenset((frames.REQUEST, frames.CANCEL, frames.CLEAR, frames.TOOL_RESULT, frames.TOOL_APPROVAL))
_KNOWN = _CHANGES | {frames.RESUME_REQUEST, frames.RESUME_ACK, frames.MESSAGES}


class AgentChat:
    """The chat of one socket with one agent's conversation."""

    def __init__(self, service: Service, socket: Socket, kind: str, id: str) -> None:
        conversation = service.app.conversation(kind, id, tenant=socket.identity.tenant)
        self._socket = socket
        self._view = View(service, socket, conversation, lambda: self._unfinished > 0)
        self._writes = Writes(service, socket, conversation, self._view)
        self._waiting: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(WAITING_MAX)
        self._unfinished = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def opened(self) -> None:
        """The client has the transcript, and from now on whatever happens. *Raises* StoreError."""
        await self._view.opened()
        self._tasks = [asyncio.ensure_future(self._guarded(self._view.follow())), asyncio.ensure_future(self._change())]

    async def received(self, frame: Mapping[str, Any]) -> bool:
        """The frame is being done, or is ignored. False: it is no chat frame."""
        type = frame.get("type")
        if type not in _KNOWN:
            return False
        if type in _CHANGES:
            self._unfinished += 1
            await self._waiting.put(frame)
        elif type == frames.RESUME_REQUEST:
            probe = frame.get("probeId")
            await self._view.asked(probe if isinstance(probe, str) else None)
        elif type == frames.RESUME_ACK and isinstance(frame.get("id"), str):
            await self._view.acknowledged(frame["id"])
        return True

    async def closed(self) -> None:
        """Nothing of it is left. What the client asked for goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _change(self) -> None:
        while True:
            frame = await self._waiting.get()
            try:
                await self._writes.do(frame)
            finally:
                self._unfinished -= 1
            await self._view.settle()

    async def _guarded(self, work: Any) -> None:
        """What cannot be followed any more ends the socket: the client comes back, and finds everything."""
        try:
            await work
        except Exception:
            logger.exception("a chat client could not be told any more of agents/%s", self._socket.kind)
            self._socket.finish(FAILED, "internal_error: come back")


async def get_messages(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}/{id}/get-messages`: the transcript, as the client wants it before it connects."""
    row = await service.store.find(service.address(request))
    url = FileAddresses(request, request.kind, request.conversation)
    messages = b"[]" if row is None else await service.transcripts.at_head(row, url)
    await send_bytes(send, 200, messages, JSON, NO_STORE)
