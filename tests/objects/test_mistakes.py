"""Mistakes in the code of objects and of their callers: said where they are made, and never written to a log.

Method. What a newcomer might write, as a method or as a call from outside. The error names the thing; and afterwards the same
object can be read and works, for a log that nobody can read is worse than any error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import pytest
from tests.runtime.stage import Stage, play

from cairn.errors import UsageError
from cairn.runtime import DurableObject, Fiber, ObjectApplication, Retry, callable
from cairn.runtime import records as r

Mistake = Callable[[Fiber], Awaitable[Any]]

#: What a method does wrong, and words of the error that help.
METHODS: dict[str, tuple[Mistake, str]] = {
    "a repeat class that is none": (
        lambda fiber: fiber.step("a", nothing, repeat="sometimes"),  # type: ignore[call-overload]
        "'sometimes' is none of 'safe', 'keyed', 'never'",
    ),
    "a step without a name": (lambda fiber: fiber.step("", nothing), "has '' for a name"),
    "a step with a number for a name": (lambda fiber: fiber.step(3, nothing), "has 3 for a name"),  # type: ignore[call-overload]
    "a step of nothing": (lambda fiber: fiber.step("a", 42), "step 'a' needs a function to call, not 42"),  # type: ignore[call-overload]
    "a step of a call": (lambda fiber: fiber.step("a", closed()), "or a lambda that calls it"),
    "a step with no time": (lambda fiber: fiber.step("a", nothing, timeout=0), "timeout=0 is no time"),
    "never, and again": (
        lambda fiber: fiber.step("a", nothing, repeat="never", retry=Retry(attempts=2)),
        "is never repeated and has a retry policy",
    ),
    "a result that is no JSON": (lambda fiber: fiber.step("a", lambda: object()), "what step 'a' returned cannot be kept"),
    "a checkpoint that is no JSON": (lambda fiber: fiber.stash(object()), "what was stashed cannot be kept"),
    "a question that is no JSON": (lambda fiber: fiber.ask("q", object()), "question 'q' cannot be kept"),
    "a duration in words": (lambda fiber: fiber.sleep("nap", "10m"), "'10m' is no number of seconds"),  # type: ignore[arg-type]
    "a time without a zone": (lambda fiber: fiber.sleep_until("nap", datetime(2030, 1, 1)), "has no time zone"),
    "a wait for a number": (lambda fiber: fiber.wait(5), "has 5 for a name"),  # type: ignore[arg-type]
}


async def nothing() -> None: ...


def closed() -> Any:
    coroutine = nothing()
    coroutine.close()
    return coroutine


@pytest.mark.parametrize("name", METHODS)
def test_a_mistake_in_a_method_is_told_and_its_object_goes_on(name: str) -> None:
    """S14, L7: the fiber fails with the words that help, or nothing is wrong; the next one of the same object works."""
    mistake, words = METHODS[name]

    async def run(fiber: Fiber) -> Any:
        return await mistake(fiber)

    async def body(stage: Stage) -> tuple[str, str]:
        receipt = await stage.start("run")
        settled = await stage.client.settled("a", receipt.fiber)
        return settled.error.message if settled.error is not None else "", await stage.result(await stage.start("well"))

    async def well(fiber: Fiber) -> str:
        return await fiber.step("a", lambda: "well")

    said, after = play({"run": run, "well": well}, body)

    assert words in said
    assert after == "well"


#: What a caller does wrong, and words of the error.
CALLS: dict[str, tuple[Callable[[Stage], Awaitable[Any]], str]] = {
    "a number for a key": (lambda stage: stage.start("run", key=5), "Expected `str | null`, got `int` - at `$[0].key`"),
    "a text for a time": (lambda stage: stage.start("run", timeout_seconds="x"), "timeout_seconds"),
    "arguments that are no JSON": (lambda stage: stage.start("run", object()), "the arguments of 'run' cannot be kept"),
    "a signal with a number for a name": (lambda stage: stage.client.signal("a", 3), "nobody could read it"),  # type: ignore[arg-type]
    "a payload that is no JSON": (lambda stage: stage.client.signal("a", "go", object()), "the payload of signal 'go'"),
    "a status that is none": (lambda stage: stage.client.fibers("a", status="done"), "'done' is none of 'accepted'"),  # type: ignore[arg-type]
    "a schedule in words": (lambda stage: stage.client.schedule("a", "10m", "run"), "'10m' is no timing"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_a_mistake_of_a_caller_is_refused_and_leaves_no_trace(name: str) -> None:
    """S14: nothing of it is in the log, and the object works."""
    call, words = CALLS[name]

    async def body(stage: Stage) -> tuple[str, int, list[str]]:
        await stage.result(await stage.start("run"))
        before = len(await stage.world.records())
        with pytest.raises(UsageError) as caught:
            await call(stage)
        more = len(await stage.world.records()) - before
        return str(caught.value), more, await stage.result(await stage.start("run"))

    async def run(fiber: Fiber) -> str:
        return "well"

    said, more, after = play(run, body)

    assert words in said
    assert (more, after) == (0, "well")


def test_what_nobody_could_read_does_not_take_its_neighbours_down() -> None:
    """S14, L7: appends of several fibers share a batch; one that is refused is refused alone."""

    async def bad(fiber: Fiber) -> None:
        record = r.FiberStashed(fiber=fiber.id, value=msgspec.Raw(b"1"))
        await fiber.instance.together.append([msgspec.structs.replace(record, fiber=7)])

    async def good(fiber: Fiber) -> str:
        return await fiber.step("a", lambda: "well")

    async def body(stage: Stage) -> list[str]:
        receipts = [await stage.start(method) for method in ("good", "bad", "good", "good", "bad")]
        settled = await asyncio.gather(*(stage.client.settled("a", receipt.fiber) for receipt in receipts))
        return [each.outcome for each in settled]

    assert play({"good": good, "bad": bad}, body) == ["completed", "failed", "completed", "completed", "failed"]


@dataclass
class Nothing:
    """No state."""


def test_a_callable_that_takes_a_fiber_is_refused_where_it_is_written() -> None:
    """It would be neither: a fiber is started, a callable is called."""

    class Both(DurableObject[Nothing]):
        @callable
        async def both(self, fiber: Fiber) -> int:
            return 1

    with pytest.raises(UsageError, match=r"Both\.both is @callable and takes a Fiber; .*start_fiber"):
        ObjectApplication(Both)


def test_a_method_that_is_no_fiber_method_is_told_how_to_be_one() -> None:
    """Its first parameter is not annotated."""

    class Lax(DurableObject[Nothing]):
        async def run(self, fiber) -> int:  # type: ignore[no-untyped-def]
            return 1

    from cairn.runtime.state import FiberState

    blocked = ObjectApplication(Lax).blocked(FiberState(id="f", method="run", accepted_at=0.0, ordinal=1))

    assert blocked is not None and "its first parameter is to be `fiber: Fiber`" in blocked.message
