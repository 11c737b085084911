"""Checkpoints and blobs: folds kept for speed, content kept while something refers to it."""

import asyncio
from hashlib import sha256

from cairn.errors import NotFound
from cairn.runtime.storage.store import Address
from cairn.testing.contract.case import Scene, address, born, collector, creation, fact, log, owned, refused, request

CASES, case = collector()


async def long(s: Scene, count: int = 10) -> int:
    n = (await born(s.store)).n
    for _ in range(count):
        await s.store.append(fact(n))
    return n


@case()
async def there_is_no_checkpoint_before_one_is_saved(s: Scene) -> None:
    """S3."""
    assert await s.store.checkpoint((await born(s.store)).n) is None
    assert await s.store.checkpoint(999) is None


@case()
async def a_checkpoint_is_read_as_saved(s: Scene) -> None:
    """S3."""
    n = await long(s)
    state = bytes(range(256)) * 4_000
    await s.store.save_checkpoint(n, 0, 5, state)
    assert await s.store.checkpoint(n) == (5, state)


@case()
async def the_newest_checkpoint_at_or_before_an_ordinal_is_read(s: Scene) -> None:
    """S3."""
    n = await long(s)
    await s.store.save_checkpoint(n, 0, 3, b"three")
    await s.store.save_checkpoint(n, 0, 7, b"seven")
    assert await s.store.checkpoint(n) == (7, b"seven")
    assert await s.store.checkpoint(n, 7) == (7, b"seven")
    assert await s.store.checkpoint(n, 6) == (3, b"three")
    assert await s.store.checkpoint(n, 2) is None


@case()
async def the_two_newest_checkpoints_are_kept(s: Scene) -> None:
    """S3."""
    n = await long(s)
    for ordinal in (2, 4, 6, 8):
        await s.store.save_checkpoint(n, 0, ordinal, b"%d" % ordinal)
    assert await s.store.checkpoint(n, 7) == (6, b"6")
    assert await s.store.checkpoint(n, 5) is None


@case()
async def a_checkpoint_saved_again_replaces(s: Scene) -> None:
    """S3."""
    n = await long(s)
    await s.store.save_checkpoint(n, 0, 3, b"old")
    await s.store.save_checkpoint(n, 0, 3, b"new")
    assert await s.store.checkpoint(n) == (3, b"new")


@case()
async def a_fenced_checkpoint_is_not_saved(s: Scene) -> None:
    """S4."""
    n = await long(s)
    await owned(s.store, n)
    await s.store.save_checkpoint(n, 0, 3, b"zombie's")
    assert await s.store.checkpoint(n) is None


@case()
async def a_checkpoint_beyond_the_log_is_not_saved(s: Scene) -> None:
    """S2."""
    n = await long(s, 2)
    await s.store.save_checkpoint(n, 0, 50, b"early")
    assert await s.store.checkpoint(n) is None


@case()
async def checkpoints_belong_to_their_instance(s: Scene) -> None:
    """S12."""
    one, two = (await born(s.store, "one")).n, (await born(s.store, "two")).n
    await s.store.save_checkpoint(one, 0, 1, b"one's")
    assert await s.store.checkpoint(two) is None


@case(survives=True)
async def a_checkpoint_is_kept(s: Scene) -> None:
    """S3."""
    n = await long(s)
    await s.store.save_checkpoint(n, 0, 5, b"state")
    store = await s.reopened()
    assert await store.checkpoint(n) == (5, b"state")


@case()
async def content_is_named_by_its_hash(s: Scene) -> None:
    """S14."""
    assert await s.store.put_blob("t", b"hello") == "sha256:" + sha256(b"hello").hexdigest()


