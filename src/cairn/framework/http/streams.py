"""Following a conversation: what is new after an offset, at once, as a long-poll, or for ever as server-sent events.

Laws. Every byte comes from a range read of the store (`frames.py`); what wakes a reader is only a hint to read. A reader is a
position and nothing else: a slow one holds no queue, its next frame is larger. Nothing is sent before it is durable, and no
stream ends by itself: a client that is let go comes back with its offset. A stuck reader, a revoked credential and a deleted
conversation end a stream.
"""

from __future__ import annotations

import asyncio
import math

import msgspec

from cairn.errors import NotFound
from cairn.framework.http import offsets, problems
from cairn.framework.http.frames import Frame
from cairn.framework.http.limits import WRITE_BYTES
from cairn.framework.http.presence import End, while_present
from cairn.framework.http.request import Request
from cairn.framework.http.responses import HARDENING, JSON, NO_STORE, Send, encoded, send_bytes
from cairn.framework.http.service import Service
from cairn.runtime.storage.store import InstanceRow

_SSE_HEADERS = encoded(
    {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no", **HARDENING}
)
_HEARTBEAT = b": heartbeat\n\n"

#: A timer may ring this much before its time; what is due by then is due, or it would be a whole period late.
EARLY_SECONDS = 0.05


async def updates(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}/{id}?view=updates`."""
    if request.values("tail"):
        raise problems.invalid_request("'tail' is not possible.")
    given = request.value("offset")
    if given is None:
        raise problems.invalid_request("'offset' is needed: -1 for everything, or where the last answer ended.")
    after, live = offsets.ordinal(given), request.value("live")
    if live not in (None, "long-poll", "sse"):
        raise problems.invalid_request(f"live='{live[:40]}' is none of long-poll, sse.")
    row = await service.row(request)
    if after > max(row.head, row.reserved):
        raise problems.offset_gone(given, offsets.text(row.head))
    if live == "sse":
        with service.quota.reader(request.identity, request.peer):
            await _Stream(service, request, send, row, after).run()
        return
    if live == "long-poll":
        with service.quota.reader(request.identity, request.peer):
            if not await _wait(service, request, row, after):
                return
    await _answer(service, send, row, after)


async def _answer(service: Service, send: Send, row: InstanceRow, after: int) -> None:
    head = (await service.store.instance(row.n) or row).head
    frame = await service.frames.after(row, after, head)
    headers = {**NO_STORE, "stream-next-offset": offsets.text(frame.next)}
    if frame.next >= head:
        headers["stream-up-to-date"] = "true"
    await send_bytes(send, 200, b"[%s]" % _with_checkpoint(row, frame), JSON, headers)


def _checkpoint(row: InstanceRow) -> bytes:
    return msgspec.json.encode({"type": "stream-checkpoint", "incarnation": row.incarnation})


def _with_checkpoint(row: InstanceRow, frame: Frame) -> bytes:
    checkpoint = _checkpoint(row)
    return b"%s,%s" % (checkpoint, frame.chunks) if frame.chunks else checkpoint


async def _wait(service: Service, request: Request, row: InstanceRow, after: int) -> bool:
    """Park until something is beyond `after`, time is over, or the server stops; False when the client has gone."""
    if row.head > after:
        return True

    async def arrived() -> None:
        await service.store.changed(row.n, after, service.limits.long_poll_seconds)

    return await while_present(arrived(), request.receive, service.stopping) is not End.GONE


class _Stream:
    """One reader of server-sent events."""

    def __init__(self, service: Service, request: Request, send: Send, row: InstanceRow, after: int) -> None:
        self._service = service
        self._request = request
        self._send = send
        self._row = row
        self._after = after
        self._clock = service.app.clock
        self._said = self._controlled = self._checked = self._clock.monotonic()

    async def run(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": _SSE_HEADERS})
        try:
            end = await while_present(self._tell(), self._request.receive, self._service.stopping)
        except NotFound:
            end = End.DONE  # deleted, or not theirs any more
        except TimeoutError:
            end = End.GONE  # nobody takes anything; a last word would only wait too
        if end is not End.GONE:
            await self._send({"type": "http.response.body", "body": b""})

    async def _tell(self) -> None:
        """The checkpoint, and from then on everything there is."""
        await self._write(b"event: data\ndata:[%s]\n\n" % _checkpoint(self._row))
        head = self._row.head
        while True:
            await self._recheck()
            frame = await self._service.frames.after(self._row, self._after, head)
            if not frame.rows and self._after < head:
                raise NotFound("the conversation was deleted")
            self._after = frame.next
            await self._write(*_events(frame, is_up_to_date=frame.next >= head), control=True)
            while self._after >= head:
                head = await self._idle()

    async def _idle(self) -> int:
        """Wait for the next append, saying every now and then that the stream lives; returns the head."""
        limits = self._service.limits
        due = min(self._said + limits.heartbeat_seconds, self._controlled + limits.control_seconds, self._recheck_at())
        head = await self._service.store.changed(self._row.n, self._after, max(0.0, due - self._clock.monotonic()))
        if head > self._after:
            return head
        await self._recheck()
        now = self._clock.monotonic() + EARLY_SECONDS
        if now >= self._controlled + limits.control_seconds:
            await self._write(_control(self._after, is_up_to_date=True), control=True)
        elif now >= self._said + limits.heartbeat_seconds:
            await self._write(_HEARTBEAT)
        return head

    async def _recheck(self) -> None:
        """Raises NotFound when it is time to look at the credential and it does not hold any more."""
        now = self._clock.monotonic() + EARLY_SECONDS
        if now >= self._recheck_at():
            self._checked = now
            if not await self._service.authenticator.still_valid(self._request.identity):
                raise NotFound("the credential was revoked")

    def _recheck_at(self) -> float:
        """When the credential has to be looked at again; a person at this machine has none."""
        if self._service.app.auth is None:
            return math.inf
        return self._checked + self._service.limits.identity_recheck_seconds

    async def _write(self, *parts: bytes, control: bool = False) -> None:
        if sum(map(len, parts)) <= WRITE_BYTES:
            await self._hand_over(b"".join(parts))
        else:
            for part in parts:  # not as one: the frame is every reader's, and who is slow must not hold a copy of it
                for start in range(0, len(part), WRITE_BYTES):
                    await self._hand_over(part[start : start + WRITE_BYTES])
        self._said = self._clock.monotonic()
        if control:
            self._controlled = self._said

    async def _hand_over(self, data: bytes) -> None:
        async with asyncio.timeout(self._service.limits.write_stall_seconds):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})


def _events(frame: Frame, *, is_up_to_date: bool) -> tuple[bytes, ...]:
    control = _control(frame.next, is_up_to_date=is_up_to_date)
    return (b"event: data\ndata:[", frame.chunks, b"]\n\n", control) if frame.chunks else (control,)


def _control(ordinal: int, *, is_up_to_date: bool) -> bytes:
    up_to_date = b',"upToDate":true' if is_up_to_date else b""
    return b'event: control\ndata:{"streamNextOffset":"%s"%s}\n\n' % (offsets.text(ordinal).encode(), up_to_date)
