"""Small tests for sentences that the rest of the battery would reach slowly, or in crowds: one mutation, one canary."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator

import pytest
from tests.crash.storage_scenarios import World
from tests.crash.test_power_cut import TORN_SEEDS, allowed, put, verify

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore, opening, plan
from cairn.runtime.storage.store import Address, Append, Batch, Creation, Due, WorkerRow
from cairn.testing.disk import RecordingDisk


def test_an_owner_does_not_go_to_sleep_over_a_request_it_has_not_seen() -> None:
    """L1: a release clears the alarm of what is done; the alarm of what arrived meanwhile must not go with it."""

    async def main() -> None:
        store = SqliteStore(":memory:", clock=SystemClock(), ids=SystemIds(), inline=True)
        await store.open()
        creation = Creation("u", "i", Batch(b'["born"]'), 0)
        known = await store.admit(Address("toy", "1"), creation, Append(0, Batch(b'["asked"]')))
        await store.register(WorkerRow("w", "host", 1, ("toy",), 0, 0), 15, lambda: True)
        claimed = await store.claim(known.n, "w", expected_epoch=0, make=lambda epoch: Batch(b'["claimed"]'))
        assert claimed is not None
        late = await store.append(Append(known.n, Batch(b'["late"]'), due=(Due("wake", 1.0),)))

        over_it = await store.release(known.n, 1, None, (Due("wake", None),), expected_head=claimed.ordinal)

        assert not over_it
        assert [row.owner for row in await store.due(["toy"], 2.0)] == ["w"]
        assert await store.release(known.n, 1, None, (Due("wake", None),), expected_head=late.ordinal)
        assert await store.next_due(["toy"]) is None
        await store.close()

    asyncio.run(main())


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as path:
        yield path


async def deltas_beyond_their_block(world: World) -> None:
    await world.open()
    n = await world.born("one")
    for _ in range(6):
        await world.delta(n)


@pytest.mark.slow
def test_no_ordinal_is_given_twice_when_the_power_is_cut_beyond_a_reserved_block(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1, S3: deltas are relaxed, but the block they are numbered from is not; here a block is three ordinals."""
    monkeypatch.setattr(plan, "RESERVED_BLOCK", 3)
    disk = RecordingDisk(folder)
    synced_for_real = opening.sync_directory
    monkeypatch.setattr(opening, "sync_directory", disk.sync_directory)

    async def live() -> World:
        world = World(os.path.join(folder, "cairn.db"), disk.connect, disk.now)
        await deltas_beyond_their_block(world)
        await world.store.close()
        disk.close()
        return world

    world = asyncio.run(live())
    monkeypatch.setattr(opening, "sync_directory", synced_for_real)

    for cut in range(disk.now() + 1):
        states, heads = allowed(world.steps, cut)
        for name, image in disk.images(cut, TORN_SEEDS):
            put(folder, image)
            try:
                asyncio.run(verify(os.path.join(folder, "cairn.db"), states, heads))
            except AssertionError as error:
                raise AssertionError(f"cut {cut}, {name}: {error}") from error
