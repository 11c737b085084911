"""Merging: rows that nobody has to tell apart any more become one, and say so."""

import asyncio

from cairn.errors import UsageError
from cairn.runtime.storage.store import Batch
from cairn.testing.contract.case import Scene, collector, fact, ordinals, owned, refused
from cairn.testing.contract.forking import forked, long

CASES, case = collector()

ONE = Batch(b'["merged"]', b'["shown"]', 1)


@case()
async def merged_rows_are_one_row_at_the_last_of_them(s: Scene) -> None:
    """S2, S3."""
    n = await long(s.store)
    before = await s.store.read(n, -1)
    assert await s.store.merge(n, 3, 6, ONE) is True
    rows = await s.store.read(n, -1)
    assert [(row.ordinal, row.prev, row.merged_from) for row in rows[2:5]] == [(2, 1, None), (6, 2, 3), (7, 6, None)]
    assert rows[3].batch == ONE
    assert rows[:3] + rows[4:] == before[:3] + before[7:]
    assert await s.store.check() == []


@case()
async def a_reader_inside_a_merged_range_is_shown_that_it_is(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    assert await s.store.merge(n, 3, 6, ONE)
    for after in (3, 4, 5):
        row = (await s.store.read(n, after))[0]
        assert (row.ordinal, row.merged_from) == (6, 3)
    assert [row.merged_from for row in await s.store.read(n, 2)] == [3, None, None, None]
    assert [row.merged_from for row in await s.store.read(n, 6)] == [None, None, None]


@case()
async def a_log_goes_on_after_a_merge(s: Scene) -> None:
    """S2."""
    n = await long(s.store, 4)
    assert await s.store.merge(n, 2, 5, ONE)
    found = await s.store.instance(n)
    done = await s.store.append(fact(n, epoch=None))
    assert found is not None and (found.head, done.prev, done.ordinal) == (5, 5, 6)
    assert ordinals(await s.store.read(n, -1)) == [0, 1, 5, 6]
    assert await s.store.check() == []


@case()
async def merging_twice_is_merging_once(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    assert [await s.store.merge(n, 3, 6, ONE) for _ in range(3)] == [True, False, False]
    assert (await s.store.read(n, 2))[0].batch == ONE


@case()
async def of_many_merges_at_once_one_is_done(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    done = await asyncio.gather(*(s.store.merge(n, 3, 6, Batch(b"[%d]" % i)) for i in range(4)))
    assert done == [True, False, False, False]
    assert (await s.store.read(n, 2))[0].batch.records == b"[0]"


@case()
async def what_is_not_a_range_of_rows_is_not_merged(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    before = await s.store.read(n, -1)
    for first, last in ((3, 3), (6, 3), (-1, 3), (3, 99), (50, 60)):
        assert await s.store.merge(n, first, last, ONE) is False
    assert await s.store.merge(999, 0, 1, ONE) is False
    assert await s.store.read(n, -1) == before


@case()
async def what_overlaps_a_merged_range_is_not_merged(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    assert await s.store.merge(n, 3, 6, ONE)
    for first, last in ((2, 7), (6, 8), (2, 6), (4, 7), (3, 8)):
        assert await s.store.merge(n, first, last, ONE) is False
    assert await s.store.merge(n, 7, 8, ONE) is True
    assert await s.store.check() == []


@case()
async def rows_that_are_shared_are_merged_through_their_own_instance_only(s: Scene) -> None:
    """S3, S12."""
    n = await long(s.store)
    done = await forked(s.store, n, 6)
    assert await s.store.merge(done.n, 2, 5, ONE) is False
    assert await s.store.merge(done.n, 5, 7, ONE) is False
    assert await s.store.merge(n, 2, 5, ONE) is True
    for instance in (n, done.n):
        assert (await s.store.read(instance, 1))[0].batch == ONE
    assert ordinals(await s.store.read(done.n, 3)) == [5, 6, 7]
    assert await s.store.check() == []


@case()
async def a_range_in_which_a_fork_parts_is_not_merged(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    await forked(s.store, n, 4)
    for first, last in ((3, 6), (4, 6), (2, 5)):
        assert await s.store.merge(n, first, last, ONE) is False
    assert await s.store.merge(n, 2, 4, ONE) is True
    assert await s.store.merge(n, 5, 7, ONE) is True
    assert await s.store.check() == []


@case()
async def a_range_is_merged_once_the_fork_is_gone(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    done = await forked(s.store, n, 4)
    assert await s.store.merge(n, 3, 6, ONE) is False
    assert await s.store.delete(done.n)
    assert await s.store.merge(n, 3, 6, ONE) is True


@case()
async def a_fork_in_a_merged_range_parts_at_its_end(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    assert await s.store.merge(n, 3, 6, ONE)
    for at in (3, 4, 5, 6):
        assert await s.store.boundary(n, at) == 6
        done = await forked(s.store, n, at, f"at {at}")
        assert (done.offset, done.ordinal) == (6, 7)
        assert ordinals(await s.store.read(done.n, -1)) == [0, 1, 2, 6, 7]
    assert await s.store.boundary(n, 2) == 2
    assert await s.store.check() == []


@case()
async def folds_inside_a_merged_range_are_dropped(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    await s.store.save_checkpoint(n, 0, 2, b"before")
    await s.store.save_checkpoint(n, 0, 4, b"inside")
    await s.store.save_snapshot(n, 3, 1, b"inside")
    assert await s.store.merge(n, 3, 6, ONE)
    assert await s.store.checkpoint(n) == (2, b"before")
    assert await s.store.snapshot(n, 1) is None
    await s.store.save_checkpoint(n, 0, 5, b"late")
    await s.store.save_snapshot(n, 5, 1, b"late")
    assert await s.store.checkpoint(n) == (2, b"before")
    assert await s.store.snapshot(n, 1) is None


@case()
async def folds_at_the_end_of_a_merged_range_are_kept(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    await s.store.save_checkpoint(n, 0, 6, b"end")
    await s.store.save_snapshot(n, 6, 1, b"end")
    assert await s.store.merge(n, 3, 6, ONE)
    assert await s.store.checkpoint(n) == (6, b"end")
    assert await s.store.snapshot(n, 1) == (6, b"end")


@case()
async def a_merged_row_has_the_newest_epoch_of_its_rows(s: Scene) -> None:
    """S4."""
    n = await long(s.store, 2)
    await owned(s.store, n)
    last = (await s.store.append(fact(n, epoch=1))).ordinal
    assert await s.store.merge(n, 2, last, ONE)
    assert [row.epoch for row in await s.store.read(n, -1)] == [0, 0, 1]
    assert await s.store.check() == []


@case()
async def a_merged_row_that_is_too_large_is_refused(s: Scene) -> None:
    """L7."""
    n = await long(s.store)
    await refused(s.store.merge(n, 3, 6, Batch(b"x" * (2 << 20))), UsageError)
    assert len(await s.store.read(n, -1)) == 10


@case(survives=True)
async def a_merged_row_is_kept(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    assert await s.store.merge(n, 3, 6, ONE)
    before = await s.store.read(n, -1)
    store = await s.reopened()
    assert await store.read(n, -1) == before
    assert await store.check() == []
