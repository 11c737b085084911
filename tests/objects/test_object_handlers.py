"""Handlers of durable objects: one at a time, one commit each, nothing of what fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.objects.object_stage import Stage, play

from cairn.errors import (
    CallInterrupted,
    NotCallable,
    ReentrantCall,
    RemoteError,
    StoreCorrupt,
    UnknownMethod,
    UsageError,
)
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.object import DurableObject, ObjectApplication, callable
from cairn.runtime.schedule import after
from cairn.runtime.settings import HANDLER_SECONDS


@dataclass
class Count:
    value: int = 0
    notes: list[str] = field(default_factory=list)


class Counter(DurableObject[Count]):
    async def on_start(self) -> None:
        self.started = getattr(self, "started", 0) + 1

    @callable
    async def add(self, by: int = 1) -> int:
        self.state.value += by
        return self.state.value

    @callable
    def add_plainly(self, by: int) -> int:
        self.state.value += by
        return self.state.value

    @callable
    async def slowly(self, note: str, seconds: float = 10) -> list[str]:
        before = list(self.state.notes)
        await self._instance.clock.sleep(seconds)
        self.state.notes = [*before, note]
        return self.state.notes

    @callable
    async def fail(self, by: int) -> None:
        self.state.value += by
        self.storage.put("half", "done")
        raise ValueError("it does not work")

    @callable
    async def twice(self) -> None:
        self.state.value += 1
        await self.commit()
        self.state.value += 100
        raise ValueError("after the commit")

    @callable(read_only=True)
    async def look(self) -> int:
        return self.state.value

    @callable(read_only=True)
    async def look_and_change(self) -> None:
        self.state.value = 99

    @callable(read_only=True)
    async def look_and_put(self) -> None:
        self.storage.put("x", 1)

    @callable
    async def keep(self, key: str, value: Any) -> dict[str, Any]:
        self.storage.put(key, value)
        return self.storage.list()

    @callable
    async def drop(self, key: str) -> bool:
        return self.storage.delete(key)

    @callable(read_only=True)
    async def kept(self, prefix: str = "") -> dict[str, Any]:
        return self.storage.list(prefix)

    @callable(timeout=5)
    async def endless(self) -> None:
        self.state.value = 99
        await asyncio.sleep(1000)

    @callable
    async def deaf(self) -> None:
        self.state.value = 99
        while True:
            try:
                await asyncio.sleep(HANDLER_SECONDS * 10)
            except asyncio.CancelledError:
                continue

    @callable
    async def count_up(self, to: int) -> AsyncIterator[int]:
        for _ in range(to):
            self.state.value += 1
            yield self.state.value

    @callable
    async def itself(self) -> int:
        return int(await self.stub(Counter, self.id).add(1))

    @callable
    async def by_way_of(self, other: str) -> int:
        return int(await self.stub(Counter, other).back_to(self.id))

    @callable
    async def back_to(self, first: str) -> int:
        return int(await self.stub(Counter, first).add(1))

    @callable
    async def began(self) -> int:
        return self.started

    @callable
    async def bad(self) -> None:
        self.state.value = "seven"  # type: ignore[assignment]

    @callable
    async def no_json(self) -> Any:
        self.state.value = 7
        return object()

    async def private(self) -> str:
        return "nobody's business"

    async def tick(self, by: int) -> None:
        self.state.value += by

    async def raises(self) -> None:
        raise ValueError("no")

    async def later(self, fiber: Fiber, by: int) -> int:
        async with self.transaction() as state:
            state.value += by
            self.storage.put("by", by)
            await fiber.instance.clock.sleep(10)
        return self.state.value

    async def calls_itself(self, fiber: Fiber) -> int:
        return int(await self.stub(Counter, self.id).add(5))

    async def calls_itself_in_its_turn(self, fiber: Fiber) -> int:
        async with self.transaction():
            return int(await self.stub(Counter, self.id).add(5))


def test_a_handler_commits_what_it_changed_when_it_returns() -> None:
    """S1 S2: one batch, and no record of the call; the next handler finds it."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        found = [await counter.add(2), await counter.add(3), await counter.add_plainly(4), await counter.look()]
        return found, await stage.kinds("counter", "a")

    assert play([Counter], body) == ([2, 5, 9, 9], ["StateChanged"] * 3)


def test_a_handler_that_raises_has_changed_nothing() -> None:
    """S10: neither state nor storage; the caller is told what was raised."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        await counter.add(1)
        with pytest.raises(RemoteError, match="it does not work") as raised:
            await counter.fail(10)
        return raised.value.type, await counter.look(), await counter.kept()

    assert play([Counter], body) == ("ValueError", 1, {})


def test_what_was_committed_before_it_raised_stays() -> None:
    """S2: `commit` divides a handler in two."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        with pytest.raises(RemoteError, match="after the commit"):
            await counter.twice()
        return await counter.look()

    assert play([Counter], body) == 1


