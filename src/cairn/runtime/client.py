"""What any process may ask of an instance, owner or not: accept work, abort it, signal it, and wait for its outcome.

Laws. Each request is one append (S1: when it returned, it is in the log) and wakes the instance wherever it will run next.
Answers are read from the log; nobody is asked directly, so it does not matter who owns the instance or whether anybody
does.
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.clock import Clock
from cairn.errors import FiberFailed
from cairn.ids import Ids
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.application import Application
from cairn.runtime.instance import wake_now
from cairn.runtime.storage.store import Address, Admission, Append, Batch, Creation, Store, UidCondition


@dataclass(frozen=True, slots=True)
class Receipt:
    """Work was accepted. `offset` is the head before it: reading after it shows the acceptance and everything since."""

    address: Address
    n: int
    uid: str
    fiber: str
    offset: int
    ordinal: int
    created: bool
    duplicate: bool
    """The key was known: `fiber` is the one that was accepted first."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The one outcome of a fiber (S7)."""

    fiber: str
    outcome: r.Outcome
    ordinal: int
    result: msgspec.Raw
    error: r.ErrorInfo | None = None
    answered_by: str | None = None

    def value(self, type: Any = Any) -> Any:
        """The method's result. Raises FiberFailed, with the recorded error, when there is none."""
        if self.outcome != "completed":
            said = f"{self.error.kind}: {self.error.message}" if self.error is not None else "no error was recorded"
            raise FiberFailed(f"fiber '{self.fiber}' {self.outcome}: {said}", self.outcome)
        return msgspec.json.decode(self.result, type=type)


class _Settled(msgspec.Struct):
    """As much of any record as tells a settlement from the others, whatever vocabulary they are of."""

    type: str
    fiber: msgspec.Raw = r.NULL


_settled_decoder = msgspec.json.Decoder(list[_Settled])
_raw_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_record_decoder = msgspec.json.Decoder(r.FiberSettled)
_SETTLED = b'"fiber.settled"'


