"""What programs cost: to begin, to call, to wait, to go on; and what they save of a model's prompt and turns.

    python benchmarks/bench_programs.py [--parked 10000]

Calls on a fiber are durable: read them beside the disk's own synced commit of the same run. Tokens are counted as characters
of the request's JSON divided by four, which is about right for English and JSON, and the same for both sides. The model is
scripted and answers at once, so the wall time of turns is ours alone; a real one takes seconds for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from bench_runtime import disk, show

from cairn import Agent, App
from cairn.clock import SystemClock
from cairn.harness.messages import ToolSpec
from cairn.harness.tools import Tool
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, SqliteStore, Worker, WorkerSettings
from cairn.runtime.program import Function, FunctionCall, Outcome, Program, ProgramLimits
from cairn.runtime.program_pool import Blocked, Interpreters
from cairn.runtime.program_run import run_program
from cairn.runtime.workflow import workflows
from cairn.testing.scripted import Call, ScriptedModel

ROUNDS = 200
CALLS = 1_000

#: A program with some state, as a model writes it: it waits in the middle.
TYPICAL = """
orders = [{"id": n, "customer": f"customer {n}", "price": n * 1.5} for n in range(20)]
async def total(rows):
    return sum(row["price"] for row in rows)
found = await fetch(1)
await total(orders) + found
"""

#: What is quiet leaves memory at once: what is measured is what it costs to wait.
SETTINGS = WorkerSettings(idle_seconds=0.05)

LIMITS = ProgramLimits(calls=100_000, run_seconds=300.0)


@dataclass
class Nothing:
    pass


async def echo(call: FunctionCall) -> Any:
    return call.arguments["0"]


class Host(DurableObject[Nothing]):
    """An object that runs programs, and measures them where they run."""

    kind = "host"
    interpreters: Interpreters

    async def run(self, fiber: Fiber, source: str, repeat: str) -> float:
        functions = [Function("fetch", echo, ("0",), repeat)]  # type: ignore[arg-type]
        begun = time.perf_counter()
        result = await run_program(
            fiber, Program(source), functions, interpreters=self.interpreters, limits=LIMITS, check=False, secret=b"s"
        )
        assert result.failure is None, result
        return time.perf_counter() - begun


@asynccontextmanager
async def hosted(directory: Path) -> AsyncIterator[Client]:
    clock, ids = SystemClock(), SystemIds()
    store = SqliteStore(str(directory / "cairn.db"), clock=clock, ids=ids)
    await store.open()
    Host.interpreters = Interpreters()
    application = ObjectApplication(Host)
    async with Worker(store, [application], clock=clock, ids=ids):
        yield Client(store, application, clock=clock, ids=ids)
    await Host.interpreters.close()
    await store.close()


async def taken(client: Client, source: str, id: str = "one", repeat: str = "safe") -> float:
    return float(await client.result(await client.accept(id, "run", [source, repeat])))


def lease(interpreters: Interpreters) -> Any:
    return interpreters.session(LIMITS, moment=0.0, seed="s", functions={"fetch"})


async def starts(client: Client) -> None:
    interpreters = Host.interpreters
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        async with lease(interpreters) as session:
            await session.start(Program("1 + 1"), {}, check=False)
            seconds.append(time.perf_counter() - begun)
    show("program start: an interpreter, a text, its result", seconds)
    show("the same on a fiber (run_program)", [await taken(client, "1 + 1") for _ in range(ROUNDS)])


async def calls(client: Client) -> None:
    async with lease(Host.interpreters) as session:
        begun = time.perf_counter()
        turn = await session.start(Program(f"for n in range({CALLS}):\n    await fetch(n)"), {}, check=False)
        while isinstance(turn, Blocked):
            turn = await session.answer(turn.pending[0], Outcome(1), None)
        print(f"{'outside calls, interpreter alone':<58} {CALLS / (time.perf_counter() - begun):9,.0f} /s")
    one = f"for n in range({CALLS}):\n    await fetch(n)"
    many = f"import asyncio\nfor n in range({CALLS // 100}):\n    await asyncio.gather(*[fetch(m) for m in range(100)])"
    print(f"{'  one program, one after the other, durable':<58} {CALLS / await taken(client, one):9,.0f} /s")
    print(f"{'  one program, 100 at a time, durable':<58} {CALLS / await taken(client, many):9,.0f} /s")
    begun = time.perf_counter()
    await asyncio.gather(*(taken(client, many, id=f"i{number}") for number in range(8)))
    print(f"{'  eight programs at once, 100 at a time, durable':<58} {8 * CALLS / (time.perf_counter() - begun):9,.0f} /s")
    kept = 200 / await taken(client, "for n in range(200):\n    await fetch(n)", repeat="keyed")
    print(f"{'  `keyed`, one after the other (intent, state, outcome)':<58} {kept:9,.0f} /s")


async def dumps() -> None:
    interpreters = Interpreters()
    seconds, size, dump = [], 0, b""
    async with lease(interpreters) as session:
        turn = await session.start(Program(TYPICAL), {}, check=False)
        assert isinstance(turn, Blocked)
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            dump = session.dump()
            seconds.append(time.perf_counter() - begun)
            size = len(dump)
    show(f"state of a waiting program: {size:,} bytes, taken in", seconds)
    warm = [await resumed(interpreters, dump) for _ in range(ROUNDS)]
    await interpreters.close()
    cold = []
    for _ in range(20):
        fresh = Interpreters()
        cold.append(await resumed(fresh, dump))
        await fresh.close()
    show("gone on from it, a warm interpreter", warm)
    show("gone on from it, a pool and a process that are new", cold)


async def resumed(interpreters: Interpreters, dump: bytes) -> float:
    begun = time.perf_counter()
    async with lease(interpreters) as session:
        (number,) = await session.load(dump, "")
        await session.answer(number, Outcome(1), 5)
        return time.perf_counter() - begun


# --- what it saves of a model's time ------------------------------------------------------------------------------------


def tokens(value: Any) -> int:
    return len(msgspec.json.encode(value)) // 4


def tools(count: int) -> list[Tool]:
    async def run(context: Any, arguments: dict[str, Any]) -> Any:
        return arguments["number"]

    def made(number: int) -> Tool:
        properties = {
            "number": {"type": "integer", "description": "Which one, counted from one."},
            "format": {"type": "string", "enum": ["short", "long"], "description": "How much is told of it."},
            "since": {"type": "string", "description": "Only what happened after this date, YYYY-MM-DD."},
        }
        parameters = {"type": "object", "properties": properties, "required": ["number"]}
        spec = ToolSpec(
            name=f"read_report_{number}", description=f"Read the report of department {number}.", parameters=parameters
        )
        return Tool(spec=spec, run=run, repeat="safe")

    return [made(number) for number in range(count)]


async def conversations(directory: Path) -> None:
    for count in (200,):
        plain = Agent("plain", model=ScriptedModel([]), tools=tools(count))
        coded = Agent("coded", model=ScriptedModel([]), tools=tools(count), codemode=True)
        sizes = [tokens([tool.spec for tool in agent.render().tools]) for agent in (plain, coded)]
        print(f"{f'prompt of {count} tools: plain, code mode':<58} {sizes[0]:9,} {sizes[1]:9,} tokens")
    turns = [Call("read_report_1", {"number": number}) for number in range(20)]
    program = "[await read_report_1(number=n) for n in range(20)]"
    described = Call("describe_functions", {"names": ["read_report_1"]})
    scripts = {
        "20 plain tool turns": (False, [*turns, "Done."]),
        "one program of 20 calls": (True, [described, Call("run_program", {"code": program}), "Done."]),
    }
    for what, (codemode, script) in scripts.items():
        seconds, model = [], None
        for number in range(5):
            model = ScriptedModel(list(script))
            agent = Agent("clerk", model=model, tools=tools(20), codemode=codemode)
            async with App([agent], store=directory / f"{codemode}{number}.db") as app:
                begun = time.perf_counter()
                await (await app.conversation(agent, "c").send("Go.")).reply()
                seconds.append(time.perf_counter() - begun)
        assert model is not None
        sent = sum(tokens([request.system, request.tools, request.messages]) for request in model.requests)
        said = f"{len(model.requests):3} requests {sent:9,} tokens sent {statistics.median(seconds) * 1e3:9.1f} ms"
        print(f"{what:<58} {said}")


# --- those that wait ----------------------------------------------------------------------------------------------------


def memory() -> int:
    """Bytes of this process that are really there."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def parked(directory: Path, count: int) -> None:
    interpreters = Interpreters()
    waiting = workflows([], kind="waiting", interpreters=interpreters)
    async with App([], objects=[waiting], store=directory / "parked.db", settings=SETTINGS) as app:

        async def quiet() -> None:
            assert app.worker is not None
            await app.worker.idle()
            while app.worker.running:  # noqa: ASYNC110 - instances leave a moment after they are quiet
                await asyncio.sleep(0.05)
            gc.collect()

        gate = asyncio.Semaphore(64)

        async def start(number: int) -> None:
            async with gate:
                await app.object(waiting, f"w{number}").call("start", 'await wait_for("go")', {})

        await start(-1)
        await quiet()
        before, begun = memory(), time.perf_counter()
        await asyncio.gather(*(start(number) for number in range(count)))
        await quiet()
        took = time.perf_counter() - begun
        size = await asyncio.to_thread(lambda: sum(each.stat().st_size for each in directory.glob("parked.db*")))
        print(
            f"{f'{count:,} parked workflows':<58} {took:9.1f} s   {size / count:,.0f} bytes each on disk   "
            f"{(memory() - before) / 1e6:+.1f} MB of memory, caches of the store included"
        )
        begun = time.perf_counter()
        await app.object(waiting, "w7").call("signal", "go")
        while (await app.object(waiting, "w7").call("inspect"))["status"] != "completed":  # noqa: ASYNC110 - asked as a client asks
            await asyncio.sleep(0.001)
        print(f"{'  one of them: from the signal to its end':<58} {(time.perf_counter() - begun) * 1e3:9.1f} ms")
    await interpreters.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parked", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("CAIRN_BENCH_DIR")) as name:
        directory = Path(name)
        show("the disk's own synced commit (FULL)", disk(directory))
        async with hosted(directory) as client:
            await starts(client)
            await calls(client)
        await dumps()
        await conversations(directory)
        await parked(directory, given.parked)


if __name__ == "__main__":
    asyncio.run(main())
