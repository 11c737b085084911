"""One process's look at one object for the sake of the sockets it has: a reader of the log, and a fold of its own.

Laws. It owns nothing and asks nobody: what comes is what the log says, in its order, whoever runs the object. The store's word
that something was appended is a hint; a lost one costs a poll.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from cairn.clock import Clock
from cairn.errors import NotFound, StoreCorrupt, StoreError, UsageError
from cairn.runtime import log
from cairn.runtime import records as r
from cairn.runtime.application import Application
from cairn.runtime.attachment import GONE, Attachment
from cairn.runtime.frames import Closed
from cairn.runtime.handling import Shown
from cairn.runtime.instance import Fold
from cairn.runtime.settings import FOLLOW_POLL_SECONDS, FOLLOW_RETRY_SECONDS
from cairn.runtime.storage.store import Address, Row, Store

logger = logging.getLogger("cairn.runtime")

#: The socket is closed with it when the log cannot be read on (RFC 6455: an unexpected condition).
BROKEN = 1011


class Following:
    """Tells attachments what the log of their object says. Ends with its last attachment."""

    def __init__(
        self, store: Store, clock: Clock, application: Application, address: Address, forget: Callable[[Address], None]
    ) -> None:
        self.is_closed = False
        self._store = store
        self._clock = clock
        self._application = application
        self._address = address
        self._forget = forget
        self._decoder = r.decoder(application.records)
        self._fold = Fold(application, 0, address)
        self._attachments: list[Attachment] = []
        self._pending: list[tuple[int, Sequence[r.ObjectSent]]] = []
        self._progress = asyncio.Event()
        self._starting: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """It has read the log to its head as it is at this moment or a later one. *Raises* StoreError; nothing follows then."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        try:
            await asyncio.shield(self._starting)
        except Exception:
            self._end()
            raise

    async def _start(self) -> None:
        await self._find()
        self._task = asyncio.create_task(self._run(), name=f"following {self._address}")

    async def _find(self) -> bool:
        row = await self._store.find(self._address)
        if row is not None:
            fold = Fold(self._application, row.n, self._address)
            await fold.load(self._store)
            self._fold = fold
        return row is not None

    def add(self, attachment: Attachment) -> None:
        """The attachment has the state as it is now, and gets everything that comes after."""
        attachment.state = self._shown()
        self._attachments.append(attachment)

    def remove(self, attachment: Attachment) -> bool:
        """Nothing more comes for it; False when it had gone before."""
        if attachment not in self._attachments:
            return False
        self._attachments.remove(attachment)
        if not self._attachments:
            self._end()
        return True

    def deliver(self, after: int, sent: Sequence[r.ObjectSent]) -> bool:
        """Hand over what has no record, behind the row at `after`. False, and nothing done, when a socket is not here."""
        here = {attachment.connection.id for attachment in self._attachments if attachment.opened.is_set()}
        if any(each.to is None or not here.issuperset(each.to) for each in sent):
            return False
        self._pending.append((after, sent))
        self._flush()
        return True

    async def caught_up(self) -> None:
        """What was in the log at the call has been handed over; at once when nothing follows any more."""
        row = await self._store.instance(self._fold.n) if self._fold.n else None
        while row is not None and self._fold.head < row.head and not self.is_closed:
            await self._progress.wait()

    def _moved(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    async def close(self) -> None:
        """It has stopped."""
        self._end()
        if self._task is not None:
            await asyncio.wait({self._task})

    def _end(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._moved()
            self._forget(self._address)
            if self._task is not None:
                self._task.cancel()

    # --- reading

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except NotFound:
                self._tell_all(Closed(GONE, f"{self._address} was destroyed"))
                return
            except (StoreCorrupt, UsageError) as error:
                logger.error("%s cannot be followed any further: %s", self._address, error)
                self._tell_all(Closed(BROKEN, "the log cannot be read"))
                return
            except StoreError as error:
                logger.warning("%s is followed on as soon as the store can: %s", self._address, error)
                await self._clock.sleep(FOLLOW_RETRY_SECONDS)

    async def _read(self) -> None:
        while self._fold.n == 0:
            await self._store.wait_for_work(FOLLOW_POLL_SECONDS)
            if await self._begin():
                break
        while True:
            async for row in log.read(self._store, self._fold.n, self._fold.head):
                await self._apply(row)
                self._flush()
                self._moved()
            await self._store.changed(self._fold.n, self._fold.head)

    async def _begin(self) -> bool:
        """The instance that did not exist does: its clients are told the state it begins with."""
        if not await self._find():
            return False
        state = self._shown()
        for attachment in self._attachments:
            if state is not None and state != attachment.state:
                attachment.apply(r.StateChanged(changes={}), state)
        return True

    async def _apply(self, row: Row) -> None:
        fold = self._fold
        if row.merged_from is not None and row.merged_from <= fold.head < row.ordinal:
            # What was merged is deltas of one answer: nothing that concerns a socket.
            again = Fold(self._application, fold.n, self._address)
            await again.load(self._store, row.ordinal)
            self._fold = again
            return
        fold.apply_row(row)
        records = log.decode(self._decoder, row, str(self._address))
        changed = any(isinstance(record, r.StateChanged) for record in records)
        state = self._shown() if changed and self._attachments else None
        for record in records:
            if isinstance(record, _TOLD):
                for attachment in tuple(self._attachments):
                    attachment.apply(record, state)

    def _flush(self) -> None:
        """What was sent behind a row that is read by now."""
        while self._pending and self._pending[0][0] <= self._fold.head:
            _, sent = self._pending.pop(0)
            for each in sent:
                for attachment in self._attachments:
                    attachment.deliver(each)

    def _tell_all(self, closed: Closed) -> None:
        for attachment in self._attachments:
            attachment.put(closed)
            attachment.opened.set()
        self._forget(self._address)
        self.is_closed = True
        self._moved()

    def _shown(self) -> msgspec.Raw | None:
        application = self._application
        return application.shown(self._fold.state) if isinstance(application, Shown) else None


_TOLD = (r.StateChanged, r.ObjectSent, r.ConnectionOpened, r.ConnectionChanged, r.ConnectionClosed)
