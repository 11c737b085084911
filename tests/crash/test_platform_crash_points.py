"""A worker dies before and after every durable write of fibers that wait, are retried, ask and are scheduled.

Equality and the world outside: as in `test_fiber_crash_points.py`. Who sends signals and answers is another process that lives.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from tests.crash.test_fiber_crash_points import SETTINGS, Locks, Outside, crash_points, done, normal
from tests.runtime.toy import Toy

from cairn.errors import Conflict, StepFailed, WaitExpired
from cairn.runtime import records as r
from cairn.runtime.client import Client, Receipt
from cairn.runtime.fiber import Fiber
from cairn.runtime.schedule import every
from cairn.runtime.storage import SqliteStore
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker
from cairn.testing import Crash, FaultyStore, Process, Simulation, simulate

RETRY = r.Retry(attempts=3, first_seconds=20, factor=1, jitter=0)

Method = Callable[[Fiber, Outside], Awaitable[Any]]
Director = Callable[["Cast"], Awaitable[None]]


@dataclass
class Cast:
    """Who stands outside."""

    client: Client
    simulation: Simulation
    receipt: Receipt

    async def sleep(self, seconds: float) -> None:
        await self.simulation.clock.sleep(seconds)


async def retries(fiber: Fiber, outside: Outside) -> Any:
    async def flaky() -> str:
        found = await outside.do(fiber, "flaky")
        if outside.effects["flaky"] < 3:
            raise ConnectionError("not yet")
        return found

    try:
        return await fiber.step("flaky", flaky, retry=RETRY)
    except StepFailed:
        return "failed"


async def waits(fiber: Fiber, outside: Outside) -> Any:
    before = await fiber.step("before", lambda: outside.do(fiber, "before"))
    payload = await fiber.wait("go")
    return [before, payload, await fiber.step("after", lambda: outside.do(fiber, "after"))]


async def sends_go(cast: Cast) -> None:
    await cast.sleep(60)
    await cast.client.signal("a", "go", {"x": 1})


async def expires(fiber: Fiber, outside: Outside) -> Any:
    try:
        return await fiber.wait("go", timeout=30)
    except WaitExpired:
        return await fiber.step("late", lambda: outside.do(fiber, "late"))


async def asks(fiber: Fiber, outside: Outside) -> Any:
    answer = await fiber.ask("sure?", {"amount": 10})
    return [answer.value(), answer.by, await fiber.step("pay", lambda: outside.do(fiber, "pay"), repeat="keyed")]


async def answers(cast: Cast) -> None:
    while not (questions := await cast.client.questions("a")):
        await cast.sleep(5)
    await cast.sleep(60)
    [question] = questions
    await cast.client.answer("a", question.fiber, question.name, question.digest, "yes", by="ann")
    try:
        await cast.client.answer("a", question.fiber, question.name, question.digest, "no", by="bob")
    except Conflict:
        return
    raise AssertionError("two answers were taken")


async def together(fiber: Fiber, outside: Outside) -> Any:
    return await asyncio.gather(
        fiber.step("work", lambda: outside.do(fiber, "work")),
        fiber.sleep("nap", 40),
        fiber.wait("go"),
        fiber.step("other", lambda: outside.do(fiber, "other")),
    )


async def parent(fiber: Fiber, outside: Outside) -> Any:
    [kind] = fiber.arguments() or ["parent"]
    if kind == "child":
        await fiber.sleep("nap", 20)
        return await fiber.step("child", lambda: outside.do(fiber, "child"))
    return await fiber.run("child", "run", "child")


async def called_again(fiber: Fiber, outside: Outside) -> Any:
    await fiber.step("once", lambda: outside.do(fiber, "once"))
    if fiber.state.tries < 2:
        raise ConnectionError("not yet")
    return fiber.state.tries


async def resolved(fiber: Fiber, outside: Outside) -> Any:
    await fiber.step("begin", lambda: outside.do(fiber, "begin"))
    await fiber.wait("never")


async def resolves(cast: Cast) -> None:
    await cast.sleep(60)
    await cast.client.resolve("a", cast.receipt.fiber, result=7, by="ann")
    await cast.client.cancel("a", cast.receipt.fiber)


async def nobody(cast: Cast) -> None: ...


@dataclass(frozen=True)
class Scenario:
    name: str
    method: Method
    director: Director = nobody
    retry: r.Retry | None = None
    again: tuple[str, ...] = ()
    """Effects of failed tries, which a crash may repeat."""


SCENARIOS = (
    Scenario("retry", retries, again=("flaky",)),
    Scenario("signal", waits, sends_go),
    Scenario("expiry", expires),
    Scenario("answer", asks, answers),
    Scenario("together", together, sends_go),
    Scenario("child", parent),
    Scenario("again", called_again, retry=RETRY),
    Scenario("resolved", resolved, resolves),
)

#: Crashed in pairs too: those in which one life's leftovers meet another's.
PAIRED = tuple(scenario for scenario in SCENARIOS if scenario.name in ("signal", "answer", "child", "again"))


@dataclass
class Result:
    log: list[Any]
    outcome: Any
    done: Counter[str]
    effects: Counter[str] = field(default_factory=Counter)


async def worker(
    simulation: Simulation,
    process: Process,
    store: SqliteStore,
    crash: Crash | None,
    alive: dict[str, Process],
    outside: Outside,
    method: Method,
) -> None:
    face = FaultyStore.of(process, store, crash=crash, faults=frozenset())
    application = Toy({"run": lambda fiber: method(fiber, outside)})
    async with Worker(
        face,
        [application],
        clock=process.clock,
        ids=process.ids,
        owners=Locks(alive, process),
        threads=Threads(inline=True),
        settings=SETTINGS,
    ):
        await process.clock.sleep(80_000)


def begin(simulation: Simulation, store: SqliteStore, crashes: Sequence[Crash], outside: Outside, method: Method) -> None:
    """Workers one after the other, each with its crash; the last has none."""
    alive: dict[str, Process] = {}
    pending = list(crashes)

    async def supervise(process: Process) -> None:
        for number in itertools.count():
            crash = pending.pop(0) if pending else None
            life = simulation.process(
                f"worker-{number}",
                lambda p, crash=crash: worker(simulation, p, store, crash, alive, outside, method),  # type: ignore[misc]
            )
            await life.wait()

    simulation.process("supervisor", supervise)


def live(scenario: Scenario, crashes: Sequence[Crash]) -> Result:
    """One life of the fiber, and what came of it."""

    async def main(simulation: Simulation) -> Result:
        store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
        await store.open()
        outside = Outside()
        client = Client(store, Toy(), clock=simulation.clock, ids=simulation.ids)
        receipt = await client.accept("a", "run", key="k", retry=scenario.retry)
        begin(simulation, store, crashes, outside, scenario.method)
        director = asyncio.create_task(scenario.director(Cast(client, simulation, receipt)))
        settled = await client.settled("a", receipt.fiber)
        await director
        await simulation.clock.sleep(12)  # whoever still has something to write, writes it
        batches = [msgspec.json.decode(row.batch.records) for row in await store.read(receipt.n, -1)]
        assert await store.check() == []
        await store.close()
        outcome = (settled.outcome, bytes(settled.result), settled.error.kind if settled.error else None)
        return Result(normal(batches), outcome, done(batches), outside.effects)

    return simulate(main, seed=0, faults=False).value


#: Records that say how a wait was spent, in memory or parked: a crash may change that, and nothing else.
SPENT = frozenset({"fiber.waiting", "fiber.waited", "fiber.parked", "fiber.started"})


def told(log: list[Any]) -> list[Any]:
    """The log without how waits were spent."""
    return [kept for batch in log if (kept := [record for record in batch if record["type"] not in SPENT])]


def judge(scenario: Scenario, result: Result, whole: Result, crashes: Sequence[Crash]) -> None:
    at = f"{scenario.name}, crashed at {', '.join(map(str, crashes))}"
    assert result.outcome == whole.outcome, at
    assert all(count == 1 for count in result.done.values()), at
    assert result.done == whole.done, at
    assert result.effects.keys() == whole.effects.keys(), at
    if scenario.again:
        return  # the world decides when a flaky effect works; how many failed tries were recorded depends on the crash
    ours, theirs = told(result.log), told(whole.log)
    if scenario.name == "together":  # the order of branches is nobody's promise
        ours, theirs = (sorted(log, key=str) for log in (ours, theirs))
    assert ours == theirs, at


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_crash_at_any_durable_write_changes_nothing_of_what_a_fiber_waits_for(scenario: Scenario) -> None:
    """T3: S1 S2 S5 S6 S7 S9, at every point before and after every write of the worker."""
    whole = live(scenario, ())

    def seen(crash: Crash) -> Any:
        judge(scenario, live(scenario, (crash,)), whole, (crash,))

    assert crash_points(seen) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("scenario", PAIRED, ids=lambda scenario: scenario.name)
def test_two_crashes_at_any_two_writes_change_nothing_either(scenario: Scenario) -> None:
    """T3: every pair: the worker dies at one point, its successor at another, a third one finishes."""
    whole = live(scenario, ())

    def first(one: Crash) -> Any:
        def second(two: Crash) -> Any:
            again = Crash(one.at, one.when)
            judge(scenario, live(scenario, (again, two)), whole, (again, two))
            one.reached = again.reached
            two.reached = two.reached and again.reached

        crash_points(second)

    assert crash_points(first) >= 8


# --- schedules


def ring(crashes: Sequence[Crash], missed: Any) -> tuple[list[float], Counter[float]]:
    """Two minutes of a schedule of thirty seconds; the occurrences in the log, and how often each was done in the world."""
    rang: Counter[float] = Counter()

    async def method(fiber: Fiber, outside: Outside) -> None:
        async def effect() -> None:
            rang[fiber.occurrence or 0.0] += 1

        await fiber.step("ring", effect, repeat="never")

    async def main(simulation: Simulation) -> list[float]:
        store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
        await store.open()
        client = Client(store, Toy(), clock=simulation.clock, ids=simulation.ids)
        begin(simulation, store, crashes, Outside(), method)
        began = simulation.clock.wall()
        await client.schedule("a", every("30s", missed=missed), "run", key="beat")
        await simulation.clock.sleep(125)
        row = await store.find(client.address("a"))
        assert row is not None
        batches = [msgspec.json.decode(row.batch.records) for row in await store.read(row.n, -1)]
        assert await store.check() == []
        await store.close()
        return [
            round(record["occurrence"] - began, 3)
            for batch in batches
            for record in batch
            if record["type"] == "fiber.accepted"
        ]

    return simulate(main, seed=0, faults=False).value, rang


@pytest.mark.slow
@pytest.mark.parametrize("missed", ["once", "each"])
def test_a_crash_at_any_write_of_a_schedule_neither_loses_nor_doubles_an_occurrence(missed: str) -> None:
    """T3, L4: one fiber for each of its times, at every point before and after every write; each done at most once."""
    expected = [30.0 * number for number in range(1, 5)]
    assert ring((), missed)[0] == expected

    def seen(crash: Crash) -> Any:
        occurrences, rang = ring((crash,), missed)
        assert occurrences == expected, str(crash)
        assert max(rang.values()) == 1, str(crash)

    assert crash_points(seen) >= 16
