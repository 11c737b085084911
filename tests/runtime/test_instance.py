"""An activated instance: its fold equals the log, and only its owner's appends go through it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tests.runtime.toy import Toy, World, run

from cairn.errors import Fenced, FiberFailed, StoreBusy, StoreCorrupt
from cairn.runtime import records as r
from cairn.runtime.instance import CHECKPOINT_ROWS_MIN, Fold, Instance, wake_now
from cairn.runtime.storage.store import Append, Batch, WorkerRow
from cairn.testing import FaultyStore, simulate
from cairn.testing.proxy import StoreProxy


class Gated(StoreProxy):
    """Appends wait at a gate; reads are counted."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads = 0

    async def through(self, name: str, arguments: tuple[Any, ...], call: Any) -> Any:
        if name == "append":
            await self.gate.wait()
        self.reads += name == "read"
        return await call()


def stash(fiber: str, value: int) -> r.FiberStashed:
    import msgspec

    return r.FiberStashed(fiber=fiber, value=msgspec.Raw(str(value).encode()))


def started(instance: Instance, fiber: str) -> r.FiberStarted:
    return r.FiberStarted(fiber=fiber, at=instance.clock.wall())


def test_the_claim_is_in_the_log_before_anything_runs() -> None:
    """S4, L3: so that a process-killing input is counted."""

    async def main() -> None:
        async with World() as world:
            await world.client.accept("a", "run")
            instance = await world.activate(worker="w1")

            assert isinstance((await world.records())[-1], r.InstanceClaimed)
            assert (instance.epoch, instance.runtime.epoch) == (1, 1)

    run(main())


def test_what_others_append_is_folded_before_what_the_owner_appends_after_it() -> None:
    """S2, S3: the fold sees rows in log order, whoever wrote them."""

    async def main() -> None:
        async with World() as world:
            first = await world.client.accept("a", "run")
            instance = await world.activate()
            second = await world.client.accept("a", "run")
            assert instance.runtime.fiber(second.fiber) is None

            await instance.append([started(instance, first.fiber)])

            assert list(instance.runtime.fibers) == [first.fiber, second.fiber]
            assert instance.state == [5], "its application folded each record once: created, two accepted, claimed, started"

    run(main())


def test_a_stale_owner_cannot_append_and_knows_it_from_then_on() -> None:
    """S4: fenced is a normal end: no retry, no further call to the store."""

    async def main() -> None:
        async with World() as world:
            receipt = await world.client.accept("a", "run")
            old = await world.activate(worker="w1")
            new = await world.activate(worker="w2")

            with pytest.raises(Fenced):
                await old.append([started(old, receipt.fiber)])
            with pytest.raises(Fenced, match="taken over"):
                await old.append([started(old, receipt.fiber)])

            assert old.fenced and not new.fenced
            assert await old.release(lambda: wake_now(0.0)), "and has nothing to give back"
            assert [type(x) for x in await world.records()].count(r.InstanceReleased) == 0

    run(main())


def test_an_owner_that_watches_learns_that_it_was_taken_over() -> None:
    """S4, T10: within one change of the log, not at its next append."""

    async def main() -> None:
        async with World() as world:
            await world.client.accept("a", "run")
            old = await world.activate(worker="w1")
            watching = asyncio.create_task(old.watch())
            await world.activate(worker="w2")
            await watching

            assert old.fenced

    run(main())


def test_of_two_who_activate_one_gets_the_instance() -> None:
    """S4: the other one gets None, and no error."""

    async def main() -> None:
        async with World() as world:
            await world.client.accept("a", "run")
            row = await world.store.find(world.client.address("a"))
            assert row is not None
            for worker in ("w1", "w2"):
                await world.store.register(WorkerRow(worker, "host", 1, ("toy",), 0.0, 0.0), 60.0, lambda: True)
            make = (world.store, world.clock, world.ids, world.application, row)

            both = await asyncio.gather(Instance.activate(*make, "w1"), Instance.activate(*make, "w2"))

            assert [instance is None for instance in both].count(True) == 1

    run(main())


