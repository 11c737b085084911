"""Waiting for change and for work, without losing a wake-up."""

import asyncio

from cairn.errors import NotFound, StoreError
from cairn.runtime.storage.store import Append, Batch, Due
from cairn.testing.contract.case import (
    BRIEF,
    SOON,
    Scene,
    address,
    born,
    collector,
    creation,
    delta,
    fact,
    names,
    owned,
    refused,
    request,
)

CASES, case = collector()


@case()
async def a_change_that_has_been_is_seen_at_once(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    assert await s.store.changed(n, 0) == 1
    assert await s.store.changed(n, -1, timeout=0) == 1


@case()
async def all_who_ask_at_once_see_what_has_been(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    heads = await asyncio.gather(*(s.store.changed(n, 0, timeout=SOON) for _ in range(5)))
    assert heads == [1] * 5
    nobody = await asyncio.gather(*(s.store.changed(999, 0, timeout=SOON) for _ in range(3)), return_exceptions=True)
    assert [type(e) for e in nobody] == [NotFound] * 3


@case()
async def a_change_to_come_wakes(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    waiting = asyncio.create_task(s.store.changed(n, 1, timeout=SOON))
    await asyncio.sleep(BRIEF)
    assert not waiting.done()
    done = await s.store.append(fact(n))
    assert await waiting >= done.ordinal


@case()
async def a_change_at_the_moment_of_asking_is_not_lost(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    head = 1
    for _ in range(50):
        seen, done = await asyncio.gather(s.store.changed(n, head, timeout=SOON), s.store.append(fact(n)))
        assert seen >= done.ordinal > head
        head = done.ordinal


@case()
async def many_wait_for_one_change(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    waiting = [asyncio.create_task(s.store.changed(n, 1, timeout=SOON)) for _ in range(100)]
    await asyncio.sleep(BRIEF)
    await s.store.append(fact(n))
    assert set(await asyncio.gather(*waiting)) == {2}


@case()
async def a_change_of_another_instance_does_not_wake(s: Scene) -> None:
    """L5, S12."""
    one, two = (await born(s.store, "one")).n, (await born(s.store, "two")).n
    waiting = asyncio.create_task(s.store.changed(one, 1, timeout=BRIEF))
    await s.store.append(fact(two))
    assert await waiting == 1


@case()
async def who_waits_beyond_the_head_is_not_woken_below_it(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    waiting = asyncio.create_task(s.store.changed(n, 3, timeout=SOON))
    await asyncio.sleep(BRIEF)
    await s.store.append(fact(n))
    await s.store.append(fact(n))
    await asyncio.sleep(BRIEF)
    assert not waiting.done()
    await s.store.append(fact(n))
    assert await waiting == 4


@case()
async def a_wait_without_change_ends_with_the_head(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    assert await s.store.changed(n, 1, timeout=BRIEF) == 1
    assert await s.store.changed(n, 77, timeout=BRIEF) == 1


@case()
async def waiting_for_no_instance_is_not_found(s: Scene) -> None:
    """S12."""
    await refused(s.store.changed(999, 0, timeout=SOON), NotFound)


@case()
async def a_cancelled_wait_leaves_nothing_behind(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    waiting = asyncio.create_task(s.store.changed(n, 1))
    await asyncio.sleep(BRIEF)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    await s.store.append(fact(n))
    assert await s.store.changed(n, 1, timeout=SOON) == 2


@case()
async def a_claim_a_release_and_a_delta_are_changes(s: Scene) -> None:
    """L5."""
    n = (await born(s.store)).n
    for move in (
        owned(s.store, n),
        s.store.append(delta(n, epoch=1)),
        s.store.release(n, 1, Batch(b"[]")),
        s.store.admit(address(), creation(), request()),
    ):
        found = await s.store.instance(n)
        assert found is not None
        waiting = asyncio.create_task(s.store.changed(n, found.head, timeout=SOON))
        await asyncio.sleep(0)
        await move
        assert await waiting > found.head


@case(shared=True)
async def a_change_by_another_store_wakes(s: Scene) -> None:
    """L5."""
    other = await s.another()
    n = (await born(s.store)).n
    for head in range(1, 6):
        waiting = asyncio.create_task(other.changed(n, head, timeout=SOON))
        await asyncio.sleep(BRIEF if head % 2 else 0)
        done = await s.store.append(fact(n))
        assert await waiting == done.ordinal


@case(shared=True)
async def asking_without_waiting_sees_what_another_store_wrote(s: Scene) -> None:
    """L5."""
    other = await s.another()
    n = (await born(s.store)).n
    for _ in range(5):
        head = await other.changed(n, -1, timeout=0)
        done = await s.store.append(fact(n))
        assert await other.changed(n, head, timeout=0) == done.ordinal


@case(shared=True)
async def a_change_by_another_store_while_nobody_waited_is_seen_at_once(s: Scene) -> None:
    """L5."""
    other = await s.another()
    n = (await born(s.store)).n
    assert await other.changed(n, 1, timeout=BRIEF) == 1
    await s.store.append(fact(n))
    assert await other.changed(n, 1, timeout=SOON) == 2


@case()
async def an_alarm_set_wakes_who_waits_for_work(s: Scene) -> None:
    """L1."""
    n = (await born(s.store)).n
    waiting = asyncio.create_task(_worked(s))
    await asyncio.sleep(BRIEF)
    assert not waiting.done()
    await s.store.append(fact(n, due=(Due("a", 1.0),)))
    assert await waiting == ["a"]


async def _worked(s: Scene) -> list[str]:
    """What is due once anything is, for somebody who looks whenever woken (a wake-up may be a false one)."""
    async with asyncio.timeout(SOON):
        while not (due := await names(s, 1e12)):
            await s.store.wait_for_work(None)
    return due


async def _woken(s: Scene) -> None:
    await s.store.due(["toy"], 1e12)
    await s.store.wait_for_work(SOON)


@case()
async def an_alarm_set_between_looking_and_waiting_is_not_lost(s: Scene) -> None:
    """L1."""
    n = (await born(s.store)).n
    assert await names(s, 1e12) == []
    await s.store.append(fact(n, due=(Due("a", 1.0),)))
    async with asyncio.timeout(SOON):
        await s.store.wait_for_work(None)


@case()
async def a_request_wakes_who_waits_for_work(s: Scene) -> None:
    """L1."""
    n = (await born(s.store)).n
    waiting = asyncio.create_task(_woken(s))
    await asyncio.sleep(BRIEF)
    await s.store.append(Append(n, Batch(b"[]")))
    async with asyncio.timeout(SOON / 2):
        await waiting


@case()
async def a_release_wakes_who_waits_for_work(s: Scene) -> None:
    """L2."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    waiting = asyncio.create_task(_woken(s))
    await asyncio.sleep(BRIEF)
    await s.store.release(n, 1, None)
    async with asyncio.timeout(SOON / 2):
        await waiting


@case()
async def waiting_for_work_ends_at_the_timeout(s: Scene) -> None:
    """L1."""
    async with asyncio.timeout(SOON):
        await s.store.due(["toy"], 0.0)
        await s.store.wait_for_work(BRIEF)
        await s.store.wait_for_work(BRIEF)


@case(shared=True)
async def another_stores_admission_wakes_who_waits_for_work(s: Scene) -> None:
    """L1."""
    other = await s.another()
    waiting = asyncio.create_task(_worked(s))
    await asyncio.sleep(BRIEF)
    await other.admit(address(), creation(), request(due=(Due("run", 1.0),)))
    assert await waiting == ["run"]


@case(shared=True)
async def another_stores_alarm_between_looking_and_waiting_is_not_lost(s: Scene) -> None:
    """L1."""
    other = await s.another()
    await s.store.due(["toy"], 0.0)
    await other.admit(address(), creation(), request(due=(Due("run", 1.0),)))
    async with asyncio.timeout(SOON):
        await s.store.wait_for_work(None)


@case()
async def closing_ends_every_wait_with_an_error(s: Scene) -> None:
    """L6."""
    n = (await born(s.store)).n
    waits = [asyncio.create_task(s.store.changed(n, 1)), asyncio.create_task(_worked(s))]
    await asyncio.sleep(BRIEF)
    await s.store.close()
    assert [type(e) for e in await asyncio.gather(*waits, return_exceptions=True)] == [StoreError, StoreError]
