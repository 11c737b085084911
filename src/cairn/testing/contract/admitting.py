"""Requests by address: an instance is created by its first one, and a key is admitted once."""

import asyncio

from cairn.errors import Conflict, NotFound, ProducerConflict, UsageError
from cairn.runtime.storage.store import Address, Admitted, Batch, Creation, Due, Producer, UidCondition
from cairn.testing.contract.case import (
    Scene,
    address,
    born,
    collector,
    creation,
    fact,
    log,
    refused,
    request,
)

CASES, case = collector()


@case()
async def the_first_request_creates_the_instance(s: Scene) -> None:
    """S1, S2."""
    done = await s.store.admit(address(), creation("u", b'["born"]'), request(b'["asked"]', "k", fiber="f"))
    assert done == Admitted(done.n, "u", 1, 0, created=True, duplicate=False, fiber="f")
    assert await log(s.store, done.n) == [b'["born"]', b'["asked"]']


@case()
async def a_created_instance_is_what_its_creation_said(s: Scene) -> None:
    """S1."""
    done = await s.store.admit(Address("kind", "id", "tenant"), Creation("u", "inc", Batch(b"[]"), 12.5), request())
    found = await s.store.find(Address("kind", "id", "tenant"))
    assert found is not None
    assert (found.n, found.uid, found.incarnation, found.created_at) == (done.n, "u", "inc", 12.5)
    assert (found.head, found.epoch, found.owner) == (1, 0, None)


@case()
async def a_second_request_finds_the_instance(s: Scene) -> None:
    """S3."""
    first = await born(s.store)
    second = await s.store.admit(address(), creation("another uid"), request(b"[9]"))
    assert (second.n, second.uid, second.created) == (first.n, first.uid, False)
    assert (second.ordinal, second.offset) == (2, 1)


@case()
async def reading_from_the_offset_of_an_admission_shows_the_request(s: Scene) -> None:
    """S1, S3."""
    first = await born(s.store)
    await s.store.append(fact(first.n))
    done = await s.store.admit(address(), creation(), request(b'["asked"]'))
    rows = await s.store.read(done.n, done.offset)
    assert [row.batch.records for row in rows] == [b'["asked"]']


@case()
async def a_known_key_answers_the_first_fiber(s: Scene) -> None:
    """S6."""
    first = await s.store.admit(address(), creation(), request(b"[1]", "k", fiber="first"))
    again = await s.store.admit(address(), creation(), request(b"[1]", "k", fiber="second"))
    assert again == Admitted(first.n, first.uid, first.ordinal, first.offset, False, True, "first")
    assert len(await s.store.read(first.n, -1)) == 2


@case()
async def a_known_key_with_another_body_is_a_conflict(s: Scene) -> None:
    """S6."""
    first = await s.store.admit(address(), creation(), request(b"[1]", "k", b"body"))
    error = await refused(s.store.admit(address(), creation(), request(b"[2]", "k", b"other body")), Conflict)
    assert "k" in str(error)
    assert len(await s.store.read(first.n, -1)) == 2


@case()
async def two_keys_are_two_admissions(s: Scene) -> None:
    """S6."""
    first = await s.store.admit(address(), creation(), request(b"[1]", "k1", fiber="f1"))
    second = await s.store.admit(address(), creation(), request(b"[1]", "k2", fiber="f2"))
    assert (second.duplicate, second.fiber, second.ordinal) == (False, "f2", first.ordinal + 1)


@case()
async def a_key_belongs_to_one_instance(s: Scene) -> None:
    """S6, S12."""
    await s.store.admit(address("one"), creation("u1"), request(b"[1]", "k", b"body", "f1"))
    other = await s.store.admit(address("two"), creation("u2"), request(b"[2]", "k", b"other body", "f2"))
    assert (other.created, other.duplicate, other.fiber) == (True, False, "f2")


@case()
async def a_key_may_be_any_text(s: Scene) -> None:
    """S6."""
    for key in ("", " ", "ключ", '"quoted"', "\\", "new\nline", "k" * 2_000, "123", "1.0", "null", "[1]"):
        first = await s.store.admit(address(), creation(), request(b"[1]", key, fiber=f"for {key!r}"))
        again = await s.store.admit(address(), creation(), request(b"[1]", key, fiber="not this"))
        assert (first.duplicate, again.duplicate, again.fiber) == (False, True, f"for {key!r}"), key


@case()
async def many_admissions_of_one_key_at_once_are_one(s: Scene) -> None:
    """S6."""
    done = await asyncio.gather(*(s.store.admit(address(), creation(), request(b"[1]", "k", fiber=f"f{i}")) for i in range(20)))
    assert len({(d.fiber, d.ordinal) for d in done}) == 1
    assert sum(d.duplicate for d in done) == 19
    assert sum(d.created for d in done) == 1
    assert len(await s.store.read(done[0].n, -1)) == 2


@case()
async def many_creations_of_one_address_at_once_are_one(s: Scene) -> None:
    """S2, S12."""
    done = await asyncio.gather(*(s.store.admit(address(), creation(f"u{i}"), request(b"[%d]" % i)) for i in range(20)))
    assert len({d.n for d in done}) == len({d.uid for d in done}) == 1
    assert sorted(d.ordinal for d in done) == list(range(1, 21))
    assert sum(d.created for d in done) == 1


@case()
async def many_creations_at_once_get_numbers_of_their_own(s: Scene) -> None:
    """S12."""
    done = await asyncio.gather(*(born(s.store, f"i{i}") for i in range(30)))
    assert len({d.n for d in done}) == 30
    for i, d in enumerate(done):
        found = await s.store.instance(d.n)
        assert found is not None and found.address.id == f"i{i}"