def test_a_cancelled_append_is_folded_if_it_was_handed_over() -> None:
    """S7: an owner that forgot what it wrote would write it twice."""

    async def main() -> None:
        world = World()
        async with world:
            world.store = gated = Gated(world.store)
            receipt = await world.client.accept("a", "run")
            instance = await world.activate()
            gated.gate.clear()
            task = asyncio.create_task(instance.append([started(instance, receipt.fiber)]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            asyncio.get_running_loop().call_soon(gated.gate.set)

            with pytest.raises(asyncio.CancelledError):
                await task

            assert instance.runtime.fibers[receipt.fiber].phase.value == "running"
            assert instance.head == 3
            await gated.inner.close()

    run(main())


def test_a_record_of_a_settled_fiber_is_refused_before_it_reaches_the_log() -> None:
    """S7, S14: an abandoned method cannot poison the instance."""

    async def main() -> None:
        async with World() as world:
            receipt = await world.client.accept("a", "run")
            instance = await world.activate()
            await instance.append([r.FiberSettled(fiber=receipt.fiber, outcome="aborted", at=0.0)])
            head = instance.head

            with pytest.raises(FiberFailed, match="settled as aborted"):
                await instance.append([stash(receipt.fiber, 1)])

            assert instance.head == head
            assert (await world.store.find(world.client.address("a"))).head == head  # type: ignore[union-attr]

    run(main())


def test_an_owner_does_not_go_to_sleep_over_a_request_it_has_not_seen() -> None:
    """L1: release says no, and the request is folded for the next decision."""

    async def main() -> None:
        async with World() as world:
            await world.client.accept("a", "run")
            instance = await world.activate()
            late = await world.client.accept("a", "run")

            assert not await instance.release(lambda: wake_now(0.0))

            assert late.fiber in instance.runtime.fibers
            assert await instance.release(lambda: wake_now(0.0))

    run(main())


def test_a_busy_store_delays_a_record_and_does_not_lose_it() -> None:
    """S5: what is to be recorded may be the outcome of an effect; it is asked again, and written once."""

    class Busy(StoreProxy):
        refusals = 3

        async def append(self, append: Append) -> Any:
            if self.refusals:
                self.refusals -= 1
                raise StoreBusy("held by worker 'other'")
            return await super().append(append)

    async def main(simulation: Any) -> Sequence[r.Record]:
        world = World(clock=simulation.clock, ids=simulation.ids)
        await world.store.open()
        receipt = await world.client.accept("a", "run")
        world.store = Busy(world.store)
        instance = await world.activate()
        await instance.append([started(instance, receipt.fiber)])
        return await world.records()

    records = simulate(main, seed=0, faults=False).value

    assert [type(record) for record in records].count(r.FiberStarted) == 1


def test_activation_reads_from_the_newest_checkpoint_on() -> None:
    """The cost of activation is the tail since then, not the log."""

    async def main() -> None:
        async with World() as world:
            receipt = await world.client.accept("a", "run")
            instance = await world.activate()
            await instance.append([started(instance, receipt.fiber)])
            for number in range(CHECKPOINT_ROWS_MIN + 10):
                await instance.append([stash(receipt.fiber, number)])
            found = await world.store.checkpoint(instance.n)
            assert found is not None
            ordinal, _ = found
            rows = await world.store.read(instance.n, ordinal)

            fold = Fold(world.application, instance.n, instance.address)
            await fold.load(world.store)

            assert fold.rows_since_checkpoint == len(rows) < 20
            assert fold.state == instance.state
            assert fold.runtime.fibers[receipt.fiber].snapshot == instance.runtime.fibers[receipt.fiber].snapshot

    run(main())


def test_a_checkpoint_this_code_cannot_read_is_passed_over() -> None:
    """S15: it is a cache; the log is the truth."""

    async def main() -> None:
        async with World() as world:
            await world.client.accept("a", "run")
            instance = await world.activate()
            await world.store.save_checkpoint(instance.n, instance.epoch, instance.head, b'{"format": 99}')

            fold = Fold(world.application, instance.n, instance.address)
            await fold.load(world.store)

            assert fold.head == instance.head and fold.runtime.epoch == 1

    run(main())


def test_a_fold_at_an_older_ordinal_is_the_past() -> None:
    """S3: what was, was."""

    async def main() -> None:
        async with World() as world:
            receipt = await world.client.accept("a", "run")
            instance = await world.activate()
            await instance.append([r.FiberSettled(fiber=receipt.fiber, outcome="completed", at=0.0)])

            fold = Fold(world.application, instance.n, instance.address)
            await fold.load(world.store, at=receipt.ordinal)

            assert fold.head == receipt.ordinal
            assert list(fold.runtime.fibers) == [receipt.fiber]

    run(main())


def test_a_batch_of_an_unknown_vocabulary_stops_the_instance() -> None:
    """S14: it is never skipped; the error names the instance and the ordinal."""

    async def main() -> None:
        async with World() as world:
            receipt = await world.client.accept("a", "run")
            await world.store.append(Append(receipt.n, Batch(b'[{"type":"from.the.future"}]')))

            with pytest.raises(StoreCorrupt, match="toy/a, ordinal 2"):
                await world.activate()

    run(main())


def test_a_missing_batch_stops_the_instance() -> None:
    """S2: the link says that one is missing; nobody guesses what was in it."""

    class Forgetful(StoreProxy):
        async def read(self, n: int, after: int, **options: Any) -> Any:
            return [row for row in await super().read(n, after, **options) if row.ordinal != 1]

    async def main() -> None:
        async with World(application=Toy()) as world:
            await world.client.accept("a", "run")
            await world.client.accept("a", "run")
            world.store = Forgetful(world.store)

            with pytest.raises(StoreCorrupt, match="batch is missing"):
                await world.activate()

    run(main())


def test_the_writes_of_a_stretch_of_work_are_counted() -> None:
    """Two synced commits per keyed step, one per safe one: a commit more is a failing test."""

    async def main() -> None:
        async with World() as world:
            receipt = await world.client.accept("a", "run")
            world.store = counting = FaultyStore(world.store)
            instance = await world.activate()
            await instance.append([started(instance, receipt.fiber)])

            assert (counting.counts.facts, counting.counts.deltas) == (2, 0)

    run(main())
