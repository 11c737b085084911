"""The producer rule: each row of its table, and the rule at a real log against a model that knows everything."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cairn.clock import SystemClock
from cairn.errors import Conflict, ProducerConflict
from cairn.ids import SystemIds
from cairn.runtime.producer import Standing, Verdict, digest, explain, judge
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Append, Batch, Creation, Producer

ROWS = [
    # standing         epoch  seq  content  known   verdict
    (None, 0, 0, b"a", None, Verdict.ACCEPT),
    (None, 7, 0, b"a", None, Verdict.ACCEPT),
    (None, 0, 1, b"a", None, Verdict.BAD_START),
    (Standing(3, 5), 2, 0, b"a", None, Verdict.FENCED),
    (Standing(3, 5), 2, 5, b"a", b"a", Verdict.FENCED),
    (Standing(3, 5), 2, 6, b"a", None, Verdict.FENCED),
    (Standing(3, 5), 4, 0, b"a", None, Verdict.ACCEPT),
    (Standing(3, 5), 9, 0, b"a", None, Verdict.ACCEPT),
    (Standing(3, 5), 4, 1, b"a", None, Verdict.BAD_START),
    (Standing(3, 5), 4, 6, b"a", None, Verdict.BAD_START),
    (Standing(3, 5), 3, 5, b"a", b"a", Verdict.DUPLICATE),
    (Standing(3, 5), 3, 0, b"a", b"a", Verdict.DUPLICATE),
    (Standing(3, 5), 3, 5, b"a", b"b", Verdict.CONFLICT),
    (Standing(3, 5), 3, 2, b"a", b"b", Verdict.CONFLICT),
    (Standing(3, 5), 3, 2, b"a", None, Verdict.CONFLICT),
    (Standing(3, 5), 3, 6, b"a", None, Verdict.ACCEPT),
    (Standing(3, 5), 3, 7, b"a", None, Verdict.GAP),
    (Standing(3, 5), 3, 900, b"a", None, Verdict.GAP),
]


@pytest.mark.parametrize(("standing", "epoch", "seq", "content", "known", "verdict"), ROWS)
def test_each_row_of_the_table(
    standing: Standing | None, epoch: int, seq: int, content: bytes, known: bytes | None, verdict: Verdict
) -> None:
    """S5: the rule, row by row."""
    assert judge(standing, epoch, seq, content, known) is verdict


def test_every_combination_has_exactly_the_verdict_of_the_written_rule() -> None:
    """S5: the rule said a second time, as sentences, over all small numbers."""
    for has, epoch, seq in itertools.product([None, *itertools.product(range(3), range(3))], range(4), range(5)):
        standing = Standing(*has) if has else None
        for known in (None, b"a", b"b"):
            verdict = judge(standing, epoch, seq, b"a", known)
            current, last = has or (-1, -1)
            assert (verdict is Verdict.FENCED) == (epoch < current)
            assert (verdict is Verdict.BAD_START) == (epoch > current and seq != 0)
            assert (verdict is Verdict.GAP) == (epoch == current and seq > last + 1)
            assert (verdict is Verdict.DUPLICATE) == (epoch == current and seq <= last and known == b"a")
            assert (verdict is Verdict.CONFLICT) == (epoch == current and seq <= last and known != b"a")


@pytest.mark.parametrize("verdict", [Verdict.FENCED, Verdict.BAD_START, Verdict.CONFLICT, Verdict.GAP])
def test_a_refusal_names_the_write_the_state_and_what_to_do(verdict: Verdict) -> None:
    """S5: an error a person can act on."""
    text = explain(verdict, "shop", Standing(3, 5), 3, 9)
    assert all(word in text for word in ("'shop'", "epoch 3", "seq 9", "seq 5", verdict.value))
    assert explain(Verdict.BAD_START, "shop", None, 1, 4).count("nothing of it yet") == 1


def test_a_digest_tells_contents_apart() -> None:
    """S5: one byte more, less or other is another write."""
    contents = [b"", b"\0", b"[1]", b"[1] ", b"[2]", b"[1]" * 1_000]
    assert len({digest(content) for content in contents}) == len(contents)


PRODUCERS = ("p", "q")


class TheRule(RuleBasedStateMachine):
    """A log in memory, and a model of what it must have taken."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = SqliteStore(":memory:", clock=SystemClock(), ids=SystemIds(), inline=True)
        self.epoch = dict.fromkeys(PRODUCERS, -1)
        self.last = dict.fromkeys(PRODUCERS, -1)
        self.taken: dict[tuple[str, int, int], tuple[int, bytes]] = {}
        self.log: list[bytes] = []

    @initialize()
    def open(self) -> None:
        async def born() -> int:
            await self.store.open()
            creation = Creation("uid", "incarnation", Batch(b"[0]"), 1.0)
            return (await self.store.admit(Address("toy", "one"), creation, Append(0, Batch(b"[1]")))).n

        self.n = self.runner.run(born())

    @rule(
        id=st.sampled_from(PRODUCERS),
        ahead=st.integers(-1, 2),
        step=st.integers(-3, 2),
        content=st.sampled_from([b"[10]", b"[20]"]),
    )
    def write(self, id: str, ahead: int, step: int, content: bytes) -> None:
        """A write somewhere near what the log has: repeats, gaps, old and new reigns, other content."""
        epoch = max(0, self.epoch[id] + ahead)
        seq = max(0, (self.last[id] + step) if ahead == 0 else step)
        expected = self.expected(id, epoch, seq, content)
        try:
            append = Append(self.n, Batch(content), producer=Producer(id, epoch, seq))
            done = self.runner.run(self.store.append(append))
        except ProducerConflict as error:
            assert error.verdict == expected
            return
        if isinstance(expected, int):
            assert (done.duplicate, done.ordinal) == (True, expected)
            return
        assert (done.duplicate, expected) == (False, "accept")
        self.epoch[id], self.last[id] = epoch, seq
        self.taken[id, epoch, seq] = (done.ordinal, content)
        self.log.append(content)

    def expected(self, id: str, epoch: int, seq: int, content: bytes) -> str | int:
        if epoch < self.epoch[id]:
            return "fenced"
        if epoch > self.epoch[id]:
            return "accept" if seq == 0 else "bad start"
        if seq == self.last[id] + 1:
            return "accept"
        if seq > self.last[id]:
            return "gap"
        ordinal, first = self.taken[id, epoch, seq]
        return ordinal if first == content else "conflict"

    @rule(content=st.sampled_from([b"[30]", b"[40]"]))
    def somebody_else(self, content: bytes) -> None:
        """An append without a producer, in between."""
        self.runner.run(self.store.append(Append(self.n, Batch(content))))
        self.log.append(content)

    @precondition(lambda self: len(self.log) % 7 == 3)
    @invariant()
    def the_log_is_what_was_taken(self) -> None:
        rows = self.runner.run(self.store.read(self.n, 1, limit=10_000))
        assert [row.batch.records for row in rows] == self.log

    def teardown(self) -> None:
        self.the_log_is_what_was_taken()
        self.runner.run(self.store.close())
        self.runner.close()


class QuickRule(TheRule):
    pass


TheRule.TestCase.settings = settings(max_examples=500, stateful_step_count=50)
QuickRule.TestCase.settings = settings(max_examples=20, stateful_step_count=30)

TestTheRuleQuickly = QuickRule.TestCase
TestTheRuleAtLength = pytest.mark.slow(TheRule.TestCase)


def test_a_producer_conflict_is_a_conflict() -> None:
    """S5: who catches Conflict catches it."""
    assert issubclass(ProducerConflict, Conflict)
