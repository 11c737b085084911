"""One client's line to a durable object: what it is told, what it says, until one of them ends it.

Laws. What an object says leaves in its order, after the commit (S10). What a client says is done in its order too, and what it
said before it left is still done. One thing that goes wrong ends the line only if nothing else could tell it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import (
    CairnError,
    CallInterrupted,
    Denied,
    NotFound,
    ObjectError,
    ObjectGone,
    Refused,
    RemoteError,
    StoreError,
    UsageError,
)
from cairn.framework.http import agent_frames as frames
from cairn.framework.http import problems
from cairn.framework.http.auth import Grant
from cairn.framework.http.objects import Target
from cairn.framework.http.problems import Problem
from cairn.framework.http.service import Service
from cairn.framework.http.sockets import FAILED, GOODBYE_SECONDS, POLICY, TRY_LATER, Socket
from cairn.runtime.connections import Connection
from cairn.runtime.frames import Closed, Sent, StateFrame

if TYPE_CHECKING:
    from cairn.runtime.attachment import Attachment

logger = logging.getLogger("cairn.http")


async def converse(service: Service, socket: Socket, target: Target) -> None:
    """The client is connected to the object until one of them ends it."""
    with service.sockets.only(target.address, socket):
        attachment = await _attached(service, socket, target)
        if attachment is None:
            return
        try:
            await greet(socket, attachment, target.kind, target.name)
            await _Line(service, socket, attachment).run()
        finally:
            code, reason = socket.end or (1006, "")
            await asyncio.shield(_leave(service, attachment, code, reason))


async def _attached(service: Service, socket: Socket, target: Target) -> Attachment | None:
    """The client's place at the object; None: it was told why it has none."""
    by, address = socket.identity.name, target.address
    connection = Connection(socket.id, socket.request.own_url(), readonly=not socket.may(Grant.SEND), by=by)
    connecting = service.objects.connect(address.kind, address.id, connection, target.request, tenant=address.tenant)
    try:
        return await connecting
    except (Refused, Denied, RemoteError, NotFound) as error:
        socket.finish(POLICY, f"refused: {error}")
    except (CallInterrupted, StoreError, TimeoutError) as error:
        socket.finish(TRY_LATER, str(error))
    except Exception as error:
        ref = service.app.ids.new("err")
        logger.error("%s: a client could not be connected (%s)", address, ref, exc_info=error)
        socket.finish(FAILED, f"internal_error: It was logged under {ref}.")
    return None


async def _leave(service: Service, attachment: Attachment, code: int, reason: str) -> None:
    """The object has heard it. A server that stops does not wait for one that runs nowhere: whoever runs it next tells it."""
    stopping = service.stopping.is_set()
    try:
        async with asyncio.timeout(GOODBYE_SECONDS if stopping else None):
            await attachment.close(code, reason)
    except (CairnError, TimeoutError) as error:
        if not stopping:
            logger.warning("%s: on_close was not called to its end: %s", attachment.address, error)


async def greet(socket: Socket, attachment: Attachment, kind: str, name: str) -> None:
    """The client knows whom it reached, and how it stands; nothing of it for one that is told no protocol."""
    if not attachment.connection.protocol:
        return
    state = attachment.state
    await socket.send(frames.identity(name, kind, state_follows=state is not None))
    if state is not None:
        await socket.send(frames.state(state))
    await socket.send(frames.NO_SERVERS)


async def tell(service: Service, socket: Socket, attachment: Attachment) -> None:
    """Whatever it is told from then on, until one of them ends it."""
    try:
        async for frame in attachment.frames():
            match frame:
                case StateFrame(state=state):
                    await socket.send(frames.state(state))
                case Sent(data=data):
                    await socket.send(data)
                case Closed(code=code, reason=reason):
                    socket.finish(code, reason)
    except Exception as error:
        ref = service.app.ids.new("err")
        logger.error("%s: what it says cannot be told (%s)", attachment.address, ref, exc_info=error)
        socket.finish(FAILED, f"internal_error: It was logged under {ref}.")


