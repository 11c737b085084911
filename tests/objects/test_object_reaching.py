"""Reaching objects: here, or through the log of whoever has them; the caller cannot tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.objects.object_stage import Stage, play

from cairn.errors import CallInterrupted, Conflict, NotCallable, NotFound, ReentrantCall, RemoteError
from cairn.runtime import records as r
from cairn.runtime.object import DurableObject, callable
from cairn.runtime.request import Request, Response


@dataclass
class Ledger:
    entries: list[str] = field(default_factory=list)


class Book(DurableObject[Ledger]):
    @callable
    async def write(self, entry: str, seconds: float = 0) -> int:
        await self._instance.clock.sleep(seconds)
        self.state.entries.append(entry)
        return len(self.state.entries)

    @callable(read_only=True)
    async def read(self) -> list[str]:
        return self.state.entries

    @callable
    async def fail(self) -> None:
        self.state.entries.append("never")
        raise ValueError("torn")

    @callable
    async def nothing(self) -> None: ...

    @callable
    async def lines(self, count: int, seconds: float = 0) -> AsyncIterator[str]:
        for number in range(count):
            await self._instance.clock.sleep(seconds)
            self.state.entries.append(f"line {number}")
            yield f"line {number}"

    @callable
    async def ask(self, other: str, back: str | None = None) -> Any:
        self.state.entries.append("asked")
        stub = self.stub(Book, other)
        return await (stub.ask(back) if back is not None else stub.write(f"from {self.id}"))

    async def private(self) -> None: ...

    async def on_request(self, request: Request) -> Response:
        self.state.entries.append(request.path)
        return Response.json({"method": request.method, "body": request.json(), "by": request.by})

    @callable
    async def die(self) -> None:
        self.state.entries.append("died")
        KILL[0]()
        await asyncio.sleep(1000)


KILL: list[Any] = [lambda: None]


async def two(stage: Stage, id: str = "a") -> Any:
    """An object that the first process has; its stub in the second."""
    await stage.objects.of(Book, id).write("first")
    second = await stage.process()
    await stage.sleep(2)
    return second.of(Book, id)


def test_a_call_from_another_process_is_a_request_in_the_log() -> None:
    """S1 S7: accepted, begun, answered in the batch of what it changed."""

    async def body(stage: Stage) -> Any:
        book = await two(stage)
        answered = await book.write("second")
        return answered, await book.read(), await stage.batches("book", "a")

    answered, read, batches = play([Book], body)

    assert (answered, read) == (2, ["first", "second"])
    assert ["state.changed", "fiber.settled"] in batches
    assert [batch for batch in batches if "fiber.accepted" in batch] == [["fiber.accepted"]] * 2


def test_a_call_in_the_owners_process_leaves_no_record_of_itself() -> None:
    """S2: one synced commit if something changed, none if nothing did."""

    async def body(stage: Stage) -> Any:
        book = stage.objects.of(Book, "a")
        await book.write("x")
        await book.nothing()
        await book.read()
        return await stage.kinds("book", "a")

    assert play([Book], body) == ["StateChanged"]


def test_what_a_forwarded_call_raises_is_what_a_direct_one_raises() -> None:
    """S10: the same error with the same words, and nothing changed."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        near = stage.objects.of(Book, "a")
        said = []
        for book in (near, far):
            with pytest.raises(RemoteError) as raised:
                await book.fail()
            said.append((str(raised.value), raised.value.type))
            with pytest.raises(NotCallable):
                await book.private()
        return said, await far.read()

    said, read = play([Book], body)

    assert said[0] == said[1] == ("torn", "ValueError") and read == ["first"]


def test_a_forwarded_stream_comes_chunk_by_chunk_and_ends() -> None:
    """S10: each chunk is in the batch of what it tells of."""

    async def body(stage: Stage) -> Any:
        book = await two(stage)
        came = []
        async for line in book.lines(3, 1.0):
            came.append((line, round(stage.simulation.clock.monotonic())))
        return came, [batch for batch in await stage.batches("book", "a") if "object.sent" in batch]

    came, batches = play([Book], body)

    assert [line for line, _ in came] == ["line 0", "line 1", "line 2"] and len({at for _, at in came}) == 3
    assert batches == [["state.changed", "object.sent"]] * 3


