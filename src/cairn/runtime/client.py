"""What any process may ask of an instance, owner or not: accept work, abort it, signal it, and wait for its outcome.

Laws. Each request is one append (S1: when it returned, it is in the log) and wakes the instance wherever it will run next.
Answers are read from the log; nobody is asked directly, so it does not matter who owns the instance or whether anybody
does.
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from cairn.clock import Clock
from cairn.errors import FiberFailed, NotFound, UsageError
from cairn.ids import Ids
from cairn.runtime import answering, log
from cairn.runtime import records as r
from cairn.runtime.answering import Question as Question
from cairn.runtime.application import Application
from cairn.runtime.encoding import as_json
from cairn.runtime.instance import Fold, wake_now
from cairn.runtime.schedule import Timing
from cairn.runtime.schedule_state import ScheduleState
from cairn.runtime.state import FiberState
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


FiberStatus = Literal["accepted", "running", "parked", "settled", "completed", "failed", "aborted", "dead"]


def _is(fiber: FiberState, status: FiberStatus) -> bool:
    return fiber.dead if status == "dead" else status in (fiber.phase.value, fiber.outcome)


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
        self._decoder = r.decoder(application.records)

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
        if isinstance(timeout_seconds, (int, float)) and not timeout_seconds > 0:
            raise UsageError(f"'{method}' was given {timeout_seconds!r} s to run; write a number of seconds above 0, or None")
        name = fiber if fiber is not None else self.ids.new("fib")
        raw = as_json(f"the arguments of '{method}'", arguments)
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

    async def signal(self, id: str, name: str, payload: Any = None, *, fiber: str | None = None, key: str | None = None) -> int:
        """The named signal is in the log: whoever waits for it, now or later, takes it, once. *Idempotent* by `key`.
        *Raises* NotFound."""
        raw = as_json(f"the payload of signal '{name}'", payload)
        sent = self.ids.new("sig")
        record = r.SignalSent(name=name, at=self.clock.wall(), payload=raw, fiber=fiber, id=sent)
        admission = Admission(f"signal:{key}", sent, digest(name, [payload, fiber])) if key is not None else None
        return await self.request(id, record, admission=admission)

    async def cancel(self, id: str, target: str) -> int:
        """The fiber of that id is to be aborted, the schedule of that name is no more (a run that began goes on). Legal, and
        without effect, when there is neither. *Raises* NotFound."""
        return await self.request(id, r.CancelRequested(target=target, at=self.clock.wall()))

    async def forget(self, id: str, fiber: str) -> int:
        """The fiber's outcome is not remembered any more, or will not be once it has settled; its key stays used."""
        return await self.request(id, r.ForgetRequested(fiber=fiber, at=self.clock.wall()))

    async def resolve(
        self, id: str, fiber: str, outcome: r.Outcome = "completed", *, result: Any = None, reason: str = "", by: str = ""
    ) -> int:
        """A person gives a fiber its outcome: it settles so, whatever it is at. One that has settled keeps what it settled
        with (S7); a dead letter is marked as seen to. *Raises* NotFound: no such fiber."""
        if (await self.fold(id)).runtime.fiber(fiber) is None:
            raise NotFound(f"{self.address(id)} has no fiber '{fiber}', or has forgotten it")
        error = (
            r.ErrorInfo(kind="resolved", message=reason or f"resolved by {by or 'somebody'}")
            if outcome != "completed"
            else None
        )
        raw = as_json(f"the result of fiber '{fiber}'", result)
        now = self.clock.wall()
        return await self.request(id, r.ResolveRequested(fiber=fiber, outcome=outcome, at=now, result=raw, error=error, by=by))

    async def answer(self, id: str, fiber: str, name: str, digest: str, answer: Any, *, by: str = "") -> int:
        """The fiber's question `name` is answered; its digest says which question was read. The first answer counts; its
        ordinal.

        *Durable* when it returns. *Idempotent*: the same answer again is the first one. *Raises* NotFound: nothing of that
        name was asked; Conflict: it asks something else, it is too late, or somebody was faster; Denied: `by` may not answer
        it; UsageError: that is no answer to it.
        """
        return (await answering.give(self, id, fiber, name, digest, answer, by=by)).ordinal

    async def questions(self, id: str) -> list[Question]:
        """What the instance's fibers ask and nobody has answered, oldest first. Empty when there is no such instance."""
        return answering.questions_of((await self.fold(id)).runtime)

    # --- schedules

    async def schedule(
        self,
        id: str,
        timing: Timing,
        method: str,
        arguments: Any = None,
        *,
        key: str = "",
        timeout_seconds: float | None = None,
        declared: bool = False,
    ) -> str:
        """`method` is called at these times until the schedule is cancelled; its name, which is `key` if there is one.

        *Durable* when it returns; the instance exists. *Idempotent* by `key`: one for once is scheduled once for as long as the
        instance lives (another body is a Conflict), one for many times replaces what had that name, if it is another.
        """
        if not isinstance(timing, Timing):
            raise UsageError(f"{timing!r} is no timing; use at(…), after(…), every(…) or cron(…)")
        now = self.clock.wall()
        key = key or timing.key
        name = key or self.ids.new("sch")
        once = timing.when.seconds is None and not timing.when.cron
        first = timing.first(now)
        record = r.ScheduleRequested(
            name=name,
            method=method,
            when=r.When(at=first, tz=timing.when.tz, jitter=timing.when.jitter) if once else timing.when,
            at=now,
            first=first,
            arguments=as_json(f"the arguments of '{method}'", arguments),
            missed=timing.missed,
            overlap=timing.overlap,
            retry=timing.retry,
            timeout_seconds=timeout_seconds,
            declared=declared,
        )
        said = [timing.after_seconds, None if timing.after_seconds is not None else timing.when.at, arguments]
        admission = Admission(f"schedule:{key}", name, digest(method, said)) if once and key else None
        address = self.address(id)
        request = Append(0, self._batch(record), due=(wake_now(now),), admission=admission)
        await self.store.admit(address, self._creation(address, now, ()), request, UidCondition.ANY)
        return name

    async def schedules(self, id: str) -> list[ScheduleState]:
        """What is scheduled, the next first."""
        return sorted((await self.fold(id)).runtime.schedules.values(), key=lambda schedule: schedule.next)

    # --- looking

    async def fold(self, id: str, at: int | None = None) -> Fold:
        """What the log says, at its head or at an ordinal; of an instance that does not exist, nothing."""
        address = self.address(id)
        row = await self.store.find(address)
        fold = Fold(self.application, row.n if row is not None else 0, address)
        if row is not None:
            await fold.load(self.store, at)
        return fold

    async def inspect(self, id: str, fiber: str) -> FiberState | None:
        """How a fiber stands; None when it was never accepted, or is forgotten."""
        return (await self.fold(id)).runtime.fiber(fiber)

    async def fibers(
        self, id: str, *, status: FiberStatus | None = None, method: str | None = None, limit: int = 100
    ) -> list[FiberState]:
        """The instance's fibers in the order they were accepted, the newest `limit` of them: all, or those of one status (a
        phase, an outcome, or `dead`: failed because its tries were spent, and nobody has seen to it)."""
        if status is not None and status not in get_args(FiberStatus):
            raise UsageError(f"status={status!r} is none of {', '.join(map(repr, get_args(FiberStatus)))}")
        runtime = (await self.fold(id)).runtime
        every = (*runtime.settled.values(), *runtime.fibers.values())
        found = [each for each in every if method in (None, each.method) and (status is None or _is(each, status))]
        return sorted(found, key=lambda each: each.ordinal)[-limit:]

    async def request(self, id: str, *records: r.Record, admission: Admission | None = None) -> int:
        """The records, all of the closed list of requests, are in the log of an existing instance, which wakes. The ordinal."""
        assert all(isinstance(record, r.REQUESTS) for record in records), "only requests need no epoch"
        row = await log.locate(self.store, self.address(id))
        append = Append(row.n, self._batch(*records), due=(wake_now(self.clock.wall()),), admission=admission)
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
        return Batch(r.readable(records, self._decoder), application.project(None, records), application.projection)

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
