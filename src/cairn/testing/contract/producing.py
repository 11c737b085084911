"""The producer rule at the log: a write that may be repeated is taken once."""

import asyncio

from cairn.errors import ProducerConflict
from cairn.runtime.storage.store import Append, Appended, Batch, Producer
from cairn.testing.contract.case import Scene, address, born, collector, creation, fact, refused, request

CASES, case = collector()


def write(n: int, epoch: int, seq: int, records: bytes = b"[1]", id: str = "p") -> Append:
    return Append(n, Batch(records), producer=Producer(id, epoch, seq))


@case()
async def a_producers_writes_are_taken_in_order(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    assert [(await s.store.append(write(n, 0, seq))).ordinal for seq in range(3)] == [2, 3, 4]


@case()
async def a_repeated_write_answers_the_first_ordinal(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    first = await s.store.append(write(n, 0, 0))
    assert await s.store.append(write(n, 0, 0)) == Appended(first.ordinal, first.prev, duplicate=True)
    assert len(await s.store.read(n, -1)) == 3


@case()
async def an_old_write_is_recognised_however_late(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    done = [await s.store.append(write(n, 0, seq, b"[%d]" % seq)) for seq in range(30)]
    for seq in (0, 7, 29):
        again = await s.store.append(write(n, 0, seq, b"[%d]" % seq))
        assert (again.ordinal, again.duplicate) == (done[seq].ordinal, True)


@case()
async def other_content_under_one_write_is_a_conflict(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    await s.store.append(write(n, 0, 0, b"[1]"))
    error = await refused(s.store.append(write(n, 0, 0, b"[2]")), ProducerConflict)
    assert error.verdict == "conflict"


@case()
async def other_content_under_an_old_write_is_a_conflict(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    for seq in range(3):
        await s.store.append(write(n, 0, seq, b"[%d]" % seq))
    error = await refused(s.store.append(write(n, 0, 0, b"[9]")), ProducerConflict)
    assert error.verdict == "conflict"


@case()
async def a_gap_is_refused(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    await s.store.append(write(n, 0, 0))
    error = await refused(s.store.append(write(n, 0, 2)), ProducerConflict)
    assert error.verdict == "gap" and "1" in str(error)


@case()
async def a_reign_begins_at_zero(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    assert (await refused(s.store.append(write(n, 3, 1)), ProducerConflict)).verdict == "bad start"
    await s.store.append(write(n, 3, 0))
    assert (await refused(s.store.append(write(n, 4, 1)), ProducerConflict)).verdict == "bad start"


@case()
async def a_new_reign_fences_the_old_one(s: Scene) -> None:
    """S4, S5."""
    n = (await born(s.store)).n
    await s.store.append(write(n, 0, 0))
    await s.store.append(write(n, 5, 0))
    for seq in (0, 1):
        assert (await refused(s.store.append(write(n, 0, seq)), ProducerConflict)).verdict == "fenced"


@case()
async def a_refused_write_takes_no_ordinal(s: Scene) -> None:
    """S2, S5."""
    n = (await born(s.store)).n
    await refused(s.store.append(write(n, 0, 4)), ProducerConflict)
    assert await s.store.append(write(n, 0, 0)) == Appended(2, 1)


@case()
async def producers_do_not_disturb_each_other(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    await s.store.append(write(n, 9, 0, id="p"))
    assert not (await s.store.append(write(n, 0, 0, id="q"))).duplicate


@case()
async def a_producer_is_known_to_one_instance_only(s: Scene) -> None:
    """S5, S12."""
    one, two = (await born(s.store, "one")).n, (await born(s.store, "two")).n
    await s.store.append(write(one, 0, 0))
    assert not (await s.store.append(write(two, 0, 0))).duplicate


@case()
async def a_producers_writes_at_once_follow_each_other(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    done = await asyncio.gather(*(s.store.append(write(n, 0, i // 2, b"[%d]" % (i // 2))) for i in range(40)))
    assert [d.duplicate for d in done] == [False, True] * 20
    assert len({d.ordinal for d in done}) == 20


@case()
async def an_owner_may_be_a_producer(s: Scene) -> None:
    """S4, S5."""
    n = (await born(s.store)).n
    first = await s.store.append(fact(n, producer=Producer("p", 0, 0)))
    again = await s.store.append(fact(n, producer=Producer("p", 0, 0)))
    assert (again.ordinal, again.duplicate) == (first.ordinal, True)


@case()
async def an_admission_may_come_from_a_producer(s: Scene) -> None:
    """S5."""
    ask = request(b"[1]", producer=Producer("p", 0, 0))
    first = await s.store.admit(address(), creation(), ask)
    again = await s.store.admit(address(), creation(), ask)
    assert (again.ordinal, again.duplicate, again.created) == (first.ordinal, True, False)


@case(survives=True)
async def a_producer_is_known_after_reopening(s: Scene) -> None:
    """S5."""
    n = (await born(s.store)).n
    first = await s.store.append(write(n, 2, 0))
    store = await s.reopened()
    assert (await store.append(write(n, 2, 0))).ordinal == first.ordinal
    assert (await refused(store.append(write(n, 1, 0)), ProducerConflict)).verdict == "fenced"


@case(shared=True)
async def two_stores_take_one_write_once(s: Scene) -> None:
    """S5."""
    other = await s.another()
    n = (await born(s.store)).n
    done = await asyncio.gather(*(store.append(write(n, 0, 0)) for _ in range(5) for store in (s.store, other)))
    assert len({d.ordinal for d in done}) == 1 and sum(d.duplicate for d in done) == 9
