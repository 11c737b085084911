"""Agents that are told something by the clock: one submission for each occurrence, over any number of processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from cairn import Agent, App
from cairn.errors import UsageError
from cairn.runtime import cron, every
from cairn.runtime.schedule import Timing, after
from cairn.runtime.storage import SqliteStore
from cairn.runtime.worker import WorkerSettings
from cairn.testing import Simulation, simulate
from cairn.testing.scripted import ScriptedModel

SETTINGS = WorkerSettings(sweep_seconds=60.0, poll_seconds=300.0, lease_seconds=900.0, idle_seconds=0.0)


def agent(*schedules: Timing) -> Agent[Any]:
    return Agent("reporter", model=ScriptedModel(lambda request: "Done."), schedules=schedules)


def stage(body: Callable[[Simulation, Callable[[Agent[Any]], App]], Awaitable[Any]]) -> Any:
    """Apps over one store, each as a process of its own would be."""

    async def main(simulation: Simulation) -> Any:
        store = SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)
        await store.open()

        def app(agent: Agent[Any]) -> App:
            return App([agent], store=store, clock=simulation.clock, ids=simulation.ids, settings=SETTINGS)

        found = await body(simulation, app)
        await store.close()
        return found

    return simulate(main, seed=0, faults=False).value


def test_an_agent_is_prompted_on_its_schedule_once_whoever_runs_it() -> None:
    """L4, S6: three processes declare it at every start; every occurrence is one submission, and is answered."""

    async def body(simulation: Simulation, app: Callable[[Agent[Any]], App]) -> Any:
        beat = agent(every("30m", message="Report."), cron("0 16 * * *", tz="UTC", message="Four o'clock.", id="daily"))
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(app(beat))
            for _ in range(2):
                await stack.enter_async_context(app(beat))
            await simulation.clock.sleep(2 * 3600 + 60)
        async with app(beat) as again:
            await simulation.clock.sleep(1800)
            texts = [entry.text for entry in await again.conversation("reporter", "scheduled").history()]
            daily = [entry.text for entry in await again.conversation("reporter", "daily").history()]
        assert first is not again
        return texts, daily

    texts, daily = stage(body)

    assert texts == ["Report.", "Done."] * 5
    assert daily == ["Four o'clock.", "Done."]


def test_a_schedule_that_is_gone_from_the_code_rings_no_more_and_a_changed_one_is_another() -> None:
    """L4: the code says what is scheduled; nobody has to cancel anything by hand."""

    async def body(simulation: Simulation, app: Callable[[Agent[Any]], App]) -> Any:
        async with app(agent(every("30m", message="Old."))):
            await simulation.clock.sleep(1900)
        async with app(agent(every("30m", message="New."))) as other:
            await simulation.clock.sleep(1900)
            return [entry.text for entry in await other.conversation("reporter", "scheduled").history()]

    assert stage(body) == ["Old.", "Done.", "New.", "Done."]


@pytest.mark.parametrize(
    "schedules",
    [[every("1h")], [after("1h", message="x")], ["0 9 * * *"], [every("1h", message="x"), every("1h", message="x")]],
    ids=["says-nothing", "after", "text", "twice"],
)
def test_a_schedule_an_agent_cannot_have_is_refused_where_it_is_written(schedules: Any) -> None:
    """S14: with what to write instead."""
    with pytest.raises(UsageError):
        Agent("reporter", schedules=schedules)
