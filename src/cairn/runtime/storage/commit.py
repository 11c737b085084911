"""One group of writes, one transaction: read what is known, let plan.py decide, write what it says.

Laws. A group with a fact commits FULL (synced), any other NORMAL; the level is set before BEGIN, inside SQLite refuses. A
group that fails in SQLite is tried again in halves, so that no write fails for its neighbour. A failure of the disk while
committing is final: the kernel may have dropped what could not be synced, and no second sync would tell; from then on
this store refuses every write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from cairn.errors import CairnError, StoreError, StoreFull
from cairn.runtime.producer import Standing
from cairn.runtime.storage.ballast import Ballast
from cairn.runtime.storage.connection import (
    BUSY,
    CONSTRAINT,
    FULL,
    IOERR,
    IOERR_DIR_FSYNC,
    IOERR_FSYNC,
    IOERR_SHMSIZE,
    TOOBIG,
    Connection,
    SqlError,
    store_error,
)
from cairn.runtime.storage.plan import (
    Admit,
    Claim,
    First,
    Known,
    Life,
    Outcome,
    Plan,
    Write,
    is_intake,
    needs_sync,
    plan,
)
from cairn.runtime.storage.queries import execute_rows, query
from cairn.runtime.storage.store import Address, Append
from cairn.runtime.storage.turn import Turn, busy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group came to: one outcome per write, and what others are told."""

    outcomes: list[Outcome]
    heads: dict[int, int] = field(default_factory=dict)
    stirs: bool = False


class Space(Enum):
    """What a transaction of its own does to the disk."""

    NEEDED = "needed"
    """It needs what is free."""
    TAKEN = "taken"
    """It is new work: refused while the reserve is in use."""
    GIVEN = "given"
    """It removes something, which is a way out of a full disk: it may use the reserve. What it removed is to leave the
    write-ahead log too."""