def test_handlers_run_one_after_the_other_in_the_order_they_came() -> None:
    """S11: awaits included: no update is lost."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        await counter.add(0)
        calls = []
        for number in range(5):
            calls.append(asyncio.ensure_future(counter.call("slowly", f"{number}", 1.0)))
            await stage.sleep(0.1)
        return (await asyncio.gather(*calls))[-1]

    assert play([Counter], body) == ["0", "1", "2", "3", "4"]


def test_a_read_only_method_runs_beside_the_others_on_what_is_committed() -> None:
    """S10: it neither waits nor sees a draft."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        await counter.add(7)
        slow = asyncio.ensure_future(counter.call("slowly", "x"))
        await stage.sleep(1)
        looked = await counter.look()
        return looked, slow.done(), await slow

    assert play([Counter], body) == (7, False, ["x"])


@pytest.mark.parametrize("method", ["look_and_change", "look_and_put"])
def test_a_read_only_method_cannot_change_anything(method: str) -> None:
    """S10: an attempt is an error, and nothing of it stays."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        with pytest.raises(RemoteError, match="read_only"):
            await counter.call(method)
        return await counter.look(), await counter.kept()

    assert play([Counter], body) == (0, {})


def test_storage_is_staged_with_the_state() -> None:
    """S2: put, overwritten, deleted, listed by prefix and in order; committed with the handler."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        first = await counter.keep("b/2", {"x": 1})
        await counter.keep("b/1", None)
        await counter.keep("a", [1])
        dropped = await counter.drop("a"), await counter.drop("a")
        return first, dropped, list((await counter.kept("b/")).items())

    assert play([Counter], body) == ({"b/2": {"x": 1}}, (True, False), [("b/1", None), ("b/2", {"x": 1})])


def test_state_and_storage_are_there_after_hibernation() -> None:
    """S1: an idle object is rows; the next call finds everything, in a new Python object."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        await counter.add(2)
        await counter.keep("k", 1)
        began = await counter.began()
        await stage.sleep(60)
        idle = stage.workers[0].running
        return began, idle, await counter.add(1), await counter.kept(), await counter.began()

    assert play([Counter], body) == (1, [], 3, {"k": 1}, 1)


def test_a_handler_that_takes_too_long_is_cut_off_and_the_next_one_runs() -> None:
    """L3: its deadline counts from when it has the turn; nothing of it is committed."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        cut = asyncio.ensure_future(counter.call("endless"))
        await stage.sleep(1)
        added = await counter.add(1)
        with pytest.raises(TimeoutError, match="took longer than its 5 s"):
            await cut
        return added

    assert play([Counter], body) == 1


def test_a_handler_that_ignores_its_end_is_left_behind_without_the_turn() -> None:
    """L7: what it has in hand can never be committed."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        with pytest.raises(TimeoutError):
            await counter.deaf()
        return await counter.add(1)

    assert play([Counter], body) == 1


def test_a_stream_commits_what_a_chunk_tells_of_before_it_leaves() -> None:
    """S10: each yield is a commit, and another reader sees at least as much."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        seen = []
        async for value in counter.count_up(3):
            seen.append((value, await counter.look()))
        return seen

    assert all(looked >= value for value, looked in play([Counter], body))


def test_a_stream_that_nobody_reads_on_ends() -> None:
    """L7: leaving the loop cancels it, and the turn is free."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        async for value in counter.count_up(1_000_000):
            if value == 3:
                break
        return await counter.add(0) >= 3

    assert play([Counter], body)


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        ("nothing", UnknownMethod, "Method nothing does not exist"),
        ("on_start", UnknownMethod, "Method on_start does not exist"),
        ("later", UnknownMethod, "Method later does not exist"),
        ("private", NotCallable, "Method private is not callable"),
    ],
)
def test_only_callable_methods_are_called(method: str, error: type[Exception], said: str) -> None:
    """X5: everything else is the object's own; said without making the object."""

    async def body(stage: Stage) -> Any:
        with pytest.raises(error, match=said):
            await stage.objects.of(Counter, "a").call(method)
        return await stage.is_gone("counter", "a")

    assert play([Counter], body)


