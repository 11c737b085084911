"""What a runner starts, what it leaves alone, and how it lets go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.runtime.toy import Method, Toy, World

from cairn.errors import StoreCorrupt, StoreFull
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.runner import Runner
from cairn.testing import Simulation, simulate
from cairn.testing.proxy import StoreProxy


def play(main: Callable[[World, Simulation], Awaitable[Any]], methods: dict[str, Method], *, serial: bool = False) -> Any:
    """In virtual time, on one instance's worth of store."""

    async def body(simulation: Simulation) -> Any:
        world = World(application=Toy(methods, serial=serial), clock=simulation.clock, ids=simulation.ids)
        await world.store.open()
        return await main(world, simulation)

    return simulate(body, seed=0, faults=False).value


async def nothing(fiber: Fiber) -> None:
    return None


def test_fibers_of_a_serial_application_run_one_at_a_time_in_admission_order() -> None:
    """S11: also when the first one sleeps in between."""
    order: list[str] = []

    async def method(fiber: Fiber) -> None:
        name = fiber.arguments(str)
        order.append(f"{name} begins")
        await fiber.instance.clock.sleep(5)
        await fiber.sleep("nap", 10)
        order.append(f"{name} ends")

    async def main(world: World, simulation: Simulation) -> None:
        for name in ("one", "two"):
            await world.client.accept("a", "run", name)
        await Runner(await world.activate(), idle_seconds=60).run()

    play(main, {"run": method}, serial=True)

    assert order == ["one begins", "one begins", "one ends", "two begins", "two begins", "two ends"]


def test_fibers_of_other_applications_run_beside_each_other() -> None:
    """S11 is a promise of serial applications."""
    order: list[str] = []

    async def method(fiber: Fiber) -> None:
        order.append("begins")
        await fiber.instance.clock.sleep(5)
        order.append("ends")

    async def main(world: World, simulation: Simulation) -> None:
        for _ in range(2):
            await world.client.accept("a", "run")
        await Runner(await world.activate(), idle_seconds=0).run()

    play(main, {"run": method})

    assert order == ["begins", "begins", "ends", "ends"]


def test_an_abort_of_a_queued_fiber_does_not_wait_for_its_turn() -> None:
    """L3: it settles while the first one still runs."""

    async def method(fiber: Fiber) -> None:
        await fiber.instance.clock.sleep(1000)

    async def main(world: World, simulation: Simulation) -> float:
        await world.client.accept("a", "run")
        queued = await world.client.accept("a", "run")
        task = asyncio.create_task(Runner(await world.activate(), idle_seconds=0).run())
        await simulation.clock.sleep(10)
        await world.client.abort("a", queued.fiber)
        settled = await world.client.settled("a", queued.fiber)
        took = simulation.clock.monotonic()
        assert settled.outcome == "aborted"
        await task
        return took

    assert play(main, {"run": method}, serial=True) < 20


def test_what_is_accepted_while_it_runs_is_started_without_a_claim() -> None:
    """L1: the owner sees the request on its log."""

    async def main(world: World, simulation: Simulation) -> list[str]:
        await world.client.accept("a", "run")
        task = asyncio.create_task(Runner(await world.activate(), idle_seconds=30).run())
        await simulation.clock.sleep(10)
        late = await world.client.accept("a", "run")
        await world.client.result(late)
        await task
        return [type(record).__name__ for record in await world.records()]

    kinds = play(main, {"run": nothing})

    assert kinds.count("InstanceClaimed") == 1
    assert kinds.count("FiberSettled") == 2


def test_an_idle_instance_hibernates_and_its_alarm_is_off() -> None:
    """L4: nothing is due when nothing is to be done; an idle instance is rows on disk."""

    async def main(world: World, simulation: Simulation) -> None:
        receipt = await world.client.accept("a", "run")
        instance = await world.activate()
        await Runner(instance, idle_seconds=7).run()
        row = await world.store.instance(receipt.n)
        assert row is not None and row.owner is None
        assert simulation.now() >= 7
        assert await world.store.next_due(["toy"]) is None
        assert isinstance((await world.records())[-1], r.InstanceReleased)

    play(main, {"run": nothing})


def test_a_clean_stop_interrupts_what_runs_and_costs_no_attempt() -> None:
    """L6: the fiber goes on at the next claim; the alarm is for now."""
    attempts: list[int] = []

    async def method(fiber: Fiber) -> None:
        attempts.append(fiber.attempt)
        await fiber.instance.clock.sleep(100)

    async def main(world: World, simulation: Simulation) -> None:
        await world.client.accept("a", "run")
        runner = Runner(await world.activate(), idle_seconds=0)
        task = asyncio.create_task(runner.run())
        await simulation.clock.sleep(10)
        runner.stop()
        await task
        assert [row.name for row in await world.store.due(["toy"], simulation.clock.wall())] == ["wake"]
        await Runner(await world.activate(), idle_seconds=0).run()

    play(main, {"run": method})

    assert attempts == [1, 1]


