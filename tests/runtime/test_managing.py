"""Fibers from outside: inspected, listed, resolved by a person, forgotten; and recovered by their own hook."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from tests.runtime.stage import Stage, play
from tests.runtime.toy import World

from cairn.errors import NonRetryable, NotFound
from cairn.runtime.client import Client, Settlement
from cairn.runtime.fiber import Fiber, Verdict
from cairn.runtime.instance import Instance
from cairn.runtime.object import DurableObject, ObjectApplication
from cairn.runtime.runner import Runner
from cairn.testing import Simulation, simulate


async def waits(fiber: Fiber) -> Any:
    return await fiber.wait("go")


def test_fibers_are_listed_by_status_in_the_order_they_were_accepted() -> None:
    """S11: phases and outcomes are one question."""

    async def fails(fiber: Fiber) -> None:
        raise ValueError("no")

    async def works(fiber: Fiber) -> int:
        return 1

    async def body(stage: Stage) -> Any:
        first = [await stage.start(method) for method in ("waits", "works", "fails", "works")]
        await stage.quiet()
        ids = [receipt.fiber for receipt in first]
        found = {}
        for status in ("parked", "completed", "failed", "settled", "dead"):
            states = await stage.client.fibers("a", status=status)  # type: ignore[arg-type]
            found[status] = [ids.index(state.id) for state in states]
        newest = await stage.client.fibers("a", limit=2)
        return found, [ids.index(state.id) for state in newest], await stage.client.fibers("nobody")

    found, newest, nobody = play({"waits": waits, "works": works, "fails": fails}, body)

    assert found == {"parked": [0], "completed": [1, 3], "failed": [2], "settled": [1, 2, 3], "dead": []}
    assert newest == [2, 3]
    assert nobody == []


def test_a_person_gives_a_waiting_fiber_its_outcome() -> None:
    """S7: it settles so, once; its method is not called again."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        await stage.client.resolve("a", receipt.fiber, result=42, by="ann")
        await stage.client.resolve("a", receipt.fiber, "failed", by="bob")
        await stage.client.signal("a", "go", 1)
        settled = await stage.client.settled("a", receipt.fiber)
        state = await stage.client.inspect("a", receipt.fiber)
        assert state is not None
        return settled.value(), state.resolved_by

    assert play(waits, body) == (42, "ann")


def test_a_running_fiber_that_is_resolved_is_cut_off() -> None:
    """S7: a person's word does not queue behind the method."""

    async def endless(fiber: Fiber) -> None:
        await fiber.instance.clock.sleep(10_000)

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.sleep(5)
        await stage.client.resolve("a", receipt.fiber, "failed", reason="it is stuck", by="ann")
        settled = await stage.client.settled("a", receipt.fiber)
        return settled.outcome, settled.error.kind if settled.error else None, settled.error and settled.error.message

    assert play(endless, body) == ("failed", "resolved", "it is stuck")


@pytest.mark.parametrize("order", ["cancel", "resolve"])
def test_of_a_cancel_and_a_resolution_the_first_counts(order: str) -> None:
    """S7: in both orders."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        requests = [stage.client.cancel("a", receipt.fiber), stage.client.resolve("a", receipt.fiber, by="ann")]
        for request in requests if order == "cancel" else reversed(requests):
            await request
        return (await stage.client.settled("a", receipt.fiber)).outcome

    assert play(waits, body) == ("aborted" if order == "cancel" else "completed")


def test_resolving_what_is_not_there_says_so() -> None:
    """S12: nothing is made up."""

    async def body(stage: Stage) -> None:
        await stage.start()
        with pytest.raises(NotFound):
            await stage.client.resolve("a", "fib_0")

    play(waits, body)


def test_a_fiber_is_forgotten_and_its_key_stays_used() -> None:
    """S6: who repeats the request starts nothing; the log keeps what happened (S3)."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start(key="k")
        await stage.client.signal("a", "go", 1)
        await stage.result(receipt)
        await stage.client.forget("a", receipt.fiber)
        again = await stage.start(key="k")
        await stage.quiet()
        return await stage.client.inspect("a", receipt.fiber), again.duplicate, await stage.result(receipt)

    assert play(waits, body) == (None, True, 1)


def test_a_fiber_that_is_to_be_forgotten_settles_first() -> None:
    """S7: forgetting is no abort."""

    async def body(stage: Stage) -> Any:
        receipt = await stage.start()
        await stage.quiet()
        await stage.client.forget("a", receipt.fiber)
        state = await stage.client.inspect("a", receipt.fiber)
        await stage.client.signal("a", "go", 1)
        result = await stage.result(receipt)
        await stage.quiet()
        return state is not None, result, await stage.client.inspect("a", receipt.fiber)

    assert play(waits, body) == (True, 1, None)


# --- the recovery hook


@dataclass
class Nothing:
    """No state."""


