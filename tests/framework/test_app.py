"""Agents, a store and a worker in one program: opened, talked to, shared, closed, opened again."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cairn import Agent, App, Context
from cairn.errors import FiberFailed, UsageError
from cairn.runtime.storage import SqliteStore
from cairn.testing.scripted import Call, Reply, Say, ScriptedModel, by_turn


def toy(*replies: Reply, name: str = "toy", script: Any = None) -> Agent[Any]:
    return Agent(name, model=ScriptedModel(script or list(replies)))


def test_an_answer_in_a_few_lines(tmp_path: Path) -> None:
    """S1: sent, answered, in the history, and there when the store is opened again."""

    async def main() -> None:
        agent = toy("Hi.")
        async with App([agent], store=tmp_path / "toy.db") as app:
            receipt = await app.conversation(agent, "c").send("Hello.")
            assert (await receipt.reply()).text == "Hi."
        async with App([agent], store=tmp_path / "toy.db") as app:
            conversation = app.conversation("toy", "c")
            assert [entry.text for entry in await conversation.history()] == ["Hello.", "Hi."]
            assert (await conversation.reply(receipt.submission)).text == "Hi."

    asyncio.run(main())


def test_another_program_sends_and_reads_what_this_one_runs(tmp_path: Path) -> None:
    """S1, S3: `serve=False` runs nothing: the message waits in the log until somebody serves; both see the same events."""

    async def main() -> None:
        agent = toy("Hi.")
        async with App([agent], store=tmp_path / "toy.db", serve=False) as outside:
            assert outside.worker is None
            there = outside.conversation(agent, "c")
            receipt = await there.send("Hello.", key="k")
            assert len(await there.unsettled()) == 1
            async with App([agent], store=tmp_path / "toy.db") as inside:
                here = inside.conversation(agent, "c")
                again = await here.send("Hello.", key="k")
                assert again.submission == receipt.submission and again.deduplicated
                assert (await receipt.reply()).text == (await again.reply()).text == "Hi."
                mine = [event async for event in again.follow()]
            theirs = [event async for event in receipt.follow()]
            assert mine == theirs

    asyncio.run(main())


def test_many_conversations_of_several_agents_at_once() -> None:
    """S12: each has its own answer."""

    def script(request: Any) -> Reply:
        return Say(f"{request.system}: {request.messages[0].content[0].text}", chunk=3)

    async def main() -> None:
        agents = [Agent(name, instructions=name, model=ScriptedModel(script)) for name in ("ann", "bob")]
        async with App(agents, store=":memory:") as app:
            receipts = {
                (agent.name, number): await app.conversation(agent, f"{number}").send(f"{number}")
                for agent in agents
                for number in range(20)
            }
            for (name, number), receipt in receipts.items():
                assert (await receipt.reply()).text == f"{name}: {number}"

    asyncio.run(main())


def test_one_id_under_two_tenants_is_two_conversations() -> None:
    """S12: nothing of one shows in the other."""

    async def main() -> None:
        agent = toy(script=lambda request: f"{len(request.messages)} message")
        async with App([agent], store=":memory:") as app:
            for tenant in ("a", "b"):
                conversation = app.conversation(agent, "c", tenant=tenant)
                assert (await (await conversation.send("Hello.", key="k")).reply()).text == "1 message"
                assert len(await conversation.history()) == 2

    asyncio.run(main())


def test_a_plain_function_runs_in_a_thread_and_shows_progress() -> None:
    """L7, P12: a blocking tool does not hold the loop, and what it shows reaches the log."""
    threads: set[str] = set()
    ticks = 0

    async def main() -> list[str]:
        nonlocal ticks
        agent = toy([Call("block")], "Done.")

        @agent.tool
        def block(ctx: Context) -> str:
            """Block."""
            threads.add(threading.current_thread().name)
            ctx.progress("half")
            time.sleep(0.05)
            ctx.progress("whole")
            return "blocked"

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += bool(threads)

        async with App([agent], store=":memory:") as app:
            ticking = asyncio.create_task(tick())
            receipt = await app.conversation(agent, "c").send("Hello.")
            shown = [event.text async for event in receipt.follow() if type(event).__name__ == "ToolProgress"]  # type: ignore[attr-defined]
            ticking.cancel()
        return shown

    shown = asyncio.run(main())

    assert shown[-1] == "whole" and threads != {threading.main_thread().name} and ticks > 0


def test_closing_in_the_middle_of_an_answer_keeps_it_for_the_next_program(tmp_path: Path) -> None:
    """L6, S1: a clean stop is no attempt; the next one continues after the last word."""
    store = tmp_path / "toy.db"

    async def main() -> None:
        stopped = ScriptedModel(by_turn([Say("One two three four five.", chunk=4, pause=0.01)]))
        async with App([Agent("toy", model=stopped)], store=store) as app:
            receipt = await app.conversation("toy", "c").send("Hello.")
            async for event in receipt.follow():
                if type(event).__name__ == "MessageDelta":
                    break
        agent = Agent("toy", model=ScriptedModel(by_turn([Say("One two three four five.", chunk=4)])))
        async with App([agent], store=store) as app:
            conversation = app.conversation("toy", "c")
            assert (await conversation.reply(receipt.submission)).text == "One two three four five."
            first, second = [entry for entry in await conversation.history() if entry.kind == "assistant"]
            assert first.state == "interrupted" and first.text and second.state == "completed"

    asyncio.run(main())


def test_a_store_that_was_handed_in_stays_open() -> None:
    """S1: whoever opened it closes it; its worker has let go of it."""

    async def main() -> None:
        from cairn.clock import SystemClock
        from cairn.ids import SystemIds

        store = SqliteStore(":memory:", clock=SystemClock(), ids=SystemIds(), inline=True)
        await store.open()
        for text in ("One.", "Two."):
            async with App([toy(text)], store=store) as app:
                assert (await (await app.conversation("toy", "c").send("Hello.")).reply()).text == text
        assert await store.workers() == []
        await store.close()

    asyncio.run(main())


def test_models_that_are_named_are_looked_up_once_and_let_go() -> None:
    """F6: a model that cannot be had is one clear failure of the submission, and `warm` says so before."""

    async def main() -> None:
        agent = Agent("toy", model="nobody:model")
        async with App([agent], store=":memory:") as app:
            with pytest.raises(UsageError, match="nobody"):
                await app.warm()
            with pytest.raises(FiberFailed, match="nobody"):
                await (await app.conversation(agent, "c").send("Hello.")).reply()

    asyncio.run(main())


def test_mistakes_are_named_where_they_are_made() -> None:
    """S14: no name, one name twice, an agent that is not there, an App that is not open, an id that cannot be one."""
    with pytest.raises(UsageError, match="has no name"):
        App([Agent(model=ScriptedModel([]))])
    with pytest.raises(UsageError, match="two agents are named 'toy'"):
        App([toy(), toy()])
    closed = App([toy()], store=":memory:")
    with pytest.raises(UsageError, match="open the App first"):
        closed.conversation("toy", "c")
    with pytest.raises(UsageError, match="not open"):
        _ = closed.store

    async def main() -> None:
        async with App([toy()], store=":memory:") as app:
            with pytest.raises(UsageError, match="no agent 'tory' in this App; it has: toy"):
                app.conversation("tory", "c")
            with pytest.raises(UsageError, match="cannot be an instance's id"):
                app.conversation("toy", " ")
        with pytest.raises(UsageError, match="not supported by this version"):
            async with App([toy()], store="postgresql://x"):
                pass

    asyncio.run(main())


def test_where_the_store_is_when_nobody_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: `CAIRN_STORE`, then `.cairn/cairn.db` in the working directory."""
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with App([toy("Hi.")]) as app:
            await (await app.conversation("toy", "c").send("Hello.")).reply()
        assert (tmp_path / ".cairn" / "cairn.db").exists()
        monkeypatch.setenv("CAIRN_STORE", str(tmp_path / "other" / "x.db"))
        async with App([toy("Hi.")]) as app:
            await (await app.conversation("toy", "c").send("Hello.")).reply()
        assert (tmp_path / "other" / "x.db").exists()

    asyncio.run(main())


def test_an_app_that_cannot_start_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L6: the store is closed again, and the next App opens it."""

    async def main() -> None:
        async def refuse(*_: Any) -> None:
            raise UsageError("not today")

        with monkeypatch.context() as patch:
            patch.setattr("cairn.runtime.worker.Worker.start", refuse)
            app = App([toy()], store=tmp_path / "toy.db")
            with pytest.raises(UsageError, match="not today"):
                await app.__aenter__()
        with pytest.raises(UsageError, match="not open"):
            _ = app.store
        async with App([toy("Hi.")], store=tmp_path / "toy.db") as app:
            await (await app.conversation("toy", "c").send("Hello.")).reply()

    asyncio.run(main())
