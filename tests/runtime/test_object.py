"""Durable objects: methods by name, state that changes in commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from tests.runtime.toy import World

from cairn.errors import Conflict, UsageError
from cairn.runtime import records as r
from cairn.runtime.client import Client
from cairn.runtime.fiber import Fiber
from cairn.runtime.object import DurableObject, ObjectApplication
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker, WorkerSettings
from cairn.testing import Simulation, simulate


@dataclass
class Shelf:
    items: list[str] = field(default_factory=list)
    visits: int = 0


class BookShelf(DurableObject[Shelf]):
    async def add(self, fiber: Fiber, item: str) -> int:
        async with self.transaction() as shelf:
            shelf.items.append(item)
        return len(self.state.items)

    async def once(self, fiber: Fiber) -> int:
        visits = await self.change(fiber, "visit", visit)
        if fiber.attempt == 1:
            await fiber.instance.clock.sleep(1000)
        return visits

    async def break_it(self, fiber: Fiber) -> None:
        async with self.transaction() as shelf:
            shelf.visits = 99
            raise ValueError("half done")

    async def look(self, fiber: Fiber) -> Shelf:
        self.state.items.append("only a copy")
        return self.state

    async def helper(self, item: str) -> None:
        """No fiber method: it takes none."""


def visit(shelf: Shelf) -> int:
    shelf.visits += 1
    return shelf.visits


Body = Callable[[ObjectApplication, Client, World, Simulation], Awaitable[Any]]


def play(body: Body, cls: type[DurableObject[Any]] = BookShelf, *, serve: bool = True) -> Any:
    async def main(simulation: Simulation) -> Any:
        world = World(clock=simulation.clock, ids=simulation.ids)
        await world.store.open()
        application = ObjectApplication(cls)
        client = Client(world.store, application, clock=simulation.clock, ids=simulation.ids)
        world.client, world.application = client, application  # type: ignore[assignment]
        if not serve:
            return await body(application, client, world, simulation)
        async with working(world, application):
            return await body(application, client, world, simulation)

    return simulate(main, seed=0, faults=False).value


def working(world: World, application: ObjectApplication) -> Worker:
    settings = WorkerSettings(idle_seconds=0.0)
    return Worker(world.store, [application], clock=world.clock, ids=world.ids, threads=Threads(inline=True), settings=settings)


def test_the_kind_is_the_class_name_in_kebab_case() -> None:
    """S15: a durable name, unless the class gives another."""

    class Named(BookShelf):
        kind = "shelf"

    assert ObjectApplication(BookShelf).kind == "book-shelf"
    assert ObjectApplication(Named).kind == "shelf"


def test_a_method_is_started_by_name_and_its_result_is_kept() -> None:
    """S1, S7: any process may start it, and any may ask."""

    async def body(application: ObjectApplication, client: Client, world: World, simulation: Simulation) -> Any:
        handle = application.handle(client, "a")
        first = await handle.result(await handle.start(BookShelf.add, "Ulysses"))
        second = await handle.result(await handle.start("add", "Dubliners"))
        shelf = await handle.result(await handle.start("look"), Shelf)
        return first, second, shelf

    assert play(body) == (1, 2, Shelf(["Ulysses", "Dubliners"], 0))


def test_one_key_is_one_call() -> None:
    """S6: with the same arguments it is the same fiber, with others a conflict."""

    async def body(application: ObjectApplication, client: Client, world: World, simulation: Simulation) -> Any:
        handle = application.handle(client, "a")
        first = await handle.start("add", "Ulysses", key="k")
        again = await handle.start("add", "Ulysses", key="k")
        assert (again.fiber, again.duplicate) == (first.fiber, True)
        with pytest.raises(Conflict):
            await handle.start("add", "Dubliners", key="k")
        return await handle.result(again)

    assert play(body) == 1


def test_a_transaction_that_raises_changes_nothing() -> None:
    """S2: all of its fields or none."""

    async def body(application: ObjectApplication, client: Client, world: World, simulation: Simulation) -> Any:
        handle = application.handle(client, "a")
        receipt = await handle.start("break_it")
        assert (await client.settled("a", receipt.fiber)).outcome == "failed"
        return await handle.result(await handle.start("look"), Shelf)

    assert play(body) == Shelf([], 0)


def test_only_the_fields_that_differ_are_recorded() -> None:
    """S2: in one record, with the step when it is one."""

    async def body(application: ObjectApplication, client: Client, world: World, simulation: Simulation) -> Any:
        handle = application.handle(client, "a")
        await handle.result(await handle.start("add", "Ulysses"))
        return [record for record in await world.records() if isinstance(record, r.StateChanged)]

    [changed] = play(body)

    assert list(changed.changes) == ["items"]


def test_a_change_happens_once_though_its_method_is_called_again() -> None:
    """S9: the step and the change are one commit."""

    async def body(application: ObjectApplication, client: Client, world: World, simulation: Simulation) -> Any:
        handle = application.handle(client, "a")
        receipt = await handle.start("once")
        one = working(world, application)
        await one.start()
        await simulation.clock.sleep(10)
        task = asyncio.create_task(one.join())
        await asyncio.sleep(0)
        task.cancel()  # stopped hard: what ran counts as interrupted
        await asyncio.wait({task})
        async with working(world, application):
            visits = await handle.result(receipt)
            return visits, await handle.result(await handle.start("look"), Shelf)

    assert play(body, serve=False) == (1, Shelf([], 1))


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("burn", [], "has no fiber method 'burn' (it has: add, break_it, look, once)"),
        ("helper", ["x"], "has no fiber method 'helper'"),
        ("add", [], "do not fit it now: missing a required argument: 'item'"),
        ("add", ["a", "b"], "do not fit it now: too many positional arguments"),
    ],
)
def test_a_call_the_class_cannot_take_is_parked_with_an_error_that_names_it(
    method: str, arguments: list[str], said: str
) -> None:
    """L7: not failed: it runs when the code fits again."""

    async def body(application: ObjectApplication, client: Client, world: World, simulation: Simulation) -> Any:
        await application.handle(client, "a").start(method, *arguments)
        await simulation.clock.sleep(5)
        [parked] = [record for record in await world.records() if isinstance(record, r.FiberParked)]
        assert parked.error is not None
        return parked.error.message

    assert said in play(body)


def test_state_survives_a_checkpoint() -> None:
    """S15: as JSON, field by field."""
    application = ObjectApplication(BookShelf)
    state = application.initial()
    application.apply(state, r.StateChanged(changes={"visits": msgspec.Raw(b"3")}), 1)

    again = application.load(application.dump(state))

    assert {name: bytes(raw) for name, raw in again.fields.items()} == {"visits": b"3"}


def test_a_class_without_a_type_of_state_is_refused_when_it_is_assembled() -> None:
    """S14: not at its first call."""

    class Stateless(DurableObject):  # type: ignore[type-arg]
        pass

    class Number(DurableObject[int]):
        pass

    with pytest.raises(UsageError, match="has no type of state"):
        ObjectApplication(Stateless)
    with pytest.raises(UsageError, match="make it a dataclass"):
        ObjectApplication(Number)
