"""Forks: a log that begins with another's rows, read as one log, and otherwise nobody's but its own."""

import asyncio

from cairn.errors import Conflict, NotFound, UsageError
from cairn.runtime.storage.store import Address, Admission, Append, Batch, Creation, Due, Forked, Producer, Store
from cairn.testing.contract.case import Scene, address, born, collector, creation, fact, log, ordinals, owned, refused, request

CASES, case = collector()


async def long(store: Store, count: int = 8, id: str = "one") -> int:
    """An instance with ordinals 0 to `count` + 1, each row telling its own."""
    n = (await store.admit(address(id), creation(f"uid of {id}", b"[0]"), request(b"[1]"))).n
    for i in range(count):
        await store.append(fact(n, b"[%d]" % (i + 2), epoch=None))
    return n


def parting(uid: str = "uid-f", records: bytes = b'["forked"]', at: float = 200.0) -> Creation:
    return Creation(uid, f"incarnation of {uid}", Batch(records), at)


async def forked(store: Store, source: int, at: int, id: str = "fork") -> Forked:
    return await store.fork(source, at, address(id), parting(f"uid of {id}"))


@case()
async def a_fork_begins_with_the_shared_rows_and_then_its_own(s: Scene) -> None:
    """S2, S3."""
    n = await long(s.store)
    done = await s.store.fork(n, 4, address("fork"), parting())
    assert done == Forked(n + 1, "uid-f", "incarnation of uid-f", 4, 5)
    assert await log(s.store, done.n) == [b"[0]", b"[1]", b"[2]", b"[3]", b"[4]", b'["forked"]']
    rows = await s.store.read(done.n, -1)
    assert [(row.ordinal, row.prev) for row in rows] == [(i, i - 1) for i in range(6)]
    assert rows[:5] == (await s.store.read(n, -1))[:5]


