"""Other harnesses on the runtime: a worker dies before and after every durable write of their turns.

Method. The real libraries talk to a real provider server on the loopback interface, so time is real: the workers are tasks of
this process, and one dies by a store that refuses everything from its line on and by being cancelled. What it had done to
the provider and to the tools' world is held against what its log says was finished.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tests.crash.test_fiber_crash_points import Locks
from tests.harnesses.shops import LIBRARIES, Found, Shop, judge, look, respond, talk

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, ObjectApplication, Worker, WorkerSettings
from cairn.runtime.storage import SqliteStore
from cairn.testing import Crash, FaultyStore
from cairn.testing.providers import ProviderServer
from cairn.testing.world import World

SETTINGS = WorkerSettings(sweep_seconds=0.01, poll_seconds=0.05, idle_seconds=0.0, tidy_seconds=None)


@dataclass
class Life:
    """What is alive of a worker, for those who look whether it is."""

    is_alive: bool = True


@dataclass
class Result:
    answers: list[str]
    died: list[Found]
    ended: Found


async def live(shop: Shop, crashes: Sequence[Crash]) -> Result:
    """The conversation under workers that die at these points, one after the other, and then one that does not."""
    clock, ids, world = SystemClock(), SystemIds(), World()
    alive: dict[str, Life] = {}
    async with ProviderServer(respond) as server:
        store = SqliteStore(":memory:", inline=True, clock=clock, ids=ids)
        await store.open()
        application = shop.application(world, server.url("anthropic"))
        talking = asyncio.create_task(talk(Client(store, application, clock=clock, ids=ids)))
        died = []
        for crash in [*crashes, None]:
            life = Life()
            locks = Locks(alive, life)  # type: ignore[arg-type]
            await _one(store, application, locks, crash, talking)
            life.is_alive = False
            died.append(await look(store, world, server.requests))
        answers = await talking
        ended = await look(store, world, server.requests)
        assert await store.check() == []
        await store.close()
    return Result(answers, died, ended)


async def _one(
    store: SqliteStore, application: ObjectApplication, locks: Locks, crash: Crash | None, talking: asyncio.Task[list[str]]
) -> None:
    """A worker, until everything is answered or it is dead."""
    dead = asyncio.Event()
    face = FaultyStore(store, crash=crash, faults=frozenset(), on_crash=dead.set)

    async def work() -> None:
        async with Worker(face, [application], clock=SystemClock(), ids=SystemIds(), owners=locks, settings=SETTINGS):
            await asyncio.Event().wait()

    others = asyncio.all_tasks()
    working = asyncio.create_task(work())
    death = asyncio.create_task(dead.wait())
    await asyncio.wait({talking, death}, return_when=asyncio.FIRST_COMPLETED)
    if dead.is_set():
        face.die()
    death.cancel()
    working.cancel()
    # Nothing of a dead process goes on: not its worker, and not what the libraries began.
    while doomed := {task for task in asyncio.all_tasks() - others - {talking} if not _of_server(task)}:
        for task in doomed:
            task.cancel()
        await asyncio.wait(doomed)


def _of_server(task: asyncio.Task[object]) -> bool:
    """The provider is another process, so to speak: it lives on, and notices by itself that its client has gone."""
    return "cairn/testing/providers" in str(getattr(task.get_coro(), "cr_code", ""))


def quiet(main: Coroutine[Any, Any, Result]) -> Result:
    """Run it; what tasks of dead workers say is nobody's news."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        return runner.run(main)


@pytest.fixture(scope="module", params=LIBRARIES)
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    yield Shop(request.param)
    gc.collect()  # what dead workers left is finalised here, and not in the middle of another test


@pytest.mark.slow
def test_a_harness_of_others_answers_as_it_does_alone(shop: Shop) -> None:
    """S1 S2 S7: four model requests and four tool calls, each once and each a step; the second message sees the first."""
    result = quiet(live(shop, ()))

    assert result.answers == ["It is on its way.", "You are welcome."]
    assert set(result.ended.requests.values()) == {1} and len(result.ended.requests) == 4
    assert result.ended.effects == {"look": 1, "charge": 1, "launch": 1, "ship": 1}
    assert len(result.ended.finished["Order a lamp."]) == 1 + 3 + 4
    assert len([part for part in result.ended.state if "lamp" in str(part)]) >= 8


@pytest.mark.slow
def test_a_crash_at_any_durable_write_repeats_no_finished_call(shop: Shop) -> None:
    """T3: S1 S2 S5 S7 S8 S9, at every point before and after every write of the worker, parallel tool calls included."""
    whole, unknown = quiet(live(shop, ())).ended, 0

    for count in itertools.count():
        crash = Crash(count // 2 + 1, ("before", "after")[count % 2])
        result = quiet(live(shop, [crash]))
        judge(result.died[0], result.ended, whole, result.answers, f"crashed {crash}")
        unknown += "Nobody knows" in str(result.ended.state)
        if not crash.reached:
            break

    assert count >= 30 and unknown >= 1
