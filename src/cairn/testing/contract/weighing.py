"""What a log weighs is known without reading it: whatever adds or removes a row keeps the number."""

import asyncio

from cairn.errors import Fenced
from cairn.runtime.storage.store import Append, Batch, Producer, Store
from cairn.testing.contract.case import (
    Scene,
    address,
    born,
    collector,
    creation,
    delta,
    fact,
    owned,
    refused,
    request,
)
from cairn.testing.contract.forking import forked, long, parting

CASES, case = collector()


async def weight(store: Store, n: int) -> int:
    """What the instance says that it weighs, which is what its own rows do."""
    found = await store.instance(n)
    assert found is not None and found == await store.find(found.address)
    shared = -1 if found.fork_offset is None else found.fork_offset
    rows = [row.batch for row in await store.read(n, -1) if row.ordinal > shared]
    assert found.bytes == sum(len(batch.records) + len(batch.chunks) for batch in rows)
    return found.bytes


@case()
async def a_log_weighs_its_records_and_its_chunks(s: Scene) -> None:
    """L7."""
    asked = Append(0, Batch(b"[11]", b"chunk"))
    n = (await s.store.admit(address(), creation(records=b"[0]"), asked)).n
    assert await weight(s.store, n) == 3 + 4 + 5
    await s.store.append(Append(n, Batch(b"[222]", b"more"), 0))
    assert await weight(s.store, n) == 12 + 5 + 4
    await s.store.append(delta(n, b"[]"))
    assert await weight(s.store, n) == 21 + 2


@case()
async def lists_show_what_each_log_weighs(s: Scene) -> None:
    """L7."""
    sizes = {id: await weight(s.store, await long(s.store, count, id)) for id, count in (("one", 1), ("two", 20))}
    assert sizes["two"] > sizes["one"]
    for newest_first in (False, True):
        for kind in ("toy", None):
            found = await s.store.instances(kind=kind, tenant="default", newest_first=newest_first)
            assert {row.address.id: row.bytes for row in found} == sizes


@case()
async def taking_over_and_giving_up_weigh_what_they_write(s: Scene) -> None:
    """L7, S4."""
    n = (await born(s.store)).n
    before = await weight(s.store, n)
    await owned(s.store, n)
    claimed = await weight(s.store, n)
    assert claimed == before + len(b'["claimed 1"]')
    await s.store.release(n, 1, Batch(b'["released"]', b"shown"))
    assert await weight(s.store, n) == claimed + len(b'["released"]') + len(b"shown")


@case()
async def what_is_refused_or_repeated_weighs_nothing(s: Scene) -> None:
    """L7, S5, S6."""
    first = request(b"[1]", key="k")
    n = (await s.store.admit(address(), creation(), first)).n
    await s.store.append(fact(n, epoch=None, producer=Producer("p", 0, 0)))
    before = await weight(s.store, n)
    assert (await s.store.admit(address(), creation(), first)).duplicate
    assert (await s.store.append(fact(n, epoch=None, producer=Producer("p", 0, 0)))).duplicate
    await refused(s.store.append(fact(n, epoch=7)), Fenced)
    assert await weight(s.store, n) == before


@case()
async def writes_that_share_a_commit_are_all_weighed(s: Scene) -> None:
    """L7."""
    numbers = [await long(s.store, 1, f"id {i}") for i in range(3)]
    before = [await weight(s.store, n) for n in numbers]
    await asyncio.gather(*(s.store.append(delta(n, b"[%d]" % (10 + i))) for i, n in enumerate(numbers) for _ in range(5)))
    assert [await weight(s.store, n) for n in numbers] == [size + 5 * 4 for size in before]


@case()
async def beyond_a_reserved_block_a_log_still_knows_its_weight(s: Scene) -> None:
    """L7, S3."""
    n = (await born(s.store)).n
    for _ in range(11):
        await asyncio.gather(*(s.store.append(delta(n)) for _ in range(100)))
    found = await s.store.instance(n)
    assert found is not None and found.head == 1_101
    assert found.bytes == 6 + 1_100 * 3
    assert await s.store.check() == []


@case()
async def a_fork_weighs_what_is_its_own(s: Scene) -> None:
    """L7."""
    n = await long(s.store)
    before = await weight(s.store, n)
    made = await s.store.fork(n, 4, address("fork"), parting(records=b'["forked"]'))
    assert await weight(s.store, made.n) == len(b'["forked"]')
    await s.store.append(fact(made.n, b"[22]", epoch=None))
    assert (await weight(s.store, made.n), await weight(s.store, n)) == (len(b'["forked"]') + 4, before)


@case()
async def a_merge_takes_off_what_it_saves(s: Scene) -> None:
    """L7, S3."""
    n = await long(s.store)
    before = await weight(s.store, n)
    assert await s.store.merge(n, 3, 6, Batch(b"[3456]", b"seen", 1))
    assert await weight(s.store, n) == before - 4 * len(b"[3]") + len(b"[3456]") + len(b"seen")
    assert not await s.store.merge(n, 3, 6, Batch(b"[]"))
    await s.store.append(fact(n, b"[10]", epoch=None))
    assert await weight(s.store, n) == before + 2
    assert await s.store.check() == []


@case()
async def a_deleted_source_weighs_what_forks_share(s: Scene) -> None:
    """L7, S12."""
    n = await long(s.store)
    made = await forked(s.store, n, 3)
    assert await s.store.delete(n)
    await s.store.collect_blobs(0)
    assert await weight(s.store, made.n) == len(b'["forked"]')
    assert await s.store.check() == []


@case(survives=True)
async def a_weight_is_known_after_another_boot(s: Scene) -> None:
    """L7, S3."""
    n = await long(s.store)
    before = await weight(s.store, n)
    store = await s.reopened("second boot")
    await store.append(fact(n, b"[10]", epoch=None))
    assert await weight(store, n) == before + 4


@case(shared=True)
async def two_processes_weigh_one_log(s: Scene) -> None:
    """L7."""
    n = await long(s.store)
    before = await weight(s.store, n)
    other = await s.another()
    await asyncio.gather(*(store.append(delta(n, b"[88]")) for store in (s.store, other) for _ in range(20)))
    assert await weight(other, n) == await weight(s.store, n) == before + 40 * 4
