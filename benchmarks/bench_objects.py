"""What durable objects cost: calls, commits, wake-ups, idle ones, clients that are told.

    python benchmarks/bench_objects.py [wake|calls|foreign|commits|broadcast|sockets|idle ...] [--idle 100000]

In-process parts run the event loop, the worker and the writer thread in this process, on a file. `foreign` calls an object that
another process owns; `sockets` talks to a `cairn serve` over WebSockets with a client in this process. Read wall times beside
the disk's own synced commit, measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_runtime import disk, show, timed_await

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Connection, DurableObject, ObjectApplication, Objects, Request, SqliteStore, Worker, WorkerSettings
from cairn.runtime import callable as method
from cairn.runtime.attachment import Attachment
from cairn.runtime.frames import StateFrame

CLIENTS = 100
OBJECTS = 100

SERVED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from bench_objects import Counter
from cairn import App
app = App(objects=[Counter])
"""


@dataclass
class Count:
    value: int = 0


class Counter(DurableObject[Count]):
    """Calls of each kind."""

    @method
    async def add(self, by: int) -> int:
        self.state.value += by
        return self.state.value

    @method
    async def echo(self, what: str) -> str:
        return what

    @method(read_only=True)
    async def value(self) -> int:
        return self.state.value


class World:
    """A store on a file, and what reaches its objects."""

    def __init__(self, directory: Path) -> None:
        self.clock, self.ids = SystemClock(), SystemIds()
        self.store = SqliteStore(str(directory / "cairn.db"), clock=self.clock, ids=self.ids)
        self.application = ObjectApplication(Counter)

    @asynccontextmanager
    async def objects(self, **options: float) -> AsyncGenerator[tuple[Objects, Worker]]:
        settings = WorkerSettings(**options)  # type: ignore[arg-type]
        async with Worker(self.store, [self.application], clock=self.clock, ids=self.ids, settings=settings) as worker:
            objects = self.reaching(worker)
            yield objects, worker
            await objects.close()

    def reaching(self, worker: Worker | None) -> Objects:
        return Objects(self.store, worker, {"counter": self.application}, clock=self.clock, ids=self.ids)


async def rate(what: str, call: Callable[[int], Awaitable[object]], count: int, *, at_once: int) -> None:
    """So many calls, so many of them at a time."""
    numbers = iter(range(count))
    took: list[float] = []

    async def caller() -> None:
        for number in numbers:
            started = time.perf_counter()
            await call(number)
            took.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    show(f"{what}, {at_once} at once: {count / (time.perf_counter() - started):,.0f}/s", took)


# --- in one process


async def wake(world: World, count: int = 100) -> None:
    """A call to an object that is rows, and the same call to one in memory."""
    async with world.objects(idle_seconds=0.05) as (objects, worker):
        for number in range(count):
            await objects.of(Counter, f"wake-{number}").add(1)
        for kind, call in (("read-only call", "value"), ("call that commits", "add")):
            took = []
            for number in range(count):
                while any(address.id == f"wake-{number}" for address in worker.running):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
                stub = objects.of(Counter, f"wake-{number}")
                arguments = [] if call == "value" else [1]
                took.append(await timed_await(lambda: stub.call(call, *arguments)))  # noqa: B023
            show(f"hibernating object → answer, {kind}", took)


async def calls(world: World) -> None:
    async with world.objects(idle_seconds=60.0) as (objects, _):
        stub = objects.of(Counter, "calls")
        await stub.add(1)
        for at_once in (1, 20):
            await rate("direct call that changes nothing", lambda _: stub.echo("x"), 2000, at_once=at_once)
            await rate("direct read-only call", lambda _: stub.value(), 2000, at_once=at_once)
            await rate("direct call that commits", lambda _: stub.add(1), 1000, at_once=at_once)


async def commits(world: World) -> None:
    """Handlers of many objects share the disk's synced commits."""
    async with world.objects(idle_seconds=60.0) as (objects, _):
        stubs = [objects.of(Counter, f"commits-{number}") for number in range(OBJECTS)]
        await asyncio.gather(*(stub.add(1) for stub in stubs))
        await rate(f"calls that commit, over {OBJECTS} objects", lambda n: stubs[n % OBJECTS].add(1), 20_000, at_once=OBJECTS)


async def broadcast(world: World) -> None:
    """A change of state until the last of the attached clients has its frame."""
    async with world.objects(idle_seconds=60.0) as (objects, _):
        stub = objects.of(Counter, "room")
        await stub.add(1)
        clients = [await objects.connect("counter", "room", Connection(f"c{n}"), Request()) for n in range(CLIENTS)]
        streams = [client.frames() for client in clients]

        async def told(stream: AsyncGenerator[Any], value: int) -> None:
            async for frame in stream:
                if isinstance(frame, StateFrame) and json.loads(bytes(frame.state))["value"] == value:
                    return

        took = []
        for _ in range(50):
            value = (await stub.value()) + 1

            async def change(value: int = value) -> None:
                waiting = [asyncio.ensure_future(told(stream, value)) for stream in streams]
                await stub.add(1)
                await asyncio.gather(*waiting)

            took.append(await timed_await(change))
        show(f"state → {CLIENTS} attached clients", took)
        await asyncio.gather(*(_left(client) for client in clients))


async def _left(client: Attachment) -> None:
    await client.close(1000, "")


# --- across processes


