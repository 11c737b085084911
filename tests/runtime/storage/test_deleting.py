"""What the store contract cannot see of a deletion: the bytes of the file, the pieces, and a process that dies between them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.storage.helpers import born, folder, opened

from cairn.errors import StoreBusy
from cairn.runtime.storage import SqliteStore, deleting
from cairn.runtime.storage.deleting import PIECE_BYTES, PIECE_ROWS
from cairn.runtime.storage.store import Address, Admission, Append, Batch, Creation, Producer
from cairn.testing.contract.case import until

SECRET = b"the-secret-of-the-deleted-conversation"

TABLES = ("log", "admissions", "producers", "due", "checkpoints", "snapshots", "blob_references")


async def lived(store: SqliteStore, id: str, rows: int = 40, size: int = 40) -> int:
    """An instance in every row of which the secret is, and in everything beside them."""
    n = await born(store, id, admission=Admission(SECRET.decode(), f"fiber {SECRET!r}", SECRET))
    for i in range(rows):
        records = b'["%d %s"]' % (i, SECRET * size)
        await store.append(Append(n, Batch(records, SECRET), producer=Producer(SECRET.decode(), 0, i)))
    await store.save_checkpoint(n, 0, rows, SECRET)
    await store.save_snapshot(n, rows, 1, SECRET * 1_000)
    name = await store.put_blob("default", SECRET * 9_000)
    await store.append(Append(n, Batch(b"[]"), blobs=(name,)))
    return n


def count(path: str, *tables: str) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as db:
        return {table: db.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}


def is_there(path: str) -> bool:
    """Whether the secret is in the database or in its write-ahead log."""
    files = [Path(path), Path(path + "-wal")]
    return any(SECRET in file.read_bytes() for file in files if file.exists())


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
def test_what_was_deleted_is_not_in_the_files_any_more(inline: bool) -> None:
    """S12: freed pages and the write-ahead log included, once the store is closed."""

    async def main(path: str) -> None:
        store = await opened(path, inline=inline)
        await born(store, "beside")
        n = await lived(store, "one")
        store._clock.ahead += 1_000.0  # type: ignore[attr-defined]
        assert is_there(path)
        assert await store.delete(n)
        assert await store.collect_blobs(10.0) == 1
        await store.close()
        assert not is_there(path)

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


@pytest.mark.slow
def test_what_was_deleted_leaves_the_files_of_a_store_that_stays_open() -> None:
    """S12: as soon as nothing else is going on."""

    async def main(path: str) -> None:
        store = await opened(path)
        n = await lived(store, "one")
        store._clock.ahead += 1_000.0  # type: ignore[attr-defined]
        assert await store.delete(n)
        assert await store.collect_blobs(10.0) == 1

        async def is_gone() -> bool:
            return not await asyncio.to_thread(is_there, path)

        await until(is_gone)
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_tombstone_is_all_that_remains() -> None:
    """S12: who it was and when it went; nothing of what was said."""

    async def main(path: str) -> None:
        store = await opened(path, inline=True)
        n = await lived(store, "one")
        assert await store.delete(n)
        await store.close()
        assert set(count(path, *TABLES, "instances").values()) == {0}
        with closing(sqlite3.connect(path)) as db:
            [(row)] = db.execute("select n, tenant, kind, id, uid, deleted_at > 0 from tombstones")
        assert row == (n, "default", "toy", "one", "uid of one", 1)

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_large_log_goes_in_pieces() -> None:
    """L7: bounded in rows and in bytes, so that no neighbour waits for all of it."""

    async def main(path: str) -> None:
        store = await opened(path, inline=True)
        many = await lived(store, "many", rows=PIECE_ROWS + 40, size=1)
        heavy = await born(store, "heavy")
        for _ in range(6):
            await store.append(Append(heavy, Batch(b"r" * (PIECE_BYTES // 3))))
        sizes: list[int] = []
        transact = store._running().transact

        async def counted(work: Any, **how: Any) -> Any:
            before = count(path, *TABLES)
            done = await transact(work, **how)
            sizes.append(sum(before.values()) - sum(count(path, *TABLES).values()))
            return done

        store._running().transact = counted  # type: ignore[assignment, method-assign]
        for n in (many, heavy):
            sizes.clear()
            assert await store.delete(n)
            assert len(sizes) > 4 and max(sizes) <= PIECE_ROWS + 2
            assert await store.read(n, -1) == []
        assert max(sizes) <= 3
        assert set(count(path, *TABLES).values()) == {0}
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def forked(source: str) -> tuple[Address, Creation]:
    return Address("toy", f"fork of {source}"), Creation(f"uid of fork of {source}", "i", Batch(b'["forked"]'), 2.0)


@pytest.mark.parametrize("at", [None, 7])
@pytest.mark.parametrize("pieces", range(6))
def test_a_deletion_that_was_cut_short_is_finished_by_the_next_opening(
    pieces: int, at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S12, S2: in between nobody can see that anything is left, and what is shared is whole."""

    async def main(path: str) -> None:
        store = await opened(path, inline=True)
        n = await lived(store, "one", rows=20)
        fork = await store.fork(n, at, *forked("one")) if at is not None else None
        before = [] if fork is None else await store.read(fork.n, -1)
        done = 0

        def purge(connection: Any, now: float) -> bool:
            nonlocal done
            if done == pieces:
                raise StoreBusy("the process dies here")
            done += 1
            return deleting_purge(connection, now)

        deleting_purge = deleting.purge
        with monkeypatch.context() as patch:
            patch.setattr(deleting, "purge", purge)
            assert await store.delete(n)
        assert await store.instance(n) is None and await store.read(n, -1) == []
        assert await store.find(Address("toy", "one")) is None
        assert await store.check() == []
        await store.close()
        store = await opened(path, inline=True)
        assert await store.check() == []
        if fork is not None:
            assert await store.read(fork.n, -1) == before
            assert count(path, "log") == {"log": 9}
            assert await store.delete(fork.n)
        await store.close()
        assert set(count(path, *TABLES, "instances").values()) == {0}

    with folder() as place, monkeypatch.context() as patch:
        patch.setattr(deleting, "PIECE_ROWS", 5)
        asyncio.run(main(f"{place}/cairn.db"))
