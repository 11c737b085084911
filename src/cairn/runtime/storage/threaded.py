"""The store's threads: one that writes, a few that read, one that makes checkpoints beside the writer.

Laws. Writes are done in order of arrival. Those that arrive while a commit syncs form the next group, so the sync is paid
once for all of them. The group is taken only once this process has the write turn: what waits for the turn has not begun,
and can be refused with the certainty that it never will. The loop is called once per group.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from cairn.clock import Clock
from cairn.errors import StoreError
from cairn.runtime.storage.commit import Committed, Committer, Space
from cairn.runtime.storage.connection import Connect, Connection, SqlError
from cairn.runtime.storage.executor import GROUP_BYTES, GROUP_WRITES
from cairn.runtime.storage.lease import Lease
from cairn.runtime.storage.opening import Files
from cairn.runtime.storage.plan import Outcome, Write
from cairn.runtime.storage.readers import Readers, reader
from cairn.runtime.storage.turn import busy
from cairn.runtime.storage.wal import Wal

T = TypeVar("T")

#: Quiet time after which the write-ahead log is emptied.
IDLE_SECONDS = 1.0


@dataclass(slots=True)
class _Job:
    """Something handed to the writer: a write, which may share a transaction, or other work, which has its own."""

    future: asyncio.Future[Any]
    at: float
    size: int = 0
    write: Write | None = None
    work: Callable[[], Any] | None = None


class ThreadedExecutor:
    """Writes on one thread, reads on others. Created, used and closed on one event loop."""

    def __init__(
        self,
        files: Files,
        committer: Committer,
        where: str,
        clock: Clock,
        told: Callable[[Committed], None],
        busy_seconds: float,
        connect: Connect,
    ) -> None:
        assert files.turn is not None
        self._files = files
        self._turn = files.turn
        self._committer = committer
        self._where = where
        self._clock = clock
        self._told = told
        self._busy_seconds = busy_seconds
        self._loop = asyncio.get_running_loop()
        self._readers = Readers(where, connect)
        self._watch_connection = reader(where, connect, busy_ms=0)
        self._wal = Wal(reader(where, connect, busy_ms=0), where)
        self._wal_thread = ThreadPoolExecutor(1, "cairn-checkpoint")
        self._pending: deque[_Job] = deque()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._is_asleep = False
        self._is_waiting_for_turn = False
        self._guard: asyncio.TimerHandle | None = None
        self._leases: dict[str, tuple[Lease, float]] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="cairn-writer", daemon=True)
        self._thread.start()

    # --- the loop's side

    async def write(self, write: Write, size: int) -> Outcome:
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._put(_Job(future, self._loop.time(), size, write))
        return await future

    async def transact(
        self, work: Callable[[Connection], T], *, synced: bool = False, space: Space = Space.NEEDED, size: int = 0
    ) -> T:
        def run() -> T:
            self._wal.is_to_be_emptied |= space is Space.GIVEN
            return self._committer.run(work, synced=synced, space=space)

        return await self._call(run, size)

    async def read(self, work: Callable[[Connection], T]) -> T:
        self._check_open()
        return await self._readers.read(work)

    def glance(self, work: Callable[[Connection], T]) -> T | None:
        try:
            return work(self._watch_connection)
        except SqlError:
            return None

    def version(self) -> int | None:
        try:
            [(version,)] = self._watch_connection.execute("pragma data_version")
        except SqlError:
            return None
        return int(version)

    async def hold(self, lease: Lease) -> None:
        def hold() -> None:
            self._committer.run(lambda connection: lease.renew(connection, self._clock))
            self._leases[lease.worker.id] = (lease, self._clock.monotonic() + lease.interval)
            self._turn.name = lease.worker.id

        await self._call(hold)

    async def drop(self, worker: str) -> None:
        def drop() -> None:
            self._leases.pop(worker, None)
            self._committer.run(lambda connection: Lease.drop(connection, worker))

        await self._call(drop)

    async def close(self) -> None:
        if self._closing:
            return
        for worker in list(self._leases):
            try:
                await self.drop(worker)
            except StoreError:
                pass  # the lease runs out by itself
        self._closing = True
        self._wakes.put(None)
        # A writer that waits for a turn it does not get is left behind: it ends by itself, having nothing more to do.
        await self._readers.close(lambda: self._thread.join(self._busy_seconds))
        if self._guard is not None:
            self._guard.cancel()
        self._refuse(len(self._pending))
        self._watch_connection.close()

    async def _call(self, work: Callable[[], T], size: int = 0) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(_Job(future, self._loop.time(), size, work=work))
        return await future

    def _put(self, job: _Job) -> None:
        self._check_open()
        if self._committer.failed is not None:
            raise self._committer.failed
        self._pending.append(job)
        if self._guard is None:
            self._guard = self._loop.call_later(self._busy_seconds, self._refuse_stuck)
        # A writer at work finds the job by itself; one that sleeps is woken once. It needs the GIL to wake, so what the loop
        # hands over before it next waits is one group, not a group of one and a group of the rest.
        if self._is_asleep:
            self._is_asleep = False
            self._wakes.put(None)

    def _refuse_stuck(self) -> None:
        """Some process does not give the turn: refuse what has waited long enough."""
        self._guard = None
        now = self._loop.time()
        if self._is_waiting_for_turn:
            stuck = sum(1 for job in list(self._pending) if now - job.at >= self._busy_seconds)
            self._refuse(stuck)
        oldest = min((job.at for job in list(self._pending)), default=None)
        if oldest is not None:
            self._guard = self._loop.call_later(max(0.01, oldest + self._busy_seconds - now), self._refuse_stuck)

    def _refuse(self, count: int) -> None:
        if not count:
            return
        error = busy(self._where, self._turn.holder())
        for _ in range(count):
            try:
                job = self._pending.popleft()
            except IndexError:
                return  # the writer got the turn just now and took them
            if not job.future.done():
                job.future.set_exception(error)

    def _give_up(self) -> None:
        while self._pending:
            self._finish(self._pending.popleft(), None, self._committer.failed)

    def _settle(self, jobs: list[_Job], committed: Committed) -> None:
        self._told(committed)
        for job, outcome in zip(jobs, committed.outcomes, strict=True):
            if not job.future.done():
                job.future.set_result(outcome)

    def _finish(self, job: _Job, result: Any, error: BaseException | None) -> None:
        if not job.future.done() and error is not None:
            job.future.set_exception(error)
        elif not job.future.done():
            job.future.set_result(result)

    def _check_open(self) -> None:
        if self._closing:
            raise StoreError(f"the store {self._where} is closed; open it first")

    # --- the writer's side

    def _run(self) -> None:
        try:
            while self._pending or not self._closing:
                self._sleep()
                if self._pending:
                    self._write()
                self._renew()
        except BaseException as error:
            # A fault of this code, and nobody is left to write. Saying so beats letting every caller wait for ever.
            self._committer.failed = StoreError(f"the store {self._where} stopped writing: {error!r}. Restart this process.")
            self._committer.failed.__cause__ = error
            self._tell(self._give_up)
        self._wal_thread.shutdown()
        if self._committer.failed is None:
            self._checkpoint(self._wal.truncate)
        self._wal.close()
        self._files.close()

    def _sleep(self) -> None:
        """Return when there is something to write, to renew, or to close."""
        if self._pending or self._closing:
            return
        self._is_asleep = True
        # Looked at again after saying that it sleeps: whoever hands over a job first appends it, then asks.
        if not self._pending and not self._closing:
            try:
                self._wakes.get(timeout=self._nap())
            except Empty:
                if self._wal.wants_rest:
                    self._checkpoint(self._wal.idle)
        self._is_asleep = False

    def _nap(self) -> float | None:
        now = self._clock.monotonic()
        naps = [max(0.0, at - now) for _, at in self._leases.values()]
        if self._wal.wants_rest:
            naps.append(IDLE_SECONDS)
        return min(naps, default=None)

    def _write(self) -> None:
        self._take_turn()
        try:
            if self._wal.is_nearly_moved:
                self._guarded(self._wal.rest)
            jobs = self._group()
            if jobs and jobs[0].work is not None:
                self._work(jobs[0], jobs[0].work)
            elif jobs:
                self._commit(jobs)
        finally:
            others_wait = self._turn.give()
        self._wal.wrote(len(jobs), sum(job.size for job in jobs))
        if self._wal.wants_round:
            self._wal.is_running = True
            self._wal_thread.submit(self._bulk)
        if others_wait:
            self._turn.stand_back()

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            committed = self._committer.commit([job.write for job in jobs if job.write is not None])
        except Exception as fault:
            committed = Committed([fault] * len(jobs))  # nothing was written: the transaction has been rolled back
        self._tell(self._settle, jobs, committed)

    def _take_turn(self) -> None:
        if self._turn.take_now():
            return
        self._is_waiting_for_turn = True
        try:
            self._turn.take()
        finally:
            self._is_waiting_for_turn = False

    def _group(self) -> list[_Job]:
        """The next writes that share a transaction, or the next other work alone."""
        jobs: list[_Job] = []
        size = 0
        while self._pending and len(jobs) < GROUP_WRITES:
            try:
                job = self._pending.popleft()
            except IndexError:
                break
            if jobs and (job.work is not None or size + job.size > GROUP_BYTES):
                self._pending.appendleft(job)
                break
            jobs.append(job)
            size += job.size
            if job.work is not None:
                break
        return jobs

    def _work(self, job: _Job, work: Callable[[], Any]) -> None:
        try:
            result = work()
        except BaseException as error:
            self._tell(self._finish, job, None, error)
        else:
            self._tell(self._finish, job, result, None)

    def _renew(self) -> None:
        now = self._clock.monotonic()
        for lease, at in list(self._leases.values()):
            if at > now:
                continue
            self._leases[lease.worker.id] = (lease, now + lease.interval)
            if not lease.is_alive():
                continue
            self._take_turn()
            try:
                self._committer.run(lambda connection, lease=lease: lease.renew(connection, self._clock))  # type: ignore[misc]
            except StoreError:
                pass  # the lease runs out unless a later renewal succeeds; its owner learns by the fence
            finally:
                self._turn.give()

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody waits for the answer

    # --- checkpoints

    def _checkpoint(self, work: Callable[[], None]) -> None:
        if not self._turn.take_now():
            return
        try:
            self._guarded(work)
        finally:
            self._turn.give()

    def _bulk(self) -> None:
        try:
            self._guarded(self._wal.bulk)
        finally:
            self._wal.is_running = False

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except SqlError as error:
            self._committer.fail(error)