def test_an_object_that_nobody_has_runs_where_it_is_called() -> None:
    """L1: activated at once, without an alarm and without a request."""

    async def body(stage: Stage) -> Any:
        second = await stage.process()
        await stage.sleep(2)
        await second.of(Book, "mine").write("x")
        await stage.objects.of(Book, "mine").read()
        row = await stage.store.find(second.address("book", "mine"))
        return row is not None and row.owner == stage.workers[1].id

    assert play([Book], body)


def test_two_processes_that_write_to_one_object_lose_nothing() -> None:
    """S2 S11: every call has one answer, and each answer another number."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        near = stage.objects.of(Book, "a")
        calls = [book.call("write", f"{number}") for number in range(20) for book in (near, far)]
        answers = await asyncio.gather(*calls)
        return sorted(answers), len(await near.read())

    assert play([Book], body) == (list(range(2, 42)), 41)


def test_a_chain_over_two_processes_is_refused_by_name() -> None:
    """L7: the chain travels in the record."""

    async def body(stage: Stage) -> Any:
        second = await stage.process()
        await stage.sleep(2)
        await stage.objects.of(Book, "a").write("x")
        await second.of(Book, "b").write("x")
        with pytest.raises(ReentrantCall, match="book/a → book/b → book/a"):
            await stage.objects.of(Book, "a").call("ask", "b", "a")
        return await stage.objects.of(Book, "a").read(), await stage.objects.of(Book, "b").read()

    assert play([Book], body) == (["x"], ["x"])


def test_a_process_without_a_worker_calls_through_the_log() -> None:
    """L1: also an object that does not exist."""

    async def body(stage: Stage) -> Any:
        outside = stage.outside()
        await outside.of(Book, "new").write("x")
        return await outside.of(Book, "new").read()

    assert play([Book], body) == ["x"]


def test_a_key_makes_a_call_one_call() -> None:
    """S6: the same key, the same answer, in any process; another body is a Conflict."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        near = stage.objects.of(Book, "a")
        answers = [await book.call("write", "once", key="k") for book in (near, far, near)]
        with pytest.raises(Conflict):
            await near.call("write", "other", key="k")
        return answers, await near.read()

    assert play([Book], body) == ([2, 2, 2], ["first", "once"])


def test_a_forwarded_call_is_answered_though_its_owner_dies_in_it() -> None:
    """L2 S7: the next owner calls the handler again, once; what the first one had changed is not there."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        call = asyncio.ensure_future(far.call("write", "late", 5.0))
        await stage.sleep(2)
        await stage.kill(stage.workers[0])
        answered = await call
        settled = [record for record in await stage.records("book", "a") if isinstance(record, r.FiberSettled)]
        return answered, await far.read(), len(settled)

    assert play([Book], body) == (2, ["first", "late"], 1)


def test_a_direct_call_dies_with_its_process() -> None:
    """S10: nothing of it is committed."""

    async def body(stage: Stage) -> Any:
        second = await two(stage)
        call = asyncio.ensure_future(stage.objects.of(Book, "a").call("write", "lost", 5.0))
        await stage.sleep(1)
        await stage.kill(stage.workers[0])
        with pytest.raises(CallInterrupted):
            await call
        return await second.read()

    assert play([Book], body) == ["first"]


def test_a_stream_that_was_interrupted_says_so_and_is_not_begun_again() -> None:
    """S9: what came cannot be taken back."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        came = []
        with pytest.raises(CallInterrupted, match="cannot be taken back"):
            async for line in far.lines(3, 4.0):
                came.append(line)
                await stage.kill(stage.workers[0])
        return came, await far.read()

    assert play([Book], body) == (["line 0"], ["first", "line 0"])


