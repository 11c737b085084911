"""The n-th operation of the disk fails, for every n until a life of the store completes without reaching it.

Each of the fifteen lives is lived once on a good disk, which says what a reader sees after each step. Then it is lived again
and again on a disk that fails. A step that is refused is tried once more; when it is refused again the life ends. Whatever
happened, the disk is then healed and another process opens the file: it must find exactly what had been confirmed, or that and
the one step whose outcome was called unknown.

    CAIRN_IO_STRIDE=1 pytest tests/crash/test_io_error.py      every n of every kind of failure (the nightly size)
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache

import pytest
from tests.crash.storage_scenarios import (
    SCENARIOS,
    Scenario,
    Seen,
    World,
    allowed,
    facts_and_deltas,
    look,
    moving_the_log,
    put,
    stopping_and_starting,
)

from cairn.errors import StoreError, StoreFull
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore, opening
from cairn.runtime.storage.connection import SqliteConnection
from cairn.runtime.storage.store import Append, Batch
from cairn.testing.contract import SkewedClock
from cairn.testing.disk import FailingDisk, RecordingDisk

#: Of the failures that last, every so-manieth n is tried; of those that happen once, every n.
STRIDE = int(os.environ.get("CAIRN_IO_STRIDE", "3"))

#: No life has this many operations; one that reaches it has not noticed that nothing fails any more.
OPERATIONS_MAX = 3_000

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        yield path


@cache
def states(scenario: Scenario) -> list[Seen | None]:
    """What a reader sees after each step of a life on a good disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        world = World(os.path.join(path, "cairn.db"), SqliteConnection, lambda: 0)
        asyncio.run(live(scenario, world))
        return [step.seen for step in world.steps]


async def live(scenario: Scenario, world: World) -> StoreError | None:
    """The error that ended the life, if one did."""
    error = None
    try:
        await scenario(world)
    except StoreError as refused:
        error = refused
    return error


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["eio", "enospc", "short"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_a_disk_that_fails_once_costs_at_most_an_error(scenario: Scenario, failure: str, folder: str) -> None:
    """T2: S2 (a prefix), S14 (check finds nothing), S1 (what was confirmed is there)."""
    sweep(scenario, failure, folder, forever=False, stride=1)


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["eio", "enospc", "short"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_a_disk_that_fails_from_then_on_is_a_clear_error(scenario: Scenario, failure: str, folder: str) -> None:
    """T2: S2 (a prefix), S14 (check finds nothing), S1 (what was confirmed is there)."""
    sweep(scenario, failure, folder, forever=True, stride=STRIDE)


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["eio", "enospc", "short"])
@pytest.mark.parametrize("scenario", [facts_and_deltas, moving_the_log, stopping_and_starting], ids=lambda s: s.__name__)
def test_a_disk_that_fails_while_recovering_from_a_power_cut_costs_at_most_an_error(
    scenario: Scenario, failure: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T2, T1: S1, S2: two misfortunes at once: the cut, then a failure at each operation of the opening that repairs it."""
    place = os.path.join(folder, "life")
    os.mkdir(place)
    disk = RecordingDisk(place)
    with monkeypatch.context() as patch:
        patch.setattr(opening, "sync_directory", disk.sync_directory)
        world = asyncio.run(whole(scenario, place, disk))
    for cut in range(disk.now() // 3, disk.now(), max(1, disk.now() // 12)):
        possible, _ = allowed(world.steps, cut)
        name, image = list(disk.images(cut, [1]))[-1]
        for nth in range(1, OPERATIONS_MAX):
            put(place, image)
            try:
                reached = asyncio.run(recover(world.path, nth, failure, possible))
            except Exception as error:
                raise AssertionError(f"cut {cut} ({name}), operation {nth} of opening: {error!r}") from error
            if not reached:
                break


async def whole(scenario: Scenario, place: str, disk: RecordingDisk) -> World:
    world = World(os.path.join(place, "cairn.db"), disk.connect, disk.now)
    await scenario(world)
    await world.store.close()
    disk.close()
    return world


async def recover(path: str, nth: int, failure: str, possible: list[Seen | None]) -> bool:
    """Open what the cut left on a disk whose n-th operation fails, then on a good one; whether the n-th was reached."""
    disk = FailingDisk(nth, failure, forever=False)
    store = SqliteStore(
        path, clock=SkewedClock(), ids=SystemIds(), inline=True, boot="first boot", ballast=False, connect=disk.connect
    )
    try:
        await store.open()
    except StoreError as error:
        is_clear(error, failure)
    await store.close()
    disk.close()
    await verify(path, possible)
    return disk.fired


def sweep(scenario: Scenario, failure: str, folder: str, *, forever: bool, stride: int) -> None:
    expected = states(scenario)
    for nth in range(1, OPERATIONS_MAX, stride):
        place = os.path.join(folder, str(nth))
        os.mkdir(place)
        try:
            if not asyncio.run(once(scenario, failure, place, nth, forever, expected)):
                return
        except Exception as error:
            how = "from then on" if forever else "once"
            raise AssertionError(f"{scenario.__name__}, operation {nth} fails {how} ({failure}): {error!r}") from error
        shutil.rmtree(place)
    raise AssertionError(f"{scenario.__name__} has more than {OPERATIONS_MAX} operations")


async def once(scenario: Scenario, failure: str, place: str, nth: int, forever: bool, expected: list[Seen | None]) -> bool:
    """Whether the n-th operation was reached."""
    disk = FailingDisk(nth, failure, forever=forever)
    world = World(os.path.join(place, "cairn.db"), disk.connect, lambda: 0, looks=False, insists=True)
    error = await live(scenario, world)
    for refusal in [*world.refusals, *([error] if error else [])]:
        is_clear(refusal, failure)
    disk.heal()
    await world.store.close()
    disk.close()
    confirmed = len(world.steps)
    possible = [expected[confirmed - 1] if confirmed else None]
    if error is not None and "may or may not" in str(error):
        possible.append(expected[min(confirmed, len(expected) - 1)])
    await verify(world.path, possible)
    return disk.fired


def is_clear(error: StoreError, failure: str) -> None:
    """The error says what it is: a full disk is a full disk, and neither is damage."""
    assert type(error) is (StoreFull if failure == "enospc" else StoreError), repr(error)


async def verify(path: str, possible: list[Seen | None]) -> None:
    store = SqliteStore(path, clock=SkewedClock(), ids=SystemIds(), inline=True, boot="first boot", ballast=False)
    await store.open()
    try:
        seen = await look(store)
        assert seen in possible or (None in possible and not seen.instances), f"holds {seen}, not what was confirmed"
        assert await store.check() == []
        for n, *_ in seen.instances:
            await store.append(Append(n, Batch(b'["after"]')))
    finally:
        await store.close()
