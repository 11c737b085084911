"""`cairn schedules` and what `cairn ls` says of schedules, dead letters and fibers that wait for code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.framework.shell import Shell

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, Retry, SqliteStore, Worker, after, cron, every
from cairn.runtime.object import Handle


@dataclass
class Nothing:
    """No state."""


class Bell(DurableObject[Nothing]):
    async def ring(self, fiber: Fiber) -> None: ...

    async def breaks(self, fiber: Fiber) -> None:
        raise RuntimeError("the rope is torn")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def in_store(folder: Path, body: Callable[[Handle], Coroutine[Any, Any, None]], *, serve: bool = False) -> Path:
    """Do something with the bell of the tower; where its store is."""
    path = folder / "bells.db"

    async def main() -> None:
        clock, ids = SystemClock(), SystemIds()
        store = SqliteStore(str(path), clock=clock, ids=ids)
        await store.open()
        application = ObjectApplication(Bell)
        tower = application.handle(Client(store, application, clock=clock, ids=ids), "tower")
        if serve:
            async with Worker(store, [application], clock=clock, ids=ids) as worker:
                await body(tower)
                await worker.idle()
        else:
            await body(tower)
        await store.close()

    asyncio.run(main())
    return path


async def scheduled(tower: Handle) -> None:
    await tower.schedule(after("2d"), Bell.ring, key="feast")
    await tower.schedule(every("90m"), Bell.ring, key="beat")
    await tower.schedule(cron("0 9 * * 1-5", tz="Europe/Oslo"), Bell.ring, key="mass")


def test_schedules_are_listed_the_next_first_and_cancelled_by_name(shell: Shell, tmp_path: Path) -> None:
    """L4: the listing is the log's, the cancellation is in it when the verb returns."""
    store = str(in_store(tmp_path, scheduled, serve=True))

    listed = shell.cairn("schedules", "--store", store)
    assert listed.code == 0
    heading, *lines = listed.out.splitlines()
    assert heading.split() == ["INSTANCE", "SCHEDULE", "WHEN", "NEXT", "METHOD", "RUNS"]
    assert all("bell/tower" in line and "ring" in line for line in lines) and len(lines) == 3
    assert any("beat" in line and "every 1h30m" in line for line in lines)
    assert any("cron 0 9 * * 1-5 (Europe/Oslo)" in line for line in lines)
    nexts = [each["next"] for each in shell.cairn("schedules", "--store", store, "--json").events[0]["schedules"]]
    assert nexts == sorted(nexts)
    assert "next of 3 schedules in" in shell.cairn("ls", "--store", store).out

    cancelled = shell.cairn("schedules", "bell/tower", "--cancel", "beat", "--store", store)
    assert (cancelled.code, cancelled.out) == (0, "schedule 'beat' of bell/tower is cancelled\n")
    left = shell.cairn("schedules", "bell/tower", "--store", store, "--json").events[0]["schedules"]
    assert sorted(each["name"] for each in left) == ["feast", "mass"]


def test_mistakes_say_what_there_is(shell: Shell, tmp_path: Path) -> None:
    """Nothing is guessed."""
    store = str(in_store(tmp_path, scheduled, serve=True))

    nameless = shell.cairn("schedules", "--cancel", "beat", "--store", store)
    unknown = shell.cairn("schedules", "bell/tower", "--cancel", "bait", "--store", store)
    elsewhere = shell.cairn("schedules", "bell/church", "--store", store)

    assert nameless.code == 2 and "of which instance?" in nameless.err
    assert unknown.code != 0 and "it has: feast, beat, mass" in unknown.err
    assert elsewhere.code != 0 and "cairn ls shows what there is" in elsewhere.err


def test_a_store_without_schedules_says_so(shell: Shell, tmp_path: Path) -> None:
    """An empty answer is an answer."""

    async def body(tower: Handle) -> None:
        await tower.result(await tower.start(Bell.ring))

    store = str(in_store(tmp_path, body, serve=True))

    assert shell.cairn("schedules", "--store", store).out == "nothing is scheduled\n"


def test_ls_shows_dead_letters_and_why_a_fiber_waits_for_code(shell: Shell, tmp_path: Path) -> None:
    """L3: what needs a person is seen by one."""

    async def body(tower: Handle) -> None:
        dead = await tower.start(Bell.breaks, retry=Retry(attempts=1))
        await tower.client.settled("tower", dead.fiber)
        await tower.start("swing")
        while not any(fiber.blocked for fiber in await tower.fibers()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    store = str(in_store(tmp_path, body, serve=True))

    shown = shell.cairn("ls", "--store", store).out
    [instance] = shell.cairn("ls", "--store", store, "--json").events[0]["instances"]

    assert "1 dead letter" in shown
    assert "1 parked ('bell' has no fiber method 'swing' (it has: breaks, ring)" in shown
    assert instance["dead"] == 1
    assert "no fiber method 'swing'" in instance["unsettled"][0]["blocked"]
