"""What cannot be helped of one object does others no harm: hooks that hang, methods that kill, fibers that wait for people.

Method. Virtual time, one worker, and a disk that does one thing at a time: what stands in the way of something else shows as
time, and what keeps the loop busy as steps of it. The same life is led with and without the trouble, and the two are compared.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from tests.crash.test_fiber_crash_points import Locks

from cairn.clock import Clock, SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, Verdict, Worker, WorkerSettings
from cairn.runtime.client import Question
from cairn.runtime.settings import RECOVERY_SECONDS
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.readers import READERS
from cairn.runtime.storage.store import Store
from cairn.runtime.threads import Threads
from cairn.testing import Process, Simulation, simulate
from cairn.testing.proxy import WAITS, StoreProxy

T = TypeVar("T")

#: A write or a read takes this long, and waits for those before it.
DISK_SECONDS = 0.002

#: Objects whose fibers were interrupted, and objects that are called meanwhile.
STUCK, OTHERS = 100, 200

#: As fast as the others are called: all of them while the hooks hang, and slower than the disk, or its queue is measured.
PACE_SECONDS = 0.045

#: Of a percentile with the trouble, to the same one without.
RATIO = 1.2

SETTINGS = WorkerSettings(idle_seconds=1.0, sweep_seconds=5.0, poll_seconds=30.0)


@dataclass
class Nothing:
    """No state."""


class Work(DurableObject[Nothing]):
    """Its long fibers are interrupted; their hook comes back at once, or never."""

    hangs: ClassVar[bool] = False
    hooks: ClassVar[Counter[str]] = Counter()

    async def long(self, fiber: Fiber) -> None:
        await fiber.instance.clock.sleep(100_000)

    async def quick(self, fiber: Fiber) -> str:
        return await fiber.step("look", lambda: "quick")

    async def on_fiber_recovered(self, fiber: Fiber) -> Verdict | None:
        self.hooks["called"] += 1
        if self.hangs:
            await asyncio.Event().wait()
        return None


class Disk(StoreProxy):
    """One thing at a time, and none in no time."""

    def __init__(self, inner: Store, clock: Clock) -> None:
        super().__init__(inner)
        self._clock = clock
        self._turn = asyncio.Lock()

    async def through(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        if name in WAITS:
            return await call()
        async with self._turn:
            await self._clock.sleep(DISK_SECONDS)
            return await call()


@dataclass
class Measured:
    recovered: float
    """Seconds until the hooks of all interrupted fibers had been called."""
    took: list[float]
    """Seconds that each of the other objects took to answer meanwhile, sorted."""
    steps: int
    """Of the loop, for all of it."""


def activations(*, hangs: bool) -> Measured:
    """A worker dies, and another one recovers its fibers and serves the other objects."""
    Work.hangs = hangs
    Work.hooks.clear()

    async def main(simulation: Simulation) -> Measured:
        clock, ids = simulation.clock, simulation.ids
        inner = SqliteStore(":memory:", inline=True, clock=clock, ids=ids)
        await inner.open()
        store, application, alive = Disk(inner, clock), ObjectApplication(Work), {}  # type: ignore[var-annotated]

        async def work(process: Process) -> None:
            owners, threads = Locks(alive, process), Threads(inline=True)
            worker = Worker(
                store, [application], clock=process.clock, ids=process.ids, owners=owners, threads=threads, settings=SETTINGS
            )
            async with worker:
                await process.clock.sleep(100_000)

        client = Client(store, application, clock=clock, ids=ids)
        for number in range(STUCK):
            await client.accept(f"stuck-{number}", "long", [])
        first = simulation.process("first", work)
        await clock.sleep(20)
        first.kill()
        second, steps, began = simulation.process("second", work), simulation.loop.steps, simulation.now()
        while Work.hooks["called"] < STUCK:
            await clock.sleep(0.001)
        recovered, took = simulation.now() - began, []

        async def call(number: int) -> None:
            began = simulation.now()
            await client.result(await client.accept(f"other-{number}", "quick", []))
            took.append(simulation.now() - began)

        async with asyncio.TaskGroup() as group:
            for number in range(OTHERS):
                group.create_task(call(number))
                await clock.sleep(PACE_SECONDS)
        steps = simulation.loop.steps - steps
        assert simulation.now() - began < RECOVERY_SECONDS, "all of it while the hooks hang"
        second.kill()
        return Measured(recovered, sorted(took), steps)

    try:
        return simulate(main, seed=0, faults=False).value
    finally:
        Work.hangs = False


@pytest.mark.slow
def test_a_hundred_hooks_that_hang_make_no_other_object_late() -> None:
    """L7: in virtual time, the 50th, 99th and last of 200 activations are within 1.2 × of those without; so is the work."""
    healthy, troubled = activations(hangs=False), activations(hangs=True)

    for rank in (OTHERS // 2, OTHERS * 99 // 100, OTHERS - 1):
        assert troubled.took[rank] <= RATIO * healthy.took[rank], f"rank {rank}: {troubled.took[rank]}, {healthy.took[rank]}"
    assert troubled.recovered <= RATIO * healthy.recovered
    assert troubled.steps <= RATIO * healthy.steps


# --- methods that kill


class Deadly(DurableObject[Nothing]):
    """Whoever calls its first method dies."""

    die: ClassVar[Callable[[], None]]

    async def lethal(self, fiber: Fiber) -> None:
        type(self).die()
        await fiber.instance.clock.sleep(10)

    async def works(self, fiber: Fiber) -> int:
        for number in range(3):
            await fiber.step(f"s{number}", lambda: asyncio.sleep(1))
        return len(fiber.state.steps)


def test_a_fiber_that_kills_its_process_stops_neither_its_object_nor_others() -> None:
    """L3, L7: it is a dead letter after ten attempts; nine that work beside it, one in the same object, get all their steps
    done, and none of them is one nearer its own budget's end."""

    async def main(simulation: Simulation) -> tuple[str | None, int, list[int]]:
        clock, ids = simulation.clock, simulation.ids
        store = SqliteStore(":memory:", inline=True, clock=clock, ids=ids)
        await store.open()
        application, alive = ObjectApplication(Deadly), {}  # type: ignore[var-annotated]
        lives = itertools.count()

        async def work(process: Process) -> None:
            def die() -> None:
                simulation.loop.call_soon(process.kill)

            Deadly.die = staticmethod(die)
            options = {"owners": Locks(alive, process), "threads": Threads(inline=True), "settings": SETTINGS}
            async with Worker(store, [application], clock=process.clock, ids=process.ids, **options):  # type: ignore[arg-type]
                await process.clock.sleep(100_000)

        async def supervise(process: Process) -> None:
            while True:
                await simulation.process(f"worker-{next(lives)}", work).wait()

        client = Client(store, application, clock=clock, ids=ids)
        deadly = await client.accept("o0", "lethal", [])
        others = [await client.accept(f"o{number}", "works", []) for number in range(9)]
        simulation.process("supervisor", supervise)
        settled = await client.settled("o0", deadly.fiber)
        done = [await client.result(receipt) for receipt in others]
        return settled.error.kind if settled.error is not None else None, next(lives), done

    error, lives, done = simulate(main, seed=0, faults=False).value

    assert error == "attempts_exhausted"
    assert 11 <= lives <= 13, "a death may go uncounted when the next process's clock is behind"
    assert done == [3] * 9


