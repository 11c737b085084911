"""The planner: pure, so each rule is tried by hand."""

from __future__ import annotations

from typing import Any

import pytest

from cairn.errors import Conflict, Fenced, NotFound, StoreError
from cairn.runtime.storage.plan import (
    RESERVED_BLOCK,
    Admit,
    Claim,
    Known,
    Life,
    Plan,
    Release,
    Write,
    is_intake,
    needs_sync,
    plan,
)
from cairn.runtime.storage.row import checksum
from cairn.runtime.storage.store import (
    Address,
    Admission,
    Admitted,
    Append,
    Appended,
    Batch,
    Creation,
    Due,
    Durability,
)

HERE = Address("toy", "one")
B = Batch(b"[1]")


def known(**more: Any) -> Known:
    usual = {"uid": "u", "head": 5, "reserved": 999, "same_boot": True, "epoch": 2, "owner": "w", "bytes": 100}
    life = Life(**{"n": 1, "address": HERE, **usual, **more})
    return Known(lives={life.n: life}, addresses={life.address: life}, last_n=1)


def decide(*writes: Write, on: Known | None = None) -> Plan:
    return plan(writes, on or known())


def owner(epoch: int = 2, durability: Durability = Durability.FACT, **more: Any) -> Append:
    return Append(1, B, epoch, durability, **more)


def test_ordinals_follow_the_head() -> None:
    """S2: each row is one above the one it names."""
    decided = decide(owner(), owner(), owner())
    assert decided.outcomes == [Appended(6, 5), Appended(7, 6), Appended(8, 7)]
    assert decided.heads == {1: 8}


def test_a_log_weighs_what_is_written_to_it() -> None:
    """L7: records and chunks, whichever statement writes the number."""
    decided = decide(owner(), Append(1, Batch(b"[22]", b"shown"), 2))
    assert [(life.n, life.bytes) for life in decided.grown] == [(1, 100 + 3 + 4 + 5)] and not decided.moved
    born = decide(Admit(Address("toy", "two"), Creation("u2", "i2", Batch(b"[0]"), 0.0), Append(0, Batch(b"[11]"))))
    assert [life.bytes for life in born.created] == [3 + 4] and not born.grown
    decided = decide(Claim(1, "w2", 2, lambda epoch: Batch(b"[333]")))
    assert [life.bytes for life in decided.moved] == [100 + 5] and not decided.grown


def test_a_row_carries_its_checksum() -> None:
    """S14: over everything in it."""
    [row] = decide(owner()).rows
    assert row[:6] == (1, 6, 5, 2, 0, checksum(1, 6, 5, 2, b"[1]", b""))


def test_what_is_refused_leaves_no_trace() -> None:
    """S2, S4: a refusal is an outcome and nothing else."""
    decided = decide(owner(epoch=1, due=(Due("a", 1.0),), admission=Admission("k", "f", b"d")))
    assert isinstance(decided.outcomes[0], Fenced)
    assert decided.is_empty and not decided.admissions and not decided.heads


def test_a_delta_alone_needs_no_sync() -> None:
    """S1: only facts pay for the disk."""
    relaxed, fact = owner(durability=Durability.DELTA), owner()
    assert not needs_sync([relaxed, relaxed]) and not decide(relaxed).synced
    assert needs_sync([relaxed, fact]) and decide(relaxed, fact).synced


@pytest.mark.parametrize(
    "write",
    [
        Admit(HERE, Creation("u", "i", B, 1.0), Append(0, B)),
        Claim(1, "w", 2, lambda epoch: B),
        Release(1, 2, None),
    ],
)
def test_whatever_changes_who_owns_or_lets_in_needs_a_sync(write: Write) -> None:
    """S1, S4: facts by nature."""
    assert needs_sync([write])


def test_reaching_the_reserved_end_reserves_a_block_in_a_synced_commit() -> None:
    """S3: an ordinal is used only below what is reserved for certain."""
    decided = decide(owner(durability=Durability.DELTA), on=known(head=999))
    assert decided.synced
    [life] = decided.moved
    assert (life.head, life.reserved) == (1_000, 999 + RESERVED_BLOCK)


def test_below_the_reserved_end_nothing_is_reserved() -> None:
    """S3: one synced commit per block."""
    assert not decide(owner(durability=Durability.DELTA), on=known(head=998)).moved


def test_another_boot_begins_above_everything_reserved() -> None:
    """S3: what that boot gave out may have been seen and lost."""
    decided = decide(owner(durability=Durability.DELTA), owner(durability=Durability.DELTA), on=known(same_boot=False))
    assert decided.outcomes == [Appended(1_000, 5), Appended(1_001, 1_000)]
    assert decided.synced and decided.moved[0].reserved == 1_999


