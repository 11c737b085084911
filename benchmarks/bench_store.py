"""What the store costs: appends by number of instances, with the loop idle and busy; waking up beside 100,000 idle instances.

    python benchmarks/bench_store.py [seconds per line]

Every line of appends is measured beside the disk's own cost in the same moment: one row of the same size in one synced
transaction of a plain SQLite database in its default settings. A virtual disk varies by a factor of ten within a minute,
so only the ratio means something. CPU is of the whole process, event loop and writer together.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Append, Batch, Creation, Durability

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].replace(".", "").isdigit() else 2.0

#: A record of a tool's outcome with its chunk, as they are on average.
BATCH = Batch(
    b'[{"type":"tool.outcome","text":"' + b"x" * 240 + b'"}]', b'[{"type":"tool-output","text":"' + b"x" * 100 + b'"}]'
)

IDLE_INSTANCES = 100_000


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1e3


def disk(folder: str, seconds: float) -> list[float]:
    """Seconds per synced commit of one row."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        db = sqlite3.connect(f"{place}/disk.db", isolation_level=None)
        db.execute("pragma journal_mode=WAL")
        db.execute("pragma synchronous=FULL")
        db.execute("create table t (n integer primary key, b blob)")
        took, end = [], time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            db.execute("insert into t (b) values (?)", (BATCH.records + BATCH.chunks,))
            took.append(time.perf_counter() - began)
        db.close()
        return took


async def population(store: SqliteStore, count: int) -> list[int]:
    async def born(i: int) -> int:
        creation = Creation(f"uid {i}", "incarnation", Batch(b"[]"), 1.0)
        return (await store.admit(Address("toy", str(i)), creation, Append(0, Batch(b"[]")))).n

    found: list[int] = []
    for start in range(0, count, 1_000):
        found += await asyncio.gather(*(born(i) for i in range(start, min(count, start + 1_000))))
    return found


async def busy(share: float) -> None:
    """Keep the loop computing for that share of the time, 4 ms at a stretch."""
    stretch = 0.004
    while True:
        end = time.perf_counter() + stretch
        while time.perf_counter() < end:
            pass
        await asyncio.sleep(stretch * (1 / share - 1))


async def appends(folder: str, count: int, durability: Durability, load: float) -> tuple[list[float], float, float]:
    """Seconds per append, wall seconds, CPU seconds of the process."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        store = SqliteStore(f"{place}/cairn.db", clock=SystemClock(), ids=SystemIds())
        await store.open()
        ns = await population(store, count)
        took: list[float] = []
        end = time.perf_counter() + SECONDS

        async def one(n: int) -> None:
            while (began := time.perf_counter()) < end:
                await store.append(Append(n, BATCH, 0, durability))
                took.append(time.perf_counter() - began)

        loader = asyncio.create_task(busy(load)) if load else None
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(one(n) for n in ns))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if loader is not None:
            loader.cancel()
        await store.close()
        return took, wall, cpu


def table_of_appends(folder: str) -> None:
    print(f"{'instances':>9} {'loop':>5} {'what':>6} {'appends/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'cpu us':>7}", end="")
    print(f" {'disk p50':>9} {'p99':>7} {'p50/disk':>9}")
    for load in (0.0, 0.8):
        for count in (1, 10, 100, 1_000):
            for durability in (Durability.FACT, Durability.DELTA):
                before = disk(folder, 0.3)
                took, wall, cpu = asyncio.run(appends(folder, count, durability, load))
                own = before + disk(folder, 0.3)
                ratio = percentile(took, 0.5) / percentile(own, 0.5)
                # Beside a load that takes whatever is left, the process's CPU says nothing about the store.
                each = "" if load else f"{cpu / len(took) * 1e6:.1f}"
                print(
                    f"{count:>9} {'busy' if load else 'idle':>5} {durability.value:>6} {len(took) / wall:>10,.0f}"
                    f" {percentile(took, 0.5):>8.3f} {percentile(took, 0.99):>8.2f} {each:>7}"
                    f" {percentile(own, 0.5):>9.3f} {percentile(own, 0.99):>7.2f} {ratio:>9.2f}",
                    flush=True,
                )


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def wake(path: str) -> None:
    """Open, ask for work as a worker does, read one instance; print times and memory. Run in a process of its own."""
    memory, began = resident_bytes(), time.perf_counter()
    store = SqliteStore(path, clock=SystemClock(), ids=SystemIds())
    await store.open()
    opened = time.perf_counter()
    await store.due(["toy"], 1e12)
    await store.next_due(["toy"])
    looked = time.perf_counter()
    found = await store.find(Address("toy", "0"))
    assert found is not None
    await store.read(found.n, -1)
    read = time.perf_counter()
    grown = (resident_bytes() - memory) / 1e6
    print(
        f"{(opened - began) * 1e3:>10.1f} {(looked - opened) * 1e3:>12.1f} {(read - looked) * 1e3:>12.1f} {grown:>10.1f}",
        flush=True,
    )
    await store.close()


async def fill(path: str, count: int) -> None:
    store = SqliteStore(path, clock=SystemClock(), ids=SystemIds())
    await store.open()
    await population(store, count)
    await store.close()


def table_of_idle(folder: str) -> None:
    print(f"\n{'idle':>9} {'file MB':>8} {'open ms':>10} {'look ms':>12} {'read ms':>12} {'grown MB':>10}")
    for count in (1, 1_000, IDLE_INSTANCES):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = f"{place}/cairn.db"
            asyncio.run(fill(path, count))
            print(f"{count:>9,} {os.path.getsize(path) / 1e6:>8.1f}", end=" ", flush=True)
            subprocess.run([sys.executable, __file__, "wake", path], check=True)


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "wake":
        asyncio.run(wake(sys.argv[2]))
        return
    sys.setswitchinterval(0.0005)  # as the worker does: at Python's default a busy loop costs the writer 100 times as much
    folder = os.environ.get("CAIRN_BENCH_FOLDER") or tempfile.gettempdir()
    print(f"{folder}, SQLite {sqlite3.sqlite_version}, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    table_of_appends(folder)
    table_of_idle(folder)


if __name__ == "__main__":
    main()
