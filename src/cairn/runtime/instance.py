"""An activated instance: its fold in memory, kept equal to the log, and the only way its owner appends.

Laws. The fold only ever changes by applying rows in log order; what is appended is applied after the store returned (S10),
and what others appended in between is read and applied first. When the store says *fenced*, this object is dead: it drops
out and never retries (S4). One `Instance` exists per (process, n); several tasks may append through it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from cairn.clock import Clock
from cairn.errors import Conflict, Fenced, FiberFailed, NotFound, StoreError
from cairn.ids import Ids
from cairn.runtime import records as r
from cairn.runtime.application import Application
from cairn.runtime.fold import CHECKPOINT_ROWS_MIN as CHECKPOINT_ROWS_MIN
from cairn.runtime.fold import Fold as Fold
from cairn.runtime.handlers import Handlers
from cairn.runtime.settings import APPEND_RETRY_SECONDS, APPEND_RETRY_WAIT_SECONDS
from cairn.runtime.steady import SteadyClock
from cairn.runtime.storage.store import Append, Batch, Due, Durability, InstanceRow, Store
from cairn.runtime.threads import INLINE, Threads
from cairn.runtime.together import Together

if TYPE_CHECKING:
    from cairn.runtime.workspace import Workspace

logger = logging.getLogger("cairn.runtime")

#: The alarm of an instance: from then on somebody has to own it. A request sets it to now; it stays there while the instance
#: is owned, so that the work of a dead owner is found at once; hibernating sets it to when the next fiber may run.
WAKE = "wake"

#: Marks an instance that asks somebody something, so that all that do can be found without a look at the others. It never
#: rings. Set with the question, taken back at the latest when the instance goes to sleep: who looks it up looks at the log.
QUESTIONS = "questions"
NEVER = 253_402_300_799.0

#: What an alarm for *now* is divided by: a time long past, in the order of the requests. A wall clock that is set back after a
#: request was taken must not put it off (L1).
AT_ONCE_SCALE = 1e9


def wake_at(at: float) -> Due:
    """The instance is to be owned from that wall time on."""
    return Due(WAKE, at)


def wake_now(wall: float) -> Due:
    """The instance is to be owned at once, whatever becomes of the wall clock."""
    return Due(WAKE, wall / AT_ONCE_SCALE)


class Instance(Fold):
    """A fold that owns its instance under `epoch`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        application: Application,
        row: InstanceRow,
        worker: str,
        threads: Threads = INLINE,
    ) -> None:
        super().__init__(application, row.n, row.address)
        self.store = store
        self.clock = SteadyClock(clock)
        self.ids = ids
        self.worker = worker
        self.threads = threads
        self.together = Together(self)
        self.handlers = Handlers(clock, str(row.address))
        self.activation: Any = None
        """What the application keeps in memory for it. `objects` is the way to others; None outside a worker."""
        self.objects: Callable[[], Any] | None = None
        self.uid = row.uid
        self.epoch = row.epoch
        self.fenced = False
        self.workspace: Workspace | None = None
        """Its files, once somebody has used them: `Workspace.of(instance)`."""
        self.tidied: int | None = None
        """The ordinal up to which the application has tidied up; None: it has not looked since the instance was activated."""
        self.on_written: Callable[[int, Sequence[r.Record]], None] = lambda ordinal, records: None
        """Told of each batch written here, once it is durable and folded, in order; must not raise and must not wait."""
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._observers: list[Callable[[], None]] = []

    @classmethod
    async def activate(
        cls, store: Store, clock: Clock, ids: Ids, application: Application, row: InstanceRow, worker: str
    ) -> Instance | None:
        """Fold the log and claim the instance; None when another worker claimed it first.

        Durable: the claim is a record, so whatever runs next has been counted as an attempt before it begins.
        """
        instance = cls(store, clock, ids, application, row, worker)
        await instance.load(store)
        return instance if await instance.claim() else None

    async def claim(self) -> bool:
        """Own the instance whose log was folded; False when another worker claimed it first."""
        epoch = self.epoch
        claimed: list[r.Record] = []

        def make(epoch: int) -> Batch:
            claimed[:] = [r.InstanceClaimed(epoch=epoch, worker=self.worker, at=self.clock.wall())]
            return self._batch(claimed)

        appended = await self.store.claim(self.n, self.worker, expected_epoch=epoch, make=make)
        if appended is None:
            return False
        self.epoch = epoch + 1
        await self._advance(appended.prev, appended.ordinal, claimed)
        return True

    async def append(
        self,
        records: Sequence[r.Record],
        *,
        durability: Durability = Durability.FACT,
        due: Sequence[Due] = (),
        blobs: Sequence[str] = (),
    ) -> int:
        """The records are in the log (a fact: on the disk) and folded; returns their ordinal.

        *Cancelled*: nothing is written, or the batch is written and folded. *Raises* Fenced; FiberFailed when the fiber
        is settled already (S7).
        """
        async with self._turn:
            if self.fenced:
                raise Fenced(self._fenced_text())
            for record in records:
                if (refusal := self.runtime.refusal(record)) is not None:
                    raise FiberFailed(refusal)  # S7
            if (refusal := self.application.refusal(self.state, records)) is not None:
                raise FiberFailed(refusal)  # S14
            if (refusal := self.files.refusal(records)) is not None:
                raise Conflict(f"a change of the files of {self.address} cannot follow: {refusal}")  # S14
            if any(isinstance(record, r.FiberWaiting) and record.on == "answer" for record in records):
                due = (*due, Due(QUESTIONS, NEVER))
            append = Append(self.n, self._batch(records), self.epoch, durability, tuple(due), blobs=tuple(blobs))
            ordinal = await self._write(append, records)
        if self.wants_checkpoint():
            await self.save_checkpoint()
        return ordinal

    async def _write(self, append: Append, records: Sequence[r.Record]) -> int:
        """Put one batch into the log and fold it.

        A store that is busy or full has written nothing: it is asked again for a while, because what is to be recorded may
        be the outcome of an effect, which would be unknown for ever.
        """
        limit = self.clock.monotonic() + APPEND_RETRY_SECONDS
        while True:
            try:
                return await self._hand_over(append, records)
            except StoreError as error:
                if not error.retryable or self.clock.monotonic() > limit:
                    raise
                logger.warning("%s waits with what it has to record: %s", self.address, error)
            await self.clock.sleep(APPEND_RETRY_WAIT_SECONDS)

    async def _hand_over(self, append: Append, records: Sequence[r.Record]) -> int:
        """One try. A cancellation waits for the answer: a write that was handed over happens, and a fold that did not know
        of it would decide the same thing twice."""
        write = asyncio.ensure_future(self.store.append(append))
        cancelled: asyncio.CancelledError | None = None
        while not write.done():
            try:
                await asyncio.shield(write)
            except asyncio.CancelledError as error:
                cancelled = error
            except BaseException:
                break
        try:
            appended = write.result()
        except Fenced:
            self.fence()
            raise
        await self._advance(appended.prev, appended.ordinal, records)
        if cancelled is not None:
            raise cancelled
        return appended.ordinal

    async def sync(self, to: int | None = None) -> None:
        """Fold what others appended since; nothing when the fold is at ordinal `to` already."""
        async with self._turn:
            before = self.head
            if to is None or before < to:
                await self.catch_up(self.store)
        if self.head != before:
            self.announce()

    async def caught_up(self) -> None:
        """What was handed to the store before this call is folded: readers of the log may have seen it already."""
        async with self._turn:  # whoever appends has it until it is
            return

    async def watch(self) -> None:
        """Keep folding what others append, until cancelled; `changed` tells. An instance that is deleted has no owner."""
        while not self.fenced:
            try:
                await self.sync(await self.store.changed(self.n, self.head))
            except NotFound:
                self.fence()
                return
            if self.runtime.epoch > self.epoch:
                self.fence()

    def changed(self) -> Coroutine[Any, Any, Any]:
        """An awaitable that ends at the next fold or fence *after this call* (not after its first await)."""
        return self._changed.wait()

    def observe(self, observer: Callable[[], None]) -> Callable[[], None]:
        """Call `observer` at every fold and fence from now on, until the function returned here is called."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def announce(self) -> None:
        event, self._changed = self._changed, asyncio.Event()
        event.set()
        for observer in tuple(self._observers):
            observer()

    def fence(self) -> None:
        """A newer epoch owns the instance: nothing more is appended from here."""
        self.fenced = True
        self.announce()

    async def save_checkpoint(self) -> None:
        ordinal, data = self.head, self.checkpoint()
        await self.store.save_checkpoint(self.n, self.epoch, ordinal, data)

    async def release(self, wake: Callable[[], Due]) -> bool:
        """Hibernate: the instance is rows on disk again and free for anybody, with the alarm `wake()`. What was running goes on
        at the next claim, without an attempt being counted.

        False when something was appended that changes what there is to do: it is folded now, decide again.
        """
        async with self._turn:
            if self.fenced:
                return True
            before = self.head
            await self.catch_up(self.store)
            if self.head != before:
                self.announce()
                return False
            if self.rows_since_checkpoint > CHECKPOINT_ROWS_MIN // 4:
                await self.save_checkpoint()
            batch = self._batch([r.InstanceReleased(at=self.clock.wall())])
            due = [wake(), Due(QUESTIONS, NEVER if self.runtime.asks() else None)]
            released = await self.store.release(self.n, self.epoch, batch, due, expected_head=self.head)
        if released:
            self.fence()
        else:
            await self.sync()
        return released

    async def drop(self) -> None:
        """Let go without a word to the log: what was running has lost track of its effects, and the next claim counts an
        attempt. The alarm stays as it is, in the past."""
        if not self.fenced:
            self.fence()
            await self.store.release(self.n, self.epoch, None)

    def _batch(self, records: Sequence[r.Record]) -> Batch:
        application = self.application
        return Batch(r.readable(records, self._decoder), application.project(self.state, records), application.projection)

    async def _advance(self, prev: int, ordinal: int, records: Sequence[r.Record]) -> None:
        """Apply own records at `ordinal`, after whatever others put before them."""
        if prev == self.head:
            self.apply(records, ordinal, 256)
        else:
            await self.catch_up(self.store, ordinal)
        self.on_written(ordinal, records)
        self.announce()

    def _fenced_text(self) -> str:
        return (
            f"instance {self.address} is owned by a newer epoch than {self.epoch}, which this worker holds. "
            f"Its work was taken over; stop"
        )
