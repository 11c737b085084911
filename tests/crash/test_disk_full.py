"""A real file system of a few megabytes fills up, and is freed again.

The store must refuse new work with a clear error, go on settling what is there on its reserve, lose nothing that it had
confirmed, and go back to normal by itself.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.crash.storage_scenarios import look

from cairn.clock import SystemClock
from cairn.errors import StoreError, StoreFull
from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Append, Appended, Batch, Creation, Durability

MEGABYTE = 1 << 20


@pytest.fixture(params=[3, 4])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of that many megabytes."""
    size = f"size={request.param}m"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs (root with CAP_SYS_ADMIN)")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def store_at(folder: Path, *, inline: bool) -> SqliteStore:
    return SqliteStore(str(folder / "cairn.db"), clock=SystemClock(), ids=SystemIds(), inline=inline)


def fill(folder: Path, leave: int) -> Path:
    """A file that takes all the space but `leave` bytes."""
    path = folder / "filler"
    free = os.statvfs(folder)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(4_096, free.f_bavail * free.f_frsize - leave))
    return path


async def born(store: SqliteStore, id: str) -> int:
    creation = Creation(f"uid of {id}", "incarnation", Batch(b'["born"]'), 1.0)
    return (await store.admit(Address("toy", id), creation, Append(0, Batch(b'["asked"]')))).n


async def until_full(store: SqliteStore, n: int) -> list[Appended]:
    """What was confirmed before the disk was full."""
    done = []
    try:
        while True:
            done.append(await store.append(Append(n, Batch(b"r" * 2_000))))
    except StoreFull as error:
        assert "full" in str(error) and error.retryable
    return done


@pytest.mark.slow
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
@pytest.mark.parametrize("leave", [0, 20_000, 100_000, 300_000])
def test_a_full_disk_refuses_new_work_settles_the_rest_and_recovers(small_disk: Path, inline: bool, leave: int) -> None:
    """T14: S1, S2; L6 in the sense that settling goes on."""

    async def main() -> None:
        store = store_at(small_disk, inline=inline)
        await store.open()
        n = await born(store, "one")
        filler = fill(small_disk, leave)
        done = await until_full(store, n)
        with pytest.raises(StoreFull):
            await born(store, "two")
        # The owner's outcomes still have room: that is what the reserve is for.
        for i in range(20):
            done.append(await store.append(Append(n, Batch(b'["settled %d"]' % i), epoch=0)))
        filler.unlink()
        assert await born(store, "three") > n
        assert "cairn.db.ballast" in os.listdir(small_disk), "the reserve is there again"
        seen = await look(store)
        await store.close()
        assert await sound(small_disk) == seen
        ordinals = {row.ordinal for of, row in seen.rows if of == n}
        assert {d.ordinal for d in done} <= ordinals

    asyncio.run(main())


async def sound(folder: Path) -> object:
    store = store_at(folder, inline=True)
    await store.open()
    assert await store.check() == []
    seen = await look(store)
    await store.close()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
@pytest.mark.parametrize("leave", [0, 100_000])
@pytest.mark.parametrize("small_disk", [24], indirect=True)
def test_an_instance_can_be_deleted_on_a_full_disk(small_disk: Path, inline: bool, leave: int) -> None:
    """T14: S12, L6: the reserve is enough to hide it; what there was no room to purge goes when there is."""

    async def main() -> None:
        store = store_at(small_disk, inline=inline)
        await store.open()
        n = await born(store, "one")
        beside = await born(store, "beside")
        for _ in range(800):
            await store.append(Append(n, Batch(b"r" * 3_000), 0))
        fill(small_disk, leave)
        await until_full(store, n)
        with pytest.raises(StoreFull):
            await store.fork(n, 1, Address("toy", "fork"), Creation("u", "i", Batch(b"[]"), 1.0))
        assert await store.delete(n)
        assert await store.find(Address("toy", "one")) is None
        await store.append(Append(beside, Batch(b'["goes on"]'), 0))
        seen = await look(store)
        await store.close()
        (small_disk / "filler").unlink()
        assert await sound(small_disk) == seen
        with closing(sqlite3.connect(small_disk / "cairn.db")) as db:
            assert db.execute("select count(*) from log where n = ?", (n,)).fetchone() == (0,)

    asyncio.run(main())


@pytest.mark.slow
def test_a_disk_that_is_full_to_the_last_byte_loses_nothing(small_disk: Path) -> None:
    """T14: S1, S2: also when the reserve is used up, what was confirmed is there and nothing else."""

    async def main() -> None:
        store = store_at(small_disk, inline=False)
        await store.open()
        n = await born(store, "one")
        fill(small_disk, 0)
        done = []
        for i in range(10_000):
            durability = Durability.DELTA if i % 2 else Durability.FACT
            try:
                done.append(await store.append(Append(n, Batch(b"r" * 3_000), 0, durability)))
            except StoreFull:
                break
        else:
            raise AssertionError("the disk was never full")
        seen = await look(store)
        await store.close()
        (small_disk / "filler").unlink()
        assert await sound(small_disk) == seen
        assert {d.ordinal for d in done} == {row.ordinal for _, row in seen.rows} - {0, 1}

    asyncio.run(main())


@pytest.mark.slow
def test_a_store_on_a_full_disk_opens_or_says_why_not(small_disk: Path) -> None:
    """T14: S14: opening needs a little space; without it there is one clear error."""

    async def main() -> None:
        fill(small_disk, 0)
        store = store_at(small_disk, inline=True)
        try:
            await store.open()
        except StoreError as error:
            assert "full" in str(error) or "space" in str(error)
        else:
            with pytest.raises(StoreFull):
                await born(store, "one")
            await store.close()

    asyncio.run(main())
