"""Steps with a policy: tried again later, cut off in time, and what a process that died was at."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.runtime.stage import Stage, play
from tests.runtime.test_fiber import Life, live

from cairn.errors import NonRetryable, StepFailed, StepUnknown
from cairn.runtime import fiber as fiber_module
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.state import Phase
from cairn.runtime.step import Try, takes_try

RETRY = r.Retry(attempts=4, first_seconds=10, factor=3, jitter=0)


def test_a_step_is_tried_again_later_and_its_fiber_is_parked_in_between() -> None:
    """L3, S9: 10, 30 and 90 seconds apart; the step before it is not repeated."""
    called = Counter[str]()
    phases: list[Phase] = []

    async def method(fiber: Fiber) -> list[Any]:
        async def before() -> str:
            called["before"] += 1
            return "b"

        async def flaky(this: Try) -> str:
            called["flaky"] += 1
            if this.number < 4:
                raise ConnectionError(f"try {this.number}")
            return this.key

        return [await fiber.step("before", before), await fiber.step("flaky", flaky, retry=RETRY)]

    async def body(stage: Stage) -> Any:
        began = stage.now()
        receipt = await stage.start()
        await stage.sleep(5)
        state = await stage.client.inspect("a", receipt.fiber)
        assert state is not None
        phases.append(state.phase)
        return await stage.result(receipt), stage.now() - began

    (_, key), took = play(method, body)

    assert called == {"before": 1, "flaky": 4}
    assert phases == [Phase.PARKED]
    assert 130 <= took < 132
    assert key.endswith(":flaky")


def test_a_step_whose_tries_are_spent_has_failed_for_good() -> None:
    """S5: the method is told, may go on without it, and is told the same when it is called again."""
    called = Counter[str]()

    async def method(fiber: Fiber) -> str:
        async def broken() -> None:
            called["broken"] += 1
            raise ConnectionError("no route")

        try:
            await fiber.step("broken", broken, retry=r.Retry(attempts=2, first_seconds=1))
        except StepFailed as error:
            said = str(error)
        await fiber.sleep("nap", 10)
        return said

    async def body(stage: Stage) -> Any:
        return await stage.result(await stage.start())

    assert "failed 2 times, the last time with ConnectionError: no route" in play(method, body)
    assert called == {"broken": 2}


def test_an_error_that_is_no_use_to_retry_ends_the_tries() -> None:
    """L3: NonRetryable is final, whatever the policy."""
    called: list[int] = []

    async def method(fiber: Fiber) -> None:
        async def hopeless() -> None:
            called.append(1)
            raise NonRetryable("the card is stolen")

        await fiber.step("pay", hopeless, repeat="keyed", retry=RETRY)

    async def body(stage: Stage) -> Any:
        return await stage.client.settled("a", (await stage.start()).fiber)

    settled = play(method, body)

    assert settled.outcome == "failed" and settled.error.message == "the card is stolen"
    assert called == [1]


def test_a_step_that_takes_too_long_is_a_failed_try() -> None:
    """L3: its callback is cancelled, and tried again."""
    called: list[int] = []

    async def method(fiber: Fiber) -> int:
        async def slow() -> int:
            called.append(1)
            await fiber.instance.clock.sleep(100 if len(called) == 1 else 1)
            return len(called)

        return await fiber.step("slow", slow, timeout=30, retry=RETRY)

    async def body(stage: Stage) -> Any:
        return await stage.result(await stage.start())

    assert play(method, body) == 2


def test_a_never_step_that_was_cut_off_by_its_time_is_unknown() -> None:
    """S9: nobody knows what it has done, and it is not done again."""
    called: list[int] = []

    async def method(fiber: Fiber) -> str:
        async def launch() -> None:
            called.append(1)
            await fiber.instance.clock.sleep(100)

        for _ in range(1):
            try:
                await fiber.step("launch", launch, repeat="never", timeout=5)
            except StepUnknown as error:
                return str(error)
        return "launched"

    async def body(stage: Stage) -> Any:
        return await stage.result(await stage.start())

    assert "whether it happened is unknown" in play(method, body)
    assert called == [1]


def test_a_never_step_cannot_have_a_retry_policy() -> None:
    """S9: said where it is written."""

    async def method(fiber: Fiber) -> None:
        await fiber.step("launch", lambda: asyncio.sleep(0), repeat="never", retry=RETRY)

    async def body(stage: Stage) -> Any:
        return await stage.client.settled("a", (await stage.start()).fiber)

    assert play(method, body).error.kind == "UsageError"


def test_the_steps_that_ran_when_the_process_died_are_known_to_the_next_attempt() -> None:
    """S8, S9: keyed ones by their intent, safe ones when they were announced; finished ones are not in flight."""

    async def method(fiber: Fiber) -> Any:
        if fiber.attempt > 1:
            return sorted((each.name, each.repeat) for each in fiber.interrupted)

        async def slow() -> None:
            await fiber.instance.clock.sleep(100)

        await fiber.step("done", lambda: asyncio.sleep(0), repeat="keyed")
        await asyncio.gather(
            fiber.step("pay", slow, repeat="keyed"), fiber.step("look", slow, announce=True), fiber.step("quiet", slow)
        )
        return None

    async def play_life(life: Life) -> Any:
        await life.accept()
        await life.reign(seconds=5)
        await life.reign()
        return (await life.settled()).value()

    assert live(method, play_life) == [["look", "safe"], ["pay", "keyed"]]


def test_a_try_knows_that_an_earlier_one_was_interrupted() -> None:
    """S9: a keyed callback may ask the other side whether its key is known there."""
    told: list[tuple[int, bool]] = []

    async def method(fiber: Fiber) -> None:
        async def pay(this: Try) -> None:
            told.append((this.number, this.interrupted))
            await fiber.instance.clock.sleep(0 if this.interrupted else 100)

        await fiber.step("pay", pay, repeat="keyed")

    async def play_life(life: Life) -> None:
        await life.accept()
        await life.reign(seconds=5)
        await life.reign()

    live(method, play_life)

    assert told == [(1, False), (1, True)]


def test_parallel_steps_with_retries_do_not_disturb_each_other() -> None:
    """S9: each waits for itself; those that are done are not done again."""
    called = Counter[str]()

    async def method(fiber: Fiber) -> list[int]:
        async def flaky(n: int) -> int:
            called[f"{n}"] += 1
            if called[f"{n}"] <= n:
                raise ConnectionError("not yet")
            return n

        steps = (fiber.step(f"s{n}", lambda n=n: flaky(n), retry=RETRY) for n in range(4))  # type: ignore[misc]
        return list(await asyncio.gather(*steps))

    async def body(stage: Stage) -> Any:
        return await stage.result(await stage.start())

    assert play(method, body) == [0, 1, 2, 3]
    assert called == {"0": 1, "1": 2, "2": 3, "3": 4}


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (lambda: 1, False),
        (lambda n=1: n, False),
        (lambda this: this, True),
        (Counter().total, False),
        (Counter().update, False),
        ([].append, True),
        (asyncio.sleep, True),
    ],
)
def test_a_callback_is_told_of_its_try_when_it_has_a_parameter_for_it(callback: Any, expected: bool) -> None:
    """S9: `lambda n=n: work(n)` has none: its parameter has a value."""
    assert takes_try(callback) is expected


def test_a_fiber_that_never_ends_is_told_to_go_on_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """L7: what one fiber remembers is bounded."""
    monkeypatch.setattr(fiber_module, "FIBER_NAMES_MAX", 5)

    async def method(fiber: Fiber) -> None:
        for number in range(10):
            await fiber.step(f"s{number}", lambda: asyncio.sleep(0))

    async def body(stage: Stage) -> Any:
        return await stage.client.settled("a", (await stage.start()).fiber)

    settled = play(method, body)

    assert settled.error.kind == "UsageError" and "go on in another fiber" in settled.error.message


# --- a whole method that is called again


def test_a_method_that_raises_is_called_again_as_its_policy_says() -> None:
    """L3: with what its steps have done; parked in between."""
    called = Counter[str]()

    async def method(fiber: Fiber) -> str:
        called["method"] += 1

        async def once() -> None:
            called["step"] += 1

        await fiber.step("once", once)
        if fiber.state.tries < 2:
            raise ConnectionError("not yet")
        return f"after {fiber.state.tries} failures"

    async def body(stage: Stage) -> Any:
        began = stage.now()
        return await stage.result(await stage.start(retry=RETRY)), stage.now() - began

    found, took = play(method, body)

    assert found == "after 2 failures"
    assert called == {"method": 3, "step": 1}
    assert 40 <= took < 41


def test_a_fiber_whose_tries_are_spent_is_a_dead_letter_until_somebody_sees_to_it() -> None:
    """L3, L7: it is listed as dead with its last error; resolving it is a note, its outcome stays (S7)."""

    async def method(fiber: Fiber) -> None:
        raise ConnectionError("the mail server is gone")

    async def body(stage: Stage) -> Any:
        receipt = await stage.start(retry=r.Retry(attempts=3, first_seconds=1))
        settled = await stage.client.settled("a", receipt.fiber)
        [dead] = await stage.client.fibers("a", status="dead")
        await stage.client.resolve("a", receipt.fiber, "completed", by="ann")
        after = await stage.client.fibers("a", status="dead")
        seen = await stage.client.inspect("a", receipt.fiber)
        assert seen is not None
        return settled.outcome, dead.error.message, dead.tries, after, seen.outcome, seen.resolved_by

    assert play(method, body) == ("failed", "the mail server is gone", 2, [], "failed", "ann")


@pytest.mark.slow
def test_a_thousand_fibers_at_once_all_settle_and_each_step_is_done_once() -> None:
    """L1, S9: on twenty objects, with steps, tries that fail and waits among them."""
    called = Counter[str]()

    async def method(fiber: Fiber) -> int:
        [number] = fiber.arguments()

        async def work(this: Try) -> int:
            called[f"{number}"] += 1
            if number % 10 == 0 and this.number == 1:
                raise ConnectionError("not yet")
            await fiber.instance.clock.sleep(1)
            return int(number)

        await asyncio.gather(fiber.step("a", work, retry=RETRY), fiber.sleep("nap", number % 7))
        return int(number)

    async def body(stage: Stage) -> Any:
        receipts = [await stage.client.accept(f"o{n % 20}", "run", [n]) for n in range(1000)]
        return [await stage.result(receipt) for receipt in receipts]

    assert play(method, body) == list(range(1000))
    assert called == {f"{n}": 2 if n % 10 == 0 else 1 for n in range(1000)}
