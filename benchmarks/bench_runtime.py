"""What owning, losing and waking an instance costs.

    python benchmarks/bench_runtime.py [--records 100000] [--idle 100000]

Claim, takeover and activation on a file with the writer thread; kills are SIGKILL of real worker processes. Wall times
are to be read beside the disk's own synced commit, measured in the same run: machines are noisy, ratios less so.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore, Worker, WorkerSettings
from cairn.runtime import records as r
from cairn.runtime.instance import WAKE, Instance, wake_now
from cairn.runtime.ready import next_wake
from cairn.runtime.storage.store import Due, WorkerRow

KILLS = 10
ROUNDS = 100


class Nothing(msgspec.Struct):
    """An object without state."""


class Bench(DurableObject[Nothing]):
    async def run(self, fiber: Fiber) -> float:
        return fiber.instance.clock.monotonic()

    async def beat(self, fiber: Fiber) -> None:
        """Tell when an attempt begins, then wait to be killed."""
        path = os.environ["CAIRN_BENCH_BEATS"]
        with open(path, "a") as file:  # noqa: ASYNC230
            file.write(f"{time.monotonic()}\n")
        await asyncio.sleep(3600)


class World:
    """A store on a file, an application, a client."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock, self.ids = SystemClock(), SystemIds()
        self.store = SqliteStore(str(directory / "cairn.db"), clock=self.clock, ids=self.ids)
        self.application = ObjectApplication(Bench)
        self.client = Client(self.store, self.application, clock=self.clock, ids=self.ids)

    def worker(self, **options: float) -> Worker:
        settings = WorkerSettings(**options)  # type: ignore[arg-type]
        return Worker(self.store, [self.application], clock=self.clock, ids=self.ids, settings=settings)

    async def instance(self, n: int, worker: str) -> Instance:
        row = await self.store.instance(n)
        assert row is not None
        return Instance(self.store, self.clock, self.ids, self.application, row, worker)


