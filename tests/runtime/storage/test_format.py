"""What is refused before it is touched, and how a file comes to be ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.runtime.storage.helpers import born, folder, make, opened, watched

from cairn.errors import StoreBusy, StoreCorrupt, StoreError, StoreFormat, StoreUnsupported, UsageError
from cairn.runtime.storage.connection import Connection, SqliteConnection
from cairn.runtime.storage.format import (
    APPLICATION_ID,
    FORMAT,
    MIGRATIONS,
    NETWORK_FILE_SYSTEMS,
    QUICK_CHECK_BYTES,
    Users,
    boot_identity,
    file_system,
    migrate,
    require_local,
    require_sqlite,
)

GOLDEN = Path(__file__).parents[2] / "golden"

MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/export /data nfs4 rw 0 0
tmpfs /data/my/local tmpfs rw 0 0
//nas/share /mnt/with\\040space cifs rw 0 0
host /mnt/host 9p rw 0 0
me@far:/ /mnt/far fuse.sshfs rw 0 0
/dev/vdb /mnt/disk xfs rw 0 0
shadow /mnt/disk nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/data", "nfs4"),
        ("/data/you", "nfs4"),
        ("/data/my/local", "tmpfs"),
        ("/data/my/local/deep/er", "tmpfs"),
        ("/database", "ext4"),
        ("/mnt/with space/x", "cifs"),
        ("/mnt/host/x", "9p"),
        ("/mnt/far", "fuse.sshfs"),
        ("/mnt/disk/x", "nfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path: str, found: str) -> None:
    """S14: also with a space in the name, and of two mounts on one place the later."""
    assert file_system(path, MOUNTS) == found


@pytest.mark.parametrize("kind", sorted([*NETWORK_FILE_SYSTEMS, "fuse.sshfs", "fuse.s3fs", "fuse.rclone"]))
def test_a_network_file_system_is_refused(kind: str) -> None:
    """S14: locks that do not reach every process protect nothing."""
    with pytest.raises(StoreUnsupported, match=kind):
        require_local("/data", f"remote /data {kind} rw 0 0\n")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "apfs", "fuse.fuse-overlayfs"])
def test_a_local_file_system_is_not(kind: str) -> None:
    """S14: nor is an unknown one, where SQLite's own checks are all there is."""
    require_local("/data", f"disk /data {kind} rw 0 0\n")
    require_local("/data", "")


def test_a_store_on_a_network_file_system_leaves_nothing_there(tmp_path: Path) -> None:
    """S14: refused before the first file is made."""
    store = make(str(tmp_path / "cairn.db"), inline=True, mounts=f"far {tmp_path} nfs rw 0 0\n")
    with pytest.raises(StoreUnsupported, match="local disk"):
        asyncio.run(store.open())
    assert os.listdir(tmp_path) == []


def test_an_old_sqlite_is_refused() -> None:
    """S14: with both versions in the message."""
    with pytest.raises(StoreUnsupported, match=r"3\.37\.2 .* 3\.38\.0"):
        require_sqlite((3, 37, 2))
    require_sqlite((3, 38, 0))
    require_sqlite()


def foreign(path: str, *statements: str) -> bytes:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)
    return Path(path).read_bytes()


@pytest.mark.parametrize(
    "statements",
    [
        ("create table theirs (x)",),
        ("create table theirs (x)", "pragma application_id = 12345"),
        ("create table theirs (x)", "pragma user_version = 1"),
        ("pragma user_version = 7",),
    ],
)
def test_somebody_elses_database_is_refused_untouched(statements: tuple[str, ...]) -> None:
    """S14: not even its journal mode changes."""
    with folder() as place:
        path = f"{place}/theirs.db"
        before = foreign(path, *statements)
        with pytest.raises(StoreFormat, match="not a Cairn store"):
            asyncio.run(make(path, inline=True).open())
        assert Path(path).read_bytes() == before


