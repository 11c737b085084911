"""A bit flips, a row vanishes, a row is somewhere else: the store refuses and names it (S14), and `check` finds it too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.runtime.storage.helpers import born, folder, opened, tamper

from cairn.errors import StoreCorrupt
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.row import checksum
from cairn.runtime.storage.store import Address, Append, Batch, Creation, Problem

#: What is done to a store whose instance 1 has ordinals 0 to 9: the change, and what the refusal names.
DAMAGE = [
    ("update log set records = cast('x' || records as blob) where ordinal = 4", "ordinal 4", "checksum"),
    ("update log set records = substr(records, 2) where ordinal = 4", "ordinal 4", "checksum"),
    ("update log set chunks = cast('!' as blob) where ordinal = 4", "ordinal 4", "checksum"),
    ("update log set records = chunks, chunks = records where ordinal = 4", "ordinal 4", "checksum"),
    ("update log set epoch = epoch + 1 where ordinal = 4", "ordinal 4", "checksum"),
    ("update log set projection = 9 where ordinal = 4", "ordinal 4", "checksum"),
    ("update log set merged_from = 2 where ordinal = 4", "ordinal 4", "checksum"),
    ("update log set checksum = checksum + 1 where ordinal = 0", "ordinal 0", "checksum"),
    ("update log set checksum = 0 where ordinal = 9", "ordinal 9", "checksum"),
    ("update log set prev = 2 where ordinal = 4", "ordinal 4", "follows 2"),
    ("delete from log where ordinal = 4", "ordinal 5", "follows 4"),
    ("delete from log where ordinal = 0", "ordinal 1", "follows 0"),
    ("delete from log where ordinal = 9", "ordinal 9", "ends at 8"),
    ("delete from log where ordinal > 5", "ordinal 9", "ends at 5"),
    ("delete from log", "ordinal 9", "ends at -1"),
    ("update log set ordinal = 40 where ordinal = 4", "ordinal 5", "follows 4"),
    ("update log set n = 2 where ordinal = 9 and n = 1", "ordinal 9", "ends at 8"),
    ("update log set ordinal = 10 - ordinal where ordinal in (4, 6)", "ordinal 4", ""),
]


async def damaged(path: str, sql: str) -> SqliteStore:
    store = await opened(path, inline=True)
    n = await born(store)
    for i in range(8):
        await store.append(Append(n, Batch(b'["record %d"]' % i, b"[chunk %d]" % i), 0))
    assert await born(store, "two") == 2
    await store.close()
    if "10 - ordinal" in sql:
        # Two rows change places: a third number in between, since an ordinal is there once.
        tamper(path, "update log set ordinal = 60 where ordinal = 4 and n = 1")
        tamper(path, "update log set ordinal = 4 where ordinal = 6 and n = 1")
        tamper(path, "update log set ordinal = 6 where ordinal = 60 and n = 1")
    else:
        tamper(path, sql.replace(" where ", " where n = 1 and ") if " where " in sql else f"{sql} where n = 1")
    return await opened(path, inline=True)


@pytest.mark.parametrize(("sql", "where", "what"), DAMAGE)
def test_a_damaged_log_is_refused_by_name(sql: str, where: str, what: str) -> None:
    """S14, S2: the instance, the ordinal, and what is wrong; nothing is skipped."""

    async def main(path: str) -> None:
        store = await damaged(path, sql)
        with pytest.raises(StoreCorrupt) as refusal:
            await store.read(1, -1)
        assert "instance 1" in str(refusal.value) and where in str(refusal.value) and what in str(refusal.value)
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


@pytest.mark.parametrize(("sql", "where", "what"), DAMAGE)
def test_check_finds_a_damaged_log(sql: str, where: str, what: str) -> None:
    """S14: and goes on to the next instance, which is sound."""

    async def main(path: str) -> None:
        store = await damaged(path, sql)
        problems = await store.check()
        assert any("instance 1" in problem.where for problem in problems), problems
        if "n = 2" not in sql:
            assert not any("instance 2" in problem.where for problem in problems), problems
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_what_lies_before_the_damage_can_be_read() -> None:
    """S14, S2: by asking for less; a read over the damage gives nothing."""

    async def main(path: str) -> None:
        store = await damaged(path, "update log set records = x'78' where ordinal = 4")
        assert [row.ordinal for row in await store.read(1, -1, limit=4)] == [0, 1, 2, 3]
        with pytest.raises(StoreCorrupt):
            await store.read(1, 3)
        assert [row.ordinal for row in await store.read(1, 4)] == [5, 6, 7, 8, 9]
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_link_over_a_page_boundary_is_verified() -> None:
    """S2: the first row of a read must follow the row before it."""

    async def main(path: str) -> None:
        store = await damaged(path, "delete from log where ordinal = 4")
        with pytest.raises(StoreCorrupt, match="follows 4, but the row before it is 3"):
            await store.read(1, 3)
        with pytest.raises(StoreCorrupt, match="follows 4"):
            await store.read(1, 4)
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("update instances set head = 8", "ends at 9, but the head is 8"),
        ("update instances set reserved = 3", "above what is reserved"),
        ("update instances set epoch = -1", "above the instance's"),
        ("insert into due values (77, 'a', 1.0)", "not there"),
        ("insert into log values (500, 77, 0, -1, 0, null, 0, 0, x'', x'')", "not there"),
        ("insert into admissions values (1, 'k', 'f', x'', 777, 776)", "does not have"),
        ("insert into producers values (1, 'p', 0, 0, x'', 777, 776)", "does not have"),
        ("insert into checkpoints values (1, 777, 0, x'')", "does not have"),
        ("insert into snapshots values (1, 777, 0, x'')", "does not have"),
        ("insert into blob_references values (1, 77, 0)", "not there"),
    ],
)
def test_check_finds_what_contradicts_the_log(sql: str, what: str) -> None:
    """S14: numbers, and rows of other tables."""

    async def main(path: str) -> None:
        store = await damaged(path, "update log set prev = prev")
        await store.close()
        tamper(path, f"{sql} where n = 1" if sql.startswith("update") else sql)
        store = await opened(path, inline=True)
        problems = await store.check()
        assert len(problems) == 1 and what in problems[0].what, problems
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


async def _get(store: SqliteStore, name: str) -> object:
    return await store.get_blob("default", name)


async def _check(store: SqliteStore, name: str) -> object:
    problems = await store.check()
    raise StoreCorrupt("; ".join(problem.what for problem in problems))


@pytest.mark.parametrize("see", [_get, _check], ids=["read", "check"])
@pytest.mark.parametrize(
    "sql",
    [
        "update blob_chunks set data = zeroblob(length(data)) where i = 1",
        "delete from blob_chunks where i = 1",
        "update blob_chunks set i = 9 where i = 0",
    ],
)
def test_content_that_lost_its_hash_is_refused(sql: str, see: Callable[[SqliteStore, str], Awaitable[object]]) -> None:
    """S14: content is checked against its name."""

    async def main(path: str) -> None:
        store = await opened(path, inline=True)
        name = await store.put_blob("default", b"".join(b"%d," % i for i in range(120_000)))
        await store.close()
        tamper(path, sql)
        store = await opened(path, inline=True)
        with pytest.raises(StoreCorrupt, match=name):
            await see(store, name)
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_problem_says_where_and_what() -> None:
    """S14: it is data, for a person and for a program."""
    problem = Problem("instance 1", "does not match")
    assert (problem.where, problem.what) == ("instance 1", "does not match")


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("update log set records = x'78' where n = 1 and ordinal = 2", "instance 1, ordinal 2: the row does not match"),
        ("delete from log where n = 1 and ordinal = 2", "follows 2, but the row before it is 1"),
        ("delete from log where n = 1 and ordinal = 4", "ordinal 4: the row is missing"),
        ("delete from log where n = 3 and ordinal = 5", "ends at"),
        ("update log set prev = 3 where n = 3 and ordinal = 5", "follows 3, but the row before it is 4"),
        ("update instances set fork_offset = 3 where n = 3", "follows 4, but the row before it is 3"),
    ],
)
def test_damage_to_what_a_fork_shares_is_refused_and_found(sql: str, what: str) -> None:
    """S2, S14: a fork's log is verified through all its pieces."""

    async def main(path: str) -> None:
        store = await damaged(path, "update log set prev = prev")
        forked = await store.fork(1, 4, Address("toy", "fork"), Creation("u", "i", Batch(b"[]"), 1.0))
        assert forked.n == 3 and len(await store.read(3, -1)) == 6
        await store.close()
        tamper(path, sql)
        store = await opened(path, inline=True)
        with pytest.raises(StoreCorrupt, match=what):
            await store.read(3, -1)
        assert await store.check() != []
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_merged_row_that_stands_for_what_it_cannot_is_found() -> None:
    """S14: its range lies between the row before it and itself."""

    async def main(path: str) -> None:
        store = await damaged(path, "update log set prev = prev")
        assert await store.merge(1, 3, 6, Batch(b"[]"))
        await store.close()
        sum = checksum(1, 6, 2, 0, b"[]", b"", 0, 1)
        tamper(path, "update log set merged_from = 1, checksum = ? where n = 1 and ordinal = 6", sum)
        store = await opened(path, inline=True)
        [problem] = await store.check()
        assert problem.where.endswith("ordinal 6") and "not between 2 and it" in problem.what
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_check_finds_a_log_that_weighs_something_else() -> None:
    """S14, L7: what a log is said to weigh is what its rows do."""

    async def main(path: str) -> None:
        store = await damaged(path, "update instances set bytes = bytes + 1")
        [problem] = await store.check()
        assert "instance 1" in problem.where and "weigh" in problem.what
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))