def show(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{what:<58} p50 {statistics.median(ordered) * 1e3:9.2f} ms   p99 {worst * 1e3:9.2f} ms")


def disk(directory: Path) -> list[float]:
    """The disk's own synced commit: one row, FULL."""
    db = sqlite3.connect(directory / "disk.db", isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table t (x)")
    return [timed(lambda: db.execute("insert into t values (1)")) for _ in range(ROUNDS)]


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


async def timed_await(call: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


async def claims(world: World) -> None:
    """Activation, claim and release of a small instance; and a fiber from acceptance to result, idle and lingering."""
    receipt = await world.client.accept("claimed", "run")
    await world.store.register(WorkerRow("bench", "host", 1, ("bench",), 0.0, 0.0), 3600.0, lambda: True)
    loads, owned, released = [], [], []
    for _ in range(ROUNDS):
        instance = await world.instance(receipt.n, "bench")
        loads.append(await timed_await(lambda: instance.load(world.store)))  # noqa: B023
        owned.append(await timed_await(instance.claim))
        released.append(await timed_await(lambda: instance.release(lambda: wake_now(0.0))))  # noqa: B023
    await world.store.unregister("bench")
    show("activation of a small instance (fold)", loads)
    show("claim (one synced commit)", owned)
    show("release (one synced commit)", released)

    async def call(id: str) -> None:
        await world.client.result(await world.client.accept(id, "run"))

    async with world.worker(idle_seconds=60.0) as worker:
        await worker.idle()
        show("accept → result, sleeping instance", [await timed_await(lambda: call(f"i{n}")) for n in range(ROUNDS)])  # noqa: B023
        show("accept → result, instance in memory", [await timed_await(lambda: call("i0")) for _ in range(ROUNDS)])


async def long_log(world: World, records: int) -> None:
    """A log of many records with its checkpoints; then activation up to knowing the next step."""
    receipt = await world.client.accept("long", "run")
    await world.store.register(WorkerRow("bench", "host", 1, ("bench",), 0.0, 0.0), 3600.0, lambda: True)
    instance = await world.instance(receipt.n, "bench")
    await instance.load(world.store)
    await instance.claim()
    await instance.append([r.FiberStarted(fiber=receipt.fiber, at=0.0)])
    batch = 50
    for number in range(records // batch):
        stashes = [r.FiberStashed(fiber=receipt.fiber, value=msgspec.Raw(b"%d" % number)) for _ in range(batch)]
        await instance.append(stashes)
    await instance.append([r.FiberSettled(fiber=receipt.fiber, outcome="completed", at=0.0)])
    await instance.drop()

    async def activate() -> None:
        again = await world.instance(receipt.n, "bench")
        await again.load(world.store)
        next_wake(again.runtime, world.application, after=world.clock.wall())

    show(f"activation after {records:,} records, to the next step", [await timed_await(activate) for _ in range(20)])
    await world.store.unregister("bench")


async def kills(world: World) -> None:
    """SIGKILL of the owner → the next attempt begins in another process that waits; and in one that is started by the kill."""
    beats = world.directory / "beats"
    os.environ["CAIRN_BENCH_BEATS"] = str(beats)
    waiting, cold = [], []
    for number in range(KILLS):
        for times, has_successor in ((waiting, True), (cold, False)):
            beats.write_text("")
            receipt = await world.client.accept(f"k{number}{has_successor}", "beat")
            first = spawn(world)
            await beat(beats, 1)
            second = spawn(world) if has_successor else None
            if second is not None:
                await registered(world, 2)
            first.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            second = second or spawn(world)
            times.append(await beat(beats, 2) - killed)
            await world.client.abort(f"k{number}{has_successor}")
            await world.client.settled(f"k{number}{has_successor}", receipt.fiber)
            second.kill()
            for process in (first, second):
                process.wait()
    show("kill -9 → next attempt, in a worker that waits", waiting)
    show("kill -9 → next attempt, in a worker started then", cold)


def spawn(world: World) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--serve", str(world.directory)])


async def beat(path: Path, number: int) -> float:
    """When the attempt of that number began."""
    while len(lines := path.read_text().splitlines()) < number:  # noqa: ASYNC110, ASYNC240 - another process writes it
        await asyncio.sleep(0.002)
    return float(lines[number - 1])


async def registered(world: World, number: int) -> None:
    while len(await world.store.workers()) < number:  # noqa: ASYNC110 - in other processes
        await asyncio.sleep(0.02)


async def serve(directory: Path) -> None:
    world = World(directory)
    await world.store.open()
    await world.worker().serve()


async def idle_instances(directory: Path, count: int) -> None:
    """A store full of instances that sleep: what they cost a worker that starts."""
    world = World(directory)
    await world.store.open()
    empty = await start_up(world)
    started = time.perf_counter()
    for first in range(0, count, 500):
        await asyncio.gather(*(asleep(world, f"s{n}") for n in range(first, min(first + 500, count))))
    print(f"{count:,} instances made in {time.perf_counter() - started:.1f} s")
    await world.store.close()
    world = World(directory)
    opened = await timed_await(world.store.open)
    before = memory()
    full = await start_up(world)
    print(f"store opened in {opened * 1e3:.1f} ms; worker idle after {empty * 1e3:.1f} ms empty, {full * 1e3:.1f} ms full")
    print(f"memory: {memory() - before:+.1f} MB for the worker beside {count:,} sleeping instances")
    await world.store.close()


async def asleep(world: World, id: str) -> None:
    """An instance whose one fiber has settled; written by hand, because running a hundred thousand is another benchmark."""
    receipt = await world.client.accept(id, "run")
    await world.client.abort(id)
    await world.store.release(receipt.n, 0, None, [Due(WAKE, None)])


async def start_up(world: World) -> float:
    worker = world.worker()
    started = time.perf_counter()
    await worker.start()
    await worker.idle()
    took = time.perf_counter() - started
    worker.stop()
    await worker.join()
    return took


def memory() -> float:
    """Resident megabytes now, where the system says; else the most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


async def bench(records: int, idle: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        show("the disk's own synced commit", disk(Path(directory)))
        world = World(Path(directory))
        await world.store.open()
        await claims(world)
        await long_log(world, records)
        await kills(world)
        await world.store.close()
    with tempfile.TemporaryDirectory() as directory:
        await idle_instances(Path(directory), idle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--idle", type=int, default=100_000)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
    else:
        asyncio.run(bench(options.records, options.idle))


if __name__ == "__main__":
    main()
