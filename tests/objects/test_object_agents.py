"""Agents through the gateway of objects: their state is followed, and set by nobody but themselves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from cairn import Agent, App, Context
from cairn.errors import Denied, NotCallable, UnknownMethod
from cairn.runtime.connections import Connection
from cairn.runtime.request import Request
from cairn.testing.scripted import Call, ScriptedModel


@dataclass
class Case:
    escalated: int = 0
    note: str = ""


def desk() -> Agent[Case]:
    agent = Agent("desk", model=ScriptedModel([Call("escalate"), "done"]), state=Case)

    @agent.tool
    async def escalate(ctx: Context[Case]) -> str:
        """Ask somebody."""
        ctx.state.escalated += 1
        return "ok"

    return agent


def test_the_state_of_an_agent_is_followed_from_before_it_exists() -> None:
    """S3: its first state when it is made, then each commit that changes it; nothing is made by looking."""

    async def main() -> Any:
        async with App(agents=[desk()], store=":memory:") as app:
            attached = await app.objects.connect("desk", "a", Connection("ann"), Request())
            exists = await app.store.find(app.objects.address("desk", "a"))
            before = msgspec.json.decode(attached.state or b"null")
            receipt = await app.conversation("desk", "a").send("help")
            await receipt.reply()
            frame = await asyncio.wait_for(anext(attached.frames()), 10)
            return exists, before, msgspec.json.decode(frame.state), frame.source  # type: ignore[union-attr]

    assert asyncio.run(main()) == (None, {"escalated": 0, "note": ""}, {"escalated": 1, "note": ""}, "server")


def test_a_client_of_an_agent_sets_nothing_and_calls_nothing() -> None:
    """X5: agents have no handlers; closing is no news."""

    async def main() -> None:
        async with App(agents=[desk()], store=":memory:") as app:
            attached = await app.objects.connect("desk", "a", Connection("ann"), Request())
            with pytest.raises(Denied, match="Connection is readonly"):
                await attached.set_state(b'{"escalated": 7}')
            with pytest.raises(UnknownMethod, match="Method escalate does not exist"):
                await attached.call("escalate", [])
            with pytest.raises(NotCallable):
                await attached.message("hello")
            await attached.close(1000, "")
            assert await app.store.instances() == []

    asyncio.run(main())