@pytest.mark.parametrize(("arguments", "said"), [(["one"], "does not fit"), ([1, 2], "too many positional arguments")])
def test_arguments_are_read_against_the_signature(arguments: list[Any], said: str) -> None:
    """X2: what comes from outside has the types the method names, or does not reach it."""

    async def body(stage: Stage) -> Any:
        with pytest.raises(RemoteError, match=said):
            await stage.objects.of(Counter, "a").call("add", *arguments)

    play([Counter], body)


def test_a_chain_that_comes_back_is_refused_by_name() -> None:
    """L7: A calls itself; A calls B calls A: an error that names the chain, at once, and nothing is stuck."""

    async def body(stage: Stage) -> Any:
        a = stage.objects.of(Counter, "a")
        with pytest.raises(ReentrantCall) as itself:
            await a.itself()
        with pytest.raises(ReentrantCall) as around:
            await a.by_way_of("b")
        return itself.value.chain, around.value.chain, await a.add(1), await stage.objects.of(Counter, "b").add(1)

    found = play([Counter], body)

    assert found == (("counter/a", "counter/a"), ("counter/a", "counter/b", "counter/a"), 1, 1)


def test_a_fiber_may_call_its_own_object_unless_it_has_the_turn() -> None:
    """L7: it runs beside the handlers; inside a transaction it is one of them."""

    async def body(stage: Stage) -> Any:
        handle = stage.applications["counter"].handle(stage.client(Counter), "a")
        free = await handle.result(await handle.start("calls_itself"))
        with pytest.raises(Exception, match="counter/a → counter/a"):
            await handle.result(await handle.start("calls_itself_in_its_turn"))
        return free

    assert play([Counter], body) == 5


def test_a_transaction_takes_the_handlers_turn() -> None:
    """S11: a handler that comes in the middle of it waits, and loses nothing."""

    async def body(stage: Stage) -> Any:
        handle = stage.applications["counter"].handle(stage.client(Counter), "a")
        counter = stage.objects.of(Counter, "a")
        receipt = await handle.start("later", 10)
        await stage.sleep(3)
        return await counter.add(1), await handle.result(receipt), await counter.kept()

    assert play([Counter], body) == (11, 10, {"by": 10})


def test_a_schedule_calls_a_plain_method_as_a_handler() -> None:
    """L4: once, durably; with its arguments; it need not be callable."""

    async def body(stage: Stage) -> Any:
        handle = stage.applications["counter"].handle(stage.client(Counter), "a")
        await handle.schedule(after(60), "tick", 3, key="once")
        await stage.sleep(300)
        [fiber] = await handle.fibers()
        return fiber.outcome, await stage.objects.of(Counter, "a").look()

    assert play([Counter], body) == ("completed", 3)


def test_a_schedule_whose_handler_raises_is_a_failed_run() -> None:
    """L4 L7: visible, with what was raised."""

    async def body(stage: Stage) -> Any:
        handle = stage.applications["counter"].handle(stage.client(Counter), "a")
        await handle.schedule(after(60), "raises", key="once")
        await stage.sleep(300)
        [fiber] = await handle.fibers()
        assert fiber.error is not None
        return fiber.outcome, fiber.error.message

    assert play([Counter], body) == ("failed", "no")


def test_a_state_that_could_not_be_read_back_is_refused() -> None:
    """S14: at the commit, not at the next activation."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        with pytest.raises(RemoteError, match=r"does not fit Count"):
            await counter.bad()
        return await counter.look()

    assert play([Counter], body) == 0


def test_a_result_that_is_no_json_fails_the_handler_whole() -> None:
    """S2: nobody is told nothing while something was committed."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        with pytest.raises(RemoteError):
            await counter.no_json()
        return await counter.look()

    assert play([Counter], body) == 0


def test_a_stored_field_that_no_longer_fits_is_an_error_and_not_the_default() -> None:
    """S14 S15: and nothing is overwritten."""

    @dataclass
    class Before:
        value: str = ""

    class Old(DurableObject[Before]):
        kind = "counter"

        @callable
        async def set(self, value: str) -> None:
            self.state.value = value

    async def body(stage: Stage) -> Any:
        await stage.objects.of("counter", "a").set("words")
        await stage.workers[0].replace([ObjectApplication(Counter)])
        stage.applications["counter"] = ObjectApplication(Counter)
        await stage.sleep(60)
        counter = stage.objects.of("counter", "a")
        with pytest.raises(StoreCorrupt, match=r"does not fit Count: .*value"):
            await counter.look()
        with pytest.raises(StoreCorrupt):
            await counter.add(1)
        return [record.changes for record in await stage.records("counter", "a") if isinstance(record, r.StateChanged)]

    assert [{name: bytes(raw) for name, raw in each.items()} for each in play([Old], body)] == [{"value": b'"words"'}]