class Committer:
    """The one writer of this process: a connection, the boot it writes under, the reserve it falls back on."""

    def __init__(
        self, connection: Connection, where: str, boot: str, ballast: Ballast | None = None, turn: Turn | None = None
    ) -> None:
        self.connection = connection
        self.failed: StoreError | None = None
        self._where = where
        self._boot = boot
        self._ballast = ballast
        self._turn = turn
        self._synced = True

    def commit(self, writes: Sequence[Write]) -> Committed:
        """Every write has its outcome, and what was taken has its durability. Never raises for a write."""
        if self.failed is not None:
            return Committed([self.failed] * len(writes))
        if any(map(is_intake, writes)) and self._is_full():
            return self._without_intake(writes)
        try:
            return self._group(writes)
        except SqlError as error:
            return self._after(error, writes)

    def run(self, work: Callable[[Connection], T], *, synced: bool = False, space: Space = Space.NEEDED) -> T:
        """Do `work` in a transaction of its own. Raises StoreError, and what it raises; then nothing of it was written."""
        if self.failed is not None:
            raise self.failed
        if space is Space.TAKEN and self._is_full():
            raise self._refused()
        try:
            return self._run(work, synced)
        except SqlError as error:
            if self.failed is None and error.code == FULL and space is Space.GIVEN and self._releases():
                return self.run(work, synced=synced)
            raise (self.failed or self._said(error)) from error

    def _run(self, work: Callable[[Connection], T], synced: bool) -> T:
        try:
            self._begin(synced)
            result = work(self.connection)
            self._commit()
            return result
        finally:
            self._rollback()

    def _releases(self) -> bool:
        return self._ballast is not None and self._ballast.release()

    def _is_full(self) -> bool:
        """Whether the reserve is in use. Asking is what brings it back once there is space again."""
        return self._ballast is not None and self._ballast.is_released and not self._ballast.restore()

    # --- one transaction

    def _group(self, writes: Sequence[Write]) -> Committed:
        synced = needs_sync(writes)
        try:
            self._begin(synced)
            planned = plan(writes, load(self.connection, writes, self._boot))
            if planned.synced and not synced:
                # A block was reserved, which only a synced commit may do. Once in a thousand deltas: decide again.
                self.connection.execute("rollback")
                self._begin(True)
                planned = plan(writes, load(self.connection, writes, self._boot))
            if planned.is_empty:
                return Committed(planned.outcomes)
            store(self.connection, planned, self._boot)
            self._commit()
            return Committed(planned.outcomes, planned.heads, planned.stirs)
        finally:
            self._rollback()

    def _begin(self, synced: bool) -> None:
        if synced is not self._synced:
            self.connection.execute("pragma synchronous=FULL" if synced else "pragma synchronous=NORMAL")
            self._synced = synced
        self.connection.execute("begin immediate")

    def _commit(self) -> None:
        try:
            self.connection.execute("commit")
        except SqlError as error:
            if error.code == IOERR and error.extended != IOERR_SHMSIZE:
                self.fail(error)
            raise

    def _rollback(self) -> None:
        if not self.connection.in_transaction:
            return
        try:
            self.connection.execute("rollback")
        except SqlError as error:
            self.fail(error)

    def fail(self, error: SqlError) -> None:
        """The disk failed where it must not: nothing is written any more."""
        self.failed = StoreError(
            f"{self._where}: the disk failed while committing ({error}, code {error.extended}). What was being written may or "
            "may not be there. This process must not write any more: stop it, check the disk, start it again."
        )

    # --- when a transaction failed

    def _after(self, error: SqlError, writes: Sequence[Write]) -> Committed:
        if error.extended in (IOERR_FSYNC, IOERR_DIR_FSYNC):
            self.fail(error)
        if self.failed is not None:
            return Committed([self.failed] * len(writes))
        if error.code in (CONSTRAINT, TOOBIG) and len(writes) > 1:
            return self._in_halves(writes)
        if error.code == CONSTRAINT and isinstance(writes[0], Claim):
            return Committed(
                [StoreError(f"worker {writes[0].worker!r} is not registered with {self._where}; register it first")]
            )
        if error.code == FULL and self._releases():
            return self._without_intake(writes)
        if error.code == FULL and len(writes) > 1:
            return self._in_halves(writes)
        return Committed([self._said(error)] * len(writes))

    def _said(self, error: SqlError) -> CairnError:
        if error.code == BUSY and self._turn is not None:
            return busy(self._where, self._turn.holder())
        return store_error(error, self._where)

    def _in_halves(self, writes: Sequence[Write]) -> Committed:
        """Some write of the group cannot be: it comes to stand alone, and the others are committed."""
        middle = len(writes) // 2
        first, second = self.commit(writes[:middle]), self.commit(writes[middle:])
        return Committed(first.outcomes + second.outcomes, {**first.heads, **second.heads}, first.stirs or second.stirs)

    def _without_intake(self, writes: Sequence[Write]) -> Committed:
        """The disk is full and the reserve in use: new work is refused, the rest is tried on the reserve."""
        refused = self._refused()
        rest = [write for write in writes if not is_intake(write)]
        done = self.commit(rest) if rest else Committed([])
        outcomes = iter(done.outcomes)
        merged = [refused if is_intake(write) else next(outcomes) for write in writes]
        return Committed(merged, done.heads, done.stirs)

    def _refused(self) -> StoreFull:
        return StoreFull(f"{self._where}: the disk or a quota is full. New work is refused until there is space again.")


# --- reading what a group needs


def load(connection: Connection, writes: Sequence[Write], boot: str) -> Known:
    """Everything the planner has to know, in a number of statements that does not depend on the group."""
    known = Known()
    numbers = {write.n for write in writes if not isinstance(write, Admit)}
    if len(numbers) == 1:
        found = connection.execute(query("group_instance"), (boot, *numbers))
    elif numbers:
        found = connection.execute(query("group_instances"), (boot, json.dumps(sorted(numbers))))
    else:
        found = []
    for row in found:
        _meet(known, row)
    admits = [write for write in writes if isinstance(write, Admit)]
    if admits:
        addresses = {(a.address.tenant, a.address.kind, a.address.id) for a in admits}
        for row in connection.execute(query("group_addresses"), (boot, json.dumps(sorted(addresses)))):
            _meet(known, row)
        [(known.last_n,)] = connection.execute(query("last_n"))
    requests = [(_n_of(write, known), write) for write in writes if isinstance(write, Append)]
    requests += [(_n_of(write, known), write.request) for write in admits]
    _load_repeats(connection, known, requests)
    _load_blobs(connection, known, writes)
    return known


