"""An owner that lost its way is stopped before its log is."""

from __future__ import annotations

import asyncio

import pytest

from cairn import Agent
from cairn.clock import SystemClock
from cairn.errors import FiberFailed
from cairn.harness import records as h
from cairn.harness.application import AgentApplication
from cairn.harness.handle import ConversationHandle
from cairn.harness.loop import Services
from cairn.ids import SystemIds
from cairn.runtime.fiber import Fiber
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address
from cairn.runtime.worker import Worker
from cairn.testing.scripted import ScriptedModel


class Straying(AgentApplication):
    """An agent's application with a defect: before it works it appends a record that no fold accepts."""

    async def run(self, fiber: Fiber) -> None:
        stray = h.MessageDelta(message="msg_nobody", block=0, kind="text", text="?")
        with pytest.raises(FiberFailed, match="not open"):
            await fiber.instance.append([stray])
        await super().run(fiber)


def test_a_record_that_no_fold_accepts_is_refused_before_it_is_appended() -> None:
    """S14: a defect in what an owner does is an error of that moment; the log stays one that folds, and work goes on."""
    agent = Agent("toy", model=ScriptedModel(["Fine."]))
    application = Straying(agent, Services(resolve=lambda model: model), "")  # type: ignore[arg-type, return-value]

    async def main() -> str:
        clock, ids = SystemClock(), SystemIds()
        store = SqliteStore(":memory:", clock=clock, ids=ids, inline=True)
        await store.open()
        async with Worker(store, [application], clock=clock, ids=ids):
            talk = ConversationHandle(application, store, clock, ids, Address("toy", "one"))
            text = (await (await talk.send("Go")).reply()).text
        await store.close()
        return text

    assert asyncio.run(main()) == "Fine."
