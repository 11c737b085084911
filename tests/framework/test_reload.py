"""Agents exchanged in a running App, and files read anew."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cairn import Agent, App
from cairn.errors import NotFound, UsageError
from cairn.harness.events import MessageDelta
from cairn.testing.scripted import Call, Say, ScriptedModel, by_turn


def says(text: str, name: str = "toy", **more: Any) -> Agent[Any]:
    return Agent(name, model=ScriptedModel(lambda request: Say(text, **more)))


# --- App.replace ----------------------------------------------------------------------------------------------------


def test_a_live_turn_ends_with_the_code_it_began_with_and_the_next_has_the_new() -> None:
    """S3: an edit changes nothing of what is being said; the next message of the same conversation meets the new agent."""

    async def main() -> None:
        async with App([says("the old answer", chunk=2, pause=0.01)], store=":memory:") as app:
            conversation = app.conversation("toy", "c")
            first = await conversation.send("one")
            async for event in first.follow():
                if isinstance(event, MessageDelta):
                    break
            await app.replace([says("the new answer")])
            assert (await first.reply()).text == "the old answer"
            assert (await (await conversation.send("two")).reply()).text == "the new answer"

    asyncio.run(main())


def test_a_long_answer_takes_the_edit_at_its_next_turn() -> None:
    """A tool of the old code ends as it was; the model call after it is made by the new agent, with the new tool."""

    async def main() -> None:
        runs, go_on = asyncio.Event(), asyncio.Event()
        script = by_turn([Call("look"), Call("look"), "Done."])
        old = Agent("toy", model=ScriptedModel(script), instructions="old")
        new = Agent("toy", model=ScriptedModel(script), instructions="new")

        async def slow_look() -> str:
            """Look."""
            runs.set()
            await go_on.wait()
            return "seen by the old"

        def look() -> str:
            """Look."""
            return "seen by the new"

        old.tool(name="look")(slow_look)
        new.tool(look)
        async with App([old], store=":memory:") as app:
            conversation = app.conversation("toy", "c")
            receipt = await conversation.send("Look twice.")
            await runs.wait()
            await app.replace([new])
            go_on.set()
            assert (await receipt.reply()).text == "Done."
            results = [result for entry in await conversation.history() for result in entry.results.values()]
        assert [result.content[0].text for result in results] == ["seen by the old", "seen by the new"]  # type: ignore[union-attr]
        assert old.model.asked == 1 and new.model.asked == 2  # type: ignore[union-attr]

    asyncio.run(main())


def test_an_agent_comes_goes_and_comes_back(tmp_path: Path) -> None:
    """A new one is claimed at once, and other processes see who serves it; of a removed one the conversations stay."""

    async def main() -> None:
        async with App([says("I am one.", "one")], store=tmp_path / "toy.db") as app:
            await app.replace([says("I am one.", "one"), says("I am two.", "two")])
            receipt = await app.conversation("two", "c").send("Who?")
            assert (await receipt.reply()).text == "I am two."
            assert [worker.kinds for worker in await app.store.workers()] == [("one", "two")]

            await app.replace([says("I am one.", "one")])
            with pytest.raises(UsageError, match="no agent 'two' in this App; it has: one"):
                app.conversation("two", "c")
            assert [worker.kinds for worker in await app.store.workers()] == [("one",)]

            await app.replace([says("I am two again.", "two")])
            assert [agent.name for agent in app.agents] == ["two"]
            again = await app.conversation("two", "c").send("Who?")
            assert (await again.reply()).text == "I am two again."
            assert [entry.text for entry in await app.conversation("two", "c").history()] == [
                "Who?", "I am two.", "Who?", "I am two again.",
            ]  # fmt: skip

    asyncio.run(main())


def test_an_app_without_agents_can_be_given_some() -> None:
    """A workshop opens before the first file is written."""

    async def main() -> None:
        async with App([], store=":memory:") as app:
            await app.replace([says("Here.")])
            assert (await (await app.conversation("toy", "c").send("Hello?")).reply()).text == "Here."

    asyncio.run(main())


def test_agents_that_cannot_be_together_change_nothing() -> None:
    """Two of one name are refused, and the old one answers on."""

    async def main() -> None:
        async with App([says("old")], store=":memory:") as app:
            with pytest.raises(UsageError, match="two agents are named 'toy'"):
                await app.replace([says("a"), says("b")])
            assert (await (await app.conversation("toy", "c").send("?")).reply()).text == "old"

    asyncio.run(main())


def test_agents_can_be_exchanged_before_the_app_is_open() -> None:
    """What counts is what it has when it opens."""

    async def main() -> None:
        app = App([says("old")], store=":memory:")
        await app.replace([says("new")])
        async with app:
            assert (await (await app.conversation("toy", "c").send("?")).reply()).text == "new"
            with pytest.raises(NotFound):
                await app.conversation("toy", "other").reply("sub_none")

    asyncio.run(main())
