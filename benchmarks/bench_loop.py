"""What one step of the loop costs, and that it does not grow with the conversation.

    python benchmarks/bench_loop.py [--turns 500]

A turn here is one user message, ten sequential trivial tool calls, then text: 21 steps' worth of records (10 tool steps and an
answer). Model and tool cost nothing; the rest is Cairn. Wall times are compared with the disk's own synced commit, measured
in the same run; take ratios, machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from cairn import Agent, App
from cairn.clock import SystemClock
from cairn.harness.application import AgentApplication
from cairn.harness.loop import Services
from cairn.ids import SystemIds
from cairn.runtime.instance import Fold
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address
from cairn.testing.scripted import Call, Reply, Say, ScriptedModel

CALLS = 10


def make_agent(**options: object) -> tuple[Agent[None], ScriptedModel]:
    turn = 0

    def script(request: object) -> Reply:
        nonlocal turn
        turn += 1
        step = (turn - 1) % (CALLS + 1)
        return Call("add", {"a": turn, "b": step}) if step < CALLS else Say("Done.")

    model = ScriptedModel(script)
    model.keep_requests = False
    agent = Agent("bench", model=model, instructions="Add numbers.", **options)  # type: ignore[arg-type]

    @agent.tool
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return agent, model


def disk_commit_ms(directory: Path, count: int = 200) -> float:
    """The median of the disk's own synced one-row commit."""
    db = sqlite3.connect(directory / "own.db", isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table t(x)")
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        db.execute("insert into t values (zeroblob(400))")
        taken.append(time.perf_counter() - start)
    db.close()
    return statistics.median(taken) * 1000


def rss_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def conversation(path: str, turns: int, marks: tuple[int, ...]) -> list[dict[str, float]]:
    agent, _ = make_agent()
    rows: list[dict[str, float]] = []
    async with App(agents=[agent], store=path) as app:
        talk = app.conversation(agent, "one")
        for turn in range(1, turns + 1):
            cpu, wall = time.process_time(), time.perf_counter()
            await (await talk.send(f"Turn {turn}")).reply()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if any(abs(turn - mark) <= 2 for mark in marks):
                rows.append({"turn": turn, "cpu": cpu * 1000, "wall": wall * 1000, "rss": rss_mb()})
    return rows


async def in_memory(runs: int) -> float:
    agent, _ = make_agent()
    async with App(agents=[agent], store=":memory:") as app:
        taken = []
        for run in range(runs):
            start = time.process_time()
            await (await app.conversation(agent, f"c{run}").send("Go")).reply()
            taken.append(time.process_time() - start)
    return statistics.median(taken) * 1000


async def deltas(count: int) -> tuple[float, float]:
    """CPU of one answer of `count` deltas, and of draining the model's stream alone."""
    model = ScriptedModel(lambda request: Say("abcd " * count, chunk=5))
    model.keep_requests = False
    agent = Agent("deltas", model=model)
    async with App(agents=[agent], store=":memory:") as app:
        await (await app.conversation(agent, "warm").send("Go")).reply()
        start = time.process_time()
        await (await app.conversation(agent, "one").send("Go")).reply()
        whole = time.process_time() - start
    start = time.process_time()
    async for _ in model.stream(_request()):
        pass
    return whole * 1000, (time.process_time() - start) * 1000


def _request():  # type: ignore[no-untyped-def]
    from cairn.harness.models.protocol import ModelRequest

    return ModelRequest(model="m", system="", messages=[])


async def activation(path: str) -> tuple[float, int]:
    clock, ids = SystemClock(), SystemIds()
    agent, _ = make_agent()
    application = AgentApplication(agent, Services(resolve=lambda model: model), ".")  # type: ignore[arg-type, return-value]
    store = SqliteStore(path, clock=clock, ids=ids)
    await store.open()
    row = await store.find(Address("bench", "one"))
    assert row is not None
    taken = []
    for _ in range(10):
        start = time.perf_counter()
        fold = Fold(application, row.n, row.address)
        await fold.load(store)
        taken.append(time.perf_counter() - start)
    await store.close()
    return statistics.median(taken) * 1000, fold.head


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=500)
    turns = parser.parse_args().turns
    marks = tuple(mark for mark in (1, 10, 100, 500, turns) if mark <= turns)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        own = disk_commit_ms(directory)
        path = str(directory / "bench.db")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_oublock
        rows = await conversation(path, turns, marks)
        written = (resource.getrusage(resource.RUSAGE_SELF).ru_oublock - before) * 512
        size = os.stat(path).st_size
        steps = CALLS + 1
        print(f"the disk's own synced commit: {own:.3f} ms (median)")
        print(f"{'turn':>6} {'CPU ms/step':>12} {'wall ms/step':>13} {'RSS MB':>8}")
        for mark in sorted(set(marks)):
            near = [row for row in rows if abs(row["turn"] - mark) <= 2]
            cpu = statistics.median(row["cpu"] for row in near) / steps
            wall = statistics.median(row["wall"] for row in near) / steps
            print(f"{mark:>6} {cpu:>12.3f} {wall:>13.3f} {near[-1]['rss']:>8.1f}")
        per_step = size / (turns * steps)
        print(f"database: {per_step:.0f} bytes per step after a truncating checkpoint; written: {written / 1e6:.0f} MB")
        ms, head = await activation(path)
        print(f"activation at turn {turns} (head {head}): {ms:.1f} ms")
        memory = await in_memory(30)
        print(f"in memory, one whole run of {steps} steps: {memory:.2f} ms CPU (median of 30 conversations)")
        whole, stream = await deltas(10_000)
        print(f"10,000 deltas: {whole:.1f} ms CPU in all, {stream:.1f} ms of it the scripted stream itself")


asyncio.run(main())
