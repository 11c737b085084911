"""Real workers in a simulated world: they run fibers of every shape while they are killed, frozen, slowed and misdated.

What the fibers do to the outside is counted beside them (`World.effects`), in a place no crash reaches.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tests.runtime.toy import Toy

from cairn.errors import NonRetryable, StepUnknown, StoreBusy
from cairn.runtime import records as r
from cairn.runtime.application import Application
from cairn.runtime.client import Client
from cairn.runtime.fiber import Fiber
from cairn.runtime.state import RuntimeState
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Store, WorkerRow
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker, WorkerSettings
from cairn.testing import FaultyStore, History, Process, RecordingStore, Simulation, Violation, check
from cairn.testing.history import Log, logs_of

INSTANCES = 20
CLIENTS = 2
REQUESTS = 60
STORM_SECONDS = 3_000.0
HEALED_SECONDS = 600.0

#: Fewer rounds per virtual hour than in production; the promises that name a number use the same ones.
SETTINGS = WorkerSettings(sweep_seconds=5.0, poll_seconds=15.0, idle_seconds=10.0)

SLEEP_SECONDS = 120.0


@dataclass
class Outcome:
    violations: list[Violation]
    accepted: set[str]
    states: dict[str, RuntimeState]
    effects: Counter[tuple[str, str]]
    keys: dict[tuple[str, str], set[str]]
    takeovers: int
    fenced: int
    finished_wall: float


@dataclass
class World:
    simulation: Simulation
    store: SqliteStore
    history: History
    storm_seconds: float = STORM_SECONDS
    alive: dict[str, Process] = field(default_factory=dict)
    workers: list[Process] = field(default_factory=list)
    faces: dict[Process, FaultyStore] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    keys: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def face(self, process: Process) -> Store:
        self.faces[process] = FaultyStore.of(process, self.store)
        return RecordingStore(self.faces[process], self.history, process.name)

    def start_worker(self, name: str) -> Process:
        dice = self.simulation.random
        process = self.simulation.process(name, self.work, skew=dice.uniform(-2, 2), rate=dice.uniform(0.99, 1.01))
        self.workers.append(process)
        return process

    def application(self, process: Process) -> Application:
        """What its workers serve, as the code of one process."""
        return Toy(methods(self, process), serial=False)

    async def work(self, process: Process) -> None:
        worker = Worker(
            self.face(process),
            [self.application(process)],
            clock=process.clock,
            ids=process.ids,
            owners=Locks(self, process),
            threads=Threads(inline=True),
            settings=SETTINGS,
        )
        while True:
            try:
                await worker.start()
                break
            except StoreBusy:
                await process.clock.sleep(1)
        await worker.join()

    def touch(self, fiber: Fiber, what: str, key: str = "") -> None:
        """An effect in the outside world."""
        self.effects[fiber.id, what] += 1
        self.keys.setdefault((fiber.id, what), set()).add(key)


class Locks:
    """The kernel's answer to who is alive, in a world without a kernel: a frozen process holds its lock, a dead one not."""

    boot = ""

    def __init__(self, world: World, process: Process) -> None:
        self.world = world
        self.process = process

    def hold(self, worker: str) -> str:
        self.world.alive[worker] = self.process
        return ":1:1"

    def drop(self, worker: str) -> None:
        self.world.alive.pop(worker, None)

    def is_dead(self, row: WorkerRow) -> bool:
        process = self.world.alive.get(row.id)
        return process is not None and not process.is_alive

    def forget(self, row: WorkerRow) -> None:
        self.world.alive.pop(row.id, None)


def methods(world: World, process: Process) -> dict[str, Callable[[Fiber], Coroutine[Any, Any, Any]]]:
    """Fibers of every shape, as the code of one process."""
    clock, ids = process.clock, process.ids

    async def effect(fiber: Fiber, name: str, key: str = "") -> str:
        await clock.sleep(ids.random() * 5)
        world.touch(fiber, name, key)
        await clock.sleep(ids.random() * 5)
        return name

    async def steps(fiber: Fiber) -> list[str]:
        return [await fiber.step(f"s{i}", lambda i=i: effect(fiber, f"s{i}")) for i in range(3)]  # type: ignore[misc]

    async def together(fiber: Fiber) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(fiber.step(f"p{i}", lambda i=i: effect(fiber, f"p{i}")))  # type: ignore[misc]
                for i in range(3)
            ]
        return [task.result() for task in tasks]

    async def keyed(fiber: Fiber) -> str:
        return await fiber.step("pay", lambda: effect(fiber, "pay", fiber.key("pay")), repeat="keyed")

    async def never(fiber: Fiber) -> str:
        try:
            return await fiber.step("launch", lambda: effect(fiber, "launch"), repeat="never")
        except StepUnknown:
            return await fiber.step("report", lambda: effect(fiber, "report"))

    async def stash(fiber: Fiber) -> int:
        for number in range(fiber.snapshot or 0, 4):
            await effect(fiber, f"n{number}")
            await fiber.stash(number + 1)
        return int(fiber.snapshot)

    async def sleeper(fiber: Fiber) -> str:
        await fiber.step("before", lambda: effect(fiber, "before"))
        await fiber.sleep("nap", SLEEP_SECONDS)
        return await fiber.step("after", lambda: effect(fiber, "after"))

    async def failing(fiber: Fiber) -> None:
        await effect(fiber, "try")
        raise ValueError("no")

    async def hopeless(fiber: Fiber) -> None:
        async def give_up() -> None:
            raise NonRetryable("never")

        await fiber.step("give up", give_up)

    async def killer(fiber: Fiber) -> str:
        if fiber.attempt < 4:
            world.simulation.loop.call_soon(process.kill)
            await clock.sleep(60)
        return await effect(fiber, "survived")

    async def long(fiber: Fiber) -> None:
        for number in range(8):
            await fiber.step(f"l{number}", lambda: clock.sleep(10))

    found = (steps, together, keyed, never, stash, sleeper, failing, hopeless, killer, long)
    return {method.__name__: method for method in found}


