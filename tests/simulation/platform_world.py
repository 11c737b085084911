"""Fibers that wait, ask, retry, run others and ring by the clock, under real workers in the bad weather of `runtime_world`.

Beside the workers stand processes that live: one sends a signal for each fiber that waits, two answer every question they see,
and one schedules. What they were told is kept where no crash reaches it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tests.runtime.toy import Toy
from tests.simulation.runtime_world import HEALED_SECONDS, World, fold, heal, insist, settle, weather

from cairn.errors import Conflict, NotFound, StepFailed, WaitExpired
from cairn.runtime import records as r
from cairn.runtime.application import Application
from cairn.runtime.client import Client
from cairn.runtime.fiber import Fiber
from cairn.runtime.schedule import every
from cairn.runtime.state import RuntimeState
from cairn.runtime.storage import SqliteStore
from cairn.testing import History, Process, Simulation, Violation, check
from cairn.testing.history import Log, logs_of

INSTANCES = 6
REQUESTS = 40
RING_SECONDS = 60.0
RETRY = r.Retry(attempts=4, first_seconds=5)


@dataclass
class Told:
    """What the world outside was told, or did."""

    signals: Counter[str] = field(default_factory=Counter)
    """Payloads sent, by payload: each is sent once."""
    heard: dict[str, str] = field(default_factory=dict)
    """Who was told that their answer was taken, by fiber."""


@dataclass
class Outcome:
    violations: list[Violation]
    accepted: set[str]
    logs: list[Log]
    states: dict[str, RuntimeState]
    effects: Counter[tuple[str, str]]
    told: Told
    finished_wall: float


@dataclass
class PlatformWorld(World):
    told: Told = field(default_factory=Told)

    def application(self, process: Process) -> Application:
        return Toy(methods(self, process), serial=False)


def methods(world: World, process: Process) -> dict[str, Callable[[Fiber], Coroutine[Any, Any, Any]]]:
    clock, ids = process.clock, process.ids

    async def effect(fiber: Fiber, name: str) -> str:
        await clock.sleep(ids.random() * 4)
        world.touch(fiber, name)
        return name

    async def waits(fiber: Fiber) -> Any:
        return await fiber.wait("go")

    async def expires(fiber: Fiber) -> Any:
        try:
            return await fiber.wait("rarely", timeout=30)
        except WaitExpired:
            return await fiber.step("late", lambda: effect(fiber, "late"))

    async def asks(fiber: Fiber) -> Any:
        answer = await fiber.ask("sure?", {"of": fiber.id})
        return [answer.value(), answer.by]

    async def flaky(fiber: Fiber) -> Any:
        async def sometimes() -> str:
            if ids.random() < 0.4:
                raise ConnectionError("not now")
            return await effect(fiber, "flaky")

        try:
            return await fiber.step("flaky", sometimes, retry=RETRY)
        except StepFailed:
            return "gave up"

    async def stubborn(fiber: Fiber) -> int:
        await fiber.step("once", lambda: effect(fiber, "once"))
        if ids.random() < 0.5:
            raise ConnectionError("not now")
        return fiber.state.tries

    async def together(fiber: Fiber) -> Any:
        return await asyncio.gather(
            fiber.sleep("nap", 20), fiber.step("work", lambda: effect(fiber, "work")), fiber.wait("go", timeout=300, name="w")
        )

    async def family(fiber: Fiber) -> Any:
        return await asyncio.gather(*(fiber.run(f"child {n}", "child", n) for n in range(3)))

    async def child(fiber: Fiber) -> Any:
        [number] = fiber.arguments()
        await fiber.sleep("nap", number * 7)
        return await fiber.step("work", lambda: effect(fiber, "work"))

    async def rings(fiber: Fiber) -> Any:
        return await fiber.step("ring", lambda: effect(fiber, "ring"), repeat="never")

    found = (waits, expires, asks, flaky, stubborn, together, family, child, rings)
    return {method.__name__: method for method in found}


STARTED = ("waits", "expires", "asks", "flaky", "stubborn", "together", "family")


def client_of(world: PlatformWorld, process: Process) -> Client:
    return Client(world.face(process), Toy(), clock=process.clock, ids=process.ids)


async def starts(world: PlatformWorld, process: Process) -> None:
    """Accepts fibers, and sends one signal for each that waits for it, before or after; cancels some."""
    sender, dice, told = client_of(world, process), process.ids, world.told
    for number in range(REQUESTS):
        await process.clock.sleep(dice.random() * 2 * world.storm_seconds / REQUESTS)
        id, method = str(int(dice.random() * INSTANCES)), STARTED[int(dice.random() * len(STARTED))]
        receipt = await insist(process, lambda: sender.accept(id, method, key=f"{process.name}-{number}", retry=RETRY))  # noqa: B023
        world.accepted.add(receipt.fiber)
        if method == "waits":
            payload = f"{process.name} {number}"
            await insist(process, lambda: sender.signal(id, "go", payload, fiber=receipt.fiber, key=payload))  # noqa: B023
            told.signals[payload] += 1
        if method == "asks" and dice.random() < 0.1:
            await insist(process, lambda: sender.cancel(id, receipt.fiber))  # noqa: B023


async def answers(world: PlatformWorld, process: Process) -> None:
    """Answers whatever is asked; two of these race."""
    sender = client_of(world, process)
    while True:
        await process.clock.sleep(5 + process.ids.random() * 10)
        for number in range(INSTANCES):
            for question in await insist(process, lambda: sender.questions(str(number))):  # noqa: B023
                try:
                    await insist(process, lambda: _answer(sender, str(number), question, process.name))  # noqa: B023
                except (Conflict, NotFound):
                    continue
                assert question.fiber not in world.told.heard, f"{question.fiber}: two answers were taken"
                world.told.heard[question.fiber] = process.name


async def _answer(sender: Client, id: str, question: Any, by: str) -> int:
    return await sender.answer(id, question.fiber, question.name, question.digest, f"yes, says {by}", by=by)


async def schedules(world: PlatformWorld, process: Process) -> None:
    """One schedule for each policy, declared again and again under its key."""
    sender = client_of(world, process)
    while True:
        for missed in ("once", "each"):
            timing = every(RING_SECONDS, missed=missed)
            await insist(process, lambda: sender.schedule(missed, timing, "rings", key="beat"))  # noqa: B023
        await process.clock.sleep(300)


async def run_platform(simulation: Simulation, *, jumps: bool, storm_seconds: float) -> Outcome:
    """The storm, then ten healed minutes."""
    store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
    await store.open()
    world = PlatformWorld(simulation, store, History(simulation.note), storm_seconds)
    for number in range(simulation.random.randint(3, 5)):
        world.start_worker(f"w{number}")
    starter = simulation.process("starter", lambda p: starts(world, p))
    for name in ("ann", "bob"):
        simulation.process(name, lambda p: answers(world, p))
    simulation.process("scheduler", lambda p: schedules(world, p))
    await weather(world, jumps=jumps)
    heal(world)
    await starter.wait()
    finished = await settle(world, simulation.now() + HEALED_SECONDS)
    logs = await logs_of(store)
    assert await store.check() == []
    states = {str(log.instance.address): fold(log) for log in logs}
    violations = check(world.history, logs)
    await store.close()
    return Outcome(violations, world.accepted, logs, states, world.effects, world.told, finished)


def occurrences(log: Log) -> list[float]:
    """The occurrences that have a fiber in this log, in order."""
    decode = r.decoder().decode
    records = [record for row in log.rows for record in decode(row.batch.records)]
    return [each.occurrence for each in records if isinstance(each, r.FiberAccepted) and each.occurrence is not None]


def result(state: Any) -> Any:
    return msgspec.json.decode(state.result)
