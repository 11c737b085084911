"""What an instance's files cost: durable writes, reads, walks, forks, large files.

    python benchmarks/bench_workspace.py [--instances 20] [--seconds 3] [--files 10000]

The store is a file with its writer thread; the event loop is this process. Read the writes beside the disk's own synced commit,
measured in the same run: one write is one synced batch of one instance, and batches of several instances share a commit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
from bench_runtime import disk, show

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore
from cairn.runtime import records as r
from cairn.runtime.instance import Instance
from cairn.runtime.storage.store import Batch, Creation, WorkerRow
from cairn.runtime.workspace import Workspace
from cairn.runtime.workspace_history import workspace_at

#: The targets this is read against.
WRITES_TARGET, READS_TARGET, FORK_TARGET_MS = 1_500, 40_000, 50.0

CONTENT = b"def main() -> None:\n    print('hello')\n" * 25
"""About 1 KB, as a small source file."""


class Nothing(msgspec.Struct):
    """An object without state."""


class Desk(DurableObject[Nothing]):
    """An instance that is here for its files."""

    async def run(self, fiber: Fiber) -> None: ...


class World:
    def __init__(self, directory: Path) -> None:
        self.clock, self.ids = SystemClock(), SystemIds()
        self.store = SqliteStore(str(directory / "cairn.db"), clock=self.clock, ids=self.ids)
        self.application = ObjectApplication(Desk)
        self.client = Client(self.store, self.application, clock=self.clock, ids=self.ids)
        self.lives = 0

    async def workspace(self, id: str, *, new: bool = True) -> Workspace:
        if new:
            await self.client.accept(id, "run", [])
        row = await self.store.find(self.client.address(id))
        assert row is not None
        self.lives += 1
        worker = f"bench-{self.lives}"
        await self.store.register(WorkerRow(worker, "bench", os.getpid(), (), 0.0, 0.0), 1e9, lambda: True)
        instance = await Instance.activate(self.store, self.clock, self.ids, self.application, row, worker)
        assert instance is not None
        return Workspace.of(instance)


async def rate(what: str, target: int, tasks: list[Callable[[int], Awaitable[object]]], seconds: float) -> None:
    """How often the tasks, each one call at a time, all together, get done."""
    done, end = 0, time.perf_counter() + seconds

    async def work(task: Callable[[int], Awaitable[object]]) -> None:
        nonlocal done
        number = 0
        while time.perf_counter() < end:
            await task(number)
            number += 1
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*map(work, tasks))
    found = done / (time.perf_counter() - started)
    print(f"{what:<58} {found:>12,.0f} /s   {'target ' + format(target, ',') if target else ''}")


async def busy_loop(share: float) -> None:
    """Keeps the event loop busy for a share of the time."""
    while True:
        end = time.perf_counter() + 0.004 * share
        while time.perf_counter() < end:
            pass
        await asyncio.sleep(0.004 * (1 - share))


async def writes(world: World, instances: int, seconds: float) -> None:
    workspaces = [await world.workspace(f"w{number}") for number in range(instances)]

    def writer(files: Workspace) -> Callable[[int], Awaitable[object]]:
        return lambda number: files.write(f"/f{number % 100}", CONTENT + b"%d" % number)

    writers = [writer(files) for files in workspaces]
    await rate(f"durable writes of 1 KB, {instances} instances", WRITES_TARGET, writers, seconds)
    await rate("durable writes of 1 KB, one instance", 0, writers[:1], seconds)
    busy = asyncio.ensure_future(busy_loop(0.8))
    await rate(f"the same, {instances} instances, event loop 80 % busy", 0, writers, seconds)
    busy.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await busy
    for files in workspaces:
        await files.instance.save_checkpoint()

    def reader(files: Workspace) -> Callable[[int], Awaitable[object]]:
        return lambda number: files.read(f"/f{number % 100}")

    readers = [reader(files) for files in workspaces]
    await rate(f"reads of 1 KB, {instances} instances, in memory", READS_TARGET, readers, seconds)
    cold = [await world.workspace(f"w{number}", new=False) for number in range(instances)]
    files = cold[0]
    times = []
    for number in range(100):
        started = time.perf_counter()
        await files.read(f"/f{number}")
        times.append(time.perf_counter() - started)
    show("a read of 1 KB, from the log", times)


async def many(world: World, count: int) -> None:
    files = await world.workspace("many")
    started = time.perf_counter()
    async with files.transaction() as draft:
        for number in range(count):
            await draft.write(f"/src/{number % 100}/{number // 100}.py", CONTENT[:200] + b"%d" % number, parents=True)
    print(f"{'one transaction of ' + format(count, ',') + ' files':<58} {(time.perf_counter() - started) * 1e3:>12,.0f} ms")
    await files.instance.save_checkpoint()
    print(f"{'  its checkpoint':<58} {len(files.instance.checkpoint()) / count:>12,.0f} bytes a file")

    times = []
    for number in range(200):
        started = time.perf_counter()
        await files.write("/src/7/7.py", CONTENT + b"%d" % number)
        times.append(time.perf_counter() - started)
    show(f"a write among {count:,} files, one at a time", times)
    times = []
    for number in range(50):
        started = time.perf_counter()
        await files.rename("/src" if number % 2 == 0 else "/moved", "/moved" if number % 2 == 0 else "/src")
        times.append(time.perf_counter() - started)
    show(f"a rename of the directory of {count:,} files", times)

    times = []
    for number in range(10):
        started = time.perf_counter()
        fork = await forked(world, files, f"fork-{number}")
        assert await fork.read("/src/3/3.py")
        times.append(time.perf_counter() - started)
    show(f"fork of {count:,} files, claimed, first file read (target {FORK_TARGET_MS:.0f} ms)", times)
    started = time.perf_counter()
    past = await workspace_at(world.store, files.instance.address, files.instance.head - 100)
    took = time.perf_counter() - started
    print(f"{'as of 100 changes ago, by another process':<58} {took * 1e3:>12,.1f} ms for {past.usage().files:,} files")


async def forked(world: World, source: Workspace, id: str) -> Workspace:
    at, address, uid = source.instance.head, world.client.address(id), world.ids.new("uid")
    record = r.InstanceForked(kind="desk", id=id, uid=uid, source=source.instance.uid, offset=at, at=world.clock.wall())
    creation = Creation(uid, world.ids.new("life"), Batch(r.encode([record])), world.clock.wall())
    await world.store.fork(source.instance.n, at, address, creation)
    return await world.workspace(id, new=False)


async def thousand(world: World) -> None:
    files = await world.workspace("thousand")
    async with files.transaction() as draft:
        for number in range(1_000):
            await draft.write(f"/src/{number % 30}/{number}.py", CONTENT, parents=True)
    for what, call in (
        ("walk of 1,000 files", lambda: list(files.walk())),
        ("glob **/*.py of 1,000 files", lambda: files.glob("**/*.py")),
        ("glob src/7/*.py of 1,000 files", lambda: files.glob("src/7/*.py")),
    ):
        times = []
        for _ in range(30):
            started = time.perf_counter()
            assert call()
            times.append(time.perf_counter() - started)
        show(what, times)
    cold = await world.workspace("thousand", new=False)
    started = time.perf_counter()
    found = 0
    for entry in cold.walk():
        if entry.is_file:
            found += (await cold.read(entry.path)).count(b"hello")
    print(f"{'grep of 1,000 files, from the store':<58} {(time.perf_counter() - started) * 1e3:>12,.1f} ms ({found:,} found)")


async def large(world: World, megabytes: int) -> None:
    files = await world.workspace("large")

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(megabytes):
            yield number.to_bytes(8, "big") * (1 << 17)

    started = time.perf_counter()
    await files.write("/big", pieces())
    wrote = time.perf_counter() - started
    started = time.perf_counter()
    async for _ in files.stream("/big"):
        pass
    read = time.perf_counter() - started
    print(f"{f'a file of {megabytes} MB':<58} {megabytes / wrote:>6,.0f} MB/s written, {megabytes / read:,.0f} MB/s read")


async def bench(instances: int, seconds: float, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        show("the disk's own synced commit", disk(Path(folder)))
        world = World(Path(folder))
        await world.store.open()
        try:
            await writes(world, instances, seconds)
            await thousand(world)
            await many(world, count)
            await large(world, 256)
        finally:
            await world.store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--files", type=int, default=10_000)
    given = parser.parse_args()
    asyncio.run(bench(given.instances, given.seconds, given.files))


if __name__ == "__main__":
    main()