class Client:
    """Sends requests to instances of one application."""

    def __init__(self, store: Store, application: Application, *, clock: Clock, ids: Ids, tenant: str = "default") -> None:
        self.store = store
        self.application = application
        self.clock = clock
        self.ids = ids
        self.tenant = tenant

    def address(self, id: str) -> Address:
        return Address(self.application.kind, id, self.tenant)

    async def accept(
        self,
        id: str,
        method: str,
        arguments: Any = None,
        *,
        key: str | None = None,
        timeout_seconds: float | None = None,
        retry: r.Retry | None = None,
        uid: str | UidCondition = UidCondition.ANY,
        also: tuple[r.Record, ...] = (),
        fiber: str | None = None,
    ) -> Receipt:
        """A fiber that calls `method` is accepted; the instance exists. `also` is recorded in the same batch. What the method
        raises ends it, unless `retry` says to call it again.

        *Durable* when it returns (S1). *Idempotent* by `key`: the same key is the same fiber (S6). *Raises* Conflict when the
        key was used with another body, or `uid` does not hold.
        """
        name = fiber if fiber is not None else self.ids.new("fib")
        raw = msgspec.Raw(msgspec.json.encode(arguments))
        at = self.clock.wall()
        accepted = r.FiberAccepted(
            fiber=name, method=method, at=at, arguments=raw, key=key, timeout_seconds=timeout_seconds, retry=retry
        )
        return await self.admit(id, accepted, digest(method, arguments), uid=uid, also=also)

    async def admit(
        self,
        id: str,
        accepted: r.FiberAccepted,
        body: bytes,
        *,
        uid: str | UidCondition = UidCondition.ANY,
        also: tuple[r.Record, ...] = (),
        first: tuple[r.Record, ...] = (),
        blobs: tuple[str, ...] = (),
    ) -> Receipt:
        """`accept`, for whoever makes the record: `body` is the digest that one key stands for, `first` is recorded with the
        creation if there is one, `blobs` are kept as long as the instance."""
        admission = Admission(accepted.key, accepted.fiber, body) if accepted.key is not None else None
        due = (wake_now(accepted.at),)
        request = Append(0, self._batch(accepted, *also), due=due, admission=admission, blobs=blobs)
        address = self.address(id)
        done = await self.store.admit(address, self._creation(address, accepted.at, first), request, uid)
        fiber = done.fiber or accepted.fiber
        return Receipt(address, done.n, done.uid, fiber, done.offset, done.ordinal, done.created, done.duplicate)

    async def abort(self, id: str, fiber: str | None = None, *, reason: str = "") -> int:
        """Everything unsettled, or only `fiber`, is to be aborted; the ordinal of the request. Legal, and without effect, when
        it has settled. *Raises* NotFound."""
        return await self.request(id, r.AbortRequested(at=self.clock.wall(), fiber=fiber, reason=reason))

    async def signal(self, id: str, name: str, payload: Any = None, *, fiber: str | None = None) -> int:
        """The named signal is in the log. *Raises* NotFound."""
        raw = msgspec.Raw(msgspec.json.encode(payload))
        return await self.request(id, r.SignalSent(name=name, at=self.clock.wall(), payload=raw, fiber=fiber))

    async def request(self, id: str, *records: r.Record) -> int:
        """The records, all of the closed list of requests, are in the log of an existing instance, which wakes."""
        assert all(isinstance(record, r.REQUESTS) for record in records), "only requests need no epoch"
        row = await log.locate(self.store, self.address(id))
        append = Append(row.n, self._batch(*records), due=(wake_now(self.clock.wall()),))
        return (await self.store.append(append)).ordinal

    async def settled(self, id: str, fiber: str, *, after: int = log.BEGINNING) -> Settlement:
        """The fiber's settlement, as soon as it is in the log. `after`: an offset before it, such as a receipt's."""
        row = await log.locate(self.store, self.address(id))
        return await settlement(self.store, row.n, fiber, after=after)

    async def result(self, receipt: Receipt, type: Any = Any) -> Any:
        """What the accepted method returned. *Raises* FiberFailed when it failed or was aborted."""
        return (await settlement(self.store, receipt.n, receipt.fiber, after=receipt.offset)).value(type)

    def _batch(self, *records: r.Record) -> Batch:
        application = self.application
        return Batch(r.encode(records), application.project(None, records), application.projection)

    def _creation(self, address: Address, now: float, first: tuple[r.Record, ...]) -> Creation:
        uid = self.ids.new("inst")
        created = r.InstanceCreated(kind=address.kind, id=address.id, uid=uid, at=now)
        return Creation(uid, self.ids.new("inc"), self._batch(created, *first), now)


async def settlement(store: Store, n: int, fiber: str, *, after: int = log.BEGINNING) -> Settlement:
    """Follow the log until the fiber has settled, in whatever process that happens. *Cancelled*: nothing changes."""
    quoted = msgspec.json.encode(fiber)
    async with aclosing(log.tail(store, n, after)) as rows:
        async for row in rows:
            # Batches that cannot hold it are not even decoded: most are deltas.
            if _SETTLED not in row.batch.records or quoted not in row.batch.records:
                continue
            for place, record in enumerate(_settled_decoder.decode(row.batch.records)):
                if record.type == "fiber.settled" and bytes(record.fiber) == quoted:
                    found = _record_decoder.decode(_raw_decoder.decode(row.batch.records)[place])
                    return Settlement(fiber, found.outcome, row.ordinal, found.result, found.error, found.answered_by)
    raise AssertionError("a tail has no end")


def digest(method: str, arguments: Any) -> bytes:
    """What makes two bodies under one key the same: the method and its arguments, however their fields are ordered."""
    return hashlib.sha256(msgspec.json.encode([method, arguments], order="sorted")).digest()