@pytest.mark.parametrize("content", [b"hello, I am a letter", b"\0" * 5_000, b"SQLite format 3\0" + b"\xff" * 4_000])
def test_a_file_that_is_no_database_is_refused_untouched(content: bytes) -> None:
    """S14: whatever it is, it stays."""
    with folder() as place:
        path = f"{place}/letter"
        Path(path).write_bytes(content)
        with pytest.raises((StoreFormat, StoreCorrupt)):
            asyncio.run(make(path, inline=True).open())
        assert Path(path).read_bytes() == content


def test_a_directory_is_refused_with_advice() -> None:
    """S14: the commonest slip with `--store`."""
    with folder() as place, pytest.raises(StoreFormat, match=r"cairn\.db"):
        asyncio.run(make(place, inline=True).open())


def test_a_newer_format_is_refused_untouched() -> None:
    """S15: a store is never taken back."""

    async def main(path: str) -> None:
        store = await opened(path, inline=True)
        await born(store)
        await store.close()
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"pragma user_version = {FORMAT + 1}")
        before = await asyncio.to_thread(Path(path).read_bytes)
        with pytest.raises(StoreFormat, match=f"format {FORMAT + 1}"):
            await make(path, inline=True).open()
        assert await asyncio.to_thread(Path(path).read_bytes) == before

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_new_store_says_what_it_is() -> None:
    """S15: in the header, where other programs look."""
    with folder() as place:
        path = f"{place}/deep/er/cairn.db"

        async def main() -> None:
            await (await opened(path, inline=True)).close()

        asyncio.run(main())
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("pragma application_id").fetchone() == (APPLICATION_ID,)
            assert db.execute("pragma user_version").fetchone() == (FORMAT,)
            assert db.execute("pragma journal_mode").fetchone() == ("wal",)


def test_every_connection_says_what_builds_leave_open() -> None:
    """S1, S14: no default of the SQLite build decides about safety."""
    said: list[str] = []

    async def main(path: str) -> None:
        store = await opened(path, connect=watched(said))
        await store.instances()
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))
    connections = said.count("pragma trusted_schema=OFF")
    assert connections >= 4  # writer, watcher, checkpointer, reader
    for pragma in ("foreign_keys=ON", "synchronous=FULL", "journal_mode=WAL", "wal_autocheckpoint=0"):
        assert said.count(f"pragma {pragma}") == connections, pragma


def test_a_migration_that_fails_leaves_the_old_format_whole() -> None:
    """S15: one transaction from format to format."""

    def broken(connection: Connection) -> None:
        connection.execute("create table half (x)")
        raise RuntimeError("power went")

    with folder() as place:
        connection = SqliteConnection(f"{place}/x.db")
        migrate(connection, "x")
        with pytest.raises(RuntimeError):
            migrate(connection, "x", (*MIGRATIONS, broken))
        assert connection.execute("pragma user_version") == [(FORMAT,)]
        assert connection.execute("select count(*) from sqlite_schema where name = 'half'") == [(0,)]
        connection.close()


def test_a_migration_goes_forward_from_any_older_format() -> None:
    """S15: each step once, in order."""
    steps: list[int] = []

    def step(i: int) -> None:
        steps.append(i)

    with folder() as place:
        connection = SqliteConnection(f"{place}/x.db")
        migrate(connection, "x")
        more = (*MIGRATIONS, lambda db: step(1), lambda db: step(2))
        migrate(connection, "x", more)
        assert steps == [1, 2] and connection.execute("pragma user_version") == [(FORMAT + 2,)]
        migrate(connection, "x", more)
        assert steps == [1, 2]
        connection.close()


