"""Alarms: set, moved, cleared, and found by who looks for what is due."""

import asyncio

from cairn.runtime.storage.store import Address, Due
from cairn.testing.contract.case import (
    Scene,
    address,
    born,
    collector,
    creation,
    delta,
    fact,
    names,
    owned,
    request,
)

CASES, case = collector()


@case()
async def an_alarm_rings_from_its_moment_on(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, due=(Due("a", 10.0),)))
    assert await names(s, 9.999) == []
    assert await names(s, 10.0) == ["a"]
    assert await names(s, 1e12) == ["a"]


@case()
async def an_alarm_says_whose_it_is(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await s.store.append(fact(n, epoch=1, due=(Due("a", 10.25),)))
    [row] = await s.store.due(["toy"], 11.0)
    assert (row.n, row.address, row.name, row.due_at, row.epoch, row.owner) == (n, address(), "a", 10.25, 1, "w1")


@case()
async def an_alarms_moment_is_kept_exactly(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    for at in (0.1 + 0.2, 1_762_345_678.123456, 1e-9, 2.0**40 + 2.0**-10):
        await s.store.append(fact(n, due=(Due("a", at),)))
        assert await s.store.next_due(["toy"]) == at


@case()
async def setting_an_alarm_again_moves_it(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, due=(Due("a", 10.0),)))
    await s.store.append(fact(n, due=(Due("a", 20.0),)))
    assert await names(s, 15.0) == []
    assert await names(s, 20.0) == ["a"]


@case()
async def clearing_an_alarm_removes_it(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, due=(Due("a", 10.0), Due("b", 11.0))))
    await s.store.append(fact(n, due=(Due("a", None),)))
    assert await names(s, 100.0) == ["b"]


@case()
async def clearing_an_alarm_that_is_not_set_is_harmless(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, due=(Due("a", None),)))
    assert await names(s, 100.0) == []


@case()
async def the_last_word_on_an_alarm_counts(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, due=(Due("a", 1.0), Due("a", None), Due("b", None), Due("b", 2.0))))
    assert await names(s, 100.0) == ["b"]
    await asyncio.gather(
        s.store.append(fact(n, due=(Due("c", 1.0),))),
        s.store.append(fact(n, due=(Due("c", None),))),
        s.store.append(fact(n, due=(Due("b", None),))),
        s.store.append(fact(n, due=(Due("b", 3.0),))),
    )
    assert await names(s, 100.0) == ["b"]


@case()
async def a_delta_may_carry_an_alarm(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await s.store.append(delta(n, due=(Due("a", 1.0),)))
    assert await names(s, 1.0) == ["a"]


@case()
async def alarms_of_one_name_belong_to_their_instances(s: Scene) -> None:
    """S12."""
    one, two = (await born(s.store, "one")).n, (await born(s.store, "two")).n
    await s.store.append(fact(one, due=(Due("a", 1.0),)))
    await s.store.append(fact(two, due=(Due("a", 2.0),)))
    await s.store.append(fact(one, due=(Due("a", None),)))
    assert [d.n for d in await s.store.due(["toy"], 10.0)] == [two]


@case()
async def what_is_due_comes_oldest_first(s: Scene) -> None:
    """L4, S11."""
    for id, at in (("x", 3.0), ("y", 1.0), ("z", 2.0)):
        await s.store.append(fact((await born(s.store, id)).n, due=(Due("a", at),)))
    assert [d.address.id for d in await s.store.due(["toy"], 10.0)] == ["y", "z", "x"]


@case()
async def what_is_due_is_bounded(s: Scene) -> None:
    """L7."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, due=tuple(Due(f"a{i:02}", float(i)) for i in range(30))))
    assert [d.name for d in await s.store.due(["toy"], 100.0, limit=3)] == ["a00", "a01", "a02"]


@case()
async def only_the_kinds_asked_for_are_due(s: Scene) -> None:
    """L7."""
    for kind in ("a", "b", "c"):
        await s.store.admit(Address(kind, "i"), creation(), request(due=(Due(kind, 1.0),)))
    assert await names(s, 5.0, "a", "c") == ["a", "c"]
    assert await names(s, 5.0, "d") == []
    assert await s.store.due([], 5.0) == []


@case()
async def the_next_alarm_is_the_earliest_of_the_kinds(s: Scene) -> None:
    """L4."""
    assert await s.store.next_due(["a"]) is None
    for kind, at in (("a", 5.0), ("b", 3.0)):
        await s.store.admit(Address(kind, "i"), creation(), request(due=(Due("x", at),)))
    assert await s.store.next_due(["a"]) == 5.0
    assert await s.store.next_due(["a", "b"]) == 3.0
    assert await s.store.next_due([]) is None


@case()
async def the_next_alarm_after_a_time_is_later_than_it(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, due=(Due("a", 1.0), Due("b", 2.0), Due("c", 3.0))))
    assert await s.store.next_due(["toy"], after=1.0) == 2.0
    assert await s.store.next_due(["toy"], after=2.5) == 3.0
    assert await s.store.next_due(["toy"], after=3.0) is None


@case()
async def the_instances_of_excluded_owners_are_not_due(s: Scene) -> None:
    """L7."""
    for id, owner in (("x", "w1"), ("y", "w2"), ("z", None)):
        n = (await born(s.store, id)).n
        if owner:
            await owned(s.store, n, owner)
        await s.store.append(fact(n, epoch=None, due=(Due("a", 1.0),)))

    async def due(*excluded: str) -> list[str]:
        return [d.address.id for d in await s.store.due(["toy"], 5.0, exclude_owners=excluded)]

    assert await due() == ["x", "y", "z"]
    assert await due("w1") == ["y", "z"]
    assert await due("w1", "w2", "nobody") == ["z"]


@case(survives=True)
async def alarms_are_kept(s: Scene) -> None:
    """L4, S1."""
    n = (await born(s.store)).n
    await s.store.append(fact(n, due=(Due("a", 1.0),)))
    store = await s.reopened()
    assert [d.name for d in await store.due(["toy"], 1.0)] == ["a"]