def test_a_call_that_times_out_is_aborted_where_it_runs() -> None:
    """L7: it is not done after the caller has given up; the next one runs."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        near = stage.objects.of(Book, "a")
        for book in (near, far):
            with pytest.raises(TimeoutError, match="did not answer 'write' within 3 s"):
                await book.call("write", "slow", 20.0, timeout=3)
        await stage.sleep(60)
        return await near.read()

    assert play([Book], body) == ["first"]


def test_a_call_that_waits_can_be_aborted_without_waiting() -> None:
    """L7: an abort never queues behind a handler."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        slow = asyncio.ensure_future(stage.objects.of(Book, "a").call("write", "slow", 20.0))
        await stage.sleep(1)
        waiting = asyncio.ensure_future(far.call("write", "waits"))
        await stage.sleep(1)
        began = stage.simulation.clock.monotonic()
        await stage.client(Book).abort("a")
        with pytest.raises(CallInterrupted, match="abort requested"):
            await waiting
        waited = stage.simulation.clock.monotonic() - began
        return waited < 1, await slow, await far.read()

    assert play([Book], body) == (True, 2, ["first", "slow"])


def test_a_running_forwarded_call_can_be_aborted() -> None:
    """L7: cut off, settled as aborted, nothing committed."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        call = asyncio.ensure_future(far.call("write", "slow", 20.0))
        await stage.sleep(2)
        await stage.client(Book).abort("a", reason="enough")
        with pytest.raises(CallInterrupted, match="enough"):
            await call
        return await far.read()

    assert play([Book], body) == ["first"]


def test_a_call_that_kills_every_process_is_given_up() -> None:
    """L3: ten attempts without a new fact, like any fiber; the object goes on."""

    async def body(stage: Stage) -> Any:
        await stage.objects.of(Book, "a").write("first")
        outside = stage.outside()
        call = asyncio.ensure_future(outside.of(Book, "a").call("die", timeout=5_000))
        for _ in range(10):
            fell = asyncio.Event()
            KILL[0] = fell.set
            await fell.wait()
            await stage.kill(stage.workers[0])
            await stage.process()
        with pytest.raises(CallInterrupted, match="10 attempts in a row"):
            await call
        return await outside.of(Book, "a").read()

    assert play([Book], body) == ["first"]


def test_requests_are_answered_wherever_the_object_runs() -> None:
    """X2: method, path, body and who asks arrive; what `on_request` changed is committed."""

    async def body(stage: Stage) -> Any:
        far = await two(stage)
        found = []
        for book in (stage.objects.of(Book, "a"), far):
            answer = await book.request(Request(method="POST", path="/x", body=b'{"a":1}', by="ann"))
            found.append((answer.status, answer.body))
        return found, await far.read()

    found, read = play([Book], body)

    assert found == [(200, b'{"method":"POST","body":{"a":1},"by":"ann"}')] * 2
    assert read == ["first", "/x", "/x"]


def test_a_kind_that_nobody_here_knows_is_said() -> None:
    """L7: at once, with what is known."""

    async def body(stage: Stage) -> Any:
        with pytest.raises(NotFound, match="no objects of kind 'novel'; it knows: book"):
            await stage.objects.of("novel", "a").call("write", "x")

    play([Book], body)


def test_an_object_that_cannot_be_activated_does_not_stop_others() -> None:
    """L7: whoever calls it is told why; the others answer."""

    class Fussy(Book):
        kind = "fussy"

        async def on_start(self) -> None:
            if self.id == "bad":
                raise RuntimeError("cannot start")

    async def body(stage: Stage) -> Any:
        for _ in range(3):
            with pytest.raises(RemoteError, match="cannot start"):
                await stage.objects.of(Fussy, "bad").write("x")
        return await stage.objects.of(Fussy, "good").write("x")

    assert play([Fussy], body) == 1


def test_a_log_that_cannot_be_read_is_told_to_the_caller_and_stops_nobody_else() -> None:
    """S14 L7."""

    async def body(stage: Stage) -> Any:
        await stage.objects.of(Book, "bad").write("x")
        await stage.sleep(60)
        row = await stage.store.find(stage.objects.address("book", "bad"))
        assert row is not None
        from cairn.runtime.storage.store import Append, Batch

        await stage.store.append(Append(row.n, Batch(b'[{"type":"of another age"}]')))
        for _ in range(3):
            with pytest.raises(Exception, match="of another age"):
                await stage.objects.of(Book, "bad").read()
        return await stage.objects.of(Book, "good").write("x")

    assert play([Book], body) == 1
