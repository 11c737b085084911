"""Where the store's work runs: on the caller's thread (here), or on a writer thread and readers (threaded.py).

Same SQL, same planner, same committer; only the place differs. Inline is for `:memory:`, the simulator and tests: it uses
no thread and awaits nothing, so a write is done when the coroutine first returns control.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from cairn.clock import Clock
from cairn.errors import StoreError
from cairn.runtime.storage.commit import Committed, Committer, Space
from cairn.runtime.storage.connection import Connection, SqlError, store_error
from cairn.runtime.storage.lease import Lease
from cairn.runtime.storage.opening import Files
from cairn.runtime.storage.plan import Outcome, Write
from cairn.runtime.storage.turn import busy
from cairn.runtime.storage.wal import Wal

T = TypeVar("T")

#: How long a write waits for the write turn before its caller is told who holds it.
BUSY_SECONDS = 10.0

#: Content of one group, and writes in it: a commit of this size takes a few ms more than the smallest.
GROUP_BYTES = 1 << 20
GROUP_WRITES = 256


class Executor(Protocol):
    """Runs writes in order and reads beside them. Raises StoreError after `close`."""

    async def write(self, write: Write, size: int) -> Outcome:
        """The write's outcome, durable as it asked. Cancelled: it still happens."""
        ...

    async def transact(
        self, work: Callable[[Connection], T], *, synced: bool = False, space: Space = Space.NEEDED, size: int = 0
    ) -> T:
        """`work` was done in a transaction of its own, after everything handed over before; it wrote about `size` bytes."""
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` read from committed rows."""
        ...

    def glance(self, work: Callable[[Connection], T]) -> T | None:
        """What `work`, which is short, read at once on the event loop; None when that is not to be had: use `read`."""
        ...

    def version(self) -> int | None:
        """Changes when another connection has committed; None when that cannot be told just now."""
        ...

    async def hold(self, lease: Lease) -> None:
        """The lease is written, and renewed for as long as its owner is alive."""
        ...

    async def drop(self, worker: str) -> None:
        """The lease is no longer renewed, and its row is gone."""
        ...

    async def close(self) -> None:
        """What was handed over is done; every lease held here is dropped."""
        ...


class InlineExecutor:
    """Everything on the caller's thread, over one connection."""

    def __init__(
        self,
        files: Files,
        committer: Committer,
        where: str,
        clock: Clock,
        told: Callable[[Committed], None],
        busy_seconds: float,
    ) -> None:
        self._files = files
        self._committer = committer
        self._where = where
        self._clock = clock
        self._told = told
        self._busy_seconds = busy_seconds
        self._wal = Wal(files.connection, where) if files.turn is not None else None
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    async def write(self, write: Write, size: int) -> Outcome:
        committed = self._in_turn(lambda: self._committer.commit([write]))
        self._told(committed)
        self._wrote(size)
        return committed.outcomes[0]

    def _wrote(self, size: int) -> None:
        if self._wal is not None:
            self._wal.wrote(1, size)
            if self._wal.wants_round:
                self._checkpoint(self._wal.idle)

    async def transact(
        self, work: Callable[[Connection], T], *, synced: bool = False, space: Space = Space.NEEDED, size: int = 0
    ) -> T:
        result = self._in_turn(lambda: self._committer.run(work, synced=synced, space=space))
        self._wrote(size)
        return result

    async def read(self, work: Callable[[Connection], T]) -> T:
        self._check_open()
        try:
            return work(self._files.connection)
        except SqlError as error:
            raise store_error(error, self._where) from error

    def glance(self, work: Callable[[Connection], T]) -> T | None:
        return None  # `read` is at once here

    def version(self) -> int | None:
        try:
            [(version,)] = self._files.connection.execute("pragma data_version")
        except SqlError:
            return None
        return int(version)

    async def hold(self, lease: Lease) -> None:
        await self.transact(lambda connection: lease.renew(connection, self._clock))
        self._stop_renewing(lease.worker.id)
        if self._files.turn is not None:
            self._files.turn.name = lease.worker.id
        self._renewals[lease.worker.id] = asyncio.get_running_loop().create_task(self._renew(lease))

    async def drop(self, worker: str) -> None:
        self._stop_renewing(worker)
        await self.transact(lambda connection: Lease.drop(connection, worker))

    async def close(self) -> None:
        if self._closed:
            return
        for worker in list(self._renewals):
            if self._committer.failed is None:
                await self.drop(worker)
            else:
                self._stop_renewing(worker)
        self._closed = True
        if self._wal is not None and self._committer.failed is None:
            self._checkpoint(self._wal.truncate)
        self._files.close()

    async def _renew(self, lease: Lease) -> None:
        while True:
            await self._clock.sleep(lease.interval)
            if lease.is_alive():
                try:
                    await self.transact(lambda connection: lease.renew(connection, self._clock))
                except StoreError:
                    pass  # the lease runs out unless a later renewal succeeds; its owner learns by the fence

    def _stop_renewing(self, worker: str) -> None:
        task = self._renewals.pop(worker, None)
        if task is not None:
            task.cancel()

    def _in_turn(self, work: Callable[[], T]) -> T:
        self._check_open()
        turn = self._files.turn
        if turn is None:
            return work()
        if not turn.take_within(self._busy_seconds):
            raise busy(self._where, turn.holder())
        try:
            return work()
        finally:
            if turn.give():
                turn.stand_back()

    def _checkpoint(self, work: Callable[[], Any]) -> None:
        try:
            self._in_turn_if_free(work)
        except SqlError as error:
            self._committer.fail(error)

    def _in_turn_if_free(self, work: Callable[[], Any]) -> None:
        turn = self._files.turn
        if turn is None or not turn.take_now():
            return
        try:
            work()
        finally:
            turn.give()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self._where} is closed; open it first")
