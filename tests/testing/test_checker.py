"""The checker passes an honest history and catches each planted violation: it proves that the battery can see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cairn.errors import Fenced
from cairn.runtime.records import FiberAccepted, FiberSettled, FiberStarted, InstanceClaimed, InstanceCreated, encode
from cairn.runtime.storage.store import (
    Address,
    Admission,
    Admitted,
    Append,
    Appended,
    Batch,
    Creation,
    Durability,
    InstanceRow,
    Producer,
    Row,
)
from cairn.testing import History, Log, check
from cairn.testing.history import Operation

ADDRESS = Address("toy", "1")
CREATED = Batch(encode([InstanceCreated(kind="toy", id="1", uid="u", at=0)]))
ACCEPTED = Batch(encode([FiberAccepted(fiber="f1", method="run", at=0, key="k")]))
CLAIMED = Batch(encode([InstanceClaimed(epoch=1, worker="w1", at=0)]))
STARTED = Batch(encode([FiberStarted(fiber="f1", at=0)]))
SETTLED = Batch(encode([FiberSettled(fiber="f1", outcome="completed", at=0)]))
CLAIMED_AGAIN = Batch(encode([InstanceClaimed(epoch=2, worker="w2", at=0)]))
STALE = Batch(encode([FiberStarted(fiber="f0", at=9)]))
REQUEST = Append(0, ACCEPTED, admission=Admission("k", "f1", b"d"))
CREATION = Creation("u", "i", CREATED, 0)


class Story:
    """One instance from birth to settlement under two owners, told by its log and its history. Tests falsify it."""

    def __init__(self) -> None:
        self.history = History()
        self.rows = [
            Row(0, -1, 0, CREATED),
            Row(1, 0, 0, ACCEPTED),
            Row(2, 1, 1, CLAIMED),
            Row(3, 2, 1, STARTED),
            Row(1001, 3, 2, CLAIMED_AGAIN),  # a legal gap: the machine was restarted
            Row(1002, 1001, 2, SETTLED),
        ]
        self.admit = self.did("client", "admit", Admitted(1, "u", 1, 0, True, False, "f1"), ADDRESS, CREATION, REQUEST)
        self.again = self.did("client", "admit", Admitted(1, "u", 1, 0, False, True, "f1"), ADDRESS, CREATION, REQUEST)
        self.claim = self.did("w1", "claim", Appended(2, 1), 1, "w1", 0)
        self.claim.made = [CLAIMED]
        self.start = self.did("w1", "append", Appended(3, 2), 1, Append(1, STARTED, 1, producer=Producer("p", 1, 0)))
        self.second_claim = self.did("w2", "claim", Appended(1001, 3), 1, "w2", 1)
        self.second_claim.made = [CLAIMED_AGAIN]
        self.stale = self.history.invoke("w1", "append", Append(1, STALE, 1))
        self.history.fail(self.stale, Fenced("epoch 1 is over"))
        self.settle = self.did("w2", "append", Appended(1002, 1001), 1, Append(1, SETTLED, 2))
        self.read = self.did("client", "read", list(self.rows[2:]), 1, 1, 1000, 4 << 20)
        self.changed = self.did("client", "changed", 1002, 1, 3, None)

    def did(self, process: str, name: str, answer: Any, *arguments: Any) -> Operation:
        if name == "append":
            arguments = arguments[1:]
        operation = self.history.invoke(process, name, *arguments)
        self.history.ok(operation, answer)
        return operation

    def drop(self, ordinal: int) -> None:
        self.rows = [row for row in self.rows if row.ordinal != ordinal]
        self.relink()

    def relink(self) -> None:
        ordinals = [-1, *(row.ordinal for row in self.rows)]
        self.rows = [replace(row, prev=prev) for prev, row in zip(ordinals, self.rows, strict=False)]

    def change(self, ordinal: int, **fields: Any) -> None:
        self.rows = [replace(row, **fields) if row.ordinal == ordinal else row for row in self.rows]

    def add(self, batch: Batch, epoch: int = 2) -> None:
        last = self.rows[-1].ordinal
        self.rows.append(Row(last + 1, last, epoch, batch))

    def check(self, **options: bool) -> set[str]:
        head = self.rows[-1].ordinal
        instance = InstanceRow(1, ADDRESS, "u", "i", head, 2000, self.rows[-1].epoch, "w2", 0)
        return {violation.promise for violation in check(self.history, [Log(instance, self.rows)], **options)}


def test_an_honest_history_has_no_violation() -> None:
    """T20: gaps, repeats, fenced writes and takeovers are legal."""
    assert Story().check() == set()


def test_an_unknown_write_may_be_in_the_log_or_not() -> None:
    """S5: both outcomes of an unknown operation are legal, once."""
    without, with_it, twice = Story(), Story(), Story()
    for story in (without, with_it, twice):
        story.history.info(story.stale, ConnectionError())
    with_it.add(STALE)
    twice.add(STALE)
    twice.add(STALE)

    assert (without.check(), with_it.check(), twice.check()) == (set(), set(), {"S5"})


def test_processes_without_a_history_may_have_written_what_this_one_did_not_ask_for() -> None:
    """T9: the client records, the workers do not; a repeat of what the client asked for is still seen."""
    foreign, repeated = Story(), Story()
    foreign.add(Batch(b'[{"type":"theirs"}]'))
    repeated.add(STARTED)

    assert foreign.check() == {"S5"}
    assert foreign.check(others_wrote=True) == set()
    assert "S5" in repeated.check(others_wrote=True)


def _lose_acknowledged(story: Story) -> None:
    story.drop(3)
    story.read.answer = []
    story.read.arguments = (1, 1002, 1000, 0)


def _settle_twice(story: Story) -> None:
    story.add(SETTLED)
    story.did("w2", "append", Appended(1003, 1002), 1, Append(1, SETTLED, 2))


def _work_after_settlement(story: Story) -> None:
    late = Batch(encode([FiberStarted(fiber="f1", at=3)]))
    story.add(late)
    story.did("w2", "append", Appended(1003, 1002), 1, Append(1, late, 2))


def _zombie_in_its_old_epoch(story: Story) -> None:
    story.add(STALE, epoch=1)
    story.history.ok(story.stale, Appended(1003, 1002))


def _zombie_under_the_new_epoch(story: Story) -> None:
    story.add(STALE, epoch=2)
    story.history.ok(story.stale, Appended(1003, 1002))


def _two_fibers_for_one_key(story: Story) -> None:
    other = Batch(encode([FiberAccepted(fiber="f2", method="run", at=0, key="k")]))
    story.add(other)
    story.did("client", "append", Appended(1003, 1002, fiber="f2"), 1, Append(1, other))


def _another_answer_for_one_key(story: Story) -> None:
    story.again.answer = replace(story.again.answer, fiber="f2")


def _another_body_for_one_key(story: Story) -> None:
    story.again.arguments = (ADDRESS, CREATION, replace(REQUEST, admission=Admission("k", "f1", b"e")))


def _two_owners_of_one_epoch(story: Story) -> None:
    story.second_claim.arguments = (1, "w2", 0)


def _another_offset_for_one_producer_write(story: Story) -> None:
    append = Append(1, STARTED, 1, producer=Producer("p", 1, 0))
    story.did("w1", "append", Appended(2, 1, duplicate=True), 1, append)


def _repeat_of_what_is_not_there(story: Story) -> None:
    story.did("w1", "append", Appended(7, 6, duplicate=True), 1, Append(1, STARTED, 1))


def _a_reader_saw_what_is_gone(story: Story) -> None:
    story.read.answer = [*story.read.answer, Row(1003, 1002, 2, STALE)]


def _a_reader_saw_another_batch(story: Story) -> None:
    story.read.answer = [*story.read.answer[:-1], Row(1002, 1001, 2, STALE)]


def _a_reader_was_sent_back(story: Story) -> None:
    story.read.answer = story.read.answer[::-1]


def _a_reader_missed_one(story: Story) -> None:
    del story.read.answer[1]


def _a_head_went_back(story: Story) -> None:
    story.changed.answer = 3


def _an_empty_page_hides_a_batch(story: Story) -> None:
    story.read.answer = []


def _an_ordinal_went_back(story: Story) -> None:
    story.second_claim.answer, story.settle.answer = Appended(1002, 1001), Appended(1001, 3)
    story.change(1001, batch=SETTLED)
    story.change(1002, batch=CLAIMED_AGAIN)
    story.read.answer = list(story.rows[2:])


PLANTED: list[tuple[str, Callable[[Story], None]]] = [
    ("S1", _lose_acknowledged),
    ("S1", _repeat_of_what_is_not_there),
    ("S2", lambda story: story.change(1001, prev=2)),
    ("S2", _a_reader_missed_one),
    ("S3", lambda story: story.change(3, batch=STALE)),
    ("S3", lambda story: story.rows.insert(3, story.rows.pop(4))),
    ("S3", _a_reader_saw_what_is_gone),
    ("S3", _a_reader_saw_another_batch),
    ("S3", _a_reader_was_sent_back),
    ("S3", _a_head_went_back),
    ("S3", _an_empty_page_hides_a_batch),
    ("S3", _an_ordinal_went_back),
    ("S4", lambda story: story.add(STALE)),
    ("S4", _zombie_in_its_old_epoch),
    ("S4", _zombie_under_the_new_epoch),
    ("S4", _two_owners_of_one_epoch),
    ("S5", lambda story: story.add(CLAIMED)),
    ("S5", lambda story: story.add(Batch(b"[]"))),
    ("S5", _another_offset_for_one_producer_write),
    ("S6", _two_fibers_for_one_key),
    ("S6", _another_answer_for_one_key),
    ("S6", _another_body_for_one_key),
    ("S7", _settle_twice),
    ("S7", _work_after_settlement),
    ("S14", lambda story: story.change(3, batch=Batch(b"not json"))),
]


@pytest.mark.parametrize(("promise", "plant"), PLANTED)
def test_each_planted_violation_is_caught(promise: str, plant: Callable[[Story], None]) -> None:
    """T20, T22: S1 to S7 and S14, each broken in every way the checker claims to see."""
    story = Story()

    plant(story)

    assert promise in story.check()


def test_a_power_cut_may_take_deltas_from_the_end_but_no_fact_and_no_middle() -> None:
    """S1, S2: what `relaxed` means, exactly."""

    def story(durability: Durability, *, then: bool) -> Story:
        story = Story()
        story.did("w2", "append", Appended(1003, 1002), 1, Append(1, STALE, 2, durability))
        story.history.operations.remove(story.stale)
        if then:
            later = Batch(b"[]")
            story.rows.append(Row(1004, 1002, 2, later))
            story.did("w2", "append", Appended(1004, 1002), 1, Append(1, later, 2))
        return story

    assert story(Durability.DELTA, then=False).check(power_cut=True) == set()
    assert story(Durability.DELTA, then=False).check() == {"S1"}
    assert story(Durability.DELTA, then=True).check(power_cut=True) == {"S1"}
    assert story(Durability.FACT, then=False).check(power_cut=True) == {"S1"}


def test_merged_deltas_may_be_gone_one_by_one() -> None:
    """S3: the one exception, and only inside the merged range."""
    story = Story()
    delta = Append(1, STALE, 2, Durability.DELTA)
    for ordinal in (1003, 1004):
        story.did("w2", "append", Appended(ordinal, ordinal - 1), 1, delta)
    story.history.operations.remove(story.stale)
    story.rows.append(Row(1004, 1002, 2, Batch(b"[]"), merged_from=1003))

    merged = story.check()
    story.rows[-1] = replace(story.rows[-1], merged_from=1004)

    # The delta acknowledged at 1004 is inside both ranges; the one at 1003 only inside the first.
    assert "S1" not in merged
    assert "S1" in story.check()