class _Line:
    """One client's socket and what it is attached to."""

    def __init__(self, service: Service, socket: Socket, attachment: Attachment) -> None:
        self._service = service
        self._socket = socket
        self._attachment = attachment
        self._room = asyncio.Semaphore(service.limits.calls_per_socket_max)
        self._work: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[Any] | None] = set()

    async def run(self) -> None:
        pump = asyncio.ensure_future(tell(self._service, self._socket, self._attachment))
        try:
            while (data := await self._socket.receive()) is not None:
                await self._room.acquire()
                self._begin(self._hear(data))
        finally:
            pump.cancel()
            await self._finish()

    async def _finish(self) -> None:
        """The client is gone: what it had said before is still done, what only it would have heard is not."""
        for task in list(self._work):
            if task in self._streams:
                task.cancel()
        if self._work:
            patience = GOODBYE_SECONDS if self._service.stopping.is_set() else self._service.limits.drain_seconds
            _, late = await asyncio.wait(self._work, timeout=patience)
            for task in late:
                task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._streams.discard(task)
        self._room.release()

    # --- what the client says

    async def _hear(self, data: str | bytes) -> None:
        said = frames.said(data, self._service.limits)
        try:
            match said:
                case frames.SetState(state=state):
                    await self._set_state(state)
                case frames.Call():
                    await self._call(said)
                case frames.Malformed(frame=frames.STATE):
                    await self._socket.send(frames.state_error(frames.REJECTED))
                case frames.Malformed(id=str(id), why=why):
                    await self._socket.send(frames.error(id, why))
                case _:
                    await self._message(data)
        except Problem as problem:
            self._socket.finish(POLICY, f"{problem.type}: {problem.details}")

    async def _set_state(self, state: msgspec.Raw) -> None:
        if not self._socket.may(Grant.SEND):
            await self._socket.send(frames.state_error(frames.READONLY))
            return
        try:
            await self._attachment.set_state(state)
        except Denied:
            await self._socket.send(frames.state_error(frames.READONLY))
        except (Refused, RemoteError) as error:
            logger.info("%s: a state was refused: %s", self._attachment.address, error)
            await self._socket.send(frames.state_error(frames.REJECTED))
        except Exception as error:
            await self._socket.send(frames.state_error(self._told(error, "set_state")))

    async def _message(self, data: str | bytes) -> None:
        if not self._socket.may(Grant.SEND):
            raise problems.forbidden("Sending needs the grant 'send'.")
        try:
            await self._attachment.message(data)
        except ObjectGone as error:
            self._socket.finish(POLICY, str(error))
        except (StoreError, TimeoutError) as error:
            self._socket.finish(TRY_LATER, str(error))
        except Exception as error:
            self._log("on_message raised", error)

    async def _call(self, call: frames.Call) -> None:
        try:
            if not self._socket.may(Grant.SEND):
                raise problems.forbidden("Calling needs the grant 'send'.")
            arguments: Sequence[Any] = call.args
            if self._service.objects.streams(self._attachment.address.kind, call.method):
                self._streams.add(asyncio.current_task())
                async for chunk in self._attachment.stream(call.method, arguments):
                    await self._socket.send(frames.chunk(call.id, chunk))
                value = msgspec.Raw(b"null")
            else:
                value = await self._attachment.call(call.method, arguments)
            await self._answer(frames.result(call.id, value))
        except Problem as problem:
            await self._socket.send(frames.error(call.id, problem.details))
        except Exception as error:
            await self._socket.send(frames.error(call.id, self._told(error, call.method)))

    async def _answer(self, frame: str) -> None:
        """The frame leaves behind everything the call has changed, whatever process made it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._attachment.caught_up()
        self._attachment.put(Sent(frame))

    def _told(self, error: Exception, what: str) -> str:
        """The words a client gets: those of the object and of the call as they are, ours under a reference."""
        if isinstance(error, ObjectError | RemoteError | UsageError | NotFound | TimeoutError):
            return str(error)
        ref = self._log(what, error)
        return f"Something went wrong; it was logged under {ref}."

    def _log(self, what: str, error: BaseException) -> str:
        ref = self._service.app.ids.new("err")
        logger.error("%s: %s (%s)", self._attachment.address, what, ref, exc_info=error)
        return ref
