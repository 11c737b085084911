"""Objects under workers in virtual time, and whoever calls them: several processes on one store, for tests of a few lines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cairn.runtime import records as r
from cairn.runtime.attachment import Attachment
from cairn.runtime.client import Client
from cairn.runtime.connections import Connection
from cairn.runtime.frames import Frame
from cairn.runtime.object import DurableObject, ObjectApplication
from cairn.runtime.objects import Objects
from cairn.runtime.request import Request
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import WorkerRow
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker, WorkerSettings
from cairn.testing import Simulation, simulate

SETTINGS = WorkerSettings(idle_seconds=5.0, tidy_seconds=None, sweep_seconds=1.0, poll_seconds=30.0)


class Alive:
    """The kernel, where every process lives until a test says otherwise."""

    boot = ""

    def __init__(self) -> None:
        self.dead: set[str] = set()

    def hold(self, worker: str) -> str:
        return ":1:1"

    def drop(self, worker: str) -> None: ...

    def is_dead(self, row: WorkerRow) -> bool:
        return row.id in self.dead

    def forget(self, row: WorkerRow) -> None: ...


@dataclass
class Stage:
    """A store and the processes on it. The first worker serves from the beginning."""

    simulation: Simulation
    store: SqliteStore
    applications: dict[str, ObjectApplication]
    settings: WorkerSettings
    stack: AsyncExitStack
    alive: Alive = field(default_factory=Alive)
    workers: list[Worker] = field(default_factory=list)

    @property
    def objects(self) -> Objects:
        """The gateway of the first process."""
        return self.workers[0].objects

    async def process(self) -> Objects:
        """Another process with a worker; its gateway."""
        worker = Worker(
            self.store,
            list(self.applications.values()),
            clock=self.simulation.clock,
            ids=self.simulation.ids,
            owners=self.alive,
            threads=Threads(inline=True),
            settings=self.settings,
        )
        await worker.start()
        self.stack.push_async_callback(self._stop, worker)
        self.workers.append(worker)
        objects = Objects(self.store, worker, self.applications, clock=self.simulation.clock, ids=self.simulation.ids)
        self.stack.push_async_callback(objects.close)
        return objects

    def outside(self) -> Objects:
        """A process that runs nothing."""
        objects = Objects(self.store, None, self.applications, clock=self.simulation.clock, ids=self.simulation.ids)
        self.stack.push_async_callback(objects.close)
        return objects

    async def kill(self, worker: Worker) -> None:
        """Stopped hard: what ran counts as interrupted, and its lock is free."""
        assert worker._main is not None
        worker._main.cancel()
        await asyncio.wait({worker._main})
        if worker._pulse is not None:
            worker._pulse.cancel()
        self.workers.remove(worker)
        self.alive.dead.add(worker.id)

    async def _stop(self, worker: Worker) -> None:
        if worker in self.workers:
            worker.stop()
            await worker.join()

    async def sleep(self, seconds: float) -> None:
        await self.simulation.clock.sleep(seconds)

    async def records(self, kind: str, id: str) -> list[r.Record]:
        """Everything in the object's log."""
        row = await self.store.find(self.objects.address(kind, id))
        assert row is not None, f"there is no {kind}/{id}"
        decode = r.decoder().decode
        return [record for row in await self.store.read(row.n, -1, limit=100_000) for record in decode(row.batch.records)]

    async def kinds(self, kind: str, id: str) -> list[str]:
        """The types of its records but those of claims and releases."""
        boring = (r.InstanceClaimed, r.InstanceReleased, r.InstanceCreated, r.ObjectReached)
        return [type(record).__name__ for record in await self.records(kind, id) if not isinstance(record, boring)]

    async def batches(self, kind: str, id: str) -> list[list[str]]:
        row = await self.store.find(self.objects.address(kind, id))
        assert row is not None
        rows = [msgspec.json.decode(row.batch.records) for row in await self.store.read(row.n, -1)]
        return [[record["type"] for record in batch] for batch in rows]

    def client(self, cls: type[DurableObject[Any]]) -> Client:
        application = next(each for each in self.applications.values() if each.cls is cls)
        return Client(self.store, application, clock=self.simulation.clock, ids=self.simulation.ids)

    async def connect(self, objects: Objects, kind: str, id: str, name: str, **options: Any) -> Listener:
        attachment = await objects.connect(kind, id, Connection(name, f"ws://x/agents/{kind}/{id}", **options), Request())
        listener = Listener(attachment)
        self.stack.push_async_callback(listener.stop)
        return listener

    async def is_gone(self, kind: str, id: str) -> bool:
        return await self.store.find(self.objects.address(kind, id)) is None


class Listener:
    """A client's side of an attachment: what came, in order."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.frames: list[Frame] = []
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for frame in self.attachment.frames():
            self.frames.append(frame)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    @property
    def data(self) -> list[Any]:
        """What came, shortened: the state as a value, a frame as its data, an end as its code."""
        found: list[Any] = []
        for frame in self.frames:
            state = getattr(frame, "state", None)
            if state is not None:
                found.append(msgspec.json.decode(state))
            else:
                found.append(getattr(frame, "data", getattr(frame, "code", None)))
        return found


def play(
    classes: Sequence[type[DurableObject[Any]]],
    body: Callable[[Stage], Awaitable[Any]],
    *,
    settings: WorkerSettings = SETTINGS,
    seconds: float = 100_000,
) -> Any:
    """Run the body beside a worker that knows these classes; what the body returns. In virtual time, without chance."""

    async def main(simulation: Simulation) -> Any:
        store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
        await store.open()
        applications = {application.kind: application for application in map(ObjectApplication, classes)}
        async with AsyncExitStack() as stack:
            stack.push_async_callback(store.close)
            stage = Stage(simulation, store, applications, settings, stack)
            await stage.process()
            async with asyncio.timeout(seconds):
                return await body(stage)

    return simulate(main, seed=0, faults=False).value