def test_what_one_write_changes_the_next_one_sees() -> None:
    """S4: within a group as between groups."""
    decided = decide(owner(2), Claim(1, "x", 2, lambda epoch: B), owner(2), owner(3), Release(1, 3, B), owner(3))
    kinds = [type(outcome).__name__ for outcome in decided.outcomes]
    assert kinds == ["Appended", "Appended", "Fenced", "Appended", "bool", "Appended"]
    [life] = decided.moved
    assert (life.epoch, life.owner, life.head) == (3, None, 10)


def test_one_group_creates_and_uses_an_instance() -> None:
    """S2, S6: batch 0, the request, and a second request that finds it."""
    new = Address("toy", "new")
    ask = Append(0, B, admission=Admission("k", "f", b"d"))
    admit = Admit(new, Creation("u", "i", Batch(b"[0]"), 1.0), ask)
    decided = decide(admit, admit, Admit(new, Creation("v", "i", B, 1.0), Append(0, B)))
    assert decided.outcomes == [
        Admitted(2, "u", 1, 0, True, False, "f"),
        Admitted(2, "u", 1, 0, False, True, "f"),
        Admitted(2, "u", 2, 1, False, False, ""),
    ]
    [life] = decided.created
    assert (life.n, life.head, life.reserved, life.epoch) == (2, 2, 999, 0)
    assert [row[1] for row in decided.rows] == [0, 1, 2] and not decided.moved


def test_two_creations_get_two_numbers() -> None:
    """S12: numbers are given in the transaction."""
    admits = [Admit(Address("toy", id), Creation(id, "i", B, 1.0), Append(0, B)) for id in "abc"]
    assert [o.n for o in decide(*admits).outcomes if isinstance(o, Admitted)] == [2, 3, 4]


def test_a_key_taken_in_the_group_is_known_in_the_group() -> None:
    """S6: also for another body."""
    decided = decide(
        Append(1, B, admission=Admission("k", "f", b"d")),
        Append(1, B, admission=Admission("k", "g", b"d")),
        Append(1, B, admission=Admission("k", "g", b"e")),
    )
    first, second, third = decided.outcomes
    assert first == Appended(6, 5, fiber="f") and second == Appended(6, 5, True, "f")
    assert isinstance(third, Conflict) and len(decided.rows) == 1


def test_the_last_word_on_an_alarm_is_written_once() -> None:
    """L4: alarms of a group are a map, not a sequence."""
    decided = decide(owner(due=(Due("a", 1.0), Due("b", 2.0))), owner(due=(Due("a", None),)), owner(due=(Due("b", 3.0),)))
    assert decided.alarms == {(1, "a"): None, (1, "b"): 3.0}


def test_an_owner_of_nothing_is_fenced_and_a_request_to_nothing_is_not_found() -> None:
    """S4, S12: the owner must stop; the caller must know."""
    gone, missing = decide(Append(9, B, 1), Append(9, B)).outcomes
    assert isinstance(gone, Fenced) and isinstance(missing, NotFound)


def test_only_a_claims_batch_may_raise() -> None:
    """S14: a fault in the planner itself is not an outcome."""

    def broken(epoch: int) -> Batch:
        raise StoreError("made by the caller")

    assert isinstance(decide(Claim(1, "w", 2, broken)).outcomes[0], StoreError)
    with pytest.raises(AttributeError):
        decide(owner(due=(None,)))  # type: ignore[arg-type]


def test_a_release_at_another_epoch_does_nothing() -> None:
    """S4: silently."""
    decided = decide(Release(1, 1, B, (Due("a", 1.0),)))
    assert decided.outcomes == [True] and decided.is_empty


def test_a_release_at_another_head_does_nothing_and_says_so() -> None:
    """L1: an owner must not sleep over what it has not folded."""
    decided = decide(Release(1, 2, B, (Due("a", 1.0),), expected_head=4))
    assert decided.outcomes == [False] and decided.is_empty
    assert decide(Release(1, 2, B, expected_head=5)).outcomes == [True]


def test_what_lets_work_in_is_told_from_what_settles_it() -> None:
    """L6: on a full disk only the first is refused."""
    assert is_intake(Append(1, B)) and is_intake(Admit(HERE, Creation("u", "i", B, 1.0), Append(0, B)))
    assert not any(map(is_intake, [owner(), Claim(1, "w", 2, lambda epoch: B), Release(1, 2, None)]))


def test_requests_claims_releases_and_alarms_stir_workers_and_deltas_do_not() -> None:
    """L1: who waits for work is woken by what may be work."""
    stirring = [
        Append(1, B),
        owner(due=(Due("a", 1.0),)),
        Claim(1, "w", 2, lambda epoch: B),
        Release(1, 2, None),
    ]
    assert all(decide(write).stirs for write in stirring)
    assert not decide(owner(), owner(durability=Durability.DELTA)).stirs
