"""The SQLite store: the `Store` protocol over one file, or over memory.

What happens where: plan.py decides what a group of writes does, commit.py writes it, reads.py reads and verifies,
blobs.py keeps content, watch.py wakes those who wait, executor.py and threaded.py say on which thread. This file joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from cairn.clock import Clock
from cairn.errors import StoreError, UsageError
from cairn.ids import Ids
from cairn.runtime.storage import blobs, care, deleting, forking, merging, reads, tokens
from cairn.runtime.storage.commit import Committed, Committer, Space
from cairn.runtime.storage.connection import Connect, Connection, SqlError, SqliteConnection, moment, store_error
from cairn.runtime.storage.executor import BUSY_SECONDS, Executor, InlineExecutor
from cairn.runtime.storage.format import boot_identity
from cairn.runtime.storage.lease import Lease
from cairn.runtime.storage.lineage import boundary
from cairn.runtime.storage.opening import MEMORY, Files, open_files
from cairn.runtime.storage.plan import Admit, Claim, Outcome, Release, Write
from cairn.runtime.storage.queries import query
from cairn.runtime.storage.store import (
    Address,
    Admitted,
    Append,
    Appended,
    Batch,
    Creation,
    Due,
    DueRow,
    Forked,
    InstanceRow,
    Problem,
    Row,
    StoreInfo,
    TokenRow,
    UidCondition,
    WorkerRow,
)
from cairn.runtime.storage.watch import Watch, missing

T = TypeVar("T")

#: One batch's records. Larger content is a blob that the batch refers to.
RECORDS_BYTES_MAX = 1 << 20

#: One batch's chunks: its records as shown to readers, with room for the frame around them.
CHUNKS_BYTES_MAX = 2 << 20

#: Rows and bytes that are read on the event loop by a reader who keeps up: about 50 us.
NEAR_ROWS = 32
NEAR_BYTES = 64 << 10


class SqliteStore:
    """A store in the file `path`, shared by the processes of one machine; or in memory, for one event loop.

    `inline` runs everything on the caller's thread (needed for `:memory:` and for the simulator). `boot` names the boot of the
    machine, `connect` opens a connection, `mounts` is the text of /proc/mounts: all three are for tests.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Clock,
        ids: Ids,
        inline: bool = False,
        boot: str | None = None,
        busy_seconds: float = BUSY_SECONDS,
        connect: Connect = SqliteConnection,
        mounts: str | None = None,
        ballast: bool = True,
    ) -> None:
        if path == MEMORY and not inline:
            raise UsageError("a store in memory has one connection and so no threads: pass inline=True")
        self.path = path
        self._clock = clock
        self._ids = ids
        self._inline = inline
        self._boot = boot
        self._busy_seconds = busy_seconds
        self._connect = connect
        self._mounts = mounts
        self._ballast = ballast
        self._executor: Executor | None = None
        self._watch: Watch | None = None

    async def open(self) -> None:
        """The store is ready. *Idempotent*. *Raises* StoreUnsupported, StoreFormat, StoreCorrupt, StoreFull, StoreError."""
        if self._executor is not None:
            return
        boot = self._boot = self._boot or boot_identity()
        if self._inline:
            files = self._open_files(boot)
        else:
            import asyncio

            files = await asyncio.get_running_loop().run_in_executor(None, self._open_files, boot)
        try:
            is_purged = deleting.is_purged(files.connection)
            self._executor = self._start(files, boot)
        except SqlError as error:
            files.close()
            raise store_error(error, self.path) from error
        version = None if self.path == MEMORY else self._executor.version
        self._watch = Watch(version, lambda numbers: self._read(lambda db: reads.heads(db, numbers)))
        if not is_purged:
            await self._purge()

    async def close(self) -> None:
        """Everything accepted is written; leases held through this store are given up; waiters get StoreError."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        assert self._watch is not None
        self._watch.close()
        await executor.close()

    def _open_files(self, boot: str) -> Files:
        return open_files(
            self.path,
            self._connect,
            boot,
            busy_seconds=self._busy_seconds,
            mounts=self._mounts,
            ballast=self._ballast,
        )

    def _start(self, files: Files, boot: str) -> Executor:
        committer = Committer(files.connection, self.path, boot, files.ballast, files.turn)
        if self._inline:
            return InlineExecutor(files, committer, self.path, self._clock, self._told, self._busy_seconds)
        from cairn.runtime.storage.threaded import ThreadedExecutor

        return ThreadedExecutor(files, committer, self.path, self._clock, self._told, self._busy_seconds, self._connect)

    # --- appending

    async def admit(
        self,
        address: Address,
        creation: Creation,
        request: Append,
        uid: str | UidCondition = UidCondition.ANY,
    ) -> Admitted:
        size = _size(creation.batch, str(address)) + _size(request.batch, str(address))
        outcome = await self._write(Admit(address, creation, request, uid), size)
        assert isinstance(outcome, Admitted)
        return outcome

    async def append(self, append: Append) -> Appended:
        outcome = await self._write(append, _size(append.batch, f"instance {append.n}"))
        assert isinstance(outcome, Appended)
        return outcome

    async def claim(self, n: int, worker: str, *, expected_epoch: int, make: Callable[[int], Batch]) -> Appended | None:
        outcome = await self._write(Claim(n, worker, expected_epoch, make), 0)
        assert outcome is None or isinstance(outcome, Appended)
        return outcome

    async def release(
        self, n: int, epoch: int, batch: Batch | None, due: Sequence[Due] = (), *, expected_head: int | None = None
    ) -> bool:
        size = _size(batch, f"instance {n}") if batch is not None else 0
        return await self._write(Release(n, epoch, batch, tuple(due), expected_head), size) is not False

    # --- reading

    async def find(self, address: Address) -> InstanceRow | None:
        return await self._read(lambda db: reads.find(db, address))

    async def instance(self, n: int) -> InstanceRow | None:
        return await self._read(lambda db: reads.instance(db, n))

    async def instances(
        self,
        *,
        kind: str | None = None,
        tenant: str | None = None,
        after: int = 0,
        limit: int = 100,
        newest_first: bool = False,
        before: int | None = None,
        alarm: str | None = None,
    ) -> list[InstanceRow]:
        return await self._read(lambda db: reads.page(db, kind, tenant, after, limit, newest_first, before, alarm))

    async def read(self, n: int, after: int, *, limit: int = 1000, bytes_max: int = 4 << 20) -> list[Row]:
        near = self._near(n, after, limit)
        if near is not None:
            return near
        return await self._read(lambda db: reads.rows(db, n, after, limit, bytes_max))

    def _near(self, n: int, after: int, limit: int) -> list[Row] | None:
        """The last few rows, for a reader that keeps up with a head it was told of: they were just written and cost less to
        read here than the way to another thread and back. None when that is not the case, or they are large."""
        head = self._watching().head(n)
        if head is None or not 0 < head - after <= min(limit, NEAR_ROWS):
            return None
        found = self._running().glance(lambda db: reads.rows(db, n, after, limit, NEAR_BYTES))
        return found if found and found[-1].ordinal >= head else None

    async def changed(self, n: int, after: int, timeout: float | None = None) -> int:
        async def look() -> int:
            found = await self._read(lambda db: reads.heads(db, [n]))
            if n not in found:
                raise missing(n)
            return found[n]

        return await self._watching().changed(n, after, timeout, look)

    async def boundary(self, n: int, at: int) -> int:
        def find(db: Connection) -> int:
            with moment(db):
                return boundary(db, n, at).ordinal

        return await self._read(find)

    # --- the life of a whole log

    async def fork(self, source: int, at: int, address: Address, creation: Creation) -> Forked:
        _size(creation.batch, str(address))
        boot = self._boot
        assert boot is not None
        return await self._running().transact(
            lambda db: forking.fork(db, source, at, address, creation, boot), synced=True, space=Space.TAKEN
        )

    async def delete(self, n: int) -> bool:
        now = self._clock.wall()
        done = await self._running().transact(lambda db: deleting.delete(db, n, now), synced=True, space=Space.GIVEN)
        self._watching().deleted(n)
        await self._purge()
        return done

    async def _purge(self) -> None:
        """Nothing is left of what was deleted; or less, when the store fails, and the rest another time: nobody can see it."""
        work = partial(deleting.purge, now=self._clock.wall())
        try:
            while await self._running().transact(work, space=Space.GIVEN, size=deleting.PIECE_BYTES):
                pass
        except StoreError:
            pass

    async def merge(self, n: int, first: int, last: int, batch: Batch) -> bool:
        size = _size(batch, f"instance {n}")
        return await self._running().transact(lambda db: merging.merge(db, n, first, last, batch), size=size)

    # --- ownership

    async def register(self, worker: WorkerRow, lease_seconds: float, alive: Callable[[], bool]) -> None:
        assert self._boot is not None
        await self._running().hold(Lease(worker, lease_seconds, self._boot, alive))
        self._watching().committed({}, stirs=True)

    async def unregister(self, worker: str) -> None:
        await self._running().drop(worker)
        self._watching().committed({}, stirs=True)

    async def workers(self) -> list[WorkerRow]:
        return await self._read(reads.workers)

    def lease_now(self) -> float:
        return self._clock.boottime()

    # --- what is due

    async def due(
        self, kinds: Sequence[str], now: float, limit: int = 100, *, exclude_owners: Sequence[str] = ()
    ) -> list[DueRow]:
        self._watching().looked()
        return await self._read(lambda db: reads.due(db, kinds, now, limit, exclude_owners))

    async def next_due(self, kinds: Sequence[str], *, after: float | None = None) -> float | None:
        return await self._read(lambda db: reads.next_due(db, kinds, after))

    async def wait_for_work(self, timeout: float | None) -> None:
        """Returns at once when something stirred since the calling task last called `due` or this."""
        await self._watching().stirred(timeout)

    # --- projections and content

    async def save_checkpoint(self, n: int, epoch: int, ordinal: int, state: bytes) -> None:
        def save(db: Connection) -> None:
            db.execute(query("keep_checkpoint"), {"n": n, "epoch": epoch, "ordinal": ordinal, "state": state})
            db.execute(query("trim_checkpoints"), {"n": n})

        await self._running().transact(save)

    async def checkpoint(self, n: int, at_or_before: int | None = None) -> tuple[int, bytes] | None:
        return await self._read(lambda db: reads.checkpoint(db, n, at_or_before))

    async def save_snapshot(self, n: int, ordinal: int, projection: int, state: bytes) -> None:
        row = {"n": n, "ordinal": ordinal, "projection": projection, "state": state}
        await self._running().transact(lambda db: db.execute(query("keep_snapshot"), row), size=len(state))

    async def snapshot(self, n: int, projection: int) -> tuple[int, bytes] | None:
        return await self._read(lambda db: reads.snapshot(db, n, projection))

    async def save_dump(self, n: int, name: str, data: bytes | None) -> None:
        row, statement = {"n": n, "name": name, "data": data}, "drop_dump" if data is None else "keep_dump"
        await self._running().transact(lambda db: db.execute(query(statement), row), size=len(data or b""))

    async def dump(self, n: int, name: str) -> bytes | None:
        found = await self._read(lambda db: db.execute(query("find_dump"), (n, name)))
        return found[0][0] if found else None

    async def put_blob(self, tenant: str, data: bytes) -> str:
        """*Durable* with the first fact that refers to it. *Cancelled*: what was uploaded is collected after its grace."""
        hash = blobs.hash_of(data)
        now = self._clock.wall()
        transact = self._running().transact
        if await transact(lambda db: blobs.touch(db, tenant, hash, now)):
            return hash
        blob = await transact(lambda db: blobs.begin(db, tenant, hash, len(data), now))
        for i, piece in enumerate(blobs.pieces(data)):
            await transact(lambda db, i=i, piece=piece: blobs.add(db, blob, i, piece))  # type: ignore[misc]
        await transact(lambda db: blobs.complete(db, blob, now))
        return hash

    async def get_blob(self, tenant: str, hash: str) -> bytes:
        return await self._read(lambda db: blobs.get(db, tenant, hash))

    async def collect_blobs(self, grace_seconds: float) -> int:
        before = self._clock.wall() - grace_seconds
        total, deleted, after = 0, 1, 0
        while deleted:
            work = partial(blobs.collect, before=before, after=after)
            deleted, after = await self._running().transact(work, space=Space.GIVEN)
            total += deleted
        await self._purge()
        return total

    # --- who may come in

    async def put_token(self, token: TokenRow) -> None:
        await self._running().transact(lambda db: tokens.put(db, token), synced=True)

    async def token(self, hash: str) -> TokenRow | None:
        return await self._read(lambda db: tokens.get(db, hash))

    async def tokens(self, tenant: str | None = None) -> list[TokenRow]:
        return await self._read(lambda db: tokens.every(db, tenant))

    async def delete_token(self, name: str, tenant: str = "default") -> bool:
        return await self._running().transact(lambda db: tokens.delete(db, name, tenant), synced=True)

    # --- care

    async def backup(self, path: str) -> None:
        partial = f"{path}.{self._ids.new('backup')}"
        await self._read(lambda db: care.backup(db, path, partial, self._connect))

    async def check(self) -> list[Problem]:
        return await self._read(care.check)

    async def info(self) -> StoreInfo:
        assert self._boot is not None
        boot = self._boot
        return await self._read(lambda db: care.info(db, self.path, boot))

    # --- where it runs

    async def _write(self, write: Write, size: int) -> Outcome:
        outcome = await self._running().write(write, size)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._running().read(work)

    def _told(self, committed: Committed) -> None:
        if self._watch is not None:
            self._watch.committed(committed.heads, committed.stirs)

    def _running(self) -> Executor:
        if self._executor is None:
            raise StoreError(f"the store {self.path} is not open; `await store.open()` first")
        return self._executor

    def _watching(self) -> Watch:
        self._running()
        assert self._watch is not None
        return self._watch


def _size(batch: Batch, where: str) -> int:
    """The batch's bytes. Raises UsageError when it is too large to be one row."""
    for name, size, most in (
        ("records", len(batch.records), RECORDS_BYTES_MAX),
        ("chunks", len(batch.chunks), CHUNKS_BYTES_MAX),
    ):
        if size > most:
            raise UsageError(
                f"the {name} of a batch for {where} are {size} bytes; at most {most} fit. "
                "Store large content with put_blob and refer to it."
            )
    return len(batch.records) + len(batch.chunks)
