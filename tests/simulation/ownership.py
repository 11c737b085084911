"""A small world over the real store: workers that claim, work and release; clients that ask; bad weather; then sun.

The workers here are as naive as a correct worker can be: they look at leases before they claim and at nothing else. What
keeps the log right when they are wrong about each other is the store. The scenario is shared by the tests beside it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from cairn.errors import Fenced, StoreBusy
from cairn.runtime.records import (
    FiberAccepted,
    FiberSettled,
    FiberStarted,
    FiberStashed,
    InstanceClaimed,
    InstanceCreated,
    InstanceReleased,
    Record,
    decoder,
    encode,
)
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import (
    Address,
    Admission,
    Append,
    Appended,
    Batch,
    Creation,
    Due,
    Durability,
    InstanceRow,
    Producer,
    Store,
    WorkerRow,
)
from cairn.testing import FaultyStore, History, OutcomeUnknown, Process, RecordingStore, Simulation, Violation, check
from cairn.testing.faults import LOCAL, UNKNOWN
from cairn.testing.history import Log, logs_of

T = TypeVar("T")

INSTANCES = 20
CLIENTS = 2
REQUESTS = 30
LEASE_SECONDS = 15.0
POLL_SECONDS = 5.0
STORM_SECONDS = 240.0

#: L2: a dead worker's lease, one sweep, and twenty short fibers' work.
RECOVERY_SECONDS = LEASE_SECONDS + 2.0 + 40.0

decode = decoder().decode


@dataclass
class Outcome:
    """What one run left."""

    violations: list[Violation]
    fenced: Counter[str]
    accepted: int
    settled: int
    takeovers: int


@dataclass
class World:
    """One run: the store, the history, and who is alive."""

    simulation: Simulation
    store: SqliteStore
    history: History
    workers: list[Process] = field(default_factory=list)
    faces: dict[Process, FaultyStore] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)

    def face(self, process: Process) -> Store:
        """The store as a process sees it: with its faults, and recorded."""
        faulty = FaultyStore.of(process, self.store, faults=LOCAL | {UNKNOWN})
        self.faces[process] = faulty
        return RecordingStore(faulty, self.history, process.name)

    def start_worker(self, name: str) -> Process:
        skew = self.simulation.random.uniform(-2, 2)
        rate = self.simulation.random.uniform(0.99, 1.01)
        process = self.simulation.process(name, lambda p: Worker(self.face(p), p).run(), skew=skew, rate=rate)
        self.workers.append(process)
        return process


class Worker:
    """Claims what is due and nobody holds, works on it, and gives it back."""

    def __init__(self, store: Store, process: Process) -> None:
        self.store = store
        self.process = process
        self.id = process.ids.new(process.name)
        self.running: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        row = WorkerRow(self.id, "host", 1, ("toy",), self.process.clock.wall(), 0.0)
        await self.insist(lambda: self.store.register(row, LEASE_SECONDS, lambda: True))
        while True:
            for due in await self.store.due(["toy"], self.process.clock.wall()):
                if due.n not in self.running and not await self.is_held(due.owner):
                    task = asyncio.ensure_future(self.work(due.n, due.epoch))
                    self.running[due.n] = task
                    task.add_done_callback(lambda task, n=due.n: self.running.pop(n))  # type: ignore[misc]
            await self.store.wait_for_work(POLL_SECONDS)

    async def is_held(self, owner: str | None) -> bool:
        leases = {worker.id: worker.lease_until for worker in await self.store.workers()}
        # Its own, and not running: a release whose answer was lost, or that was refused.
        return owner not in (None, self.id) and leases.get(owner or "", 0.0) > self.store.lease_now()

    async def work(self, n: int, expected: int) -> None:
        try:
            if await self.claim(n, expected):
                await Owner(self, n, expected + 1).run()
        except Fenced:
            return  # somebody else has it: a normal end

    async def claim(self, n: int, expected: int) -> bool:
        def make(epoch: int) -> Batch:
            return Batch(encode([InstanceClaimed(epoch=epoch, worker=self.id, at=self.process.clock.wall())]))

        try:
            return await self.store.claim(n, self.id, expected_epoch=expected, make=make) is not None
        except StoreBusy:
            return False
        except OutcomeUnknown:
            row = await self.store.instance(n)
            return row is not None and row.owner == self.id and row.epoch == expected + 1

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat what may be repeated. What was unknown carries its identity, so that repeating it is safe (S5)."""
        while True:
            try:
                return await call()
            except (StoreBusy, OutcomeUnknown):
                await self.process.clock.sleep(0.1 + self.process.ids.random())


