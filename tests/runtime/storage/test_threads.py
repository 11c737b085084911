"""The writer thread: groups, syncs, isolation of neighbours, leases, a turn that somebody keeps."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.storage.helpers import born, folder, opened, watched

from cairn.errors import Fenced, StoreBusy, StoreError
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.connection import Parameters, SqliteConnection
from cairn.runtime.storage.executor import GROUP_WRITES
from cairn.runtime.storage.store import Append, Appended, Batch, Durability, WorkerRow
from cairn.testing.contract import SkewedClock

FACT, DELTA = Durability.FACT, Durability.DELTA


def worker(id: str = "w1") -> WorkerRow:
    return WorkerRow(id, "host", os.getpid(), ("toy",), 1.0, 0.0)


def append(n: int, durability: Durability = FACT, epoch: int | None = 0, size: int = 20) -> Append:
    return Append(n, Batch(b"r" * size), epoch, durability)


class Hold:
    """Keeps the write turn of a store, as another process would, until let go."""

    def __init__(self, path: str) -> None:
        self._file = os.open(f"{path}.turn", os.O_RDWR)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.pwrite(self._file, b"worker-of-another-process (pid 4242)\n".ljust(200, b"\0"), 0)

    def let_go(self) -> None:
        os.close(self._file)


async def held(store: SqliteStore, hold: Hold, writes: list[Append]) -> list[object]:
    """What becomes of writes that were all handed over while the turn was somebody else's."""
    tasks = [asyncio.create_task(store.append(write)) for write in writes]
    await asyncio.sleep(0.02)
    hold.let_go()
    return list(await asyncio.gather(*tasks, return_exceptions=True))


def test_what_arrives_while_the_writer_waits_is_one_group() -> None:
    """L1: one sync for all of them, in a number of statements that does not depend on theirs."""
    said: list[str] = []

    async def main(path: str) -> None:
        store = await opened(path, connect=watched(said))
        ns = [await born(store, f"i{i}") for i in range(64)]
        hold = Hold(path)
        # The writer may take the first of them alone if it was just about to; it has the rest to find together.
        said.clear()
        done = await held(store, hold, [append(n) for n in ns for _ in range(4)])
        assert all(isinstance(d, Appended) for d in done)
        assert said.count("commit") == 1
        assert len([s for s in said if not s.startswith("pragma data_version")]) <= 8, said
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_group_is_bounded() -> None:
    """L1: by number, so that no commit grows without end."""
    said: list[str] = []

    async def main(path: str) -> None:
        store = await opened(path, connect=watched(said))
        n = await born(store)
        hold = Hold(path)
        said.clear()
        await held(store, hold, [append(n) for _ in range(GROUP_WRITES * 3)])
        assert said.count("commit") == 3
        hold = Hold(path)
        said.clear()
        await held(store, hold, [append(n, size=400_000) for _ in range(6)])
        assert said.count("commit") == 3  # two of them make a group of at most 1 MB
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def levels(said: list[str], level: str = "FULL") -> list[str]:
    """The level under which each commit was made, from the level at the start."""
    found = []
    for statement in said:
        if statement.startswith("pragma synchronous="):
            level = statement.rpartition("=")[2]
        if statement == "commit":
            found.append(level)
    return found


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
def test_facts_are_synced_and_deltas_are_not(inline: bool) -> None:
    """S1: the level is set before the transaction; a delta never rides unsynced below a fact."""
    said: list[str] = []

    async def main(path: str) -> None:
        store = await opened(path, connect=watched(said), inline=inline)
        n = await born(store)
        said.clear()
        for durability in (DELTA, DELTA, FACT, FACT, DELTA, FACT):
            await store.append(append(n, durability))
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))
    assert levels(said)[:6] == ["NORMAL", "NORMAL", "FULL", "FULL", "NORMAL", "FULL"]
    assert "synchronous=OFF" not in "".join(said)