def test_what_a_handler_left_behind_can_change_nothing() -> None:
    """S10: its draft is closed when it ends."""
    left: list[asyncio.Task[Any]] = []

    class Careless(DurableObject[Count]):
        @callable
        async def leave(self) -> None:
            async def later() -> None:
                await asyncio.sleep(1)
                self.state.value = 99  # of a copy
                self.storage.put("x", 1)

            left.append(asyncio.create_task(later()))

        @callable(read_only=True)
        async def look(self) -> int:
            return self.state.value

    async def body(stage: Stage) -> Any:
        careless = stage.objects.of(Careless, "a")
        await careless.leave()
        await asyncio.wait(left)
        return await careless.look(), left[0].exception()

    value, error = play([Careless], body)

    assert value == 0 and isinstance(error, UsageError)


def test_a_call_whose_process_stops_is_told_that_nothing_of_it_was_committed() -> None:
    """L6: the one that runs; those that wait go elsewhere."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        await counter.add(1)
        running = asyncio.ensure_future(counter.call("slowly", "lost", 20.0))
        await stage.sleep(1)
        waiting = asyncio.ensure_future(counter.call("add", 5))
        await stage.sleep(1)
        second = await stage.process()
        stage.workers[0].stop()
        with pytest.raises(CallInterrupted, match="nothing of it is committed"):
            await running
        return await waiting, await second.of(Counter, "a").look()

    assert play([Counter], body) == (6, 6)


def test_the_state_may_be_assigned_whole_and_only_where_it_can_be_committed() -> None:
    """S10: a fiber outside a transaction has a copy; what it must use instead is said."""

    class Board(DurableObject[Count]):
        @callable
        async def reset(self) -> dict[str, Any]:
            self.state = Count(7, ["x"])
            return {"value": self.state.value, "notes": self.state.notes}

        async def assigns(self, fiber: Fiber) -> None:
            self.state = Count(8)

        async def broadcasts(self, fiber: Fiber) -> None:
            self.broadcast("x")

        async def assigns_in_its_turn(self, fiber: Fiber) -> int:
            async with self.transaction():
                self.state = Count(9)
            return self.state.value

    async def body(stage: Stage) -> Any:
        reset = await stage.objects.of(Board, "a").reset()
        handle = stage.applications["board"].handle(stage.client(Board), "a")
        for method, said in (("assigns", "self.transaction"), ("broadcasts", "self.emit")):
            with pytest.raises(Exception, match=said):
                await handle.result(await handle.start(method))
        return reset, await handle.result(await handle.start("assigns_in_its_turn"))

    assert play([Board], body) == ({"value": 7, "notes": ["x"]}, 9)


def test_files_that_a_handler_writes_are_there() -> None:
    """S2: each change of a file is a commit of its own, beside the handler's."""

    class Desk(DurableObject[Count]):
        @callable
        async def save(self, text: str) -> None:
            await self.workspace.write("/a.txt", text.encode())

        @callable(read_only=True)
        async def read(self) -> str:
            return (await self.workspace.read("/a.txt")).decode()

    async def body(stage: Stage) -> Any:
        await stage.objects.of(Desk, "a").save("hello")
        await stage.sleep(60)
        return await stage.objects.of(Desk, "a").read()

    assert play([Desk], body) == "hello"


def test_a_process_that_stops_lets_a_short_handler_end() -> None:
    """L6: its reply leaves after its commit, as always."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        await counter.add(1)
        running = asyncio.ensure_future(counter.call("slowly", "done", 3.0))
        await stage.sleep(1)
        stage.workers[0].stop()
        return await running

    assert play([Counter], body) == ["done"]


def test_a_stream_is_iterated_and_nothing_else_is() -> None:
    """X2: each the way it is made; said without making the object."""

    async def body(stage: Stage) -> Any:
        counter = stage.objects.of(Counter, "a")
        with pytest.raises(NotCallable, match="is a stream"):
            await counter.count_up(3)
        with pytest.raises(NotCallable, match="is no stream"):
            async for _ in counter.add(3):
                pass
        return await stage.is_gone("counter", "a")

    assert play([Counter], body)


def test_an_object_is_idle_without_tasks() -> None:
    """L7: objects that were called and are not any more hold no task and no place."""

    async def body(stage: Stage) -> Any:
        await stage.sleep(1)
        before = len(asyncio.all_tasks())
        for number in range(200):
            await stage.objects.of(Counter, str(number)).add(1)
        await stage.sleep(120)
        return len(asyncio.all_tasks()) - before, len(stage.workers[0].running)

    assert play([Counter], body) == (0, 0)
