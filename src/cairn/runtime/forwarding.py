"""A call of an object that another process owns: a request in its log, and the answer read from there.

Laws. The request is durable when it is made (S1), its answer is one settlement (S7). The owner calls the handler again if a
process died in it; one that has yielded chunks is not called again, because they cannot be taken back.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import msgspec

from cairn.errors import CairnError
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.call_errors import error_of
from cairn.runtime.handling import Emit, Invocation
from cairn.runtime.instance import wake_now
from cairn.runtime.storage.store import Admission, Append, Batch, InstanceRow, Store

if TYPE_CHECKING:
    from cairn.runtime.objects import Objects


async def forward(
    objects: Objects, row: InstanceRow, invocation: Invocation, *, key: str | None, emit: Emit | None
) -> msgspec.Raw:
    """What the handler returned, in whatever process. *Cancelled*: it is to be aborted. *Raises* NotFound: the object is gone;
    what the handler raised."""
    store, now = objects.store, objects.clock.wall()
    fiber = objects.ids.new("call")
    accepted = r.FiberAccepted(
        fiber=fiber, method=invocation.method, at=now, arguments=invocation.arguments, key=key, call=invocation.call
    )
    admission = Admission(f"call:{key}", fiber, _digest(invocation)) if key is not None else None
    request = Append(row.n, Batch(r.encode([accepted])), due=(wake_now(now),), admission=admission)
    appended = await store.append(request)
    fiber = appended.fiber or fiber
    try:
        return await answer(store, row.n, fiber, appended.ordinal, emit)
    except asyncio.CancelledError:
        if key is None:
            cancel = r.CancelRequested(target=fiber, at=objects.clock.wall())
            with suppress(CairnError):  # it is gone, or the store is: then nothing of it is done either
                await asyncio.shield(store.append(Append(row.n, Batch(r.encode([cancel])), due=(wake_now(cancel.at),))))
        raise


async def answer(store: Store, n: int, fiber: str, after: int, emit: Emit | None) -> msgspec.Raw:
    """Follow the log until the call has settled; its chunks on the way."""
    quoted = msgspec.json.encode(fiber)
    async with aclosing(log.tail(store, n, after)) as rows:
        async for row in rows:
            # Most batches are not about it, and are not even decoded.
            if quoted not in row.batch.records:
                continue
            for raw in _raws(row.batch.records):
                record = _told(raw)
                if record.type == "object.sent" and record.call == fiber and emit is not None:
                    await emit(msgspec.Raw(bytes(record.chunk)))
                elif record.type == "fiber.settled" and record.fiber == fiber:
                    settled = _settled(raw)
                    if settled.outcome != "completed":
                        raise error_of(settled.error)
                    return msgspec.Raw(bytes(settled.result))
    raise AssertionError("a tail has no end")


class _Told(msgspec.Struct):
    """As much of any record as says whether it is an answer."""

    type: str
    fiber: str | None = None
    call: object = ""
    chunk: msgspec.Raw = r.NULL


_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_told = msgspec.json.Decoder(_Told).decode
_settled = msgspec.json.Decoder(r.FiberSettled).decode


def _digest(invocation: Invocation) -> bytes:
    return hashlib.sha256(msgspec.json.encode([invocation.call.what, invocation.method, invocation.arguments])).digest()