async def client(world: World, process: Process) -> None:
    """Accepts fibers at random times, some twice under one key; aborts some. Insists until it has an answer."""
    names = sorted(methods(world, process))
    sender = Client(world.face(process), Toy(), clock=process.clock, ids=process.ids)
    dice = process.ids
    pause = STORM_SECONDS / REQUESTS
    for number in range(int(world.storm_seconds / pause)):
        await process.clock.sleep(dice.random() * 2 * pause)
        id, method = str(int(dice.random() * INSTANCES)), names[int(dice.random() * len(names))]
        for _ in range(1 + (dice.random() < 0.2)):
            receipt = await insist(process, lambda: sender.accept(id, method, key=f"{process.name}-{number}"))  # noqa: B023
            world.accepted.add(receipt.fiber)
        if dice.random() < 0.15:
            await process.clock.sleep(dice.random() * 20)
            await insist(process, lambda: sender.abort(id, receipt.fiber))  # noqa: B023


async def insist(process: Process, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    while True:
        try:
            return await call()
        except StoreBusy:
            await process.clock.sleep(1 + process.ids.random())


async def weather(world: World, *, jumps: bool) -> None:
    """Kills, freezes beyond the lease, cuts from the store, sets clocks, until the storm is over."""
    simulation, dice = world.simulation, world.simulation.random
    kinds = ("kill", "pause", "cut", "jump") if jumps else ("kill", "pause", "cut")
    while simulation.now() < world.storm_seconds:
        await asyncio.sleep(dice.expovariate(1 / 40))
        index = dice.randrange(len(world.workers))
        worker = world.workers[index]
        what = dice.choice(kinds) if worker.is_alive else "kill"
        match what:
            case "kill":
                worker.kill()
                world.workers.pop(index)
                world.start_worker(worker.name)
            case "pause":
                worker.pause(dice.uniform(1, 45))
            case "cut":
                world.faces[worker].stop()
                simulation.loop.call_later(dice.uniform(1, 30), world.faces[worker].start)
            case _:
                worker.clock.jump(dice.choice((-3600, -5, 5, 3600)))


async def run_world(simulation: Simulation, *, jumps: bool, storm_seconds: float = STORM_SECONDS) -> Outcome:
    """The storm, then ten healed minutes in which everything accepted has to settle."""
    store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
    await store.open()
    world = World(simulation, store, History(simulation.note), storm_seconds)
    for number in range(simulation.random.randint(3, 5)):
        world.start_worker(f"w{number}")
    clients = [simulation.process(f"c{number}", lambda p: client(world, p)) for number in range(CLIENTS)]

    await weather(world, jumps=jumps)
    heal(world)
    for process in clients:
        await process.wait()
    finished = await settle(world, simulation.now() + HEALED_SECONDS)

    logs = await logs_of(store)
    assert await store.check() == []
    states = {str(log.instance.address): fold(log) for log in logs}
    fenced = sum(operation.error.startswith("Fenced") for operation in world.history.operations)
    takeovers = sum(max(0, log.instance.epoch - 1) for log in logs)
    violations = check(world.history, logs)
    await store.close()
    return Outcome(violations, world.accepted, states, world.effects, world.keys, takeovers, fenced, finished)


def heal(world: World) -> None:
    """No more faults; dead workers are replaced (a `killer` may have been at work), clocks agree."""
    world.simulation.heal()
    for face in world.faces.values():
        face.start()
    for process in world.workers:
        process.clock.jump(world.simulation.clock.wall() - process.clock.wall())
    world.simulation.process("supervisor", lambda process: supervise(world, process))


async def supervise(world: World, process: Process) -> None:
    """What systemd does."""
    while True:
        for index, worker in enumerate(world.workers):
            if not worker.is_alive:
                world.workers.pop(index)
                world.start_worker(worker.name)
        await process.clock.sleep(5)


async def settle(world: World, deadline: float) -> float:
    """Wait until nothing is unsettled but what sleeps beyond the deadline; when that was."""
    while world.simulation.now() < deadline:
        states = [fold(log) for log in await logs_of(world.store)]
        if not any(state.unsettled() for state in states):
            break
        await asyncio.sleep(10)
    return world.simulation.clock.wall()


def fold(log: Log) -> RuntimeState:
    """What the log says, by a fold of its own. It raises on a second settlement, a repeated step, a falling epoch."""
    state, decode = RuntimeState(), r.decoder().decode
    for row in log.rows:
        for record in decode(row.batch.records):
            state.apply(record, row.ordinal)
    return state