class Work(DurableObject[Nothing]):
    """Its fibers are interrupted in their first attempt; what the hook does is the test's."""

    log: ClassVar[list[str]] = []
    hook: ClassVar[Callable[[Fiber], Awaitable[Verdict | None]] | None] = None

    async def run(self, fiber: Fiber) -> str:
        self.log.append(f"run {fiber.snapshot}")
        if fiber.snapshot is None:
            await fiber.stash("half")
            await fiber.instance.clock.sleep(1000)
        return "done"

    async def quick(self, fiber: Fiber) -> str:
        return "quick"

    async def on_fiber_recovered(self, fiber: Fiber) -> Verdict | None:
        self.log.append("hook")
        hook = type(self).hook
        return await hook(fiber) if hook is not None else None


async def interrupted(world: World, simulation: Simulation) -> None:
    """The first owner dies after five seconds."""
    instance = await world.activate()
    task = asyncio.create_task(Runner(instance, idle_seconds=0.0).run())
    await simulation.clock.sleep(5)
    instance.fence()
    task.cancel()
    await asyncio.wait({task})


def recover(hook: Callable[[Fiber], Awaitable[Verdict | None]] | None) -> tuple[Settlement, float]:
    """One life with an interruption, and a second owner; how it ended and how long that took."""
    Work.log.clear()
    Work.hook = hook

    async def main(simulation: Simulation) -> tuple[Settlement, float]:
        application = ObjectApplication(Work)
        world = World(clock=simulation.clock, ids=simulation.ids, application=application)  # type: ignore[arg-type]
        world.client = Client(world.store, application, clock=simulation.clock, ids=simulation.ids)
        async with world:
            receipt = await world.client.accept("a", "run", [])
            await interrupted(world, simulation)
            began = simulation.now()
            await Runner(await world.activate(), idle_seconds=0.0).run()
            return await world.client.settled("a", receipt.fiber), simulation.now() - began

    try:
        return simulate(main, seed=0, faults=False).value
    finally:
        Work.hook = None


def test_by_default_the_method_is_called_again_with_its_snapshot() -> None:
    """L3: recovery needs no code of its own."""
    settled, _ = recover(None)

    assert settled.value() == "done"
    assert Work.log == ["run None", "hook", "run half"]


def test_the_hook_may_say_how_the_fiber_ends() -> None:
    """S7: then its method is not called."""

    async def hook(fiber: Fiber) -> Verdict:
        return Verdict("completed", f"was {fiber.snapshot}")

    settled, _ = recover(hook)

    assert settled.value() == "was half"
    assert Work.log == ["run None", "hook"]


def test_a_hook_that_fails_fails_the_fiber() -> None:
    """S9: it stood guard; without its word the method is not called again."""

    async def hook(fiber: Fiber) -> None:
        raise NonRetryable("the order was cancelled")

    settled, _ = recover(hook)

    assert settled.outcome == "failed"
    assert Work.log == ["run None", "hook"]


def test_a_hook_that_hangs_is_left_after_its_deadline() -> None:
    """L3: ten seconds, then the default."""

    async def hook(fiber: Fiber) -> None:
        await asyncio.sleep(10_000)

    settled, took = recover(hook)

    assert settled.value() == "done"
    assert 10 <= took < 12


def test_a_hook_that_hangs_holds_up_nothing_else() -> None:
    """L7, L1: while it does, other fibers of the same instance start and settle."""
    Work.log.clear()

    async def hook(fiber: Fiber) -> None:
        await asyncio.sleep(10_000)

    Work.hook = hook

    async def main(simulation: Simulation) -> float:
        application = ObjectApplication(Work)
        world = World(clock=simulation.clock, ids=simulation.ids, application=application)  # type: ignore[arg-type]
        world.client = Client(world.store, application, clock=simulation.clock, ids=simulation.ids)
        async with world:
            await world.client.accept("a", "run", [])
            await interrupted(world, simulation)
            instance: Instance = await world.activate()
            task = asyncio.create_task(Runner(instance, idle_seconds=0.0).run())
            began = simulation.now()
            receipt = await world.client.accept("a", "quick", [])
            await world.client.result(receipt)
            took = simulation.now() - began
            await task
            return took

    try:
        assert simulate(main, seed=0, faults=False).value < 1
    finally:
        Work.hook = None


def test_no_hook_is_called_after_a_park() -> None:
    """L3: resuming from a park is no recovery."""
    called: list[str] = []

    class Sleeper(DurableObject[Nothing]):
        async def run(self, fiber: Fiber) -> None:
            await fiber.sleep("nap", 10)

        async def on_fiber_recovered(self, fiber: Fiber) -> Verdict | None:
            called.append("hook")
            return None

    async def main(simulation: Simulation) -> str:
        application = ObjectApplication(Sleeper)
        world = World(clock=simulation.clock, ids=simulation.ids, application=application)  # type: ignore[arg-type]
        world.client = Client(world.store, application, clock=simulation.clock, ids=simulation.ids)
        async with world:
            receipt = await world.client.accept("a", "run", [])
            await Runner(await world.activate(), idle_seconds=0.0).run()
            await simulation.clock.sleep(11)
            await Runner(await world.activate(), idle_seconds=0.0).run()
            return (await world.client.settled("a", receipt.fiber)).outcome

    assert simulate(main, seed=0, faults=False).value == "completed"
    assert called == []