def test_one_fact_makes_its_group_synced() -> None:
    """S1: deltas gain, facts do not lose."""
    said: list[str] = []

    async def main(path: str) -> None:
        store = await opened(path, connect=watched(said))
        n = await born(store)
        hold = Hold(path)
        said.clear()
        await held(store, hold, [append(n, DELTA), append(n, DELTA), append(n, FACT), append(n, DELTA)])
        assert levels(said) == ["FULL"]
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
def test_a_delta_that_reserves_a_block_is_synced(inline: bool) -> None:
    """S3: the reservation is on the disk before an ordinal above it is used; nothing else of the group changes."""
    said: list[str] = []

    async def main(path: str) -> None:
        store = await opened(path, connect=watched(said), inline=inline)
        n = await born(store)
        await asyncio.gather(*(store.append(append(n, DELTA)) for _ in range(997)))
        said.clear()
        done = [await store.append(append(n, DELTA)) for _ in range(3)]
        assert [d.ordinal for d in done] == [999, 1_000, 1_001]
        assert levels(said, "NORMAL") == ["NORMAL", "FULL", "NORMAL"]
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_write_that_raises_in_a_group_fails_alone() -> None:
    """L7, S12: whatever SQLite says of one, its neighbours are committed."""

    async def main(path: str) -> None:
        store = await opened(path)
        ns = [await born(store, f"i{i}") for i in range(8)]
        hold = Hold(path)
        claims = [
            asyncio.create_task(store.claim(n, "nobody", expected_epoch=0, make=lambda epoch: Batch(b"[]"))) for n in ns[2:4]
        ]
        done = await held(store, hold, [append(n) for n in ns])
        refused = await asyncio.gather(*claims, return_exceptions=True)
        assert [type(d) for d in done] == [Appended] * 8
        assert [type(d) for d in refused] == [StoreError] * 2
        assert await store.check() == []
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_turn_that_is_kept_is_an_error_that_names_its_holder() -> None:
    """L1 as far as it goes: who keeps it, what happened (nothing), what to do; and writing goes on by itself afterwards."""

    async def main(path: str) -> None:
        store = await opened(path, busy_seconds=0.2)
        n = await born(store)
        hold = Hold(path)
        first = asyncio.create_task(store.append(append(n)))
        await asyncio.sleep(0.1)
        later = asyncio.create_task(store.append(append(n)))
        with pytest.raises(StoreBusy, match=r"worker-of-another-process \(pid 4242\)") as refusal:
            await first
        assert refusal.value.retryable and not later.done()
        hold.let_go()
        assert await later == Appended(2, 1), "the refused write must not happen later"
        assert await store.append(append(n)) == Appended(3, 2)
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_turn_that_is_kept_is_an_error_inline_too() -> None:
    """L1: the same words."""

    async def main(path: str) -> None:
        store = await opened(path, busy_seconds=0.05, inline=True)
        n = await born(store)
        hold = Hold(path)
        with pytest.raises(StoreBusy, match="pid 4242"):
            await store.append(append(n))
        hold.let_go()
        assert await store.append(append(n)) == Appended(2, 1)
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_store_can_be_closed_while_the_turn_is_kept() -> None:
    """L6: a stopped neighbour does not keep this process from ending."""

    async def main(path: str) -> None:
        store = await opened(path, busy_seconds=0.2)
        n = await born(store)
        hold = Hold(path)
        waiting = asyncio.create_task(store.append(append(n)))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            await store.close()
        with pytest.raises(StoreBusy):
            await waiting
        hold.let_go()
        again = await opened(path)
        assert len(await again.read(n, -1)) == 2, "the refused write must not happen later"
        await again.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_current_store_opens_beside_a_writer_that_is_stopped() -> None:
    """T10, L5: to look at what is there, nobody's turn is needed."""

    async def main(path: str) -> None:
        store = await opened(path)
        n = await born(store)
        await store.register(worker(), 60.0, lambda: True)
        hold = Hold(path)
        other = await opened(path, busy_seconds=0.2)
        assert len(await other.read(n, -1)) == 2
        with pytest.raises(StoreBusy):
            await other.append(append(n))
        with pytest.raises(StoreBusy, match="pid 4242"):
            await opened(path, busy_seconds=0.1, boot="another boot")  # has to write: the first boot's workers are gone
        hold.let_go()
        await other.close()
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


class Faulty(SqliteConnection):
    """A driver that raises something nobody thought of."""

    armed = ""

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        if Faulty.armed and sql.startswith(Faulty.armed):
            raise ZeroDivisionError(sql)
        return super().execute(sql, parameters)


