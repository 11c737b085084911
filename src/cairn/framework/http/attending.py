"""The loop of one WebSocket: who it is about, what its client says, who hears it.

Laws. A client says what it says in order, and nothing it says ends the loop but itself. What is only read needs READ; calling,
setting state and sending need SEND, whoever answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cairn.framework.http import agent_frames as frames
from cairn.framework.http import lines, problems
from cairn.framework.http.chat import AgentChat
from cairn.framework.http.objects import sent_name, target_of
from cairn.framework.http.request import Request
from cairn.framework.http.responses import Send
from cairn.framework.http.service import Service
from cairn.framework.http.sockets import POLICY, Socket, opened
from cairn.runtime.connections import Connection
from cairn.runtime.request import Request as ObjectRequest


async def attend(service: Service, request: Request, send: Send) -> None:
    """`WEBSOCKET /agents/{kind}/{id}`: an agent's conversation, or a durable object."""
    if request.kind in service.app.classes:
        target = await target_of(service, request)
        async with opened(service, request, request.receive, send) as socket:
            await lines.converse(service, socket, target)
        return
    service.address(request)
    if request.path["…"]:
        raise problems.route_not_found("/" + "/".join(request.segments))
    async with opened(service, request, request.receive, send) as socket:
        await _converse(service, socket)


async def _converse(service: Service, socket: Socket) -> None:
    async with _followed(service, socket):
        chat = AgentChat(service, socket, socket.kind, socket.name)
        await chat.opened()
        try:
            while (data := await socket.receive()) is not None:
                await _hear(service, socket, chat, data)
        finally:
            await chat.closed()


@asynccontextmanager
async def _followed(service: Service, socket: Socket) -> AsyncIterator[None]:
    """The client has been greeted, and inside the block it is told each new state of an agent that has one."""
    kind, name, address = socket.kind, sent_name(socket.request), service.address(socket.request)
    if service.agent(socket.request).state_type is None:
        await socket.send(frames.identity(name, kind, state_follows=False))
        await socket.send(frames.NO_SERVERS)
        yield
        return
    connection = Connection(socket.id, readonly=True, by=socket.identity.name)
    attachment = await service.objects.connect(kind, address.id, connection, ObjectRequest(), tenant=address.tenant)
    telling: asyncio.Future[None] | None = None
    try:
        await lines.greet(socket, attachment, kind, name)
        telling = asyncio.ensure_future(lines.tell(service, socket, attachment))
        yield
    finally:
        if telling is not None:
            telling.cancel()
        await attachment.close()


async def _hear(service: Service, socket: Socket, chat: AgentChat, data: str | bytes) -> None:
    said = frames.said(data, service.limits)
    match said:
        case frames.Call(id=id, method=method):
            await socket.send(frames.error(id, frames.unknown_method(method)))
        case frames.Malformed(frame=frames.RPC, id=str(id), why=why):
            await socket.send(frames.error(id, why))
        case frames.SetState() | frames.Malformed(frame=frames.STATE):
            await socket.send(frames.state_error(frames.READONLY))
        case frames.Other() if await chat.received(said.fields):
            pass
        case _:
            await socket.close(POLICY, "an agent takes no message of that form")
