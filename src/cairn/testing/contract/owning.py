"""Workers, claims and releases: one owner at a time, by epoch."""

import asyncio

from cairn.errors import Fenced, StoreError
from cairn.runtime.storage.store import Appended, Batch, Due
from cairn.testing.contract.case import (
    Scene,
    born,
    collector,
    fact,
    log,
    owned,
    refused,
    until,
    worker,
)

CASES, case = collector()


def claimed(epoch: int) -> Batch:
    return Batch(b'["claimed %d"]' % epoch)


async def expect(s: Scene, n: int, epoch: int, owner: str | None) -> None:
    found = await s.store.instance(n)
    assert found is not None
    assert (found.epoch, found.owner) == (epoch, owner)


@case()
async def a_worker_is_listed_with_its_lease(s: Scene) -> None:
    """L2."""
    await s.store.register(worker("w1", ("a", "b")), 15.0, lambda: True)
    [row] = await s.store.workers()
    assert (row.id, row.host, row.pid, row.kinds, row.started_at, row.lock) == (
        "w1", "host", 4711, ("a", "b"), 1.5, "boot:1:2",
    )  # fmt: skip
    assert 10.0 < row.lease_until - s.store.lease_now() <= 15.0


@case()
async def an_unregistered_worker_is_gone(s: Scene) -> None:
    """L2."""
    await s.store.register(worker(), 15.0, lambda: True)
    await s.store.unregister("w1")
    assert await s.store.workers() == []


@case()
async def unregistering_nobody_is_harmless(s: Scene) -> None:
    """L2."""
    await s.store.unregister("nobody")


@case()
async def an_unregistered_workers_instances_are_free_at_once(s: Scene) -> None:
    """L2."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await s.store.unregister("w1")
    await expect(s, n, 1, None)


async def _length(asked: list[int], least: int) -> bool:
    return len(asked) >= least


@case()
async def a_live_workers_lease_is_renewed(s: Scene) -> None:
    """L2."""
    await s.store.register(worker(), 0.2, lambda: True)
    [before] = await s.store.workers()

    async def renewed() -> bool:
        return (await s.store.workers())[0].lease_until > before.lease_until

    await until(renewed)


@case()
async def a_stalled_workers_lease_is_not_renewed(s: Scene) -> None:
    """L2."""
    asked: list[int] = []

    def pulse() -> bool:
        asked.append(1)
        return False

    await s.store.register(worker(), 0.1, pulse)
    [before] = await s.store.workers()
    await until(lambda: _length(asked, 3))
    [after] = await s.store.workers()
    assert after.lease_until == before.lease_until


@case()
async def a_worker_whose_pulse_cannot_be_felt_is_not_renewed(s: Scene) -> None:
    """L2."""
    asked: list[int] = []

    def pulse() -> bool:
        asked.append(1)
        raise ValueError("no pulse")

    await s.store.register(worker(), 0.1, pulse)
    [before] = await s.store.workers()
    await until(lambda: _length(asked, 3))
    assert (await s.store.workers())[0].lease_until == before.lease_until


@case()
async def a_claim_owns_the_instance_at_the_next_epoch(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    assert await owned(s.store, n) == Appended(2, 1)
    await expect(s, n, 1, "w1")


@case()
async def a_claim_appends_the_batch_made_for_its_epoch(s: Scene) -> None:
    """S2, S4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    [row] = await s.store.read(n, 1)
    assert (row.epoch, row.batch) == (1, claimed(1))


