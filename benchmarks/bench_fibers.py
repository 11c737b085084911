"""What fibers cost: steps, parks, signals, schedules.

    python benchmarks/bench_fibers.py [--fibers 100] [--steps 100]

The store is a file with its writer thread, the event loop and the worker are this process. Read wall times beside the
disk's own synced commit, measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import msgspec
from bench_runtime import disk, show

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore, Worker, WorkerSettings, every


class Nothing(msgspec.Struct):
    """An object without state."""


LATENCIES: list[float] = []
RANG: list[float] = []


class Work(DurableObject[Nothing]):
    """Fibers of the shapes that are measured."""

    async def steps(self, fiber: Fiber, count: int) -> None:
        for number in range(count):
            started = time.perf_counter()
            await fiber.step(f"s{number}", nothing)
            LATENCIES.append(time.perf_counter() - started)

    async def waits(self, fiber: Fiber) -> float:
        await fiber.wait("go")
        return time.perf_counter()

    async def parks(self, fiber: Fiber) -> None:
        await fiber.wait("never")

    async def rings(self, fiber: Fiber) -> None:
        RANG.append(time.time() - (fiber.occurrence or 0.0))

    async def run(self, fiber: Fiber) -> None:
        """Nothing: what a fiber itself costs."""


async def nothing() -> None: ...


class World:
    def __init__(self, directory: Path) -> None:
        self.clock, self.ids = SystemClock(), SystemIds()
        self.store = SqliteStore(str(directory / "cairn.db"), clock=self.clock, ids=self.ids)
        self.application = ObjectApplication(Work)
        self.client = Client(self.store, self.application, clock=self.clock, ids=self.ids)

    def worker(self, **options: float) -> Worker:
        settings = WorkerSettings(**options)  # type: ignore[arg-type]
        return Worker(self.store, [self.application], clock=self.clock, ids=self.ids, settings=settings)


async def steps(world: World, fibers: int, count: int, *, objects: int) -> None:
    """So many fibers of so many steps each, spread over so many objects."""
    LATENCIES.clear()
    started = time.perf_counter()
    receipts = [await world.client.accept(f"o{objects}-{n % objects}", "steps", [count]) for n in range(fibers)]
    for receipt in receipts:
        await world.client.result(receipt)
    took = time.perf_counter() - started
    print(f"{fibers} fibers × {count} steps over {objects} objects: {fibers * count / took:,.0f} steps/s ({took:.2f} s)")
    show(f"  one step, {fibers} fibers at once", LATENCIES)


async def signals(world: World, worker: Worker, count: int, *, sleeping: bool) -> None:
    """A signal to an object that waits → its method goes on."""
    times = []
    for n in range(count):
        receipt = await world.client.accept(f"w{sleeping}{n}", "waits", [])
        while (state := await world.client.inspect(f"w{sleeping}{n}", receipt.fiber)) is None or not state.waits:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        while sleeping and any(address.id == f"w{sleeping}{n}" for address in worker.running):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        started = time.perf_counter()
        await world.client.signal(f"w{sleeping}{n}", "go")
        times.append(float(await world.client.result(receipt)) - started)
    show(f"signal → the method goes on, object {'hibernating' if sleeping else 'in memory'}", times)


async def parked(world: World, count: int) -> None:
    """So many fibers of one object, accepted, started and parked; the tasks that are left."""
    before = len(asyncio.all_tasks())
    started = time.perf_counter()
    await asyncio.gather(*(world.client.accept("parked", "parks", []) for _ in range(count)))
    while len(await world.client.fibers("parked", status="parked", limit=count + 1)) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    took = time.perf_counter() - started
    tasks = len(asyncio.all_tasks()) - before
    print(f"{count:,} fibers of one object accepted, started and parked in {took:.2f} s; tasks: {tasks:+d}")


async def rings(world: World, count: int) -> None:
    """Schedules of a second, each of an object of its own: how late they are."""
    for n in range(count):
        await world.client.schedule(f"r{n}", every(1.0, missed="each"), "rings", [], key="beat")
    await asyncio.sleep(8)
    show(f"occurrence → its method runs, {count} schedules of a second", RANG)
    for n in range(count):
        await world.client.cancel(f"r{n}", "beat")


async def bench(fibers: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        show("the disk's own synced commit", disk(Path(directory)))
        world = World(Path(directory))
        await world.store.open()
        async with world.worker(idle_seconds=60.0) as worker:
            await worker.idle()
            await steps(world, 1, 500, objects=1)
            await steps(world, fibers, count, objects=fibers)
            await steps(world, fibers, count, objects=1)
            await signals(world, worker, 50, sleeping=False)
            await parked(world, 1000)
        async with world.worker(idle_seconds=0.0) as worker:
            await worker.idle()
            await signals(world, worker, 50, sleeping=True)
            await rings(world, 20)
        await world.store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fibers", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(bench(options.fibers, options.steps))


if __name__ == "__main__":
    main()
