"""The power is cut at every operation of the disk, in fifteen lives of a store, and while one is migrated.

CAIRN_TORN_SEEDS=20 pytest tests/crash/test_power_cut.py      the nightly size
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.crash.storage_scenarios import SCENARIOS, Scenario, Seen, World, allowed, look, put
from tests.golden.make_store import read

from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore, opening
from cairn.runtime.storage.format import FORMAT
from cairn.runtime.storage.store import Append, Batch
from cairn.testing.contract import SkewedClock
from cairn.testing.disk import RecordingDisk

TORN_SEEDS = range(int(os.environ.get("CAIRN_TORN_SEEDS", "3")))


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as path:
        yield path


async def verify(path: str, states: list[Seen | None], heads: dict[int, int]) -> None:
    store = SqliteStore(path, clock=SkewedClock(), ids=SystemIds(), inline=True, boot="after the cut", ballast=False)
    await store.open()
    try:
        seen = await look(store)
        nothing = not seen.instances and None in states
        assert nothing or seen in states, f"holds {seen}, which no step left behind"
        for n, *_ in seen.instances:
            done = await store.append(Append(n, Batch(b'["after"]')))
            assert done.ordinal > heads.get(n, -1), f"ordinal {done.ordinal} of {n} was seen before the cut"  # S3
        assert await store.check() == []
    finally:
        await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_a_power_cut_loses_no_fact_and_tears_nothing(scenario: Scenario, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T1: S1 (facts are there), S2 (a prefix, nothing torn), S3 (no ordinal twice), S14 (check finds nothing)."""
    disk = RecordingDisk(folder)
    with monkeypatch.context() as patch:
        patch.setattr(opening, "sync_directory", disk.sync_directory)
        world = asyncio.run(_life(scenario, folder, disk))
    asyncio.run(_every_cut(scenario, folder, disk, world))


async def _life(scenario: Scenario, folder: str, disk: RecordingDisk) -> World:
    world = World(os.path.join(folder, "cairn.db"), disk.connect, disk.now)
    await scenario(world)
    await world.store.close()
    disk.close()
    return world


async def _every_cut(scenario: Scenario, folder: str, disk: RecordingDisk, world: World) -> None:
    path = os.path.join(folder, "cairn.db")
    cuts = 0
    for cut in range(disk.now() + 1):
        states, heads = allowed(world.steps, cut)
        for name, image in disk.images(cut, TORN_SEEDS):
            put(folder, image)
            try:
                await verify(path, states, heads)
            except Exception as error:
                raise AssertionError(f"{scenario.__name__}, cut {cut} of {disk.now()}, {name}: {error}") from error
            cuts += 1
    assert cuts > disk.now()
    print(f"{scenario.__name__}: {disk.now()} operations, {cuts} disks")


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.slow
@pytest.mark.parametrize("format", range(1, FORMAT))
def test_a_power_cut_while_a_store_is_migrated_leaves_the_old_one_or_the_new(
    format: int, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1, T18: S15 (one transaction from format to format), S1, S2: whichever it is, it opens and nothing is missing."""
    golden = GOLDEN / f"store-format-{format}.db"
    path = os.path.join(folder, "cairn.db")
    shutil.copy(golden, path)
    disk = RecordingDisk(folder)
    with monkeypatch.context() as patch:
        patch.setattr(opening, "sync_directory", disk.sync_directory)
        asyncio.run(_migrate(path, disk))
    disk.close()
    expected = json.loads(golden.with_suffix(".json").read_text())
    found = set()
    for cut in range(disk.now() + 1):
        for name, image in disk.images(cut, TORN_SEEDS):
            put(folder, image)
            with closing(sqlite3.connect(path)) as db:
                found.add(db.execute("pragma user_version").fetchone()[0])
            put(folder, image)
            try:
                asyncio.run(_reads_as(path, expected))
            except Exception as error:
                raise AssertionError(f"format {format}, cut {cut} of {disk.now()}, {name}: {error}") from error
    assert found == {format, FORMAT}


async def _migrate(path: str, disk: RecordingDisk) -> None:
    store = SqliteStore(
        path, clock=SkewedClock(), ids=SystemIds(), inline=True, boot="second boot", connect=disk.connect, ballast=False
    )
    await store.open()
    await store.close()


async def _reads_as(path: str, expected: object) -> None:
    store = SqliteStore(path, clock=SkewedClock(), ids=SystemIds(), inline=True, boot="second boot", ballast=False)
    await store.open()
    try:
        assert await read(store) == expected
        assert await store.check() == []
    finally:
        await store.close()