@case()
async def content_of_any_size_is_read_as_stored(s: Scene) -> None:
    """S14."""
    for size in (0, 1, 262_143, 262_144, 262_145, 1_500_000):
        data = (b"%d." % size * (size // 2 + 1))[:size]
        assert await s.store.get_blob("t", await s.store.put_blob("t", data)) == data


@case()
async def the_same_content_is_stored_once(s: Scene) -> None:
    """S14."""
    data = b"x" * 400_000
    names = await asyncio.gather(*(s.store.put_blob("t", data) for _ in range(5)))
    assert len(set(names)) == 1
    assert await s.store.put_blob("t", data) == names[0]
    assert await s.store.get_blob("t", names[0]) == data
    assert await s.store.check() == []


@case()
async def content_that_was_never_stored_is_not_found(s: Scene) -> None:
    """S14."""
    await refused(s.store.get_blob("t", "sha256:" + "0" * 64), NotFound)
    await refused(s.store.get_blob("t", "nonsense"), NotFound)


@case()
async def content_belongs_to_its_tenant(s: Scene) -> None:
    """S12."""
    name = await s.store.put_blob("mine", b"secret")
    await refused(s.store.get_blob("yours", name), NotFound)


@case()
async def another_tenants_content_cannot_be_referred_to(s: Scene) -> None:
    """S12."""
    name = await s.store.put_blob("mine", b"secret")
    n = (await s.store.admit(Address("toy", "i", "yours"), creation(), request())).n
    await refused(s.store.append(fact(n, blobs=(name,))), NotFound)
    assert len(await log(s.store, n)) == 2


@case()
async def content_that_is_not_there_cannot_be_referred_to(s: Scene) -> None:
    """S14."""
    n = (await born(s.store)).n
    await refused(s.store.append(fact(n, blobs=("sha256:" + "1" * 64,))), NotFound)
    assert len(await log(s.store, n)) == 2


@case()
async def unreferenced_content_is_collected_after_its_grace(s: Scene) -> None:
    """S14."""
    name = await s.store.put_blob("default", b"x" * 300_000)
    assert await s.store.collect_blobs(60.0) == 0
    s.subject.clock.ahead += 61.0
    assert await s.store.collect_blobs(60.0) == 1
    await refused(s.store.get_blob("default", name), NotFound)


@case()
async def referenced_content_is_never_collected(s: Scene) -> None:
    """S1."""
    name = await s.store.put_blob("default", b"kept")
    n = (await born(s.store)).n
    await s.store.append(fact(n, blobs=(name,)))
    s.subject.clock.ahead += 1_000.0
    assert await s.store.collect_blobs(0.0) == 0
    assert await s.store.get_blob("default", name) == b"kept"


@case()
async def an_admission_refers_to_content_too(s: Scene) -> None:
    """S1."""
    name = await s.store.put_blob("default", b"attached")
    await s.store.admit(address(), creation(), request(blobs=(name, name)))
    s.subject.clock.ahead += 1_000.0
    assert await s.store.collect_blobs(0.0) == 0


@case()
async def storing_content_again_begins_its_grace_anew(s: Scene) -> None:
    """S1."""
    name = await s.store.put_blob("default", b"again")
    s.subject.clock.ahead += 50.0
    await s.store.put_blob("default", b"again")
    s.subject.clock.ahead += 50.0
    assert await s.store.collect_blobs(60.0) == 0
    assert await s.store.get_blob("default", name) == b"again"


@case()
async def all_that_is_unreferenced_is_collected(s: Scene) -> None:
    """S14."""
    for i in range(50):
        await s.store.put_blob("default", b"%d" % i)
    s.subject.clock.ahead += 1_000.0
    assert await s.store.collect_blobs(10.0) == 50


@case()
async def content_refused_beside_a_good_neighbour(s: Scene) -> None:
    """L7, S12."""
    n = (await born(s.store)).n
    done = await asyncio.gather(
        s.store.append(fact(n)),
        s.store.append(fact(n, blobs=("sha256:" + "2" * 64,))),
        s.store.append(fact(n)),
        return_exceptions=True,
    )
    assert isinstance(done[1], NotFound)
    assert len(await log(s.store, n)) == 4


@case(survives=True)
async def content_is_kept(s: Scene) -> None:
    """S1."""
    name = await s.store.put_blob("default", b"x" * 600_000)
    await s.store.admit(address(), creation(), request(blobs=(name,)))
    store = await s.reopened()
    assert await store.get_blob("default", name) == b"x" * 600_000


@case(shared=True)
async def content_is_read_through_another_store(s: Scene) -> None:
    """L5."""
    other = await s.another()
    name = await s.store.put_blob("t", b"y" * 300_000)
    assert await other.get_blob("t", name) == b"y" * 300_000