def test_an_alarm_for_now_rings_though_the_clock_is_set_back() -> None:
    """L1, T13: an hour back is no hour's wait for what was asked already."""

    async def main(world: World, simulation: Simulation) -> None:
        await world.client.accept("a", "run")
        simulation.clock.jump(-3600)

        assert len(await world.store.due(["toy"], simulation.clock.wall())) == 1

    play(main, {"run": nothing})


def test_a_retry_waits_its_back_off_though_the_clock_is_set_back() -> None:
    """L3, T13: the wait is measured without the wall clock."""
    ran: list[float] = []

    async def main(world: World, simulation: Simulation) -> None:
        async def method(fiber: Fiber) -> None:
            ran.append(simulation.now())
            if len(ran) <= 2:
                await simulation.clock.sleep(1000)

        world.application.methods = {"run": method}  # type: ignore[misc]
        await world.client.accept("a", "run")
        for _ in range(2):
            instance = await world.activate()
            task = asyncio.create_task(Runner(instance, idle_seconds=0).run())
            await simulation.clock.sleep(5)
            task.cancel()
            await asyncio.wait({task})
        instance = await world.activate()
        began = simulation.now()
        task = asyncio.create_task(Runner(instance, idle_seconds=20).run())
        simulation.clock.jump(-3600)
        await task
        assert 0.25 <= ran[-1] - began <= 1.25

    play(main, {})

    assert len(ran) == 3


def test_a_method_the_code_has_not_got_is_parked_with_its_name_and_runs_when_it_is_back() -> None:
    """L7: visible, not failed; S7: and then it settles like any other."""

    async def main(world: World, simulation: Simulation) -> Any:
        receipt = await world.client.accept("a", "renamed")
        await Runner(await world.activate(), idle_seconds=0).run()
        parked = (await world.records())[-2]
        assert isinstance(parked, r.FiberParked) and parked.error is not None
        assert "'renamed'" in parked.error.message

        world.application.methods = {"renamed": nothing}  # type: ignore[misc]
        await Runner(await world.activate(), idle_seconds=0).run()
        return await world.client.result(receipt)

    assert play(main, {"run": nothing}) is None


def test_a_fiber_that_waits_for_code_can_be_aborted() -> None:
    """L3: by a person, who decides that the name will not come back."""

    async def main(world: World, simulation: Simulation) -> str:
        receipt = await world.client.accept("a", "gone")
        await Runner(await world.activate(), idle_seconds=0).run()
        await world.client.abort("a", receipt.fiber)
        await Runner(await world.activate(), idle_seconds=0).run()
        return (await world.client.settled("a", receipt.fiber)).outcome

    assert play(main, {"run": nothing}) == "aborted"


def test_a_method_that_cancels_itself_drops_the_instance_and_counts_an_attempt() -> None:
    """S9: nobody knows where it stood; the next claim takes it up from the log."""
    attempts: list[int] = []

    async def method(fiber: Fiber) -> None:
        attempts.append(fiber.attempt)
        if fiber.attempt == 1:
            raise asyncio.CancelledError

    async def main(world: World, simulation: Simulation) -> None:
        receipt = await world.client.accept("a", "run")
        await Runner(await world.activate(), idle_seconds=0).run()
        await Runner(await world.activate(), idle_seconds=0).run()
        await world.client.result(receipt)

    play(main, {"run": method})

    assert attempts == [1, 2]


@pytest.mark.parametrize("error", [StoreFull("no space"), StoreCorrupt("a record is torn")])
def test_a_store_that_fails_settles_no_fiber(error: Exception) -> None:
    """S7, L3: it is not the method's fault: the instance is dropped, and the work goes on when the store does."""

    class Failing(StoreProxy):
        async def append(self, append: Any) -> Any:
            if b"stashed" in append.batch.records:
                raise error
            return await super().append(append)

    async def method(fiber: Fiber) -> None:
        await fiber.stash(1)

    async def main(world: World, simulation: Simulation) -> None:
        await world.client.accept("a", "run")
        world.store, sound = Failing(world.store), world.store
        instance = await world.activate()
        with pytest.raises(type(error)):
            await Runner(instance, idle_seconds=0).run()
        world.store = sound
        assert "FiberSettled" not in [type(record).__name__ for record in await world.records()]
        row = await world.store.instance(instance.n)
        assert row is not None and row.owner is None
        await Runner(await world.activate(), idle_seconds=0).run()
        assert "FiberSettled" in [type(record).__name__ for record in await world.records()]

    play(main, {"run": method})


def test_a_cancelled_runner_appends_nothing_more() -> None:
    """S4: others may own the instance before its tasks have ended."""

    async def method(fiber: Fiber) -> None:
        try:
            await fiber.instance.clock.sleep(100)
        finally:
            await fiber.stash("last words")

    async def main(world: World, simulation: Simulation) -> list[str]:
        await world.client.accept("a", "run")
        task = asyncio.create_task(Runner(await world.activate(), idle_seconds=0).run())
        await simulation.clock.sleep(10)
        task.cancel()
        await asyncio.wait({task})
        return [type(record).__name__ for record in await world.records()]

    assert play(main, {"run": method})[-1] == "FiberStarted"