async def foreign(world: World, directory: Path) -> None:
    """Another process owns the object: the call is a request in its log, the answer is read from there."""
    owner = subprocess.Popen([sys.executable, __file__, "--own", str(directory)], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert owner.stdout is not None and owner.stdout.readline()
        objects = world.reaching(None)
        stub = objects.of(Counter, "foreign")
        await stub.add(1)
        for at_once in (1, 20):
            await rate("forwarded call that commits", lambda _: stub.add(1), 400, at_once=at_once)
        await objects.close()
    finally:
        owner.kill()
        owner.wait()


async def own(directory: Path) -> None:
    world = World(directory)
    await world.store.open()
    async with world.objects(idle_seconds=600.0):
        print("ready", flush=True)
        await asyncio.sleep(600)


async def sockets(directory: Path) -> None:
    """Calls and state over WebSockets of a server in a process of its own."""
    from websockets.asyncio.client import connect

    (directory / "served.py").write_text(SERVED)
    log = (directory / "log").open("w+")
    environment = {**os.environ, "CAIRN_STORE": str(directory / "served.db")}
    command = [str(Path(sys.executable).with_name("cairn")), "serve", "served:app", "--port", "0"]
    server = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220
    try:
        while (found := re.search(r"http://(127\.0\.0\.1:\d+)", (directory / "log").read_text())) is None:
            assert server.poll() is None, (directory / "log").read_text()
            await asyncio.sleep(0.01)
        url = f"ws://{found[1]}/agents/counter/served"
        lines = [await connect(url) for _ in range(CLIENTS)]

        async def rpc(number: int, name: str, *args: object) -> None:
            line = lines[0]
            await line.send(json.dumps({"type": "rpc", "id": str(number), "method": name, "args": args}))
            while json.loads(await line.recv()).get("id") != str(number):
                pass

        await rate("call over a WebSocket, changes nothing", lambda n: rpc(n, "echo", "x"), 1000, at_once=1)
        took = []
        for number in range(50):
            line = lines[1]
            waiting = [asyncio.ensure_future(_state(each, number)) for each in lines[2:]]
            started = time.perf_counter()
            await line.send(json.dumps({"type": "cf_agent_state", "state": {"value": number}}))
            await asyncio.gather(*waiting)
            took.append(time.perf_counter() - started)
        show(f"state set by one socket → {CLIENTS - 2} other sockets", took)
        await asyncio.gather(*(line.close() for line in lines))
    finally:
        server.kill()
        server.wait()


async def _state(line: Any, value: int) -> None:
    while True:
        frame = json.loads(await line.recv())
        if frame.get("type") == "cf_agent_state" and frame["state"]["value"] == value:
            return


# --- idle objects


async def idle(directory: Path, count: int) -> None:
    """A worker that starts beside so many objects that do nothing, and one that starts beside none."""
    measured = {}
    for objects in (0, count):
        folder = directory / f"idle-{objects}"
        folder.mkdir()
        world = World(folder)
        await world.store.open()
        if objects:
            async with world.objects(idle_seconds=0.0, instances_max=500) as (reach, worker):
                began = time.perf_counter()
                await rate("new objects", lambda n: reach.of(Counter, f"o{n}").add(1), objects, at_once=200)
                while worker.running:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                print(f"{objects:,} objects made and gone from memory in {time.perf_counter() - began:.0f} s")
        await world.store.close()
        runs = [started(folder) for _ in range(5)]
        measured[objects] = {key: sorted(run[key] for run in runs)[2] for key in runs[0]}
        size = sum(path.stat().st_size for path in folder.glob("cairn.db*"))
        print(f"{objects:,} idle objects: {measured[objects]}, {size / 2**20:.1f} MiB on disk")
    for key in measured[0]:
        print(f"  {key}: {measured[count][key] / measured[0][key]:.3f} × of none")


def started(directory: Path) -> dict[str, float]:
    """What a fresh process says of its start there."""
    measured: dict[str, float] = json.loads(subprocess.check_output([sys.executable, __file__, "--start", str(directory)]))
    return measured


async def start(directory: Path) -> None:
    """From an open store to a worker that has found nothing to do, and a first call."""
    world = World(directory)
    started = time.perf_counter()
    await world.store.open()
    async with world.objects() as (objects, worker):
        await worker.idle()
        ready = time.perf_counter() - started
        call = await timed_await(lambda: objects.of(Counter, "o7").value())
        await asyncio.sleep(1.0)
        memory = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line).split()[1])  # noqa: ASYNC240
        tasks = len(asyncio.all_tasks())
    await world.store.close()
    found = {"start ms": ready * 1e3, "memory KiB": memory, "tasks": tasks, "first call ms": call * 1e3}
    print(json.dumps({key: round(value, 2) for key, value in found.items()}))


async def bench(parts: list[str], count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        show("the disk's own synced commit", disk(directory))
        world = World(directory)
        await world.store.open()
        for part in parts:
            print(f"\n{part}")
            if part in ("wake", "calls", "commits", "broadcast"):
                await {"wake": wake, "calls": calls, "commits": commits, "broadcast": broadcast}[part](world)
            elif part == "foreign":
                await foreign(world, directory)
            elif part == "sockets":
                await sockets(directory)
            else:
                await idle(directory, count)
        await world.store.close()
        show("\nthe disk's own synced commit", disk_again(directory))


def disk_again(directory: Path) -> list[float]:
    (directory / "disk.db").unlink()
    return disk(directory)


def main() -> None:
    every = ["wake", "calls", "foreign", "commits", "broadcast", "sockets", "idle"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(every)}; all by default")
    parser.add_argument("--idle", type=int, default=100_000)
    parser.add_argument("--own", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own is not None:
        asyncio.run(own(options.own))
    elif options.start is not None:
        asyncio.run(start(options.start))
    else:
        asyncio.run(bench(options.parts or every, options.idle))


if __name__ == "__main__":
    main()