@case()
async def a_claim_from_another_epoch_gets_nothing(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    assert await s.store.claim(n, "w1", expected_epoch=0, make=claimed) is None
    assert await s.store.claim(n, "w1", expected_epoch=2, make=claimed) is None
    await expect(s, n, 1, "w1")


@case()
async def a_claim_of_no_instance_gets_nothing(s: Scene) -> None:
    """S4."""
    await s.store.register(worker(), 15.0, lambda: True)
    assert await s.store.claim(999, "w1", expected_epoch=0, make=claimed) is None


@case()
async def of_many_claims_at_once_one_wins(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    for i in range(10):
        await s.store.register(worker(f"w{i}"), 15.0, lambda: True)
    done = await asyncio.gather(*(s.store.claim(n, f"w{i}", expected_epoch=0, make=claimed) for i in range(10)))
    winners = [i for i, d in enumerate(done) if d is not None]
    assert len(winners) == 1
    await expect(s, n, 1, f"w{winners[0]}")


@case()
async def a_later_claim_fences_the_earlier_owner(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await owned(s.store, n, "w1")
    await owned(s.store, n, "w2", expected=1)
    await refused(s.store.append(fact(n, epoch=1)), Fenced)
    assert (await s.store.append(fact(n, epoch=2))).ordinal == 4


@case()
async def an_append_before_a_claim_in_one_moment_counts_and_one_after_is_fenced(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await s.store.register(worker(), 15.0, lambda: True)
    before, claim, after = await asyncio.gather(
        s.store.append(fact(n, epoch=0)),
        s.store.claim(n, "w1", expected_epoch=0, make=claimed),
        s.store.append(fact(n, epoch=0)),
        return_exceptions=True,
    )
    assert before == Appended(2, 1) and claim == Appended(3, 2)
    assert isinstance(after, Fenced)


@case()
async def a_claim_by_somebody_unregistered_is_refused(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    error = await refused(s.store.claim(n, "ghost", expected_epoch=0, make=claimed), StoreError)
    assert "ghost" in str(error)
    await expect(s, n, 0, None)


@case()
async def a_claim_that_is_refused_does_not_harm_its_neighbours(s: Scene) -> None:
    """L7, S12."""
    one, two = (await born(s.store, "one")).n, (await born(s.store, "two")).n
    done = await asyncio.gather(
        s.store.append(fact(one)),
        s.store.claim(two, "ghost", expected_epoch=0, make=claimed),
        s.store.append(fact(one)),
        return_exceptions=True,
    )
    assert [type(d) for d in done] == [Appended, StoreError, Appended]


@case()
async def a_claim_whose_batch_cannot_be_made_changes_nothing(s: Scene) -> None:
    """S2."""
    n = (await born(s.store)).n
    await s.store.register(worker(), 15.0, lambda: True)

    def broken(epoch: int) -> Batch:
        raise ZeroDivisionError(epoch)

    await refused(s.store.claim(n, "w1", expected_epoch=0, make=broken), ZeroDivisionError)
    await expect(s, n, 0, None)
    assert len(await log(s.store, n)) == 2


@case()
async def a_release_gives_the_instance_up(s: Scene) -> None:
    """L2."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await s.store.release(n, 1, Batch(b'["released"]'))
    await expect(s, n, 1, None)
    assert (await log(s.store, n))[-1] == b'["released"]'


@case()
async def a_release_says_that_it_was_done(s: Scene) -> None:
    """L2."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    assert await s.store.release(n, 1, None) is True
    assert await s.store.release(n, 7, None) is True


@case()
async def a_release_at_an_expected_head_is_done_only_there(s: Scene) -> None:
    """L1, S11."""
    n = (await born(s.store)).n
    mine = await owned(s.store, n)
    assert mine is not None
    theirs = await s.store.append(fact(n, epoch=None))
    done = await s.store.release(n, 1, Batch(b'["early"]'), (Due("a", 1.0),), expected_head=mine.ordinal)
    assert done is False
    await expect(s, n, 1, "w1")
    assert await s.store.due(["toy"], 10.0) == [] and b'["early"]' not in await log(s.store, n)
    assert await s.store.release(n, 1, Batch(b'["now"]'), expected_head=theirs.ordinal) is True
    await expect(s, n, 1, None)


@case()
async def a_release_may_leave_no_batch(s: Scene) -> None:
    """L2."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await s.store.release(n, 1, None)
    await expect(s, n, 1, None)
    assert len(await log(s.store, n)) == 3


@case()
async def a_release_sets_and_clears_alarms(s: Scene) -> None:
    """L4."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    await s.store.append(fact(n, epoch=1, due=(Due("old", 1.0),)))
    await s.store.release(n, 1, None, (Due("old", None), Due("new", 2.0)))
    assert [d.name for d in await s.store.due(["toy"], 10.0)] == ["new"]


@case()
async def a_fenced_release_changes_nothing(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    await owned(s.store, n, "w1")
    await owned(s.store, n, "w2", expected=1)
    await s.store.release(n, 1, Batch(b'["late"]'), (Due("late", 1.0),))
    await expect(s, n, 2, "w2")
    assert b'["late"]' not in await log(s.store, n)
    assert await s.store.due(["toy"], 10.0) == []


@case()
async def a_release_of_no_instance_is_harmless(s: Scene) -> None:
    """S4."""
    await s.store.release(999, 1, Batch(b"[]"))


@case()
async def a_released_instance_can_be_claimed(s: Scene) -> None:
    """S4, L2."""
    n = (await born(s.store)).n
    await owned(s.store, n, "w1")
    await s.store.release(n, 1, None)
    assert await owned(s.store, n, "w2", expected=1) is not None
    await expect(s, n, 2, "w2")


@case()
async def epochs_in_the_log_never_decrease(s: Scene) -> None:
    """S4."""
    n = (await born(s.store)).n
    for epoch in range(5):
        await owned(s.store, n, f"w{epoch}", expected=epoch)
        await s.store.append(fact(n, epoch=epoch + 1))
        await s.store.append(fact(n, epoch=None))
    epochs = [row.epoch for row in await s.store.read(n, -1)]
    assert epochs == sorted(epochs) and epochs[-1] == 5


@case(survives=True)
async def closing_gives_up_the_leases_held_here(s: Scene) -> None:
    """L2."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    store = await s.reopened()
    found = await store.instance(n)
    assert await store.workers() == []
    assert found is not None and (found.owner, found.epoch) == (None, 1)


@case(shared=True)
async def no_worker_of_another_boot_is_left(s: Scene) -> None:
    """L2."""
    n = (await born(s.store)).n
    await owned(s.store, n)
    other = await s.another("second boot")
    found = await other.instance(n)
    assert await other.workers() == []
    assert found is not None and (found.owner, found.epoch) == (None, 1)


@case(shared=True)
async def of_two_stores_that_claim_one_wins(s: Scene) -> None:
    """S4."""
    other = await s.another()
    ns = [(await born(s.store, f"i{i}")).n for i in range(10)]
    await s.store.register(worker("w1"), 15.0, lambda: True)
    await other.register(worker("w2"), 15.0, lambda: True)
    done = await asyncio.gather(
        *(store.claim(n, id, expected_epoch=0, make=claimed) for n in ns for store, id in ((s.store, "w1"), (other, "w2")))
    )
    for i in range(10):
        assert sum(d is not None for d in done[2 * i : 2 * i + 2]) == 1


@case(shared=True)
async def a_worker_sees_the_workers_of_other_stores(s: Scene) -> None:
    """L2."""
    other = await s.another()
    await s.store.register(worker("w1"), 15.0, lambda: True)
    await other.register(worker("w2"), 15.0, lambda: True)
    assert [row.id for row in await s.store.workers()] == ["w1", "w2"]


@case()
async def the_lease_clock_goes_forward(s: Scene) -> None:
    """L2."""
    before = s.store.lease_now()
    s.subject.clock.ahead += 100.0
    assert s.store.lease_now() >= before + 100.0
