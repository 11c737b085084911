"""Deletion: gone for everybody at once; what a fork shares stays for the fork, and for nobody else."""

import asyncio

from cairn.errors import Fenced, NotFound
from cairn.runtime.storage.store import Admission, Batch, Due, Producer
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
from cairn.testing.contract.forking import forked, long

CASES, case = collector()


async def is_gone(s: Scene, n: int) -> None:
    assert await s.store.instance(n) is None
    assert n not in [row.n for row in await s.store.instances()]
    assert n not in [row.n for row in await s.store.instances(newest_first=True)]
    assert await s.store.read(n, -1) == []
    assert await s.store.checkpoint(n) is None
    assert await s.store.snapshot(n, 1) is None
    assert n not in [row.n for row in await s.store.due(["toy", ""], 1e12)]
    await refused(s.store.changed(n, -1, 0), NotFound)
    await refused(s.store.boundary(n, 1), NotFound)


@case()
async def a_deleted_instance_is_gone_with_all_it_had(s: Scene) -> None:
    """S12."""
    n = (await s.store.admit(address(), creation(), request(key="k", due=(Due("wake", 5.0),)))).n
    name = await s.store.put_blob("default", b"attached")
    await s.store.append(fact(n, epoch=None, blobs=(name,), producer=Producer("p", 0, 0)))
    await s.store.save_checkpoint(n, 0, 2, b"fold")
    await s.store.save_snapshot(n, 2, 1, b"seen")
    assert await s.store.delete(n) is True
    await is_gone(s, n)
    assert await s.store.find(address()) is None
    s.subject.clock.ahead += 1_000.0
    assert await s.store.collect_blobs(10.0) == 1
    info = await s.store.info()
    assert (info.instances, info.rows) == (0, 0)
    assert await s.store.check() == []


@case()
async def content_that_only_a_deleted_instance_refers_to_goes_with_it(s: Scene) -> None:
    """S12."""
    names = [
        await s.store.put_blob("default", data) for data in (b"its own", b"x" * 2_000_000, b"shared", b"just stored again")
    ]
    n, other = await long(s.store, 2), await long(s.store, 2, "two")
    await s.store.append(fact(n, epoch=None, blobs=tuple(names)))
    await s.store.append(fact(other, epoch=None, blobs=(names[2],)))
    s.subject.clock.ahead += 10_000.0
    await s.store.put_blob("default", b"just stored again")
    assert await s.store.delete(n)
    for name in names[:2]:
        await refused(s.store.get_blob("default", name), NotFound)
    assert await s.store.get_blob("default", names[2]) == b"shared"
    assert await s.store.get_blob("default", names[3]) == b"just stored again"
    assert await s.store.check() == []