def _meet(known: Known, row: tuple[Any, ...]) -> None:
    n, tenant, kind, id, uid, head, reserved, same_boot, epoch, owner, size = row
    if n in known.lives:
        known.addresses[known.lives[n].address] = known.lives[n]
        return
    life = Life(n, Address(kind, id, tenant), uid, head, reserved, bool(same_boot), epoch, owner, size)
    known.lives[n] = known.addresses[life.address] = life


def _n_of(write: Append | Admit, known: Known) -> int:
    if isinstance(write, Append):
        return write.n
    life = known.addresses.get(write.address)
    return life.n if life else -1


def _load_repeats(connection: Connection, known: Known, requests: Sequence[tuple[int, Append]]) -> None:
    keys = [(n, r.admission.key) for n, r in requests if r.admission is not None]
    if keys:
        for n, key, fiber, digest, ordinal, prev in connection.execute(query("group_admissions"), (json.dumps(keys),)):
            known.admissions[n, key] = First(ordinal, prev, digest, fiber)
    produced = [(n, r.producer.id, r.producer.epoch, r.producer.seq) for n, r in requests if r.producer is not None]
    if produced:
        names = json.dumps([(n, id) for n, id, _, _ in produced])
        for n, id, epoch, seq in connection.execute(query("group_standings"), (names,)):
            known.standings[n, id] = Standing(epoch, seq)
        for n, id, epoch, seq, digest, ordinal, prev in connection.execute(query("group_writes"), (json.dumps(produced),)):
            known.writes[n, id, epoch, seq] = First(ordinal, prev, digest)


def _load_blobs(connection: Connection, known: Known, writes: Sequence[Write]) -> None:
    wanted: set[tuple[str, str]] = set()
    for write in writes:
        if isinstance(write, Append) and write.blobs and write.n in known.lives:
            wanted |= {(known.lives[write.n].address.tenant, hash) for hash in write.blobs}
        elif isinstance(write, Admit) and write.request.blobs:
            wanted |= {(write.address.tenant, hash) for hash in write.request.blobs}
    if wanted:
        for tenant, hash, blob in connection.execute(query("group_blobs"), (json.dumps(sorted(wanted)),)):
            known.blobs[tenant, hash] = blob


# --- writing what was planned


def store(connection: Connection, planned: Plan, boot: str) -> None:
    """The plan's rows are in the open transaction."""
    if planned.created:
        execute_rows(connection, "create_instances", [_born(life, boot) for life in planned.created])
    if planned.moved:
        moved = [(life.n, life.head, life.reserved, life.epoch, life.owner, life.bytes) for life in planned.moved]
        connection.execute(query("move_instances"), (boot, json.dumps(moved)))
    if len(planned.grown) == 1:
        [life] = planned.grown
        connection.execute(query("move_head"), (life.head, life.bytes, life.n))
    elif planned.grown:
        grown = [(life.n, life.head, life.bytes) for life in planned.grown]
        connection.execute(query("move_heads"), (json.dumps(grown),))
    if planned.rows:
        execute_rows(connection, "append_rows", planned.rows)
    if planned.admissions:
        execute_rows(connection, "keep_admissions", planned.admissions)
    if planned.writes:
        execute_rows(connection, "keep_writes", planned.writes)
    if planned.references:
        execute_rows(connection, "keep_references", planned.references)
    if planned.alarms:
        _store_alarms(connection, planned)


def _store_alarms(connection: Connection, planned: Plan) -> None:
    rings = [(n, name, at) for (n, name), at in planned.alarms.items() if at is not None]
    cleared = [(n, name) for (n, name), at in planned.alarms.items() if at is None]
    if rings:
        execute_rows(connection, "set_alarms", rings)
    if cleared:
        connection.execute(query("clear_alarms"), (json.dumps(cleared),))


def _born(life: Life, boot: str) -> tuple[object, ...]:
    creation = life.creation
    assert creation is not None
    where = life.address
    return (
        life.n,
        where.tenant,
        where.kind,
        where.id,
        life.uid,
        creation.incarnation,
        life.head,
        life.reserved,
        boot,
        life.epoch,
        life.owner,
        creation.at,
        life.bytes,
    )
