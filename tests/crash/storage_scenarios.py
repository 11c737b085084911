"""What a store goes through while its disk misbehaves: fifteen short lives, each step written down with what it promised.

A step is one call that writes. Before it the world notes how far the disk had got; after it, what a reader sees
(`Seen`), and whether the step was a fact. So whoever finds a disk later can say which states it may hold: not before the last
fact that had returned, not after the last step that had begun, and exactly one of them, whole (S1, S2).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from cairn.errors import StoreError
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.connection import Connect
from cairn.runtime.storage.lease import Lease
from cairn.runtime.storage.plan import Write
from cairn.runtime.storage.store import (
    Address,
    Admission,
    Append,
    Batch,
    Creation,
    Due,
    Durability,
    Producer,
    Store,
    TokenRow,
    WorkerRow,
)
from cairn.testing.contract import SkewedClock

T = TypeVar("T")

FACT, DELTA = Durability.FACT, Durability.DELTA


@dataclass(frozen=True)
class Seen:
    """Everything a reader can see that a crash must not tear apart."""

    instances: tuple[Any, ...]
    rows: tuple[Any, ...]
    due: tuple[Any, ...]
    checkpoints: tuple[Any, ...]
    snapshots: tuple[Any, ...]
    tokens: tuple[Any, ...]


async def look(store: Store) -> Seen:
    instances = await store.instances(limit=1_000)
    rows = []
    for instance in instances:
        rows += [(instance.n, row) for row in await store.read(instance.n, -1, limit=100_000, bytes_max=1 << 30)]
    kinds = sorted({instance.address.kind for instance in instances})
    return Seen(
        tuple((i.n, i.address, i.uid, i.head, i.reserved, i.epoch, i.forked_from, i.fork_offset) for i in instances),
        tuple(rows),
        tuple((d.n, d.name, d.due_at) for d in await store.due(kinds, 1e12, 10_000)),
        tuple([(i.n, await store.checkpoint(i.n)) for i in instances]),
        tuple([(i.n, await store.snapshot(i.n, 1)) for i in instances]),
        tuple(await store.tokens()),
    )


@dataclass
class Step:
    began: int
    """Operations of the disk before it."""
    ended: int
    """Operations when it had returned."""
    durable: bool
    seen: Seen | None


@dataclass
class World:
    """One store on one disk, and the record of its steps."""

    path: str
    connect: Connect
    now: Callable[[], int]
    looks: bool = True
    insists: bool = False
    refusals: list[StoreError] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    boot: str = "first boot"
    clock: SkewedClock = field(default_factory=SkewedClock)

    def __post_init__(self) -> None:
        self.store = self.make()

    def make(self) -> SqliteStore:
        return SqliteStore(
            self.path,
            clock=self.clock,
            ids=SystemIds(),
            inline=True,
            boot=self.boot,
            connect=self.connect,
            ballast=False,
            busy_seconds=0.05,
        )

    async def open(self, boot: str = "first boot") -> None:
        self.boot = boot
        self.store = self.make()
        await self.step(self.store.open, durable=False)

    async def close(self) -> None:
        began = self.now()
        await self.store.close()
        # What closing writes changes nothing that a reader sees.
        self.steps.append(Step(began, self.now(), False, self.steps[-1].seen if self.steps else None))

    async def step(self, what: Callable[[], Awaitable[T]], *, durable: bool = True) -> T:
        began = self.now()
        result = await (self.insist(what) if self.insists else what())
        ended = self.now()
        self.steps.append(Step(began, ended, durable, await look(self.store) if self.looks else None))
        return result

    async def insist(self, what: Callable[[], Awaitable[T]]) -> T:
        """Call; when the store refuses, call once more: a disk that failed once must not spoil what comes after."""
        try:
            return await what()
        except StoreError as error:
            self.refusals.append(error)
            return await what()

    # --- shorthand

    async def born(self, id: str, key: str | None = None) -> int:
        admission = Admission(key, f"fiber of {key}", b"digest") if key else None
        request = Append(0, Batch(b'["asked"]'), admission=admission, due=(Due("run", 1.0),))
        creation = Creation(f"uid of {id}", "incarnation", Batch(b'["born"]'), 1.0)
        return (await self.step(lambda: self.store.admit(Address("toy", id), creation, request))).n

    async def fact(self, n: int, epoch: int | None = 0, size: int = 300, **more: Any) -> None:
        append = Append(n, self.batch(size), epoch, FACT, **more)
        await self.step(lambda: self.store.append(append))

    async def delta(self, n: int, epoch: int | None = 0, size: int = 80, **more: Any) -> None:
        append = Append(n, self.batch(size), epoch, DELTA, **more)
        await self.step(lambda: self.store.append(append), durable=False)

    def batch(self, size: int) -> Batch:
        mark = b"%d." % len(self.steps)
        return Batch((mark * size)[:size], (mark * size)[: size // 2])

    async def claim(self, n: int, worker: str, expected: int) -> None:
        lease = Lease(WorkerRow(worker, "host", 1, ("toy",), 1.0, 0.0), 60.0, self.boot, lambda: True)
        # Written without the renewal task that `register` starts: it would write at moments of its own.
        await self.step(
            lambda: self.store._running().transact(lambda db: lease.renew(db, self.clock)),
            durable=False,
        )
        await self.step(lambda: self.store.claim(n, worker, expected_epoch=expected, make=claimed))

    async def fork(self, source: int, at: int, id: str) -> int:
        creation = Creation(f"uid of {id}", "incarnation", self.batch(200), 1.0)
        return (await self.step(lambda: self.store.fork(source, at, Address("toy", id), creation))).n

    async def delete(self, n: int) -> None:
        assert await self.step(lambda: self.store.delete(n)) or self.insists

    async def merge(self, n: int, first: int, last: int) -> None:
        batch = self.batch(400)
        await self.step(lambda: self.store.merge(n, first, last, batch), durable=False)

    async def group(self, writes: list[Write], *, durable: bool) -> None:
        """Several writes in one transaction, as the writer thread commits them."""

        async def commit() -> None:
            committed = self.store._running()._committer.commit(writes)  # type: ignore[attr-defined]
            for outcome in committed.outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

        await self.step(commit, durable=durable)

    async def checkpoint(self) -> None:
        """The write-ahead log is moved into the database."""
        executor = self.store._running()
        executor._checkpoint(executor._wal.idle)  # type: ignore[attr-defined]


# --- reading a disk that was cut off


def put(folder: str, image: dict[str, bytes]) -> None:
    """The folder holds this image and nothing else."""
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    for name, data in image.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)


def allowed(steps: list[Step], cut: int) -> tuple[list[Seen | None], dict[int, int]]:
    """The states a disk may hold that was cut there, and the highest ordinal anybody can have seen of each instance."""
    returned = [i for i, step in enumerate(steps) if step.durable and step.ended <= cut]
    begun = [i for i, step in enumerate(steps) if step.began <= cut]
    first, last = (returned or [-1])[-1], (begun or [-1])[-1]
    states = [None if i < 0 else steps[i].seen for i in range(first, last + 1)]
    heads: dict[int, int] = {}
    for step in steps[: last + 1]:
        if step.ended <= cut and step.seen is not None:
            heads |= {instance[0]: instance[3] for instance in step.seen.instances}
    return states, heads


def claimed(epoch: int) -> Batch:
    return Batch(b'["claimed %d"]' % epoch)


Scenario = Callable[[World], Awaitable[None]]


async def creating_a_store(w: World) -> None:
    await w.open()
    await w.born("one")
    await w.close()


async def facts(w: World) -> None:
    await w.open()
    n = await w.born("one")
    for _ in range(8):
        await w.fact(n)


async def deltas(w: World) -> None:
    await w.open()
    n = await w.born("one")
    for _ in range(12):
        await w.delta(n)


async def facts_and_deltas(w: World) -> None:
    await w.open()
    n = await w.born("one")
    for i in range(12):
        await (w.fact(n) if i % 4 == 3 else w.delta(n))


async def admissions(w: World) -> None:
    await w.open()
    for i in range(3):
        await w.born(f"i{i}", "key")
        await w.born(f"i{i}", "key")
        await w.born(f"i{i}", f"other key {i}")


async def claims_and_releases(w: World) -> None:
    await w.open()
    n = await w.born("one")
    for epoch in range(3):
        await w.claim(n, f"w{epoch}", epoch)
        await w.delta(n, epoch + 1)
        due = (Due("run", None if epoch % 2 else 2.0),)
        await w.step(partial(w.store.release, n, epoch + 1, Batch(b'["released"]'), due))


async def producers(w: World) -> None:
    await w.open()
    n = await w.born("one")
    for epoch in range(2):
        for seq in range(3):
            await w.fact(n, None, producer=Producer("p", epoch, seq))


async def alarms(w: World) -> None:
    await w.open()
    n = await w.born("one")
    for i in range(8):
        await w.fact(n, due=(Due("a", float(i)), Due(f"b{i}", 1.5), Due(f"b{i - 2}", None)))


async def content(w: World) -> None:
    await w.open()
    n = await w.born("one")
    name = await w.step(lambda: w.store.put_blob("default", b"x" * 270_000), durable=False)
    await w.fact(n, blobs=(name,))
    await w.step(lambda: w.store.put_blob("default", b"nobody's"), durable=False)
    w.clock.ahead += 100.0
    await w.step(lambda: w.store.collect_blobs(10.0), durable=False)
    await w.fact(n)


async def moving_the_log(w: World) -> None:
    """The write-ahead log is moved into the database and begins again over its old frames, twice."""
    await w.open()
    n = await w.born("one")
    for i in range(3):
        await w.fact(n)
        await w.delta(n, size=6_000)
        await w.step(partial(w.store.save_checkpoint, n, 0, 1 + i, b"state %d" % i), durable=False)
        await w.checkpoint()
        await w.delta(n)
    await w.fact(n)


async def groups(w: World) -> None:
    """Many instances in one transaction, some of the groups relaxed, one that raises a reservation."""
    await w.open()
    ns = [await w.born(f"i{i}") for i in range(4)]
    for durability in (FACT, DELTA, FACT, DELTA, DELTA):
        batch = w.batch(500)
        await w.group([Append(n, batch, 0, durability) for n in ns for _ in range(3)], durable=durability is FACT)
    await w.group([Append(ns[0], w.batch(20), 0, DELTA) for _ in range(1_000)], durable=True)
    await w.delta(ns[0])


async def stopping_and_starting(w: World) -> None:
    """Clean stops, and a second boot that goes on above what was reserved."""
    await w.open()
    n = await w.born("one")
    await w.delta(n)
    await w.close()
    await w.open()
    await w.fact(n)
    await w.close()
    await w.open("second boot")
    await w.delta(n)
    await w.delta(n)
    await w.fact(n)


async def forks(w: World) -> None:
    """A fork, a fork of it, and all three go on."""
    await w.open()
    n = await w.born("one")
    name = await w.step(lambda: w.store.put_blob("default", b"shared"), durable=False)
    await w.fact(n, None, blobs=(name,))
    await w.delta(n)
    one = await w.fork(n, 3, "one fork")
    await w.delta(one)
    await w.fact(n)
    two = await w.fork(one, 5, "two forks")
    await w.delta(two)
    await w.fact(two)


async def deletions(w: World) -> None:
    """One that is alone, one that a fork outlives, and its address again."""
    await w.open()
    n = await w.born("one", "key")
    await w.fact(n, None, size=2_000, producer=Producer("p", 0, 0))
    fork = await w.fork(n, 1, "fork")
    await w.delete(n)
    await w.born("one", "key")
    await w.delete(fork)
    await w.delta(3, None)


async def merges(w: World) -> None:
    """Rows become one, also rows that a fork shares, and what is kept of them goes."""
    await w.open()
    n = await w.born("one")
    for _ in range(8):
        await w.delta(n, size=400)
    await w.step(partial(w.store.save_checkpoint, n, 0, 3, b"inside"), durable=False)
    await w.step(partial(w.store.save_snapshot, n, 4, 1, b"inside"), durable=False)
    await w.merge(n, 2, 5)
    await w.fork(n, 9, "fork")
    await w.merge(n, 6, 9)
    token = TokenRow("hash", "name", "default", ("read",), ("*",), True, 1.0, None)
    await w.step(lambda: w.store.put_token(token))
    await w.fact(n)
    await w.step(lambda: w.store.delete_token("name"))


SCENARIOS: tuple[Scenario, ...] = (
    creating_a_store,
    facts,
    deltas,
    facts_and_deltas,
    admissions,
    claims_and_releases,
    producers,
    alarms,
    content,
    moving_the_log,
    groups,
    stopping_and_starting,
    forks,
    deletions,
    merges,
)
