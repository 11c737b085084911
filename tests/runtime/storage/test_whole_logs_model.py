"""Any sequence of births, appends, forks, merges, deletions and reboots, against a model that copies instead of sharing."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from tests.runtime.storage.helpers import MEMORY, make

from cairn.errors import NotFound
from cairn.runtime.storage.store import Address, Append, Batch, Creation, Row

T = TypeVar("T")

RANDOM = st.randoms(use_true_random=False)


@dataclass
class Life:
    """An instance as the model knows it."""

    id: str
    own: list[Row] = field(default_factory=list)
    source: int | None = None
    offset: int = -1
    is_alive: bool = True


class WholeLogs(RuleBasedStateMachine):
    """The store and the model side by side. Everything a reader can see is compared after every step."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp(dir=MEMORY)
        self.runner = asyncio.Runner()
        self.lives: dict[int, Life] = {}
        self.boots = 0
        self.steps = 0
        self.store = make(f"{self.folder}/cairn.db", inline=True)
        self.do(self.store.open())

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.do(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(what)

    # --- the model

    def view(self, n: int) -> list[Row]:
        life = self.lives[n]
        shared = [] if life.source is None else [row for row in self.view(life.source) if row.ordinal <= life.offset]
        return shared + life.own

    def kept(self, n: int) -> bool:
        """Whether anything of it must still be stored: it lives, or something that is stored shares it."""
        return self.lives[n].is_alive or any(self.children(n))

    def children(self, n: int) -> list[int]:
        return [m for m, life in self.lives.items() if life.source == n and self.kept(m)]

    def living(self) -> list[int]:
        return [n for n, life in self.lives.items() if life.is_alive]

    def batch(self) -> Batch:
        self.steps += 1
        return Batch(b"[%d]" % self.steps, b"", self.steps % 3)

    # --- what may happen

    @rule()
    def born(self) -> None:
        first, second = self.batch(), self.batch()
        id = f"i{self.steps}"
        done = self.do(self.store.admit(Address("toy", id), Creation(f"u{id}", "i", first, 1.0), Append(0, second)))
        self.lives[done.n] = Life(id, [Row(0, -1, 0, first), Row(1, 0, 0, second)])

    @precondition(lambda self: self.living())
    @rule(random=RANDOM, count=st.integers(1, 6))
    def append(self, random: Any, count: int) -> None:
        n = random.choice(self.living())
        for _ in range(count):
            batch = self.batch()
            done = self.do(self.store.append(Append(n, batch)))
            assert done.prev == self.view(n)[-1].ordinal
            self.lives[n].own.append(Row(done.ordinal, done.prev, 0, batch))

    @precondition(lambda self: self.living())
    @rule(random=RANDOM)
    def fork(self, random: Any) -> None:
        source = random.choice(self.living())
        view = self.view(source)
        at = random.choice(view).ordinal - random.choice([0, 0, 0, 1, 2])
        batch = self.batch()
        id = f"i{self.steps}"
        creation = Creation(f"u{id}", "i", batch, 1.0)
        covering = [
            row for row in view if (row.merged_from if row.merged_from is not None else row.ordinal) <= at <= row.ordinal
        ]
        if not covering:
            with pytest.raises(NotFound):
                self.do(self.store.fork(source, at, Address("toy", id), creation))
            return
        done = self.do(self.store.fork(source, at, Address("toy", id), creation))
        assert (done.offset, done.ordinal) == (covering[0].ordinal, covering[0].ordinal + 1)
        while self.lives[source].offset >= done.offset:
            source = self.lives[source].source or 0
        self.lives[done.n] = Life(id, [Row(done.ordinal, done.offset, 0, batch)], source, done.offset)

    @precondition(lambda self: self.living())
    @rule(random=RANDOM)
    def merge(self, random: Any) -> None:
        n = random.choice(self.living())
        own = self.lives[n].own
        first, last = sorted(random.choices([row.ordinal for row in self.view(n)], k=2))
        batch = self.batch()
        inside = [row for row in own if first <= row.ordinal <= last]
        is_range = len(inside) > 1 and (inside[0].ordinal, inside[-1].ordinal) == (first, last)
        is_new = all(row.merged_from is None for row in inside)
        is_free = not any(first <= self.lives[m].offset < last for m in self.children(n))
        assert self.do(self.store.merge(n, first, last, batch)) is (is_range and is_new and is_free)
        if is_range and is_new and is_free:
            at = own.index(inside[0])
            own[at : at + len(inside)] = [Row(last, inside[0].prev, 0, batch, first)]

    @precondition(lambda self: self.living())
    @rule(random=RANDOM)
    def delete(self, random: Any) -> None:
        n = random.choice(self.living())
        assert self.do(self.store.delete(n)) is True
        self.lives[n].is_alive = False

    @rule()
    def reboot(self) -> None:
        self.boots += 1
        self.do(self.store.close())
        self.store = make(f"{self.folder}/cairn.db", inline=True, boot=f"boot {self.boots}")
        self.do(self.store.open())

    # --- what must hold

    @invariant()
    def every_log_reads_as_the_model_says(self) -> None:
        for n, life in getattr(self, "lives", {}).items():
            found = self.do(self.store.read(n, -1))
            assert found == (self.view(n) if life.is_alive else []), f"instance {n}"
            assert (self.do(self.store.find(Address("toy", life.id))) is not None) is life.is_alive

    @invariant()
    def nothing_is_stored_that_nobody_can_read(self) -> None:
        expected = 0
        for n, life in getattr(self, "lives", {}).items():
            shared = max((self.lives[m].offset for m in self.children(n)), default=-1)
            expected += sum(life.is_alive or row.ordinal <= shared for row in life.own)
        if hasattr(self, "store"):
            assert self.do(self.store.info()).rows == expected
            assert self.do(self.store.check()) == []

    @precondition(lambda self: self.living())
    @rule(random=RANDOM)
    def a_page_is_a_piece_of_the_log(self, random: Any) -> None:
        n = random.choice(self.living())
        view = self.view(n)
        after, limit = random.randint(-1, view[-1].ordinal + 1), random.randint(1, 5)
        rest = [row for row in view if row.ordinal > after]
        assert self.do(self.store.read(n, after, limit=limit)) == rest[:limit]
        covering = [row.ordinal for row in view if row.merged_from is not None and row.merged_from <= after <= row.ordinal]
        before = [row.ordinal for row in view if row.ordinal <= after]
        if after >= 0:
            assert self.do(self.store.boundary(n, after)) == (covering or before[-1:])[0]


@pytest.mark.slow
def test_whatever_happens_to_whole_logs_a_reader_sees_what_a_model_that_copies_says() -> None:
    """T6: S2, S3, S12, and S14 (check finds nothing): forks share, deletions purge exactly, merges merge."""
    run_state_machine_as_test(
        WholeLogs,
        settings=settings(max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)),
    )
