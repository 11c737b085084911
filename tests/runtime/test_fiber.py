"""Fibers: steps that are answered by the log, sleeps without a task, aborts, timeouts; on one instance, in virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.runtime.toy import Toy, World, run

from cairn.errors import CairnError, Fenced, FiberFailed, NonRetryable, StepNameReused, StepUnknown
from cairn.runtime import records as r
from cairn.runtime.client import Receipt, Settlement
from cairn.runtime.fiber import Fiber
from cairn.runtime.instance import Instance
from cairn.runtime.runner import Runner
from cairn.runtime.threads import Threads
from cairn.testing import Simulation, simulate

Method = Callable[[Fiber], Awaitable[Any]]


class Life:
    """One fiber on one instance, taken up as often as a test wants."""

    def __init__(self, simulation: Simulation, method: Method) -> None:
        self.world = World(application=Toy({"run": method}), clock=simulation.clock, ids=simulation.ids)
        self.simulation = simulation
        self.receipt: Receipt

    async def accept(self, **options: Any) -> Receipt:
        await self.world.store.open()
        self.receipt = await self.world.client.accept("a", "run", **options)
        return self.receipt

    async def reign(self, seconds: float | None = None) -> Instance:
        """Own the instance and run it: until it is idle, or until the owner dies after so many seconds."""
        instance = await self.world.activate()
        task = asyncio.create_task(Runner(instance, idle_seconds=0.0).run())
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            instance.fence()  # a dead process appends nothing
            task.cancel()
            await asyncio.wait({task})
        else:
            task.result()
        return instance

    async def settled(self) -> Settlement:
        return await self.world.client.settled("a", self.receipt.fiber)

    async def kinds(self) -> list[str]:
        return [type(record).__name__ for record in await self.world.records()]


def live(method: Method, play: Callable[[Life], Awaitable[Any]]) -> Any:
    """Play one life in virtual time."""

    async def main(simulation: Simulation) -> Any:
        return await play(Life(simulation, method))

    return simulate(main, seed=0, faults=False).value


async def once(life: Life) -> Settlement:
    await life.accept()
    await life.reign()
    return await life.settled()


def test_a_recorded_step_is_answered_by_the_log() -> None:
    """S9: no finished effect is repeated; everything between steps may run again."""
    called: list[str] = []

    async def method(fiber: Fiber) -> list[int]:
        called.append("method")

        async def first() -> int:
            called.append("first")
            return 1

        async def second() -> int:
            called.append("second")
            await fiber.instance.clock.sleep(100)
            return 2

        return [await fiber.step("first", first), await fiber.step("second", second)]

    async def play(life: Life) -> Any:
        await life.accept()
        await life.reign(seconds=5)
        await life.reign()
        return (await life.settled()).value()

    assert live(method, play) == [1, 2]
    assert called == ["method", "first", "second", "method", "second"]


def test_a_safe_step_is_one_commit_and_a_keyed_one_is_two() -> None:
    """S8: the intent of a keyed step is durable before its callback runs."""
    seen: list[str] = []

    async def method(fiber: Fiber) -> None:
        async def look() -> None:
            seen.extend(type(record).__name__ for record in await life_of[0].world.records())

        await fiber.step("safe", lambda: asyncio.sleep(0))
        await fiber.step("keyed", look, repeat="keyed")

    life_of: list[Life] = []

    async def play(life: Life) -> list[str]:
        life_of.append(life)
        await once(life)
        return await life.kinds()

    kinds = live(method, play)

    assert seen[-1] == "StepStarted"
    assert kinds[3:7] == ["FiberStarted", "StepCompleted", "StepStarted", "StepCompleted"]


def test_a_keyed_step_is_repeated_with_the_same_key_and_no_other_step_has_it() -> None:
    """S9: so that the other side can tell the second call from a second order."""
    keys: list[str] = []

    async def method(fiber: Fiber) -> None:
        async def pay() -> None:
            keys.append(fiber.key("pay"))
            await fiber.instance.clock.sleep(100)

        await fiber.step("pay", pay, repeat="keyed")
        keys.append(fiber.key("other"))
        keys.append(fiber.key("pay", scope="call-1"))

    async def play(life: Life) -> None:
        await life.accept()
        await life.reign(seconds=5)
        await life.reign()

    live(method, play)

    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_never_step_whose_process_died_is_unknown_and_not_repeated() -> None:
    """S9: the method is told, and decides."""
    launched: list[int] = []

    async def method(fiber: Fiber) -> str:
        async def launch() -> None:
            launched.append(1)
            await fiber.instance.clock.sleep(100)

        try:
            await fiber.step("launch", launch, repeat="never")
        except StepUnknown as error:
            return str(error)
        return "launched"

    async def play(life: Life) -> str:
        await life.accept()
        await life.reign(seconds=5)
        await life.reign()
        return (await life.settled()).value(str)  # type: ignore[no-any-return]

    assert "whether it happened is unknown" in live(method, play)
    assert launched == [1]


def test_a_step_name_used_twice_is_an_error_that_says_how_to_name_it() -> None:
    """S9: identity is the explicit name; there is no counter that two runs could count differently."""

    async def method(fiber: Fiber) -> None:
        await fiber.step("same", lambda: asyncio.sleep(0))
        await fiber.step("same", lambda: asyncio.sleep(0))

    settled = live(method, once)

    assert settled.outcome == "failed"
    assert settled.error is not None and settled.error.kind == StepNameReused.__name__
    assert "name=f" in settled.error.message


def test_steps_may_run_at_the_same_time() -> None:
    """S9: parallel steps cannot diverge, because nothing counts them."""

    async def method(fiber: Fiber) -> list[int]:
        async def slow(n: int) -> int:
            await fiber.instance.clock.sleep(10 - n)
            return n

        return list(await asyncio.gather(*(fiber.step(f"s{n}", lambda n=n: slow(n)) for n in range(3))))  # type: ignore[misc]

    assert live(method, once).value() == [0, 1, 2]


def test_a_failed_step_is_tried_again_by_the_next_attempt_unless_it_said_never() -> None:
    """S5: an exception is no result; NonRetryable is one."""
    calls: list[str] = []

    async def method(fiber: Fiber) -> str:
        async def flaky() -> None:
            calls.append("flaky")
            raise ValueError("not now")

        async def hopeless() -> None:
            calls.append("hopeless")
            raise NonRetryable("not ever")

        try:
            await fiber.step("hopeless", hopeless)
        except NonRetryable:
            pass
        try:
            await fiber.step("flaky", flaky)
        except ValueError:
            pass
        await fiber.sleep("later", 10)
        return "done"

    async def play(life: Life) -> str:
        await life.accept()
        await life.reign()
        await life.simulation.clock.sleep(20)
        await life.reign()
        return (await life.settled()).value(str)  # type: ignore[no-any-return]

    assert live(method, play) == "done"
    assert calls == ["hopeless", "flaky", "flaky"]


def test_a_sleep_holds_no_task_and_ends_when_its_time_has_come() -> None:
    """L4: late rather than never; the method is called again from its first line and goes through."""

    before: list[int] = []

    async def method(fiber: Fiber) -> float:
        await fiber.sleep("nap", 3600)
        return fiber.instance.clock.wall()

    async def play(life: Life) -> tuple[float, int]:
        accepted = await life.accept()
        start = life.simulation.clock.wall()
        await life.world.activate()  # the store's own task renews a lease from here on
        before.append(len(asyncio.all_tasks()))
        await life.reign()
        tasks = len(asyncio.all_tasks())
        due = await life.world.store.due(["toy"], start + 3599)
        assert due == []
        [row] = await life.world.store.due(["toy"], start + 3601)
        assert row.n == accepted.n
        await life.simulation.clock.sleep(3601)
        await life.reign()
        return (await life.settled()).value(float) - start, tasks

    slept, tasks = live(method, play)

    assert slept >= 3600
    assert tasks == before[0]


def test_a_sleep_is_identified_by_its_name() -> None:
    """L4: two sleeps of one name would be one."""

    async def method(fiber: Fiber) -> None:
        await fiber.sleep("nap", 1)
        await fiber.sleep("nap", 1)

    async def play(life: Life) -> Settlement:
        await life.accept()
        await life.reign()
        await life.simulation.clock.sleep(2)
        await life.reign()
        return await life.settled()

    settled = live(method, play)

    assert settled.error is not None and settled.error.kind == StepNameReused.__name__


def test_a_stash_is_what_the_next_attempt_begins_with() -> None:
    """S1: durable when it returns."""

    async def method(fiber: Fiber) -> list[Any]:
        before = fiber.snapshot
        await fiber.stash({"at": 1})
        if before is None:
            await fiber.instance.clock.sleep(100)
        return [before, fiber.snapshot, fiber.attempt]

    async def play(life: Life) -> Any:
        await life.accept()
        await life.reign(seconds=5)
        await life.reign()
        return (await life.settled()).value()

    assert live(method, play) == [{"at": 1}, {"at": 1}, 2]


def test_an_abort_ends_a_running_method_and_does_not_wait_for_it() -> None:
    """S7: cancelled, given a moment to clean up, settled as aborted; what it still appends is refused."""
    after: list[Exception] = []

    async def method(fiber: Fiber) -> None:
        try:
            await fiber.instance.clock.sleep(10_000)
        except asyncio.CancelledError:
            await fiber.instance.clock.sleep(60)  # it ignores its cancellation for longer than its grace
            try:
                await fiber.stash("too late")
            except CairnError as error:
                after.append(error)

    async def play(life: Life) -> tuple[Settlement, float]:
        await life.accept()
        task = asyncio.create_task(life.reign())
        await life.simulation.clock.sleep(10)
        await life.world.client.abort("a", life.receipt.fiber, reason="changed my mind")
        asked = life.simulation.clock.monotonic()
        settled = await life.settled()
        took = life.simulation.clock.monotonic() - asked
        await task
        await life.simulation.clock.sleep(100)
        return settled, took

    settled, took = live(method, play)

    assert settled.outcome == "aborted"
    assert settled.error is not None and settled.error.message == "changed my mind"
    assert took <= 6
    assert isinstance(after[0], FiberFailed | Fenced)


def test_an_abort_before_the_first_attempt_never_calls_the_method() -> None:
    """S7: a queued fiber settles as aborted at once."""
    called: list[int] = []

    async def method(fiber: Fiber) -> None:
        called.append(1)

    async def play(life: Life) -> Settlement:
        await life.accept()
        await life.world.client.abort("a")
        await life.reign()
        return await life.settled()

    assert live(method, play).outcome == "aborted"
    assert called == []


def test_a_timeout_counts_time_under_attempts_and_not_parked_time() -> None:
    """L3: an hour asleep is free; then thirty seconds are thirty seconds."""

    async def method(fiber: Fiber) -> None:
        await fiber.sleep("long", 3600)
        await fiber.instance.clock.sleep(10_000)

    async def play(life: Life) -> tuple[Settlement, float]:
        await life.accept(timeout_seconds=30)
        await life.reign()
        await life.simulation.clock.sleep(3601)
        began = life.simulation.clock.monotonic()
        await life.reign()
        return await life.settled(), life.simulation.clock.monotonic() - began

    settled, ran = live(method, play)

    assert settled.error is not None and settled.error.kind == "timeout"
    assert 29 <= ran <= 36


def test_a_clock_that_is_set_while_a_fiber_runs_is_no_time_under_an_attempt() -> None:
    """T13: L3: an hour that never passed does not end it."""

    async def method(fiber: Fiber) -> str:
        await fiber.instance.clock.sleep(5)
        life_of[0].simulation.clock.jump(7200)
        await fiber.sleep("nap", 1)
        return "done"

    life_of: list[Life] = []

    async def play(life: Life) -> Settlement:
        life_of.append(life)
        await life.accept()
        await life.reign()
        life.simulation.clock.jump(-7200)
        await life.simulation.clock.sleep(7300)
        await life.reign()
        return await life.settled()

    assert live(method, play).outcome == "completed"


def test_a_result_that_is_no_json_fails_the_fiber_and_says_so() -> None:
    """S14: nothing is guessed."""

    async def method(fiber: Fiber) -> object:
        return object()

    settled = live(method, once)

    assert settled.outcome == "failed"
    assert settled.error is not None and "what method 'run' returned cannot be kept" in settled.error.message


def test_a_failed_fiber_raises_its_recorded_error_at_whoever_asks() -> None:
    """S7: the outcome, the kind and the message."""

    async def method(fiber: Fiber) -> None:
        raise ValueError("the printer is on fire")

    settled = live(method, once)

    with pytest.raises(FiberFailed, match="ValueError: the printer is on fire") as found:
        settled.value()
    assert found.value.outcome == "failed"


def test_a_plain_function_as_a_step_runs_beside_the_event_loop() -> None:
    """L2: it may block; the loop, and with it the lease, goes on."""
    where: list[int] = []

    async def method(fiber: Fiber) -> int:
        def blocking() -> int:
            where.append(threading.get_ident())
            return 7

        return await fiber.step("blocking", blocking)

    async def main() -> None:
        world = World(application=Toy({"run": method}))
        async with world:
            receipt = await world.client.accept("a", "run")
            instance = await world.activate()
            instance.threads = Threads(1)
            await Runner(instance, idle_seconds=0.0).run()

            assert (await world.client.settled("a", receipt.fiber)).value() == 7
            assert where != [threading.get_ident()]
            instance.threads.close()

    run(main())


def test_what_a_step_says_also_is_in_the_batch_of_its_result() -> None:
    """S2: both or neither."""

    async def method(fiber: Fiber) -> None:
        change = r.StateChanged(changes={})
        await fiber.step("s", lambda: asyncio.sleep(0), also=lambda: [change])

    async def play(life: Life) -> list[list[str]]:
        await once(life)
        decode = r.decoder().decode
        rows = await life.world.store.read(life.receipt.n, -1)
        return [[type(record).__name__ for record in decode(row.batch.records)] for row in rows]

    assert ["StepCompleted", "StateChanged"] in live(method, play)