# --- what waits for people

#: Ten times as many cost no more, which `test_parked_fibers_hold_no_task` shows in virtual time; here each is synced twice.
QUESTIONS = 300


@pytest.mark.slow
def test_hundreds_of_questions_hold_no_task_no_file_and_no_socket(tmp_path: Path) -> None:
    """L7: in earnest, on a file, with the worker's own threads and locks: what is open and what runs is what was before; and
    each of them is answered afterwards."""

    class Asks(DurableObject[Nothing]):
        async def nothing(self, fiber: Fiber) -> None: ...

        async def ask(self, fiber: Fiber, number: int) -> Any:
            return (await fiber.ask("sure?", number)).value()

    async def main() -> tuple[int, int, list[Any]]:
        clock, ids = SystemClock(), SystemIds()
        store = SqliteStore(str(tmp_path / "cairn.db"), clock=clock, ids=ids)
        await store.open()
        application = ObjectApplication(Asks)
        client = Client(store, application, clock=clock, ids=ids)
        settings = WorkerSettings(idle_seconds=0.0)
        async with Worker(store, [application], clock=clock, ids=ids, settings=settings) as worker:
            await client.result(await client.accept("o0", "nothing", []))
            await worker.idle()
            tasks, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
            receipts = [await client.accept(f"o{number % 10}", "ask", [number]) for number in range(QUESTIONS)]
            questions: list[Question] = []
            while len(questions) < QUESTIONS:
                await worker.idle()
                questions = [question for number in range(10) for question in await client.questions(f"o{number}")]
            await worker.idle()
            more = len(asyncio.all_tasks()) - tasks, len(os.listdir("/proc/self/fd")) - files
            for question in questions:
                id = next(receipt.address.id for receipt in receipts if receipt.fiber == question.fiber)
                await client.answer(id, question.fiber, question.name, question.digest, "yes", by="ann")
            answers = [await client.result(receipt) for receipt in receipts]
        await store.close()
        return *more, answers

    tasks, files, answers = asyncio.run(main())

    # The store's second reading thread opens its connection, of two files, when both are needed at once.
    assert tasks <= 0 and files <= 2 * (READERS - 1)
    assert answers == ["yes"] * QUESTIONS
