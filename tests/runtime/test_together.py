"""Appends of several fibers in one batch: what shares a commit, what must not, and who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from tests.runtime.toy import Toy, World

from cairn.errors import FiberFailed
from cairn.runtime import records as r
from cairn.runtime.instance import Instance
from cairn.runtime.storage import SqliteStore
from cairn.testing import FaultyStore, Simulation, simulate


@dataclass
class Desk:
    """An owned instance with three running fibers, over a store that can be held up."""

    world: World
    store: FaultyStore
    instance: Instance
    fibers: list[str]

    async def at_once(self, *appends: Sequence[r.Record]) -> list[Any]:
        """All of these are asked for while the store takes none; what each is told."""
        self.store.stop()
        tasks = []
        for records in appends:
            tasks.append(asyncio.create_task(self.instance.together.append(records)))
            await asyncio.sleep(1)  # in this order: the loop's own is the seed's
        self.store.start()
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def batches(self, after: int) -> list[list[str]]:
        rows = await self.world.store.read(self.instance.n, after)
        decode = r.decoder().decode
        return [[type(record).__name__ for record in decode(row.batch.records)] for row in rows]


def desk(body: Callable[[Desk], Awaitable[Any]]) -> Any:
    async def main(simulation: Simulation) -> Any:
        inner = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
        store = FaultyStore(inner, faults=frozenset(), clock=simulation.clock)
        world = World(store, application=Toy(), clock=simulation.clock, ids=simulation.ids)
        async with world:
            fibers = [(await world.client.accept("a", "run")).fiber for _ in range(3)]
            instance = await world.activate()
            for fiber in fibers:
                await instance.append([r.FiberStarted(fiber=fiber, at=0.0)])
            return await body(Desk(world, store, instance, fibers))

    return simulate(main, seed=0, faults=False).value


def step(fiber: str, name: str = "s", result: bytes = b"1") -> list[r.Record]:
    return [r.StepCompleted(fiber=fiber, name=name, result=msgspec.Raw(result))]


def settled(fiber: str) -> list[r.Record]:
    return [r.FiberSettled(fiber=fiber, outcome="completed", at=1.0)]


def test_appends_that_wait_for_the_same_commit_share_one_batch() -> None:
    """S2: one is being written; the three behind it are one row, in order, and each is told where it stands."""

    async def body(at: Desk) -> Any:
        head = at.instance.head
        a, b, c = at.fibers
        told = await at.at_once(step(a), step(b), step(c), step(a, "t"))
        return [ordinal - head for ordinal in told], await at.batches(head)

    told, batches = desk(body)

    assert told == [1, 2, 2, 2]
    assert batches == [["StepCompleted"], ["StepCompleted"] * 3]


def test_what_a_fiber_says_of_its_life_shares_no_batch_with_its_other_records() -> None:
    """S7, S14: a step that is recorded beside a settlement of its fiber would be a log that no fold accepts."""

    async def body(at: Desk) -> Any:
        head = at.instance.head
        a, b, _ = at.fibers
        told = await at.at_once(step(b), settled(a), step(a), step(b, "t"))
        return [type(each) for each in told], await at.batches(head), len(at.instance.runtime.settled)

    told, batches, count = desk(body)

    assert told == [int, int, FiberFailed, int]  # the step came after its fiber had settled
    assert batches == [["StepCompleted"], ["FiberSettled", "StepCompleted"]]
    assert count == 1


def test_a_step_is_completed_once_whoever_waits_beside_it() -> None:
    """S5: a method that was left behind and its successor say the same; one is refused, and nobody else's record."""

    async def body(at: Desk) -> Any:
        a, b, c = at.fibers
        told = await at.at_once(step(c), step(a), step(a), step(b))
        return [type(each) for each in told]

    assert desk(body) == [int, int, FiberFailed, int]


def test_an_append_that_is_refused_takes_no_other_with_it() -> None:
    """S7: the fiber it is of has settled; the others are written."""

    async def body(at: Desk) -> Any:
        a, b, c = at.fibers
        await at.instance.append(settled(a))
        told = await at.at_once(step(c), step(b), step(a), step(c, "t"))
        return [type(each) for each in told], len(at.instance.runtime.fibers[c].steps)

    assert desk(body) == ([int, int, FiberFailed, int], 2)


def test_whoever_is_cancelled_before_its_turn_has_written_nothing() -> None:
    """S1: and those beside it have."""

    async def body(at: Desk) -> Any:
        a, b, c = at.fibers
        at.store.stop()
        tasks = [asyncio.create_task(at.instance.together.append(step(fiber))) for fiber in (a, b, c)]
        await asyncio.sleep(1)
        tasks[1].cancel()
        await asyncio.sleep(1)
        at.store.start()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        return [type(each) for each in told], [len(at.instance.runtime.fibers[fiber].steps) for fiber in at.fibers]

    assert desk(body) == ([int, asyncio.CancelledError, int], [1, 0, 1])