@pytest.mark.parametrize("moment", ["begin", "select n, tenant", "insert into log", "commit"])
def test_a_fault_nobody_thought_of_is_an_error_and_not_a_hang(moment: str) -> None:
    """S14, L6: the group has the error, nothing of it is written, and the writer lives on."""

    async def main(path: str) -> None:
        store = await opened(path, connect=Faulty)
        n = await born(store)
        Faulty.armed = moment
        try:
            async with asyncio.timeout(10):
                with pytest.raises(ZeroDivisionError):
                    await store.append(append(n))
        finally:
            Faulty.armed = ""
        assert await store.append(append(n)) == Appended(2, 1)
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_writer_that_cannot_go_on_says_so_to_everybody() -> None:
    """S14, L6: nobody waits for a thread that has ended."""

    async def main(path: str) -> None:
        store = await opened(path)
        n = await born(store)
        turn = store._running()._turn  # type: ignore[attr-defined]
        turn.take_now = lambda: 1 / 0
        for _ in range(2):
            async with asyncio.timeout(10):
                with pytest.raises(StoreError, match="stopped writing: ZeroDivisionError"):
                    await store.append(append(n))
        assert len(await store.read(n, -1)) == 2
        async with asyncio.timeout(10):
            await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_reads_go_on_while_the_turn_is_kept() -> None:
    """L5: readers wait for nobody."""

    async def main(path: str) -> None:
        store = await opened(path)
        n = await born(store)
        hold = Hold(path)
        async with asyncio.timeout(5):
            assert len(await store.read(n, -1)) == 2
            assert await store.changed(n, 0) == 1
        hold.let_go()
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_the_turn_file_names_this_worker() -> None:
    """L2: so that others can say who holds it."""

    async def main(path: str) -> None:
        store = await opened(path)
        await store.register(worker("w-of-mine"), 60.0, lambda: True)
        await born(store)
        text = await asyncio.to_thread(Path(f"{path}.turn").read_text)
        assert text.startswith(f"w-of-mine (pid {os.getpid()})")
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_lease_is_renewed_while_the_loop_is_blocked() -> None:
    """L2: a handler that computes does not lose the worker its instances."""

    async def main(path: str) -> None:
        store = await opened(path)
        other = await opened(path, inline=True)
        await store.register(worker(), 0.4, lambda: True)
        [before] = await other.workers()
        while (await other.workers())[0].lease_until < before.lease_until + 0.3:
            time.sleep(0.01)  # noqa: ASYNC251 - the loop is blocked on purpose: only the store's thread can have renewed
        await store.close()
        await other.close()

    with folder() as place:
        asyncio.run(asyncio.wait_for(main(f"{place}/cairn.db"), 20))


def test_a_lease_is_on_the_boot_clock() -> None:
    """L2: whatever happens to the wall clock."""

    class Clock(SkewedClock):
        def wall(self) -> float:
            return -1e9

    async def main(path: str) -> None:
        clock = Clock()
        store = await opened(path, clock=clock)
        await store.register(worker(), 15.0, lambda: True)
        [row] = await store.workers()
        assert 14.0 < row.lease_until - clock.boottime() <= 15.0
        await store.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_a_worker_taken_for_dead_is_back_with_its_next_renewal() -> None:
    """L2: it lives; what it lost is fenced, and it may claim again."""

    async def main(path: str) -> None:
        store, other = await opened(path), await opened(path)
        n = await born(store)
        await store.register(worker(), 0.2, lambda: True)
        await store.claim(n, "w1", expected_epoch=0, make=lambda epoch: Batch(b"[]"))
        await other.unregister("w1")
        async with asyncio.timeout(10):
            while not await other.workers():  # noqa: ASYNC110 - renewed by a thread, which has no event to offer
                await asyncio.sleep(0.01)
        found = await other.instance(n)
        assert found is not None and found.owner is None
        assert await store.claim(n, "w1", expected_epoch=1, make=lambda epoch: Batch(b"[]")) is not None
        with pytest.raises(Fenced):
            await store.append(append(n, epoch=1))
        await store.close()
        await other.close()

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_closing_ends_the_threads() -> None:
    """L6: nothing runs on."""

    async def main(path: str) -> None:
        before = set(threading.enumerate())
        store = await opened(path)
        await asyncio.gather(*(born(store, f"i{i}") for i in range(10)), store.instances(), store.instances())
        await store.close()
        left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("cairn")]
        assert not left

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_the_log_file_begins_again_under_steady_writing() -> None:
    """L7: a store that is never idle does not grow a write-ahead log without end."""

    async def main(path: str) -> None:
        store = await opened(path)
        n = await born(store)
        sizes = []
        for _ in range(60):
            await asyncio.gather(*(store.append(append(n, DELTA, size=60_000)) for _ in range(16)))
            sizes.append(await asyncio.to_thread(os.path.getsize, f"{path}-wal"))
        assert sum(sizes[1:]) and sizes[-1] < 30 << 20, [size >> 20 for size in sizes]
        await store.close()
        assert not await asyncio.to_thread(os.path.exists, f"{path}-wal")

    with folder() as place:
        asyncio.run(main(f"{place}/cairn.db"))


def test_no_write_runs_in_the_default_executor_of_the_loop() -> None:
    """L6: a loop whose executor is busy, or refuses, does not stop the store."""

    async def main() -> None:
        store = await opened(":memory:", inline=True)
        asyncio.get_running_loop().run_in_executor = None  # type: ignore[method-assign, assignment]
        n = await born(store)
        await store.register(worker(), 60.0, lambda: True)
        await store.append(append(n))
        assert await store.changed(n, 1) == 2
        assert await store.put_blob("t", b"x")
        assert await store.check() == []
        await store.close()

    asyncio.run(main())