@case()
async def what_is_not_there_cannot_be_deleted_and_twice_is_once(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    assert await s.store.delete(999) is False
    assert [await s.store.delete(n), await s.store.delete(n)] == [True, False]


@case()
async def of_many_deletions_at_once_one_is_true(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    assert sorted(await asyncio.gather(*(s.store.delete(n) for _ in range(4)))) == [False, False, False, True]


@case()
async def the_owner_of_a_deleted_instance_is_fenced(s: Scene) -> None:
    """S4."""
    n = await long(s.store)
    await owned(s.store, n)
    assert await s.store.delete(n)
    await refused(s.store.append(fact(n, epoch=1)), Fenced)
    await refused(s.store.append(delta(n, epoch=1)), Fenced)
    assert await s.store.release(n, 1, Batch(b"[9]"), [Due("wake", 1.0)]) is True
    await s.store.save_checkpoint(n, 1, 2, b"zombie's")
    await is_gone(s, n)


@case()
async def a_request_to_a_deleted_instance_is_not_found(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    assert await s.store.delete(n)
    await refused(s.store.append(fact(n, epoch=None)), NotFound)
    assert await s.store.claim(n, "w1", expected_epoch=0, make=lambda epoch: Batch(b"[]")) is None


@case()
async def a_deleted_address_may_have_a_new_life(s: Scene) -> None:
    """S4, S6, S12."""
    first = await s.store.admit(address(), creation("uid-1"), request(key="k"))
    await owned(s.store, first.n)
    assert await s.store.delete(first.n)
    second = await s.store.admit(address(), creation("uid-2"), request(key="k", digest=b"another body"))
    assert second.created and not second.duplicate and second.n > first.n and second.uid == "uid-2"
    assert len(await log(s.store, second.n)) == 2
    await refused(s.store.append(fact(first.n, epoch=1)), Fenced)
    await refused(s.store.append(fact(second.n, epoch=1)), Fenced)
    assert len(await log(s.store, second.n)) == 2


@case()
async def the_number_of_a_deleted_instance_is_never_given_again(s: Scene) -> None:
    """S4."""
    seen = []
    for _ in range(3):
        seen.append((await born(s.store)).n)
        assert await s.store.delete(seen[-1])
    done = await forked(s.store, await long(s.store), 2)
    assert len({*seen, done.n}) == 4 and done.n > max(seen)


@case()
async def who_waits_for_a_deleted_instance_is_told(s: Scene) -> None:
    """L5."""
    n, other = await long(s.store), (await born(s.store, "two")).n
    waiting = [asyncio.create_task(s.store.changed(n, 9)) for _ in range(3)]
    beside = asyncio.create_task(s.store.changed(other, 1))
    await asyncio.sleep(0)
    assert await s.store.delete(n)
    for task in waiting:
        await refused(task, NotFound)
    assert not beside.done()
    await s.store.append(fact(other, epoch=None))
    assert await beside == 2


@case(shared=True)
async def who_waits_in_another_store_is_told(s: Scene) -> None:
    """L5."""
    other = await s.another()
    n = await long(s.store)
    waiting = asyncio.create_task(other.changed(n, 9))
    await asyncio.sleep(0)
    assert await s.store.delete(n)
    await refused(waiting, NotFound)
    assert await other.read(n, -1) == []


@case()
async def a_deleted_source_stays_for_its_fork_only(s: Scene) -> None:
    """S3, S12."""
    n = await long(s.store)
    done = await forked(s.store, n, 4)
    before = await s.store.read(done.n, -1)
    assert await s.store.delete(n) is True
    await is_gone(s, n)
    assert await s.store.find(address()) is None
    assert await s.store.read(done.n, -1) == before
    assert (await s.store.append(fact(done.n, epoch=None))).ordinal == 6
    await refused(s.store.append(fact(n, epoch=0)), Fenced)
    await refused(s.store.append(fact(n, epoch=None)), NotFound)
    await refused(forked(s.store, n, 2, "late"), NotFound)
    assert await s.store.claim(n, "w1", expected_epoch=0, make=lambda epoch: Batch(b"[]")) is None
    assert await s.store.merge(n, 1, 3, Batch(b"[]")) is False
    assert await s.store.delete(n) is False
    assert await s.store.check() == []


@case()
async def of_a_deleted_source_only_what_is_shared_is_kept(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    await forked(s.store, n, 2, "short")
    far = await forked(s.store, n, 5, "long")
    assert await s.store.delete(n)
    assert (await s.store.info()).rows == 6 + 2
    assert await s.store.delete(far.n)
    assert (await s.store.info()).rows == 3 + 1
    assert await s.store.check() == []


@case()
async def with_the_last_fork_goes_its_deleted_source(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    one = await forked(s.store, n, 4, "one fork")
    two = await forked(s.store, one.n, 5, "two forks")
    assert await s.store.delete(n) and await s.store.delete(one.n)
    assert (await s.store.info()).instances == 1
    assert ordinals(await s.store.read(two.n, -1)) == list(range(7))
    assert await s.store.check() == []
    assert await s.store.delete(two.n)
    info = await s.store.info()
    assert (info.instances, info.rows) == (0, 0)
    assert await s.store.check() == []


@case()
async def a_source_that_is_not_deleted_stays_when_its_fork_goes(s: Scene) -> None:
    """S3."""
    n = await long(s.store)
    done = await forked(s.store, n, 4)
    before = await s.store.read(n, -1)
    assert await s.store.delete(done.n)
    assert await s.store.read(n, -1) == before
    await is_gone(s, done.n)


@case()
async def the_address_of_a_kept_source_is_free(s: Scene) -> None:
    """S12."""
    n = await long(s.store)
    done = await forked(s.store, n, 4)
    assert await s.store.delete(n)
    again = await s.store.admit(address(), creation("uid-2"), request(b'["new life"]'))
    assert again.created and again.n > done.n
    assert (await log(s.store, again.n))[1:] == [b'["new life"]']
    assert len(await log(s.store, done.n)) == 6
    assert await s.store.delete(again.n) and await s.store.delete(done.n)
    assert await s.store.check() == []


@case()
async def a_deletion_beside_appends_leaves_nothing(s: Scene) -> None:
    """S2, S4."""
    n = await long(s.store)
    await owned(s.store, n)
    appends = [s.store.append(fact(n, epoch=1)) for _ in range(10)]
    done = await asyncio.gather(*appends, s.store.delete(n), s.store.append(fact(n, epoch=1)), return_exceptions=True)
    assert done[10] is True and isinstance(done[11], Fenced)
    await is_gone(s, n)
    assert await s.store.check() == []


@case()
async def an_idempotency_key_of_a_deleted_life_is_new(s: Scene) -> None:
    """S6."""
    first = await born(s.store)
    await s.store.append(fact(first.n, epoch=None, admission=Admission("k", "f", b"d")))
    assert await s.store.delete(first.n)
    second = await born(s.store)
    again = await s.store.append(fact(second.n, epoch=None, admission=Admission("k", "g", b"other")))
    assert again.fiber == "g" and not again.duplicate


@case(survives=True)
async def what_was_deleted_stays_deleted(s: Scene) -> None:
    """S1."""
    n = await long(s.store)
    done = await forked(s.store, n, 4)
    assert await s.store.delete(n)
    store = await s.reopened()
    assert await store.instance(n) is None and await store.find(address()) is None
    assert len(await store.read(done.n, -1)) == 6
    assert await store.check() == []
