"""A worker in one process: what it claims, what it leaves to others, how it ends. (Several processes: tests/system.)"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.toy import Method, Toy, World, run

from cairn.clock import SystemClock
from cairn.errors import NotFound, StoreError, UsageError
from cairn.ids import SystemIds
from cairn.runtime import records as r
from cairn.runtime.client import Client
from cairn.runtime.fiber import Fiber
from cairn.runtime.heartbeat import Heartbeat
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Append, Batch, WorkerRow
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker, WorkerSettings
from cairn.testing import Simulation, simulate
from cairn.testing.proxy import StoreProxy

QUICK = WorkerSettings(idle_seconds=0.0)


async def nothing(fiber: Fiber) -> None:
    return None


def worker(world: World, settings: WorkerSettings = QUICK, application: Toy | None = None, id: str | None = None) -> Worker:
    return Worker(
        world.store,
        [application or world.application],
        clock=world.clock,
        ids=world.ids,
        threads=Threads(inline=True),
        settings=settings,
        id=id,
    )


def play(main: Callable[[World, Simulation], Awaitable[Any]], methods: dict[str, Method]) -> Any:
    """In virtual time."""

    async def body(simulation: Simulation) -> Any:
        world = World(application=Toy(methods), clock=simulation.clock, ids=simulation.ids)
        await world.store.open()
        return await main(world, simulation)

    return simulate(body, seed=0, faults=False).value


def test_what_was_accepted_is_run_and_the_instance_hibernates() -> None:
    """L1: and `idle` returns when nothing is left to do."""

    async def main(world: World, simulation: Simulation) -> None:
        receipts = [await world.client.accept(f"i{n}", "run") for n in range(10)]
        async with worker(world) as one:
            await one.idle()
            for receipt in receipts:
                await world.client.result(receipt)
            assert one.running == []

    play(main, {"run": nothing})


def test_what_is_accepted_later_is_run_at_once() -> None:
    """L1: far below a poll."""

    async def main(world: World, simulation: Simulation) -> float:
        async with worker(world) as one:
            await one.idle()
            await simulation.clock.sleep(100)
            asked = simulation.now()
            await world.client.result(await world.client.accept("a", "run"))
            return simulation.now() - asked

    assert play(main, {"run": nothing}) < 0.25


def test_a_lost_wake_up_costs_a_poll() -> None:
    """L1: what there is to do is asked of the store."""

    class Deaf(StoreProxy):
        async def wait_for_work(self, timeout: float | None) -> None:
            await asyncio.sleep(3600)

    async def main(world: World, simulation: Simulation) -> float:
        world.store = Deaf(world.store)
        async with worker(world):
            await simulation.clock.sleep(100)
            asked = simulation.now()
            await world.client.result(await world.client.accept("a", "run"))
            return simulation.now() - asked

    assert play(main, {"run": nothing}) <= 5


@pytest.mark.slow
def test_content_nobody_refers_to_is_collected_once_an_hour() -> None:
    """What a deleted conversation leaves behind, and what was stored for an append that never came, does not stay for ever."""

    async def main(world: World, simulation: Simulation) -> list[bool]:
        hash = await world.store.put_blob("default", b"for nobody")
        there = []
        async with worker(world):
            for _ in range(2):
                await simulation.clock.sleep(3_700)
                try:
                    await world.store.get_blob("default", hash)
                    there.append(True)
                except NotFound:
                    there.append(False)
        return there

    assert play(main, {"run": nothing})[-1] is False


def test_a_worker_leaves_kinds_alone_that_it_does_not_serve() -> None:
    """L7: they stay due, for whoever serves them."""

    class Other(Toy):
        kind = "other"

    async def main(world: World, simulation: Simulation) -> None:
        await world.client.accept("a", "run")
        async with worker(world, application=Other({"run": nothing})) as one:
            await one.idle()
            await simulation.clock.sleep(60)
        assert len(await world.store.due(["toy"], simulation.clock.wall())) == 1

    play(main, {"run": nothing})


def test_two_applications_of_one_kind_are_refused() -> None:
    """S4: a kind names one application."""

    async def main() -> None:
        async with World() as world:
            with pytest.raises(UsageError, match="two applications are called 'toy'"):
                Worker(world.store, [Toy(), Toy()], clock=world.clock, ids=world.ids)

    run(main())


def test_a_live_workers_instances_are_left_to_it() -> None:
    """S4: though their alarm is in the past and they are busy for longer than any lease."""

    async def long(fiber: Fiber) -> int:
        await fiber.instance.clock.sleep(300)
        return fiber.instance.epoch

    async def main(world: World, simulation: Simulation) -> int:
        receipt = await world.client.accept("a", "long")
        async with worker(world):
            await simulation.clock.sleep(1)
            async with worker(world):
                return await world.client.result(receipt, int)  # type: ignore[no-any-return]

    assert play(main, {"long": long}) == 1


def test_an_owner_without_a_worker_row_is_gone() -> None:
    """L2: its row was removed with it; whoever finds the work takes it."""

    async def main(world: World, simulation: Simulation) -> None:
        receipt = await world.client.accept("a", "run")
        await world.activate(worker="ghost")
        await world.store.unregister("ghost")
        async with worker(world):
            await world.client.result(receipt)

    play(main, {"run": nothing})


def test_an_owner_that_cannot_be_proved_dead_is_waited_for_until_its_lease_is_over() -> None:
    """L2: and a sweep; no later."""

    async def main(world: World, simulation: Simulation) -> float:
        receipt = await world.client.accept("a", "run")
        await world.store.register(WorkerRow("silent", "host", 1, ("toy",), 0.0, 0.0), 15.0, lambda: False)
        row = await world.store.instance(receipt.n)
        assert row is not None
        claimed = r.InstanceClaimed(epoch=1, worker="silent", at=0.0)
        await world.store.claim(receipt.n, "silent", expected_epoch=0, make=lambda epoch: Batch(r.encode([claimed])))
        async with worker(world):
            await world.client.result(receipt)
            return simulation.now()

    assert 15 <= play(main, {"run": nothing}) <= 17


def test_a_poisoned_instance_backs_off_and_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """L7: its error is visible, in the log and on the worker."""

    async def main(world: World, simulation: Simulation) -> tuple[int, list[str]]:
        bad = await world.client.accept("bad", "run")
        await world.store.append(Append(bad.n, Batch(b'[{"type":"from.the.future"}]')))
        async with worker(world) as one:
            for number in range(20):
                await world.client.result(await world.client.accept(f"good{number}", "run"))
                await simulation.clock.sleep(3)
            return next(iter(one.troubles))[1].failures, [trouble.what for _, trouble in one.troubles]

    with caplog.at_level(logging.ERROR, "cairn.runtime"):
        failures, troubles = play(main, {"run": nothing})

    assert 4 <= failures <= 8, "in a minute: after 1, 2, 4, 8, 16, 32 s"
    assert "StoreCorrupt" in troubles[0] and "toy/bad" in troubles[0]
    assert "toy/bad cannot go on" in caplog.text


def test_a_failing_fiber_fails_alone() -> None:
    """L7: not its neighbours, not its instance, not its worker."""

    async def broken(fiber: Fiber) -> None:
        raise RuntimeError("broken")

    async def main(world: World, simulation: Simulation) -> list[str]:
        receipts = [await world.client.accept("a", name) for name in ("broken", "run")]
        async with worker(world):
            return [(await world.client.settled("a", receipt.fiber)).outcome for receipt in receipts]

    assert play(main, {"run": nothing, "broken": broken}) == ["failed", "completed"]


def test_a_fiber_without_its_method_costs_no_record_a_minute_and_runs_under_new_code() -> None:
    """L7: parked once, visibly; unclaimed from then on; a worker with the method finds it by itself."""

    async def main(world: World, simulation: Simulation) -> list[str]:
        receipt = await world.client.accept("a", "new")
        async with worker(world) as old:
            await simulation.clock.sleep(600)
            assert "no method 'new'" in next(iter(old.troubles))[1].what
            before = [type(record).__name__ for record in await world.records()]
            async with worker(world, application=Toy({"new": nothing})):
                await world.client.result(receipt)
        return before

    assert play(main, {"run": nothing}).count("InstanceClaimed") == 1


def test_no_more_instances_are_active_than_allowed_and_idle_ones_make_room() -> None:
    """L1: an instance that only lingers does not keep work from being done."""

    async def main(world: World, simulation: Simulation) -> tuple[float, int]:
        most = 0
        receipts = [await world.client.accept(f"i{n}", "run") for n in range(20)]
        async with worker(world, WorkerSettings(instances_max=3, idle_seconds=1000)) as one:
            for receipt in receipts:
                await world.client.result(receipt)
                most = max(most, len(one.running))
            return simulation.now(), most

    took, most = play(main, {"run": nothing})

    assert most <= 3
    assert took < 20


def test_a_stop_drains_and_what_ran_goes_on_elsewhere_without_an_attempt() -> None:
    """L6: released at once, nothing accepted is lost."""
    attempts: list[int] = []

    async def long(fiber: Fiber) -> None:
        attempts.append(fiber.attempt)
        await fiber.instance.clock.sleep(60)

    async def main(world: World, simulation: Simulation) -> float:
        receipt = await world.client.accept("a", "long")
        async with worker(world):
            await simulation.clock.sleep(10)
        stopped = simulation.now()
        row = await world.store.instance(receipt.n)
        assert row is not None and row.owner is None
        assert await world.store.workers() == []
        async with worker(world):
            await world.client.result(receipt)
        return stopped

    assert play(main, {"long": long}) < 11
    assert attempts == [1, 1]


def test_a_method_that_does_not_end_cannot_hold_up_a_stop() -> None:
    """L6: thirty seconds, then it is left behind."""

    async def stubborn(fiber: Fiber) -> None:
        while True:
            try:
                await fiber.instance.clock.sleep(1000)
            except asyncio.CancelledError:
                continue

    async def main(world: World, simulation: Simulation) -> float:
        await world.client.accept("a", "stubborn")
        async with worker(world):
            await simulation.clock.sleep(10)
        return simulation.now()

    assert play(main, {"stubborn": stubborn}) <= 10 + 30


def test_a_worker_that_cannot_renew_its_lease_stops_working_before_others_may_start() -> None:
    """S4: at the margin, without a word to the store; and it goes on when it can renew again."""
    ran: list[float] = []

    class Stalled(StoreProxy):
        is_stalled = False

        async def register(self, row: WorkerRow, lease_seconds: float, alive: Callable[[], bool]) -> None:
            await super().register(row, lease_seconds, lambda: not self.is_stalled and alive())

    async def main(world: World, simulation: Simulation) -> float:
        async def tick(fiber: Fiber) -> None:
            while simulation.now() < 200:
                ran.append(simulation.now())
                await simulation.clock.sleep(0.5)

        world.application.methods = {"tick": tick}  # type: ignore[misc]
        world.store = stalled = Stalled(world.store)
        receipt = await world.client.accept("a", "tick")
        async with worker(world):
            await simulation.clock.sleep(20)
            stalled.is_stalled = True
            at = simulation.now()
            await simulation.clock.sleep(60)
            stalled.is_stalled = False
            await world.client.result(receipt)
        return at

    stalled_at = play(main, {})

    pause = [(a, b) for a, b in pairwise(ran) if b - a > 10]
    assert len(pause) == 1
    assert pause[0][0] <= stalled_at + 15, "it stopped before the end of its lease"
    assert pause[0][1] >= stalled_at + 60


def test_a_store_that_fails_for_good_ends_the_worker_and_says_why() -> None:
    """S14: nothing is guessed; whoever runs the worker learns of it."""

    class Broken(StoreProxy):
        is_broken = False

        async def due(self, *arguments: Any, **options: Any) -> Any:
            if self.is_broken:
                raise StoreError("the disk is gone")
            return await super().due(*arguments, **options)

    async def main(world: World, simulation: Simulation) -> None:
        world.store = broken = Broken(world.store)
        one = worker(world)
        await one.start()
        await one.idle()
        broken.is_broken = True
        with pytest.raises(StoreError, match="the disk is gone"):
            await one.join()
        assert await world.store.workers() == []

    play(main, {"run": nothing})


def test_a_stuck_event_loop_is_no_sign_of_life_and_its_stack_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """L2: a minute; then others may take over, and a person can see where it hangs."""

    async def main(simulation: Simulation) -> list[bool]:
        heart = Heartbeat(simulation.clock)
        task = asyncio.create_task(heart.run())
        await simulation.clock.sleep(1000)
        found = [heart.is_beating()]
        task.cancel()
        await simulation.clock.sleep(50)
        found += [heart.is_beating()]
        await simulation.clock.sleep(20)
        return [*found, heart.is_beating(), heart.is_beating()]

    with caplog.at_level(logging.ERROR, "cairn.runtime"):
        assert simulate(main, seed=0, faults=False).value == [True, True, False, False]
    assert caplog.text.count("has not turned") == 1
    assert "test_worker.py" in caplog.text


def test_threads_run_plain_functions_beside_the_loop_up_to_a_limit() -> None:
    """L2: and an `async` callback, or one that gives a coroutine, on the loop."""

    async def main() -> None:
        threads = Threads(2)
        barrier = asyncio.Event()

        async def later() -> str:
            barrier.set()
            return "async"

        assert await threads.call_any(lambda: later()) == "async"
        assert await threads.call_any(later) == "async"
        assert await asyncio.gather(*(threads.call(pow, 2, n) for n in range(50))) == [2**n for n in range(50)]
        with pytest.raises(ZeroDivisionError):
            await threads.call(lambda: 1 // 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await threads.call(next, iter(()))
        threads.close()
        with pytest.raises(RuntimeError, match="closed"):
            await threads.call(int)

    run(main())


def test_a_simulation_refuses_threads() -> None:
    """T8: their result would depend on the machine."""

    async def main(simulation: Simulation) -> None:
        with pytest.raises(RuntimeError, match="asks for a thread"):
            await Threads(1).call(int)
        assert await Threads(inline=True).call(int) == 0

    simulate(main, seed=0, faults=False)


def test_a_worker_on_a_file_ends_at_sigterm_and_leaves_no_lock(tmp_path: Path) -> None:
    """L6: with the writer thread, real time and the kernel's locks."""

    async def main() -> None:
        clock, ids = SystemClock(), SystemIds()
        store = SqliteStore(str(tmp_path / "cairn.db"), clock=clock, ids=ids)
        await store.open()
        toy = Toy({"run": nothing})
        one = Worker(store, [toy], clock=clock, ids=ids, settings=QUICK)
        serving = asyncio.create_task(one.serve())
        client = Client(store, toy, clock=clock, ids=ids)
        await client.result(await client.accept("a", "run"))
        assert os.listdir(tmp_path / "owners") == [one.id]

        os.kill(os.getpid(), signal.SIGTERM)
        await serving

        assert os.listdir(tmp_path / "owners") == []
        assert await store.workers() == []
        await store.close()

    run(main())
