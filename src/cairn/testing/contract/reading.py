"""Reading: by address, by number, by offset, by page."""

import asyncio

from cairn.runtime.storage.store import Address, InstanceRow
from cairn.testing.contract.case import Scene, address, born, collector, creation, fact, ordinals, owned, request

CASES, case = collector()


@case()
async def what_does_not_exist_is_not_found(s: Scene) -> None:
    """S12."""
    assert await s.store.find(address()) is None
    assert await s.store.instance(1) is None
    assert await s.store.instances() == []
    assert await s.store.read(1, -1) == []


@case()
async def an_instance_is_found_by_address_and_by_number(s: Scene) -> None:
    """S12."""
    n = (await born(s.store)).n
    by_address, by_number = await s.store.find(address()), await s.store.instance(n)
    assert isinstance(by_address, InstanceRow) and by_address == by_number


@case()
async def an_instance_is_not_found_by_part_of_its_address(s: Scene) -> None:
    """S12."""
    await born(s.store)
    for wrong in (Address("toy", "On"), Address("Toy", "one"), Address("toy", "one", "other"), Address("toy", "one ")):
        assert await s.store.find(wrong) is None


@case()
async def the_head_is_the_last_ordinal(s: Scene) -> None:
    """S2."""
    n = (await born(s.store)).n
    done = await s.store.append(fact(n))
    found = await s.store.instance(n)
    assert found is not None and found.head == done.ordinal


@case()
async def reading_from_the_start_shows_everything(s: Scene) -> None:
    """S3."""
    n = (await born(s.store)).n
    assert ordinals(await s.store.read(n, -1)) == [0, 1]


@case()
async def reading_from_the_head_shows_nothing(s: Scene) -> None:
    """S3."""
    n = (await born(s.store)).n
    assert await s.store.read(n, 1) == []


@case()
async def reading_beyond_the_head_shows_nothing(s: Scene) -> None:
    """S3."""
    n = (await born(s.store)).n
    assert await s.store.read(n, 500) == []


@case()
async def reading_at_each_offset_shows_the_rest(s: Scene) -> None:
    """S3, L5."""
    n = (await born(s.store)).n
    for _ in range(6):
        await s.store.append(fact(n))
    whole = await s.store.read(n, -1)
    for i, row in enumerate(whole):
        assert await s.store.read(n, row.ordinal) == whole[i + 1 :]


@case()
async def a_read_is_bounded_by_rows(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    for _ in range(6):
        await s.store.append(fact(n))
    assert ordinals(await s.store.read(n, -1, limit=3)) == [0, 1, 2]
    assert ordinals(await s.store.read(n, 2, limit=3)) == [3, 4, 5]
    assert ordinals(await s.store.read(n, 5, limit=3)) == [6, 7]


@case()
async def a_read_is_bounded_by_bytes(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    for _ in range(6):
        await s.store.append(fact(n, b"r" * 1_000))
    assert ordinals(await s.store.read(n, 1, bytes_max=2_500)) == [2, 3]


@case()
async def a_read_shows_at_least_one_row_however_large(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, b"r" * 10_000))
    assert ordinals(await s.store.read(n, 1, bytes_max=10)) == [2]


@case()
async def pages_of_a_read_join_to_the_log(s: Scene) -> None:
    """S3, L5."""
    n = (await born(s.store)).n
    await asyncio.gather(*(s.store.append(fact(n, b"r" * (i % 7) * 100)) for i in range(50)))
    seen, after = [], -1
    while page := await s.store.read(n, after, limit=7, bytes_max=2_000):
        seen += page
        after = page[-1].ordinal
    assert seen == await s.store.read(n, -1)


@case()
async def a_row_is_the_same_whenever_it_is_read(s: Scene) -> None:
    """S3."""
    n = (await born(s.store)).n
    before = await s.store.read(n, -1)
    await owned(s.store, n)
    await s.store.append(fact(n, epoch=1))
    assert (await s.store.read(n, -1))[: len(before)] == before


@case(survives=True)
async def the_log_is_the_same_after_reopening(s: Scene) -> None:
    """S1, S3."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, b'["kept"]'))
    before = await s.store.read(n, -1)
    store = await s.reopened()
    assert await store.read(n, -1) == before


@case(survives=True)
async def reading_inside_a_skipped_range_shows_what_follows(s: Scene) -> None:
    """S2, S3."""
    n = (await born(s.store)).n
    store = await s.reopened("second boot")
    done = await store.append(fact(n))
    for after in (1, 2, 500, done.ordinal - 1):
        assert ordinals(await store.read(n, after)) == [done.ordinal]


@case()
async def instances_come_by_number_in_pages(s: Scene) -> None:
    """L7."""
    ns = [(await born(s.store, f"i{i}")).n for i in range(7)]
    seen: list[int] = []
    while page := await s.store.instances(after=seen[-1] if seen else 0, limit=3):
        assert len(page) <= 3
        seen += [row.n for row in page]
    assert seen == ns


@case()
async def instances_are_filtered_by_kind_and_tenant(s: Scene) -> None:
    """S12."""
    for kind in ("a", "b"):
        for tenant in ("x", "y"):
            await s.store.admit(Address(kind, "i", tenant), creation(), request())
    assert [str(row.address) for row in await s.store.instances(kind="a")] == ["a/i", "a/i"]
    assert {row.address.tenant for row in await s.store.instances(tenant="y")} == {"y"}
    assert [row.address for row in await s.store.instances(kind="b", tenant="x")] == [Address("b", "i", "x")]
    assert await s.store.instances(kind="c") == []


@case(shared=True)
async def what_one_store_wrote_another_reads_at_once(s: Scene) -> None:
    """L5."""
    other = await s.another()
    n = (await born(s.store)).n
    for i in range(10):
        done = await s.store.append(fact(n, b"[%d]" % i))
        [row] = await other.read(n, done.prev)
        assert row.batch.records == b"[%d]" % i


@case()
async def reads_and_appends_at_once_see_whole_batches_only(s: Scene) -> None:
    """S2, L5."""
    n = (await born(s.store)).n

    async def write() -> None:
        for _ in range(10):
            await asyncio.gather(*(s.store.append(fact(n)) for _ in range(10)))

    async def follow() -> None:
        last = -1
        while last < 101:
            for row in await s.store.read(n, last):
                assert row.prev == last
                last = row.ordinal
            await asyncio.sleep(0)

    await asyncio.gather(write(), follow(), follow())