@case()
async def addresses_differ_by_each_of_their_parts(s: Scene) -> None:
    """S12."""
    done = [
        await s.store.admit(a, creation(), request())
        for a in (Address("k", "i"), Address("k", "j"), Address("l", "i"), Address("k", "i", "other"))
    ]
    assert all(d.created for d in done) and len({d.n for d in done}) == 4


@case()
async def an_address_may_be_any_text(s: Scene) -> None:
    """S12."""
    for id in ("a/b", "ü", "'; drop table log; --", '"', "\\u0041", " ", "1", "1.0", "%_", "🦭"):
        first = await s.store.admit(address(id), creation(f"u{id}"), request())
        again = await s.store.admit(address(id), creation("no"), request())
        found = await s.store.find(address(id))
        assert (first.created, again.n) == (True, first.n), id
        assert found is not None and found.address == address(id)


@case()
async def create_only_creates(s: Scene) -> None:
    """S6."""
    done = await s.store.admit(address(), creation(), request(), uid=UidCondition.ABSENT)
    assert done.created


@case()
async def create_only_refuses_an_instance_that_exists(s: Scene) -> None:
    """S6."""
    first = await born(s.store)
    await refused(s.store.admit(address(), creation(), request(), uid=UidCondition.ABSENT), Conflict)
    assert len(await s.store.read(first.n, -1)) == 2


@case()
async def a_known_key_wins_over_create_only(s: Scene) -> None:
    """S6."""
    ask = request(b"[1]", "k")
    first = await s.store.admit(address(), creation(), ask, uid=UidCondition.ABSENT)
    again = await s.store.admit(address(), creation(), ask, uid=UidCondition.ABSENT)
    assert (again.duplicate, again.ordinal) == (True, first.ordinal)


@case()
async def a_uid_that_is_the_instances_admits(s: Scene) -> None:
    """S6."""
    first = await born(s.store)
    assert (await s.store.admit(address(), creation(), request(), uid=first.uid)).n == first.n


@case()
async def a_uid_that_is_another_life_is_a_conflict(s: Scene) -> None:
    """S6."""
    first = await born(s.store)
    await refused(s.store.admit(address(), creation(), request(), uid="not it"), Conflict)
    assert len(await s.store.read(first.n, -1)) == 2


@case()
async def a_uid_of_an_instance_that_does_not_exist_is_not_found_and_creates_nothing(s: Scene) -> None:
    """S6."""
    await refused(s.store.admit(address(), creation("u"), request(), uid="u"), NotFound)
    assert await s.store.find(address()) is None


@case()
async def a_known_key_wins_over_a_uid(s: Scene) -> None:
    """S6."""
    first = await s.store.admit(address(), creation(), request(b"[1]", "k"))
    again = await s.store.admit(address(), creation(), request(b"[1]", "k"), uid="not it")
    assert (again.duplicate, again.ordinal) == (True, first.ordinal)


@case()
async def a_refused_creation_leaves_nothing(s: Scene) -> None:
    """S2, S14."""
    missing = request(blobs=("sha256:" + "0" * 64,))
    await refused(s.store.admit(address(), creation(), missing), NotFound)
    gap = request(producer=Producer("p", 1, 5))
    await refused(s.store.admit(address(), creation(), gap), ProducerConflict)
    assert await s.store.find(address()) is None
    assert await s.store.check() == []


@case()
async def an_admission_may_set_an_alarm(s: Scene) -> None:
    """L1."""
    await s.store.admit(address(), creation(), request(due=(Due("run", 7.0),)))
    assert [(d.name, d.due_at) for d in await s.store.due(["toy"], 7.0)] == [("run", 7.0)]


@case()
async def a_repeated_admission_sets_no_alarm(s: Scene) -> None:
    """S6."""
    await s.store.admit(address(), creation(), request(b"[1]", "k"))
    await s.store.admit(address(), creation(), request(b"[1]", "k", due=(Due("run", 7.0),)))
    assert await s.store.due(["toy"], 100.0) == []


@case()
async def an_admission_needs_no_owner_and_disturbs_none(s: Scene) -> None:
    """S4."""
    first = await born(s.store)
    done = await s.store.admit(address(), creation(), request(b"[7]"))
    after = await s.store.append(fact(first.n, epoch=0))
    assert (after.prev, after.ordinal) == (done.ordinal, done.ordinal + 1)


@case()
async def an_admission_too_large_for_a_row_is_refused_with_advice(s: Scene) -> None:
    """S14."""
    error = await refused(s.store.admit(address(), creation(), request(b"[" + b"1" * (2 << 20) + b"]")), UsageError)
    assert "put_blob" in str(error)
    assert await s.store.find(address()) is None


@case(survives=True)
async def an_admission_is_known_after_reopening(s: Scene) -> None:
    """S1, S6."""
    first = await s.store.admit(address(), creation(), request(b"[1]", "k", fiber="first"))
    store = await s.reopened()
    again = await store.admit(address(), creation(), request(b"[1]", "k", fiber="second"))
    assert (again.n, again.duplicate, again.fiber, again.ordinal) == (first.n, True, "first", first.ordinal)


@case(shared=True)
async def two_stores_admit_one_key_once(s: Scene) -> None:
    """S6."""
    other = await s.another()
    done = await asyncio.gather(
        *(
            store.admit(address(), creation(), request(b"[1]", "k", fiber=f"{i}"))
            for i in range(10)
            for store in (s.store, other)
        )
    )
    assert len({(d.n, d.fiber, d.ordinal) for d in done}) == 1
    assert sum(d.duplicate for d in done) == 19
