"""F6: a listener may be slow, hang or raise; it is told everything in order, and no run notices it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cairn import Agent, App
from cairn.framework import listeners as module
from cairn.framework.listeners import Listener, Listeners
from cairn.harness import records as h
from cairn.harness.events import Event
from cairn.runtime import records as r
from cairn.runtime.storage.store import Address
from cairn.testing import Simulation, simulate
from cairn.testing.scripted import Call, Say, ScriptedModel


def talk(*listeners: Listener, then: Callable[[], Awaitable[None]] | None = None) -> str:
    """One question to an agent with a tool, heard by these; its answer."""

    async def main() -> str:
        agent = Agent("toy", model=ScriptedModel([[Say("I look. "), Call("look")], "A tree."]))

        @agent.tool
        async def look() -> str:
            """Look."""
            return "a tree"

        async with App([agent], store=":memory:", listeners=listeners) as app:
            reply = await (await app.conversation(agent, "c").send("Hello.")).reply()
            if then is not None:
                await then()
            return reply.text

    return asyncio.run(main())


class Ear:
    def __init__(self) -> None:
        self.heard: list[str] = []
        self.addresses: set[Address] = set()

    def __call__(self, address: Address, event: Event) -> None:
        self.addresses.add(address)
        self.heard.append(str(event.__struct_config__.tag))


WORK = [
    "submission.started", "turn.started", "message.started", "message.delta", "message.completed", "tool.started",
    "tool.completed", "turn.completed", "turn.started", "message.started", "message.delta", "message.completed",
    "turn.completed", "submission.settled",
]  # fmt: skip


def test_a_listener_hears_every_event_of_the_work_in_order() -> None:
    """S10: each after it is durable."""
    ear = Ear()

    assert talk(ear) == "A tree."
    assert ear.heard == WORK and ear.addresses == {Address("toy", "c")}


@pytest.mark.parametrize("trouble", ["raises", "raises later", "is slow"])
def test_f6_a_listener_in_trouble_changes_nothing(trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    """F6: neither the answer nor what another listener hears; its errors are in the program's log."""
    ear, bad = Ear(), list[str]()

    def raising(address: Address, event: Event) -> None:
        bad.append(str(event.__struct_config__.tag))
        raise RuntimeError("boom")

    async def raising_later(address: Address, event: Event) -> None:
        await asyncio.sleep(0)
        raising(address, event)

    async def slow(address: Address, event: Event) -> None:
        await asyncio.sleep(0.005)
        bad.append(str(event.__struct_config__.tag))

    listener: Listener = {"raises": raising, "raises later": raising_later, "is slow": slow}[trouble]
    assert talk(listener, ear) == "A tree."

    assert ear.heard == WORK
    assert bad == WORK, "it is asked again after an error, and waited for at the end"
    assert caplog.text.count("a listener raised; the run goes on") == (0 if trouble == "is slow" else len(WORK))


def test_f6_a_listener_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """F6: the run is not held up, and the program ends."""
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.01)
    ear, hung = Ear(), list[Event]()

    async def hang(address: Address, event: Event) -> None:
        hung.append(event)
        await asyncio.Event().wait()

    assert talk(hang, ear) == "A tree."
    assert ear.heard == WORK and len(hung) == 1


class Instance:
    n = 1
    address = Address("toy", "c")


def test_a_listener_that_is_far_behind_loses_the_oldest_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """L7: memory is bounded, whatever a listener does."""
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    heard: list[int] = []

    async def main(simulation: Simulation) -> None:
        listeners = Listeners([lambda address, event: heard.append(event.offset)])
        listeners.start()
        delta = h.MessageDelta(message="m", block=0, kind="text", text="x")
        for ordinal in range(10):
            listeners.committed(Instance, ordinal, [delta])
        await listeners.stop()
        assert simulation.now() == 0, "what was dropped is not waited for"

    with caplog.at_level(logging.WARNING):
        simulate(main, seed=0)

    assert heard == [7, 8, 9] and "a listener is 3 events behind" in caplog.text


def test_what_is_remembered_of_an_instance_goes_with_it() -> None:
    """L7: a process that served a million conversations does not remember them."""

    async def main() -> None:
        listeners = Listeners([lambda address, event: None])
        listeners.start()
        for ordinal in range(50):
            instance: Any = Instance()
            listeners.committed(instance, ordinal, [r.FiberStarted(fiber="s", at=0)])
            del instance
        assert len(listeners._streams) == 0
        await listeners.stop()

    asyncio.run(main())


def test_nobody_listens() -> None:
    """F6: costs nothing."""
    listeners = Listeners([])
    listeners.committed(object(), 1, [r.FiberStarted(fiber="s", at=0)])

    assert len(listeners._streams) == 0
