"""One WebSocket of this process, attached to an object that may run elsewhere.

Laws. What comes out is read from the log, in its order; what the object sends without a record, because it changed nothing and
the socket is here, comes between the rows where it was sent. What is not taken in time ends the attachment, not the object.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import Denied
from cairn.runtime import records as r
from cairn.runtime.connections import Connection
from cairn.runtime.frames import Closed, Frame, Sent, StateFrame
from cairn.runtime.settings import ATTACHMENT_FRAMES_MAX
from cairn.runtime.storage.store import Address

if TYPE_CHECKING:
    from cairn.runtime.objects import Objects

#: Close codes of our own making: a reader that is too slow (RFC 6455: try again later), and an object that is no more: one of
#: the range after which the npm client does not connect again, which would make the object anew.
TOO_SLOW = 1013
GONE = 4410

#: Of a connection whose process was given up and is there after all: the client comes back.
LOST, RESTARTED = 1006, 1012


class Attachment:
    """What `Objects.connect` returns. Close it when the socket is gone."""

    def __init__(self, objects: Objects, address: Address, connection: Connection, *, registered: bool) -> None:
        self.address = address
        self.connection = connection
        self.state: msgspec.Raw | None = None
        """The state before the first frame of `frames`, then as of the last one taken; None: the object has none."""
        self.opened = asyncio.Event()
        """Set when its opening has been read from the log: frames come from then on."""
        self.is_closed = False
        self._objects = objects
        self._registered = registered
        self._queue: deque[tuple[Frame, msgspec.Raw | None]] = deque()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        if not registered:
            self.opened.set()

    # --- what the object tells the client

    async def frames(self) -> AsyncGenerator[Frame]:
        """Each frame, in log order; the last one is `Closed`. *Cancelled*: nothing is lost, ask again."""
        while True:
            while self._queue:
                frame, state = self._queue.popleft()
                if state is not None:
                    self.state = state
                yield frame
                if isinstance(frame, Closed):
                    return
            self._news.clear()
            await self._news.wait()

    def put(self, frame: Frame) -> None:
        """Hand over a frame. One too many ends the attachment: the client comes back and gets the state as it is then."""
        if self.is_closed:
            return
        if len(self._queue) >= ATTACHMENT_FRAMES_MAX and not isinstance(frame, Closed):
            self._queue.clear()
            frame = Closed(TOO_SLOW, "frames were not taken in time")
        self.is_closed = isinstance(frame, Closed)
        self._queue.append((frame, frame.state if isinstance(frame, StateFrame) else None))
        self._news.set()

    async def caught_up(self) -> None:
        """What the log said at the call is in `frames`: whoever answers a call then is not ahead of what the call changed."""
        await self._objects.caught_up(self.address)

    def apply(self, record: r.Record, state: msgspec.Raw | None) -> None:
        """One record of the log, in order; `state` is the whole state after its row, if the row changed it."""
        connection = self.connection
        if isinstance(record, r.ConnectionOpened) and record.connection == connection.id:
            if record.token == connection.token:
                connection.readonly, connection.protocol = record.readonly, record.protocol
                connection.tags = record.tags
                self.opened.set()
        elif not self.opened.is_set():
            if state is not None:
                self.state = state
        elif isinstance(record, r.ConnectionChanged) and record.token == connection.token:
            connection.readonly = record.readonly
        elif isinstance(record, r.ConnectionClosed) and record.token == connection.token:
            # 1006 says that there was no close frame, so it cannot be in one.
            self.put(Closed(RESTARTED if record.code == LOST else record.code, record.reason))
        elif isinstance(record, r.StateChanged) and state is not None:
            if connection.protocol and record.source != connection.id:
                self.put(StateFrame(state, record.source))
        elif isinstance(record, r.ObjectSent):
            self.deliver(record)

    def deliver(self, sent: r.ObjectSent) -> None:
        """A frame, if it is for this one."""
        id = self.connection.id
        if sent.call or id in sent.without or (sent.to is not None and id not in sent.to):
            return
        data = sent.text if sent.text is not None else sent.binary
        if data is not None:
            self.put(Sent(data))
        if sent.code is not None:
            self.put(Closed(sent.code, sent.reason))

    # --- what the client tells the object

    async def message(self, data: str | bytes) -> None:
        """`on_message` has ended; messages of one attachment are heard in order. *Raises* RemoteError: what it raised."""
        async with self._turn:
            await self._objects.invoke_for(self, "message", msgspec.json.encode(r.ObjectSent(**_payload(data))))

    async def set_state(self, state: msgspec.Raw | bytes) -> None:
        """The state is this, whole; every other client is told. *Durable*. *Raises* Denied: the connection is readonly;
        Refused: it does not fit its type, or `validate_state` raised. Then nothing has changed."""
        if self.connection.readonly or not self._registered:
            raise Denied("Connection is readonly")
        async with self._turn:
            await self._objects.invoke_for(self, "set_state", bytes(state))

    async def call(self, method: str, arguments: Sequence[Any]) -> msgspec.Raw:
        """What the callable method returned. *Raises* as `Objects.call`."""
        connection, address = self.connection, self.address
        return await self._objects.call(
            address.kind,
            address.id,
            method,
            arguments,
            by=connection.by,
            connection=connection.id,
            tenant=address.tenant,
        )

    def stream(self, method: str, arguments: Sequence[Any]) -> AsyncGenerator[msgspec.Raw]:
        """What the streaming method yields. *Raises* as `Objects.stream`."""
        connection, address = self.connection, self.address
        return self._objects.stream(
            address.kind,
            address.id,
            method,
            arguments,
            by=connection.by,
            connection=connection.id,
            tenant=address.tenant,
        )

    async def close(self, code: int = 1006, reason: str = "") -> None:
        """The socket is gone: nothing more comes, and `on_close` has been called. *Idempotent*."""
        self.put(Closed(code, reason))
        if self._objects.detach(self) and self._registered:
            async with self._turn:
                arguments = msgspec.json.encode([code, reason])
                await self._objects.invoke_for(self, "close", arguments)


def _payload(data: str | bytes) -> dict[str, Any]:
    return {"text": data} if isinstance(data, str) else {"binary": bytes(data)}