class Owner:
    """One reign over one instance: folds the log, runs what was accepted and is not settled, releases."""

    def __init__(self, worker: Worker, n: int, epoch: int) -> None:
        self.worker = worker
        self.n = n
        self.epoch = epoch
        self.head = -1
        self.seq = 0
        self.open: dict[str, None] = {}

    async def run(self) -> None:
        clock = self.worker.process.clock
        while True:
            await self.fold()
            if not self.open:
                break
            fiber = next(iter(self.open))
            await self.append([FiberStarted(fiber=fiber, at=clock.wall())])
            for number in range(3):
                await clock.sleep(self.worker.process.ids.random())
                value = msgspec.Raw(b"%d" % number)
                await self.append([FiberStashed(fiber=fiber, value=value)], durability=Durability.DELTA)
            settled = FiberSettled(fiber=fiber, outcome="completed", at=clock.wall())
            await self.append([settled], due=(Due(fiber, None),))
        batch = Batch(encode([InstanceReleased(at=clock.wall())]))
        try:
            await self.worker.store.release(self.n, self.epoch, batch, expected_head=self.head)
        except (StoreBusy, OutcomeUnknown):
            pass  # then the lease says so

    async def append(self, records: list[Record], **options: Any) -> Appended:
        producer = Producer(self.worker.id, self.epoch, self.seq)
        self.seq += 1
        append = Append(self.n, Batch(encode(records)), self.epoch, producer=producer, **options)
        done = await self.worker.insist(lambda: self.worker.store.append(append))
        if done.prev == self.head:
            self.apply(records)
            self.head = done.ordinal
        return done

    async def fold(self) -> None:
        while rows := await self.worker.store.read(self.n, self.head):
            for row in rows:
                self.apply(decode(row.batch.records))
                self.head = row.ordinal

    def apply(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, FiberAccepted):
                self.open[record.fiber] = None
            elif isinstance(record, FiberSettled):
                self.open.pop(record.fiber, None)


async def client(world: World, process: Process) -> None:
    """Asks at random times, sometimes twice with one key, and insists until it has an answer."""
    store = world.face(process)
    for number in range(REQUESTS):
        await process.clock.sleep(process.ids.random() * 2 * STORM_SECONDS / REQUESTS)
        address = Address("toy", str(int(process.ids.random() * INSTANCES)))
        fiber, key = process.ids.new("sub"), f"{process.name}-{number}"
        at = process.clock.wall()
        batch = Batch(encode([FiberAccepted(fiber=fiber, method="run", at=at, key=key)]))
        request = Append(0, batch, due=(Due(fiber, at),), admission=Admission(key, fiber, b"body"))
        uid = process.ids.new("ins")
        created = Batch(encode([InstanceCreated(kind="toy", id=address.id, uid=uid, at=at)]))
        for _ in range(1 + (process.ids.random() < 0.2)):
            while True:
                try:
                    admitted = await store.admit(address, Creation(uid, uid, created, at), request)
                    world.accepted.add(admitted.fiber)
                    break
                except (StoreBusy, OutcomeUnknown):
                    await process.clock.sleep(1.0)


async def reader(world: World, process: Process) -> None:
    """Follows one instance from its birth: the checker holds what it saw against what is there."""
    store = world.face(process)
    row: InstanceRow | None = None
    while row is None:
        row = await store.find(Address("toy", "0"))
        await process.clock.sleep(1.0)
    after = -1
    while True:
        rows = await store.read(row.n, after, limit=3)
        after = rows[-1].ordinal if rows else after
        if not rows:
            await store.changed(row.n, after, POLL_SECONDS)


async def weather(world: World) -> None:
    """Kills, freezes longer than a lease, cuts from the store, and sets clocks, until the storm is over."""
    simulation, dice = world.simulation, world.simulation.random
    while simulation.now() < STORM_SECONDS:
        await asyncio.sleep(dice.expovariate(1 / 10))
        index = dice.randrange(len(world.workers))
        worker = world.workers[index]
        match dice.choice(("kill", "pause", "pause", "cut", "jump")):
            case "kill":
                worker.kill()
                world.workers.pop(index)
                simulation.loop.call_later(dice.uniform(0, 5), world.start_worker, worker.name)
                await asyncio.sleep(5)
            case "pause":
                worker.pause(dice.uniform(1, 3 * LEASE_SECONDS))
            case "cut":
                world.faces[worker].stop()
                simulation.loop.call_later(dice.uniform(1, 2 * LEASE_SECONDS), world.faces[worker].start)
            case _:
                worker.clock.jump(dice.choice((-3600, -5, 5, 3600)))


async def scenario(simulation: Simulation) -> Outcome:
    """Three to five workers, twenty instances, two clients, a reader; a storm; then every promise, and liveness."""
    store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
    await store.open()
    world = World(simulation, store, History(simulation.note))
    for number in range(simulation.random.randint(3, 5)):
        world.start_worker(f"w{number}")
    clients = [simulation.process(f"c{number}", lambda p: client(world, p)) for number in range(CLIENTS)]
    simulation.process("r", lambda p: reader(world, p))

    await weather(world)
    simulation.heal()
    for face in world.faces.values():
        face.start()
    for process in world.workers:
        process.clock.jump(simulation.clock.wall() - process.clock.wall())
    for process in clients:
        await process.wait()
    deadline = simulation.now() + RECOVERY_SECONDS
    while simulation.now() < deadline and await store.next_due(["toy"]) is not None:  # noqa: ASYNC110
        await asyncio.sleep(1)

    logs = await logs_of(store)
    outcome = Outcome(check(world.history, logs), fenced(world.history), len(world.accepted), *progress(logs))
    assert await store.check() == []
    await store.close()
    return outcome


def fenced(history: History) -> Counter[str]:
    """How often a write was refused because its author's reign was over."""
    return Counter(operation.name for operation in history.operations if operation.error.startswith("Fenced"))


def progress(logs: list[Log]) -> tuple[int, int]:
    """Settled fibers, and reigns beyond the first, over all instances."""
    records = [record for log in logs for row in log.rows for record in decode(row.batch.records)]
    settled = sum(isinstance(record, FiberSettled) for record in records)
    return settled, sum(max(0, log.instance.epoch - 1) for log in logs)
