"""Folds and owners of logs that are merged, forked and deleted under them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.runtime.toy import World, run

from cairn.errors import Fenced, StoreCorrupt
from cairn.runtime import records as r
from cairn.runtime.instance import Fold, Instance
from cairn.runtime.storage.store import Address, Batch, Creation, Row
from cairn.testing.proxy import StoreProxy


def stash(fiber: str, value: int) -> r.FiberStashed:
    return r.FiberStashed(fiber=fiber, value=msgspec.Raw(str(value).encode()))


async def stashed(world: World, count: int = 10) -> tuple[Instance, int, int]:
    """An owned instance whose last `count` rows are of one kind; the first and the last of them."""
    fiber = (await world.client.accept("a", "run")).fiber
    instance = await world.activate()
    await instance.append([r.FiberStarted(fiber=fiber, at=1.0)])
    ordinals = [await instance.append([stash(fiber, i)]) for i in range(count)]
    return instance, ordinals[0], ordinals[-1]


def merged(instance: Instance, count: int) -> Batch:
    """What the rows say together: their records in one batch, as a merged block's are."""
    [fiber] = [fiber.id for fiber in instance.runtime.unsettled()]
    return Batch(r.encode([stash(fiber, i) for i in range(count)]))


def seen(fold: Fold) -> tuple[Any, ...]:
    return fold.head, fold.state, msgspec.json.encode(fold.runtime)


@pytest.mark.parametrize("checkpoint", [None, 1, 5])
def test_a_fold_catches_up_over_rows_that_were_merged_wherever_it_stands(checkpoint: int | None) -> None:
    """S3: before, at, inside or behind the range; a fold that stands inside is made anew, also from a checkpoint."""

    async def main() -> None:
        async with World() as world:
            instance, first, last = await stashed(world)
            folds = []
            for at in range(last + 1):
                fold = Fold(world.application, instance.n, instance.address)
                await fold.load(world.store, at)
                assert fold.head == at
                folds.append(fold)
                if checkpoint == at:
                    state = fold.checkpoint()
                    await world.store.save_checkpoint(instance.n, instance.epoch, at, state)
            assert await world.store.merge(instance.n, first, last, merged(instance, 10))

            await instance.append([r.InstanceReleased(at=2.0)])
            for fold in folds:
                await fold.catch_up(world.store)

            assert {seen(fold)[2] for fold in folds} == {seen(instance)[2]}
            assert {(fold.head, fold.state[0]) for fold in folds} == {(instance.head, instance.state[0])}

    run(main())


def test_an_owner_that_stands_inside_a_merged_range_is_folded_anew() -> None:
    """S3, S4: and goes on appending."""

    async def main() -> None:
        async with World() as world:
            instance, first, last = await stashed(world)
            batch = merged(instance, 10)
            behind = Instance(world.store, world.clock, world.ids, world.application, await _row(world), "w1")
            await behind.load(world.store, first + 3)
            assert await world.store.merge(instance.n, first, last, batch)

            await behind.append([r.InstanceReleased(at=2.0)])

            await instance.sync()
            assert seen(behind) == seen(instance)

    run(main())


async def _row(world: World) -> Any:
    row = await world.store.find(world.client.address("a"))
    assert row is not None
    return row


def test_a_merged_row_does_not_excuse_a_missing_one() -> None:
    """S2, S14: a fold accepts only what follows it."""

    async def main() -> None:
        async with World() as world:
            instance, _, last = await stashed(world)
            for gap in (Row(last + 5, last + 2, 1, Batch(b"[]"), last + 3), Row(last + 2, last + 1, 1, Batch(b"[]"))):
                with pytest.raises(StoreCorrupt, match="a batch is missing"):
                    instance.apply_row(gap)

    run(main())


def test_a_fork_is_activated_where_its_source_was() -> None:
    """S3, S4: its fold is the source's at the offset, its epochs go on from there, and the source's owner is not its owner."""

    async def main() -> None:
        async with World() as world:
            instance, _, last = await stashed(world)
            at = last - 4
            source = Fold(world.application, instance.n, instance.address)
            await source.load(world.store, at)
            forked = await world.store.fork(instance.n, at, Address("toy", "b"), Creation("uid", "i", Batch(b"[]"), 1.0))
            fold = Fold(world.application, forked.n, Address("toy", "b"))
            await fold.load(world.store, at)
            assert seen(fold) == seen(source)

            owner = await world.activate("b", "w2")

            assert owner.epoch == owner.runtime.epoch == instance.epoch + 1
            fiber = owner.runtime.unsettled()[0].id
            await owner.append([stash(fiber, 99)])
            await instance.append([stash(fiber, 98)])
            await owner.sync()
            assert not owner.fenced and not instance.fenced
            assert owner.head == forked.ordinal + 2

    run(main())


def test_the_owner_of_an_instance_that_is_deleted_stops_without_an_error() -> None:
    """S4, L7: it is fenced, which is a normal end."""

    async def main() -> None:
        async with World() as world:
            instance, _, _ = await stashed(world)
            watching = asyncio.create_task(instance.watch())
            await asyncio.sleep(0)

            assert await world.store.delete(instance.n)

            await watching
            assert instance.fenced
            with pytest.raises(Fenced):
                await instance.append([r.InstanceReleased(at=2.0)])

    run(main())


def test_an_owner_that_has_not_noticed_the_deletion_is_fenced_when_it_appends() -> None:
    """S4: a zombie of a former life writes nothing, into the next one neither."""

    async def main() -> None:
        async with World() as world:
            instance, _, _ = await stashed(world)
            fiber = instance.runtime.unsettled()[0].id
            assert await world.store.delete(instance.n)
            await world.client.accept("a", "run")
            before = await world.records()

            with pytest.raises(Fenced):
                await instance.append([stash(fiber, 1)])
            await instance.save_checkpoint()
            await instance.drop()

            assert instance.fenced
            assert await world.records() == before
            row = await _row(world)
            assert (row.n > instance.n, row.owner) == (True, None)

    run(main())


def test_a_merge_between_a_fold_s_checkpoint_and_its_rows_is_seen() -> None:
    """S3: the checkpoint was read, then the range around it was merged, then the rows were read."""

    async def main() -> None:
        async with World() as world:
            instance, first, last = await stashed(world)
            fold = Fold(world.application, instance.n, instance.address)
            await fold.load(world.store, first + 3)
            await world.store.save_checkpoint(instance.n, instance.epoch, first + 3, fold.checkpoint())

            class Merging(StoreProxy):
                async def through(self, name: str, arguments: tuple[Any, ...], call: Any) -> Any:
                    answer = await call()
                    if name == "checkpoint" and answer is not None:
                        assert await self.inner.merge(instance.n, first, last, merged(instance, 10))
                    return answer

            late = Fold(world.application, instance.n, instance.address)
            await late.load(Merging(world.store))

            assert (late.head, late.state) == (instance.head, instance.state)

    run(main())