@case()
async def a_forks_row_says_where_it_comes_from(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    done = await forked(s.store, n, 4)
    found = await s.store.find(address("fork"))
    assert found is not None and found == await s.store.instance(done.n)
    assert (found.uid, found.incarnation, found.created_at) == ("uid of fork", "incarnation of uid of fork", 200.0)
    assert (found.head, found.owner, found.forked_from, found.fork_offset) == (5, None, n, 4)
    assert found.reserved >= found.head
    source = await s.store.instance(n)
    assert source is not None and (source.head, source.forked_from, source.fork_offset) == (9, None, None)
    assert [row.n for row in await s.store.instances()] == [n, done.n]


@case()
async def a_fork_and_its_source_go_their_own_ways(s: Scene) -> None:
    """S3, S12."""
    n = await long(s.store, 4)
    done = await forked(s.store, n, 3)
    here = await s.store.append(fact(done.n, b'["here"]', epoch=None))
    there = await s.store.append(fact(n, b'["there"]', epoch=None))
    assert (here.ordinal, here.prev) == (5, 4) and (there.ordinal, there.prev) == (6, 5)
    assert (await log(s.store, done.n))[4:] == [b'["forked"]', b'["here"]']
    assert (await log(s.store, n))[4:] == [b"[4]", b"[5]", b'["there"]']


@case()
async def reading_a_fork_at_each_offset_shows_the_rest(s: Scene) -> None:
    """S3, L5."""
    done = await forked(s.store, await long(s.store), 4)
    for i in range(4):
        await s.store.append(fact(done.n, b"[own %d]" % i, epoch=None))
    whole = await s.store.read(done.n, -1)
    assert ordinals(whole) == list(range(10))
    for i, row in enumerate(whole):
        assert await s.store.read(done.n, row.ordinal) == whole[i + 1 :]
    assert await s.store.read(done.n, 500) == []


@case()
async def a_read_of_a_fork_is_bounded_over_its_beginning(s: Scene) -> None:
    """L5."""
    done = await forked(s.store, await long(s.store), 4)
    await s.store.append(fact(done.n, b"[own]", epoch=None))
    whole = await s.store.read(done.n, -1)
    for limit in range(1, 8):
        for after in range(-1, 6):
            assert await s.store.read(done.n, after, limit=limit) == whole[after + 1 : after + 1 + limit]
    assert ordinals(await s.store.read(done.n, 2, bytes_max=10)) == [3, 4]
    assert ordinals(await s.store.read(done.n, 2, bytes_max=1)) == [3]


@case()
async def a_fork_of_a_fork_reads_through_both(s: Scene) -> None:
    """S2, S3."""
    n = await long(s.store)
    one = await forked(s.store, n, 4, "one fork")
    for i in range(3):
        await s.store.append(fact(one.n, b"[one %d]" % i, epoch=None))
    two = await forked(s.store, one.n, 6, "two forks")
    await s.store.append(fact(two.n, b"[two]", epoch=None))
    assert ordinals(await s.store.read(two.n, -1)) == list(range(9))
    assert (await log(s.store, two.n))[4:] == [b"[4]", b'["forked"]', b"[one 0]", b'["forked"]', b"[two]"]
    whole = await s.store.read(two.n, -1)
    for after in range(-1, 9):
        assert await s.store.read(two.n, after) == whole[after + 1 :]
        assert await s.store.read(two.n, after, limit=2) == whole[after + 1 : after + 3]
    assert await s.store.check() == []


@case()
async def a_fork_of_a_fork_within_what_it_shares_parts_from_the_source(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    one = await forked(s.store, n, 6, "one fork")
    two = await forked(s.store, one.n, 3, "two forks")
    assert (await log(s.store, two.n)) == [b"[0]", b"[1]", b"[2]", b"[3]", b'["forked"]']
    assert await s.store.delete(one.n)
    assert len(await log(s.store, two.n)) == 5
    found = await s.store.instance(two.n)
    assert found is not None and (found.forked_from, found.fork_offset) == (n, 3)


@case()
async def a_fork_at_the_head_shares_everything(s: Scene) -> None:
    """S3."""
    done = await forked(s.store, await long(s.store, 2), 3)
    assert (done.offset, done.ordinal) == (3, 4)
    assert len(await log(s.store, done.n)) == 5


@case()
async def a_fork_where_no_row_is_is_not_found(s: Scene) -> None:
    """S2."""
    n = await long(s.store, 2)
    for at in (-1, 4, 500):
        await refused(forked(s.store, n, at), NotFound)
    await refused(forked(s.store, 999, 0), NotFound)
    assert await s.store.find(address("fork")) is None


@case(survives=True)
async def a_fork_within_a_skipped_range_is_not_found(s: Scene) -> None:
    """S2, S3."""
    n = await long(s.store, 2)
    store = await s.reopened("second boot")
    last = await store.append(fact(n))
    await refused(forked(store, n, 10), NotFound)
    assert await store.boundary(n, 10) == 3
    done = await forked(store, n, last.ordinal)
    assert ordinals(await store.read(done.n, -1)) == [0, 1, 2, 3, last.ordinal, last.ordinal + 1]
    early = await forked(store, n, await store.boundary(n, last.ordinal - 1), "early")
    assert ordinals(await store.read(early.n, -1)) == [0, 1, 2, 3, 4]
    for after in (3, 10, last.ordinal - 1):
        assert ordinals(await store.read(done.n, after)) == [last.ordinal, last.ordinal + 1]


@case(survives=True)
async def a_fork_goes_on_above_what_is_reserved_in_another_boot(s: Scene) -> None:
    """S3."""
    done = await forked(s.store, await long(s.store, 2), 2)
    found = await s.store.instance(done.n)
    store = await s.reopened("second boot")
    appended = await store.append(fact(done.n, epoch=None))
    assert found is not None and (appended.prev, appended.ordinal) == (done.ordinal, found.reserved + 1)
    assert ordinals(await store.read(done.n, -1)) == [0, 1, 2, 3, appended.ordinal]


@case()
async def a_fork_to_an_address_that_is_taken_is_a_conflict(s: Scene) -> None:
    """S6, S12."""
    n = await long(s.store)
    await born(s.store, "two")
    await refused(s.store.fork(n, 3, address("two"), parting()), Conflict)
    await refused(s.store.fork(n, 3, address("one"), parting()), Conflict)
    assert len(await s.store.instances()) == 2


@case()
async def of_many_forks_to_one_address_one_is_made(s: Scene) -> None:
    """S6."""
    n = await long(s.store)
    done = await asyncio.gather(*(forked(s.store, n, 3) for _ in range(5)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["Conflict"] * 4 + ["Forked"]


@case()
async def a_fork_stays_with_its_tenant(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    await refused(s.store.fork(n, 3, Address("toy", "fork", "other"), parting()), UsageError)
    assert await s.store.instances(tenant="other") == []


@case()
async def a_fork_inherits_no_key_no_producer_and_no_alarm(s: Scene) -> None:
    """S5, S6, S11."""
    first = await s.store.admit(address(), creation(), request(key="k", due=(Due("wake", 5.0),)))
    await s.store.append(fact(first.n, epoch=None, producer=Producer("p", 3, 0)))
    done = await forked(s.store, first.n, 2)
    assert [row.n for row in await s.store.due(["toy"], 10.0)] == [first.n]
    again = await s.store.append(Append(done.n, Batch(b"[1]"), admission=Admission("k", "f2", b"another body")))
    assert not again.duplicate and again.fiber == "f2"
    written = await s.store.append(fact(done.n, epoch=None, producer=Producer("p", 0, 0)))
    assert not written.duplicate


@case()
async def a_fork_has_no_owner_and_its_sources_owner_cannot_write_to_it(s: Scene) -> None:
    """S4, S12."""
    n = await long(s.store)
    await owned(s.store, n, "w1")
    await owned(s.store, n, "w2", expected=1)
    head = (await s.store.append(fact(n, b'["owner"]', epoch=2))).ordinal
    done = await forked(s.store, n, head)
    found = await s.store.instance(done.n)
    assert found is not None and found.owner is None
    epochs = [row.epoch for row in await s.store.read(done.n, -1)]
    assert epochs == sorted(epochs) and epochs[-1] == found.epoch
    assert await s.store.claim(done.n, "w1", expected_epoch=found.epoch, make=lambda epoch: Batch(b"[%d]" % epoch)) is not None
    assert (await s.store.append(fact(n, epoch=2))).prev == head
    assert await s.store.check() == []


@case()
async def a_fork_uses_the_checkpoints_of_what_it_shares(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    await s.store.save_checkpoint(n, 0, 3, b"three")
    await s.store.save_checkpoint(n, 0, 7, b"seven")
    done = await forked(s.store, n, 5)
    assert await s.store.checkpoint(done.n) == (3, b"three")
    assert await s.store.checkpoint(done.n, 2) is None
    await s.store.save_checkpoint(done.n, 0, 6, b"own")
    assert await s.store.checkpoint(done.n) == (6, b"own")
    assert await s.store.checkpoint(done.n, 5) == (3, b"three")
    deeper = await forked(s.store, done.n, 6, "deeper")
    assert await s.store.checkpoint(deeper.n) == (6, b"own")


@case()
async def a_fork_saves_no_checkpoint_of_a_row_it_shares(s: Scene) -> None:
    """S3."""
    done = await forked(s.store, await long(s.store), 5)
    await s.store.save_checkpoint(done.n, 0, 4, b"not its own")
    assert await s.store.checkpoint(done.n) is None


@case()
async def waiting_for_a_fork_ends_when_it_is_appended_to(s: Scene) -> None:
    """L5."""
    n = await long(s.store)
    done = await forked(s.store, n, 4)
    waiting = asyncio.create_task(s.store.changed(done.n, done.ordinal))
    await s.store.append(fact(n, epoch=None))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await s.store.append(fact(done.n, epoch=None))
    assert await waiting == done.ordinal + 1


@case()
async def a_fork_keeps_the_content_its_beginning_refers_to(s: Scene) -> None:
    """S1, S12."""
    early, late = await s.store.put_blob("default", b"early"), await s.store.put_blob("default", b"late")
    n = await long(s.store, 2)
    await s.store.append(fact(n, epoch=None, blobs=(early,)))
    await s.store.append(fact(n, epoch=None, blobs=(early, late)))
    done = await forked(s.store, n, 4)
    assert await s.store.delete(n)
    s.subject.clock.ahead += 1_000.0
    assert await s.store.collect_blobs(10.0) == 1
    assert await s.store.get_blob("default", early) == b"early"
    await refused(s.store.get_blob("default", late), NotFound)
    assert await s.store.delete(done.n)
    assert await s.store.collect_blobs(10.0) == 1


@case()
async def the_boundary_is_the_last_row_at_or_before(s: Scene) -> None:
    """S3."""
    n = await long(s.store, 3)
    assert [await s.store.boundary(n, at) for at in (0, 3, 4, 5, 99)] == [0, 3, 4, 4, 4]
    await refused(s.store.boundary(n, -1), NotFound)
    await refused(s.store.boundary(999, 0), NotFound)
    done = await forked(s.store, n, 2)
    await s.store.append(fact(done.n, epoch=None))
    assert [await s.store.boundary(done.n, at) for at in (0, 2, 3, 4, 99)] == [0, 2, 3, 4, 4]


@case(survives=True)
async def a_fork_is_kept(s: Scene) -> None:
    """S1."""
    done = await forked(s.store, await long(s.store), 4)
    before = await s.store.read(done.n, -1)
    store = await s.reopened()
    assert await store.read(done.n, -1) == before
    assert await store.check() == []


@case(shared=True)
async def a_fork_is_read_through_another_store(s: Scene) -> None:
    """L5."""
    other = await s.another()
    n = await long(s.store)
    done = await forked(other, n, 4)
    assert await s.store.read(done.n, -1) == await other.read(done.n, -1)
    assert len(await s.store.read(done.n, -1)) == 6


@case()
async def forks_and_appends_at_once_share_whole_prefixes(s: Scene) -> None:
    """S2, S3."""
    n = await long(s.store)

    async def append(i: int) -> None:
        await s.store.append(fact(n, b"[more %d]" % i, epoch=None))

    async def fork(i: int) -> Forked:
        found = await s.store.instance(n)
        assert found is not None
        return await forked(s.store, n, found.head, f"fork {i}")

    done = await asyncio.gather(*(step(i) for i in range(10) for step in (append, fork)))
    whole = await s.store.read(n, -1)
    for one in done:
        if isinstance(one, Forked):
            assert (await s.store.read(one.n, -1))[:-1] == whole[: one.offset + 1]
    assert await s.store.check() == []
