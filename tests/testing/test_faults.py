"""The faulty store: what it does, it does exactly, on a real store."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cairn.errors import StoreBusy
from cairn.runtime.records import FiberAccepted, InstanceClaimed, InstanceCreated, StateChanged, encode
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import (
    Address,
    Admission,
    Append,
    Batch,
    Creation,
    Durability,
    Producer,
    Store,
    WorkerRow,
)
from cairn.testing import (
    Crash,
    Crashed,
    FaultyStore,
    History,
    OutcomeUnknown,
    Process,
    RecordingStore,
    Simulation,
    check,
    crash_from_environment,
    crash_points,
    logs_of,
    simulate,
    until_crash,
)
from cairn.testing.faults import BUSY, LATE_ANSWER, LATE_NOTICE, SLOW, SLOW_SECONDS_MAX, UNKNOWN

ADDRESS = Address("toy", "1")
CHANGE = Batch(encode([StateChanged(changes={})]))


def memory(simulation: Simulation) -> SqliteStore:
    return SqliteStore(":memory:", inline=True, clock=simulation.clock, ids=simulation.ids)


def admission(fiber: str, key: str) -> tuple[Creation, Append]:
    accepted = Batch(encode([FiberAccepted(fiber=fiber, method="run", at=0, key=key)]))
    created = Batch(encode([InstanceCreated(kind="toy", id="1", uid="u", at=0)]))
    return Creation("u", "i", created, 0), Append(0, accepted, admission=Admission(key, fiber, b"digest"))


def claimed(epoch: int) -> Batch:
    return Batch(encode([InstanceClaimed(epoch=epoch, worker="w", at=0)]))


async def five_writes(store: Store) -> None:
    """Admit, claim, two appends and a release: the points a crash can be before or after."""
    known = await store.admit(ADDRESS, *admission("f1", "k"))
    row = await store.instance(known.n)
    assert row is not None
    epoch = row.epoch + 1
    if await store.claim(known.n, "w", expected_epoch=row.epoch, make=claimed) is None:
        raise AssertionError("nobody else claims here")
    await store.append(Append(known.n, CHANGE, epoch))
    await store.append(Append(known.n, CHANGE, epoch, Durability.DELTA))
    await store.release(known.n, epoch, None)


def test_commits_are_counted_as_facts_and_deltas() -> None:
    """T3: the number of synced commits of a scenario is asserted, so it must be right."""

    async def main(simulation: Simulation) -> None:
        store = FaultyStore(memory(simulation))
        await store.open()
        await store.register(WorkerRow("w", "h", 1, ("toy",), 0, 0), 15, lambda: True)
        await five_writes(store)
        await store.admit(ADDRESS, *admission("f1", "k"))
        await store.close()

        assert (store.counts.facts, store.counts.deltas) == (3, 1)
        assert store.counts.calls["append"] == 2
        assert store.writes == 6

    simulate(main, seed=1, faults=False)


def test_every_crash_point_leaves_exactly_the_writes_before_it() -> None:
    """T3, S2: before the k-th, k - 1 rows; after it, k; and the enumeration ends with the run that nothing interrupts."""
    rows_after = [0, 2, 3, 4, 5, 5]  # an admission that creates is two batches, a release without a batch none
    seen: list[tuple[str, int]] = []

    async def main(simulation: Simulation, crash: Crash) -> int:
        inner = memory(simulation)
        await inner.open()
        await inner.register(WorkerRow("w", "h", 1, ("toy",), 0, 0), 15, lambda: True)
        process = simulation.process("w", lambda process: five_writes(FaultyStore.of(process, inner, crash=crash)))
        await process.wait()
        return sum(len(log.rows) for log in await logs_of(inner))

    for crash in crash_points():
        seen.append((str(crash), simulate(lambda s, c=crash: main(s, c), seed=1, faults=False).value))  # type: ignore[misc]

    expected = [(f"{when}:{at}", rows_after[at - (when == "before")]) for at in range(1, 6) for when in ("before", "after")]
    assert seen == [*expected, ("before:6", 5)]


def test_nothing_of_a_crashed_process_reaches_the_store_any_more() -> None:
    """T3: reads, writes, waits and the lease clock refuse, also for tasks that were already waiting."""

    async def main(simulation: Simulation) -> None:
        inner = memory(simulation)
        await inner.open()
        store = FaultyStore(inner, crash=Crash(2, "before"))
        known = await store.admit(ADDRESS, *admission("f1", "k"))
        waiting = asyncio.ensure_future(store.changed(known.n, known.ordinal))
        await asyncio.sleep(1)
        with pytest.raises(Crashed):
            await store.append(Append(known.n, CHANGE, 0))

        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: waiting,
            lambda: store.read(known.n, -1),
            lambda: store.find(ADDRESS),
            lambda: store.admit(ADDRESS, *admission("f2", "l")),
            lambda: store.wait_for_work(1),
        ]
        for call in refused:
            with pytest.raises(Crashed):
                await call()
        with pytest.raises(Crashed):
            store.lease_now()
        await inner.close()

    simulate(main, seed=1, faults=False)


def test_a_dead_process_does_not_renew_its_lease() -> None:
    """L2: the renewal lives in the store and must not speak for a process that crashed."""

    async def main(simulation: Simulation) -> tuple[float, float]:
        inner = memory(simulation)
        await inner.open()
        store = FaultyStore(inner)
        await store.register(WorkerRow("w", "h", 1, ("toy",), 0, 0), 15, lambda: True)
        await asyncio.sleep(60)
        (alive,) = await inner.workers()
        margin_alive = alive.lease_until - inner.lease_now()
        store.die()
        await asyncio.sleep(60)
        left = await inner.workers()
        return margin_alive, left[0].lease_until - inner.lease_now() if left else -1.0

    margin_alive, margin_dead = simulate(main, seed=1, faults=False).value
    assert margin_alive > 0 > margin_dead


def test_a_stopped_store_answers_when_it_is_started_again() -> None:
    """T7: calls wait, none is lost."""

    async def main(simulation: Simulation) -> float:
        store = FaultyStore(memory(simulation))
        await store.open()
        store.stop()
        simulation.loop.call_later(30, store.start)
        await store.admit(ADDRESS, *admission("f1", "k"))
        return simulation.now()

    assert simulate(main, seed=1, faults=False).value == 30


def test_each_fault_of_chance_does_what_the_contract_allows_and_nothing_else() -> None:
    """T7, S5: refused writes are absent, unknown ones present or absent but never twice, late ones late."""
    struck: set[str] = set()

    async def main(simulation: Simulation, fault: str) -> None:
        inner = memory(simulation)
        await inner.open()
        history = History()

        async def work(process: Process) -> None:
            faulty = FaultyStore.of(process, inner, faults=frozenset({fault}))
            store = RecordingStore(faulty, history, process.name)
            known = await inner.admit(ADDRESS, *admission("f0", "k0"))
            for number in range(60):
                before = simulation.now()
                batch = Batch(encode([StateChanged(changes={}, scope=str(number))]))
                producer = Producer("p", 0, number)
                for _ in range(20):
                    try:
                        await store.append(Append(known.n, batch, producer=producer))
                        break
                    except (StoreBusy, OutcomeUnknown) as error:
                        struck.add(type(error).__name__)
                head = await store.changed(known.n, known.ordinal, 0)
                assert simulation.now() - before <= 3 * 20 * SLOW_SECONDS_MAX
                assert head >= known.ordinal + number + 1
                if simulation.now() > before:
                    struck.add(fault)

        await simulation.process("w", work).wait()
        logs = await logs_of(inner)
        assert len(logs[0].rows) == 62
        seeded = logs[0].rows[:2]
        violations = [str(v) for v in check(history, logs) if not any(f"ordinal {row.ordinal} " in v.what for row in seeded)]
        assert violations == []

    for fault in (SLOW, LATE_ANSWER, BUSY, LATE_NOTICE, UNKNOWN):
        for seed in range(6):
            simulate(lambda s, f=fault: main(s, f), seed=seed)  # type: ignore[misc]

    assert struck >= {SLOW, LATE_ANSWER, "StoreBusy", "OutcomeUnknown"}


def test_until_crash_ends_everything_the_program_started() -> None:
    """T3: the process object is discarded; only the store remains."""

    async def main(simulation: Simulation) -> None:
        for crash in crash_points():
            inner = memory(simulation)
            await inner.open()
            store = FaultyStore(inner, crash=crash)

            async def program(store: FaultyStore = store) -> None:
                background = asyncio.ensure_future(asyncio.sleep(1000))
                await five_writes(store)
                background.cancel()
                await asyncio.wait({background})

            await inner.register(WorkerRow("w", "h", 1, ("toy",), 0, 0), 15, lambda: True)
            tasks_before = asyncio.all_tasks()
            crashed = await until_crash(store, program())

            assert crashed == crash.reached
            assert asyncio.all_tasks() <= tasks_before

    simulate(main, seed=1, faults=False)


DIES = """
import asyncio, sys
from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.records import FiberAccepted, InstanceCreated, encode
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Admission, Append, Batch, Creation
from cairn.testing import FaultyStore, crash_from_environment

