"""The loop of one WebSocket: who it is about, what its client says, who hears it.

Laws. A client says what it says in order, and nothing it says ends the loop but itself. What is only read needs READ; calling,
setting state and sending need SEND, whoever answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cairn.framework.http import agent_frames as frames
from cairn.framework.http import objects, problems
from cairn.framework.http.objects import sent_name
from cairn.framework.http.request import Request
from cairn.framework.http.responses import Send
from cairn.framework.http.service import Service
from cairn.framework.http.sockets import POLICY, Socket, opened

if TYPE_CHECKING:
    from cairn.framework.http.chat import AgentChat


async def attend(service: Service, request: Request, send: Send) -> None:
    """`WEBSOCKET /agents/{kind}/{id}`: an agent's conversation, or a durable object."""
    if request.kind in service.app.classes:
        target = await objects.target_of(service, request)
        async with opened(service, request, request.receive, send) as socket:
            await objects.converse(service, socket, target)
        return
    service.agent(request)
    service.handle(request)
    if request.path["…"]:
        raise problems.route_not_found("/" + "/".join(request.segments))
    async with opened(service, request, request.receive, send) as socket:
        await _converse(service, socket)


async def _converse(service: Service, socket: Socket) -> None:
    await socket.send(frames.identity(sent_name(socket.request), socket.kind, state_follows=False))
    await socket.send(frames.NO_SERVERS)
    chat = _chat(service, socket)
    if chat is not None:
        await chat.opened()
    try:
        while (data := await socket.receive()) is not None:
            await _hear(service, socket, chat, data)
    finally:
        if chat is not None:
            await chat.closed()


async def _hear(service: Service, socket: Socket, chat: AgentChat | None, data: str | bytes) -> None:
    said = frames.said(data, service.limits)
    match said:
        case frames.Call(id=id, method=method):
            await socket.send(frames.error(id, frames.unknown_method(method)))
        case frames.Malformed(frame=frames.RPC, id=str(id), why=why):
            await socket.send(frames.error(id, why))
        case frames.SetState() | frames.Malformed(frame=frames.STATE):
            await socket.send(frames.state_error(frames.READONLY))
        case frames.Other() if chat is not None and await chat.received(said.fields):
            pass
        case _:
            await socket.close(POLICY, "an agent takes no message of that form")


def _chat(service: Service, socket: Socket) -> AgentChat | None:
    """The chat of an agent, if this version has one."""
    try:
        from cairn.framework.http.chat import AgentChat
    except ImportError:
        return None
    return AgentChat(service, socket, socket.kind, socket.name)