def test_an_older_store_is_not_migrated_under_a_process_that_has_it_open() -> None:
    """S15: that process runs older code, which would misread what newer code writes; when it is gone, the store is migrated."""

    async def main(path: str) -> None:
        before = await asyncio.to_thread(Path(path).read_bytes)
        older = Users(path + ".users")
        older.enter("first boot", False, 0)
        older.checked("first boot")
        with pytest.raises(StoreBusy, match="older Cairn"):
            await make(path, inline=True).open()
        assert await asyncio.to_thread(Path(path).read_bytes) == before
        older.close()
        store = await opened(path, inline=True)
        assert (await store.info()).format == FORMAT
        await store.close()

    with folder() as place:
        path = f"{place}/cairn.db"
        shutil.copy(GOLDEN / "store-format-1.db", path)
        asyncio.run(main(path))


def test_many_processes_may_open_an_older_store() -> None:
    """S15: one migrates it, the others find it done."""

    async def main(path: str) -> None:
        stores = [make(path) for _ in range(5)]
        await asyncio.gather(*(store.open() for store in stores))
        for store in stores:
            assert len(await store.instances()) == 2
            await store.close()

    with folder() as place:
        path = f"{place}/cairn.db"
        shutil.copy(GOLDEN / "store-format-1.db", path)
        asyncio.run(main(path))


def test_two_processes_may_create_one_store() -> None:
    """S2: the second finds it made."""

    async def main(path: str) -> None:
        stores = [make(path) for _ in range(6)]
        await asyncio.gather(*(store.open() for store in stores))
        ns = await asyncio.gather(*(born(store, f"i{i}") for i, store in enumerate(stores)))
        assert len(set(ns)) == 6
        for store in stores:
            await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def enter(place: str, boot: str, wal: bool, size: int) -> bool:
    users = Users(f"{place}/users")
    try:
        must_check = users.enter(boot, wal, size)
        users.checked(boot)
        return must_check
    finally:
        users.close()


def test_pages_are_checked_after_an_unclean_stop() -> None:
    """S14: a log left behind is the sign; of a large store only when the machine stopped too."""
    small, large = 1_000, QUICK_CHECK_BYTES + 1
    with folder() as place:
        assert not enter(place, "boot 1", wal=False, size=small)
        assert enter(place, "boot 1", wal=True, size=small)
        assert not enter(place, "boot 1", wal=True, size=large)
        assert enter(place, "boot 2", wal=True, size=large)
        assert not enter(place, "boot 2", wal=True, size=large)


def test_pages_are_not_checked_while_others_are_at_work() -> None:
    """S14: their log is no sign of anything."""
    with folder() as place:
        first = Users(f"{place}/users")
        first.enter("boot", False, 0)
        first.checked("boot")
        assert not enter(place, "other boot", wal=True, size=1_000)
        first.close()
        assert enter(place, "other boot", wal=True, size=1_000)


def test_a_store_that_was_killed_is_checked_when_opened() -> None:
    """S14: end to end: a torn page is found before anything is read."""

    async def main(path: str) -> None:
        store = await opened(path, inline=True)
        await born(store)
        await store.close()
        data = bytearray(await asyncio.to_thread(Path(path).read_bytes))
        data[4_096 * 2 : 4_096 * 5] = os.urandom(4_096 * 3)
        await asyncio.to_thread(Path(path).write_bytes, data)
        await asyncio.to_thread(Path(path + "-wal").write_bytes, b"")
        with pytest.raises(StoreCorrupt):
            await make(path, inline=True).open()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_path_that_cannot_be_made_is_one_clear_error() -> None:
    """S14: naming the path."""
    with folder() as place:
        Path(f"{place}/file").write_text("in the way")
        with pytest.raises(StoreError, match=r"file/cairn\.db"):
            asyncio.run(make(f"{place}/file/cairn.db", inline=True).open())


def test_memory_needs_inline() -> None:
    """A store in memory with threads is a mistake, and says so."""
    with pytest.raises(UsageError, match="inline"):
        make(":memory:")


def test_a_boot_has_an_identity() -> None:
    """S3: the same as long as the machine runs."""
    assert boot_identity() == boot_identity() != ""
