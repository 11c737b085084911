"""Appending to an instance: who may, at which ordinal, all or nothing."""

import asyncio

from cairn.errors import Conflict, Fenced, NotFound, UsageError
from cairn.runtime.storage.store import Admission, Append, Appended, Batch, Due, Durability
from cairn.testing.contract.case import (
    Scene,
    address,
    born,
    collector,
    creation,
    delta,
    fact,
    log,
    ordinals,
    owned,
    refused,
    request,
)

CASES, case = collector()


@case()
async def an_owner_appends_at_its_epoch(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    assert await s.store.append(fact(n, b'["a"]')) == Appended(2, 1)
    assert await log(s.store, n) == [b"[0]", b"[1]", b'["a"]']


@case()
async def an_owner_of_an_older_epoch_is_fenced(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    error = await refused(s.store.append(fact(n, epoch=0)), Fenced)
    assert "1" in str(error) and "0" in str(error)
    assert len(await s.store.read(n, -1)) == 3


@case()
async def an_owner_of_an_epoch_that_never_was_is_fenced(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await refused(s.store.append(fact(n, epoch=5)), Fenced)


@case()
async def an_owner_of_no_instance_is_fenced(s: Scene) -> None:
    """S4."""
    await refused(s.store.append(fact(999)), Fenced)


@case()
async def a_request_to_no_instance_is_not_found(s: Scene) -> None:
    """S12."""
    await refused(s.store.append(fact(999, epoch=None)), NotFound)


@case()
async def a_delta_of_an_older_epoch_is_fenced(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await refused(s.store.append(delta(n, epoch=0)), Fenced)


@case()
async def a_fenced_append_sets_no_alarm(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await refused(s.store.append(fact(n, epoch=0, due=(Due("x", 1.0),))), Fenced)
    assert await s.store.due(["toy"], 100.0) == []


@case()
async def a_fenced_append_takes_no_ordinal(s: Scene) -> None:
    """S2, S4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await refused(s.store.append(fact(n, epoch=0)), Fenced)
    assert await s.store.append(fact(n, epoch=1)) == Appended(3, 2)


@case()
async def a_request_needs_no_epoch(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    assert (await s.store.append(fact(n, epoch=None))).ordinal == 3


@case()
async def a_request_is_stored_under_the_current_epoch(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await s.store.append(fact(n, epoch=None))
    assert [row.epoch for row in await s.store.read(n, -1)] == [0, 0, 1, 1]


@case()
async def an_owner_learns_of_a_request_by_the_previous_ordinal(s: Scene) -> None:
    """S11."""
    n = (await born(s.store)).n
    mine = await s.store.append(fact(n))
    await s.store.append(fact(n, epoch=None))
    next = await s.store.append(fact(n))
    assert next.prev == mine.ordinal + 1


@case()
async def a_refused_neighbour_does_not_harm(s: Scene) -> None:
    """L7, S12."""
    one, two = (await born(s.store, "one")).n, (await born(s.store, "two")).n
    await owned(s.store, two)
    tries = [fact(one), fact(two, epoch=0), fact(one), fact(999), fact(two, epoch=1), fact(888, epoch=None)]
    done = await asyncio.gather(*(s.store.append(a) for a in tries), return_exceptions=True)
    kinds = [type(d).__name__ for d in done]
    assert kinds == ["Appended", "Fenced", "Appended", "Fenced", "Appended", "NotFound"], done


@case()
async def appends_at_once_are_in_order_of_arrival(s: Scene) -> None:
    """S2, S11."""
    n = (await born(s.store)).n
    done = await asyncio.gather(*(s.store.append(fact(n, b"[%d]" % i)) for i in range(100)))
    assert [d.ordinal for d in done] == list(range(2, 102))
    assert [d.prev for d in done] == list(range(1, 101))
    assert (await log(s.store, n))[2:] == [b"[%d]" % i for i in range(100)]


@case()
async def appends_to_many_instances_at_once_keep_to_their_own(s: Scene) -> None:
    """S2, S12."""
    ns = [(await born(s.store, f"i{i}")).n for i in range(12)]
    await asyncio.gather(*(s.store.append(fact(n, b"[%d,%d]" % (n, i))) for i in range(25) for n in ns))
    for n in ns:
        assert (await log(s.store, n))[2:] == [b"[%d,%d]" % (n, i) for i in range(25)]


@case()
async def facts_and_deltas_share_one_order(s: Scene) -> None:
    """S2."""
    n = (await born(s.store)).n
    done = await asyncio.gather(*(s.store.append((fact if i % 3 else delta)(n, b"[%d]" % i)) for i in range(60)))
    assert [d.ordinal for d in done] == list(range(2, 62))


@case()
async def a_delta_is_read_once_appended(s: Scene) -> None:
    """S10."""
    n = (await born(s.store)).n
    done = await s.store.append(delta(n, b'["d"]'))
    assert [row.batch.records for row in await s.store.read(n, done.prev)] == [b'["d"]']


@case()
async def ordinals_go_on_beyond_a_reserved_block(s: Scene) -> None:
    """S2, S3."""
    n = (await born(s.store)).n
    for i in range(0, 2_300, 100):
        await asyncio.gather(*(s.store.append(delta(n, b"[%d]" % (i + j))) for j in range(100)))
    found = await s.store.instance(n)
    assert found is not None
    assert (found.head, found.head <= found.reserved) == (2_301, True)
    rows = await s.store.read(n, -1, limit=5_000)
    assert ordinals(rows) == list(range(2_302))


@case()
async def content_is_stored_as_it_comes(s: Scene) -> None:
    """S3, S14."""
    n = (await born(s.store)).n
    for records in (b"", b"[]", b"\0\xff\xfe not json", "ü".encode(), bytes(range(256)) * 40):
        batch = Batch(records, records[::-1], 7)
        done = await s.store.append(Append(n, batch, 0))
        [row] = await s.store.read(n, done.prev)
        assert row.batch == batch


@case()
async def a_large_batch_is_stored_whole(s: Scene) -> None:
    """S2."""
    n = (await born(s.store)).n
    batch = Batch(b"r" * 1_000_000, b"c" * 1_000_000)
    done = await s.store.append(Append(n, batch, 0))
    [row] = await s.store.read(n, done.prev)
    assert row.batch == batch


@case()
async def a_batch_too_large_for_a_row_is_refused_with_advice(s: Scene) -> None:
    """S14."""
    n = (await born(s.store)).n
    error = await refused(s.store.append(fact(n, b"r" * ((1 << 20) + 1))), UsageError)
    assert "put_blob" in str(error)
    assert len(await s.store.read(n, -1)) == 2


@case()
async def large_batches_at_once_are_all_stored(s: Scene) -> None:
    """S2."""
    n = (await born(s.store)).n
    await asyncio.gather(*(s.store.append(fact(n, b"%d" % i * 400_000)) for i in range(8)))
    rows = await s.store.read(n, 1, bytes_max=100 << 20)
    assert [row.batch.records[:1] for row in rows] == [b"%d" % i for i in range(8)]


@case()
async def a_request_with_a_known_key_answers_the_first_place(s: Scene) -> None:
    """S6."""
    n = (await born(s.store)).n
    ask = Append(n, Batch(b"[5]"), admission=Admission("k", "f", b"d"))
    assert await s.store.append(ask) == Appended(2, 1, fiber="f")
    again = Append(n, Batch(b"[5]"), admission=Admission("k", "g", b"d"))
    assert await s.store.append(again) == Appended(2, 1, duplicate=True, fiber="f")


@case()
async def a_request_with_a_known_key_and_another_body_is_a_conflict(s: Scene) -> None:
    """S6."""
    n = (await born(s.store)).n
    await s.store.append(Append(n, Batch(b"[5]"), admission=Admission("k", "f", b"d")))
    await refused(s.store.append(Append(n, Batch(b"[6]"), admission=Admission("k", "f", b"e"))), Conflict)


@case()
async def keys_of_admit_and_append_are_the_same_keys(s: Scene) -> None:
    """S6."""
    first = await s.store.admit(address(), creation(), request(b"[1]", "k", b"d", "f"))
    again = await s.store.append(Append(first.n, Batch(b"[1]"), admission=Admission("k", "g", b"d")))
    assert (again.duplicate, again.fiber, again.ordinal) == (True, "f", first.ordinal)


@case()
async def a_cancelled_append_that_was_handed_over_happens(s: Scene) -> None:
    """S2."""
    n = (await born(s.store)).n
    task = asyncio.create_task(s.store.append(fact(n, b'["handed over"]')))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await s.store.append(fact(n, b'["next"]'))
    assert (await log(s.store, n))[2:] == [b'["handed over"]', b'["next"]']


@case()
async def every_row_names_the_one_before(s: Scene) -> None:
    """S2."""
    n = (await born(s.store)).n
    for i in range(5):
        await s.store.append(fact(n, epoch=None if i % 2 else 0))
    rows = await s.store.read(n, -1)
    assert [row.prev for row in rows] == [-1, *ordinals(rows)[:-1]]


@case(survives=True)
async def the_log_goes_on_where_it_was(s: Scene) -> None:
    """S1, S2."""
    n = (await born(s.store)).n
    await s.store.append(fact(n))
    store = await s.reopened()
    assert await store.append(fact(n)) == Appended(3, 2)


@case(survives=True)
async def another_boot_goes_on_above_everything_reserved(s: Scene) -> None:
    """S2, S3."""
    n = (await born(s.store)).n
    found = await s.store.instance(n)
    assert found is not None
    store = await s.reopened("second boot")
    done = await store.append(fact(n))
    assert (done.prev, done.ordinal) == (1, found.reserved + 1)
    assert ordinals(await store.read(n, -1)) == [0, 1, done.ordinal]


@case(survives=True)
async def another_boot_skips_only_once(s: Scene) -> None:
    """S2."""
    n = (await born(s.store)).n
    store = await s.reopened("second boot")
    done = await store.append(delta(n))
    assert await store.append(delta(n)) == Appended(done.ordinal + 1, done.ordinal)


@case(survives=True)
async def a_request_skips_under_another_boot_too(s: Scene) -> None:
    """S2, S3."""
    first = await born(s.store)
    store = await s.reopened("second boot")
    done = await store.admit(address(), creation(), request())
    assert (done.ordinal, done.offset) == (1_000, first.ordinal)


@case(survives=True)
async def each_boot_skips(s: Scene) -> None:
    """S2, S3."""
    n = (await born(s.store)).n
    await s.store.close()
    last = -1
    for boot in ("b", "c", "d"):
        store = await s.another(boot)
        done = await store.append(fact(n))
        found = await store.instance(n)
        assert found is not None and done.ordinal > last and found.reserved >= done.ordinal
        last = found.reserved
        await store.close()
    store = await s.another("d")
    assert await store.check() == []


@case(shared=True)
async def two_stores_append_without_gap_or_duplicate(s: Scene) -> None:
    """S2, S4."""
    other = await s.another()
    n = (await born(s.store)).n

    async def work(store: object, name: bytes) -> list[int]:
        assert store is s.store or store is other
        target = s.store if store is s.store else other
        return [(await target.append(Append(n, Batch(b"%s%d" % (name, i))))).ordinal for i in range(40)]

    mine, theirs = await asyncio.gather(work(s.store, b"a"), work(other, b"b"))
    assert sorted(mine + theirs) == list(range(2, 82))
    assert ordinals(await s.store.read(n, -1)) == list(range(82))


@case()
async def a_fact_and_a_delta_differ_in_nothing_a_reader_sees(s: Scene) -> None:
    """S3."""
    n = (await born(s.store)).n
    await s.store.append(Append(n, Batch(b"[1]"), 0, Durability.FACT))
    await s.store.append(Append(n, Batch(b"[1]"), 0, Durability.DELTA))
    one, two = await s.store.read(n, 1)
    assert (one.batch, one.epoch, one.merged_from) == (two.batch, two.epoch, two.merged_from)