async def main():
    store = FaultyStore(
        SqliteStore(sys.argv[1], clock=SystemClock(), ids=SystemIds()), crash=crash_from_environment()
    )
    await store.open()
    for number in range(5):
        accepted = Batch(encode([FiberAccepted(fiber=f"f{number}", method="run", at=0, key=str(number))]))
        created = Batch(encode([InstanceCreated(kind="toy", id="1", uid="u", at=0)]))
        request = Append(0, accepted, admission=Admission(str(number), f"f{number}", b"d"))
        await store.admit(Address("toy", "1"), Creation("u", "i", created, 0), request)
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.system
@pytest.mark.parametrize(("point", "acknowledged", "accepted"), [("before:3", 2, 2), ("after:3", 2, 3)])
def test_a_real_process_can_be_told_where_to_die(tmp_path: Path, point: str, acknowledged: int, accepted: int) -> None:
    """T3, S1, S2: it leaves without a word, as kill -9 does, and the file has exactly what was written."""
    file = tmp_path / "store.db"
    environment = {**os.environ, "CAIRN_TEST_CRASH": point, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}

    ended = subprocess.run([sys.executable, "-c", DIES, str(file)], env=environment, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 137, ended.stderr
    assert ended.stdout.split() == [str(number) for number in range(acknowledged)]

    async def read() -> int:
        from cairn.clock import SystemClock
        from cairn.ids import SystemIds

        store = SqliteStore(str(file), clock=SystemClock(), ids=SystemIds())
        await store.open()
        try:
            return sum(len(log.rows) for log in await logs_of(store)) - 1
        finally:
            await store.close()

    assert asyncio.run(read()) == accepted


def test_a_crash_point_in_the_environment_is_read_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """T3: a misspelt point must not become a run without a crash."""
    assert crash_from_environment() is None
    monkeypatch.setenv("CAIRN_TEST_CRASH", "after:7")
    assert crash_from_environment() == Crash(7, "after", leave=True)
    monkeypatch.setenv("CAIRN_TEST_CRASH", "7")
    with pytest.raises(ValueError, match="not a crash point"):
        crash_from_environment()
