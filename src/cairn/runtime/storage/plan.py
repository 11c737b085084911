"""What a group of writes does: decided here, written by commit.py.

Laws. Pure: no clock, no ids, no I/O, no `async`. The planner is given what the database says of the instances, keys,
producers and content concerned (`Known`), under the write lock, and the writes in order of arrival. Each write is taken or
refused alone: a refusal is an outcome and changes nothing, so a neighbour never fails for it. What one write changes, the
next one sees.

    who may write                the owner: its epoch is the current one (S4); a request: anybody
    which ordinal                head + 1; under another boot, above everything reserved (never a position twice, S3)
    raising `reserved`           in blocks, and only in a synced commit
    a known admission key        same digest: the first answer again; other digest: Conflict (S6); wins over all else
    a producer's write           runtime/producer.py (S5)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from cairn.errors import CairnError, Conflict, Fenced, NotFound, ProducerConflict
from cairn.runtime.producer import Standing, Verdict, digest, explain, judge
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
    Producer,
    UidCondition,
)

#: Ordinals reserved by one synced commit. One in a thousand deltas pays a sync; an unclean boot skips at most this many.
RESERVED_BLOCK = 1_000


@dataclass(frozen=True, slots=True)
class Admit:
    """A request by address, which creates its instance if need be."""

    address: Address
    creation: Creation
    request: Append
    uid: str | UidCondition = UidCondition.ANY


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the instance over at the epoch after `expected_epoch`. `make` is pure and may be called more than once."""

    n: int
    worker: str
    expected_epoch: int
    make: Callable[[int], Batch]


@dataclass(frozen=True, slots=True)
class Release:
    """Give the instance up."""

    n: int
    epoch: int
    batch: Batch | None
    due: tuple[Due, ...] = ()
    expected_head: int | None = None


Write: TypeAlias = Append | Admit | Claim | Release
Outcome: TypeAlias = Appended | Admitted | bool | Exception | None


@dataclass(slots=True)
class Life:
    """An instance as the planner moves it."""

    n: int
    address: Address
    uid: str
    head: int
    reserved: int
    same_boot: bool
    epoch: int
    owner: str | None
    bytes: int
    """What its own rows weigh."""
    creation: Creation | None = None
    """Set when this group creates it."""
    moved: bool = False
    """More than the head changed."""


class First(NamedTuple):
    """Where a key or a producer's write went the first time."""

    ordinal: int
    prev: int
    digest: bytes
    fiber: str | None = None


WriteKey: TypeAlias = tuple[int, str, int, int]
"""n, producer, epoch, seq."""


@dataclass(slots=True)
class Known:
    """What the database says. The planner adds what it decides."""

    lives: dict[int, Life] = field(default_factory=dict)
    addresses: dict[Address, Life] = field(default_factory=dict)
    admissions: dict[tuple[int, str], First] = field(default_factory=dict)
    standings: dict[tuple[int, str], Standing] = field(default_factory=dict)
    writes: dict[WriteKey, First] = field(default_factory=dict)
    blobs: dict[tuple[str, str], int] = field(default_factory=dict)
    last_n: int = 0


Row: TypeAlias = tuple[object, ...]


@dataclass(slots=True)
class Plan:
    """The outcomes, one per write, and the rows that make them true."""

    outcomes: list[Outcome] = field(default_factory=list)
    synced: bool = False
    """It must be on the disk before anybody is told."""
    stirs: bool = False
    """It may have made work for some worker: a request, an alarm, a change of owner."""
    heads: dict[int, int] = field(default_factory=dict)
    grown: list[Life] = field(default_factory=list)
    """Those of which only the head moved, and the weight."""
    created: list[Life] = field(default_factory=list)
    moved: list[Life] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    admissions: list[Row] = field(default_factory=list)
    writes: list[Row] = field(default_factory=list)
    alarms: dict[tuple[int, str], float | None] = field(default_factory=dict)
    references: list[Row] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.rows or self.moved or self.alarms)


def needs_sync(writes: Sequence[Write]) -> bool:
    """Whether some write of the group is a fact. (Raising `reserved` may need a sync besides; the plan says so.)"""
    return any(not isinstance(write, Append) or write.durability is Durability.FACT for write in writes)


def is_intake(write: Write) -> bool:
    """Whether this write lets new work in, as against settling what is there: refused first when the disk is full."""
    return isinstance(write, Admit) or (isinstance(write, Append) and write.epoch is None)


def plan(writes: Sequence[Write], known: Known) -> Plan:
    """Decide every write of the group in order."""
    planner = _Planner(known)
    for write in writes:
        planner.take(write)
    return planner.finish()


class _Planner:
    def __init__(self, known: Known) -> None:
        self.known = known
        self.plan = Plan()
        self.changed: dict[int, Life] = {}

    def take(self, write: Write) -> None:
        outcome: Outcome
        try:
            if isinstance(write, Append):
                outcome = self.append(write)
            elif isinstance(write, Admit):
                outcome = self.admit(write)
            elif isinstance(write, Claim):
                outcome = self.claim(write)
            else:
                outcome = self.release(write)
        except CairnError as refusal:
            outcome = refusal
        except Exception as failure:
            if not isinstance(write, Claim):  # only a claim runs code of the caller's
                raise
            outcome = failure
        self.plan.outcomes.append(outcome)

    def finish(self) -> Plan:
        plan = self.plan
        for life in self.changed.values():
            if life.creation is not None:
                plan.created.append(life)
            elif life.moved:
                plan.moved.append(life)
            else:
                plan.grown.append(life)
            plan.heads[life.n] = life.head
        return plan

    # --- the four writes: every refusal is raised before the first change

    def append(self, write: Append) -> Appended:
        life = self.known.lives.get(write.n)
        if life is None:
            raise _missing(write)
        if write.epoch is not None and write.epoch != life.epoch:
            raise _fenced(life, write.epoch)
        return self.enter(life, write)

    def admit(self, write: Admit) -> Admitted:
        life = self.known.addresses.get(write.address)
        admission = write.request.admission
        if life is not None and admission is not None and (life.n, admission.key) in self.known.admissions:
            first = self.repeated(life, admission)
            assert first is not None
            return Admitted(life.n, life.uid, first.ordinal, first.prev, False, True, first.fiber or "")
        _require(write, life)
        created = life is None
        if life is None:
            self.references(write.address.tenant, write.request.blobs)
            self.produced(self.known.last_n + 1, write.request.producer, write.request.batch)
            life = self.create(write.address, write.creation)
        done = self.enter(life, write.request)
        return Admitted(life.n, life.uid, done.ordinal, done.prev, created, done.duplicate, done.fiber or "")

    def claim(self, write: Claim) -> Appended | None:
        life = self.known.lives.get(write.n)
        if life is None or life.epoch != write.expected_epoch:
            return None
        batch = write.make(life.epoch + 1)
        life.epoch += 1
        life.owner = write.worker
        life.moved = True
        self.plan.synced = self.plan.stirs = True
        return self.write(life, batch)

    def release(self, write: Release) -> bool:
        life = self.known.lives.get(write.n)
        if life is None or life.epoch != write.epoch:
            return True
        if write.expected_head is not None and write.expected_head != life.head:
            return False
        life.owner = None
        life.moved = True
        self.changed[life.n] = life
        self.plan.synced = self.plan.stirs = True
        if write.batch is not None:
            self.write(life, write.batch)
        self.alarms(life, write.due)
        return True

    # --- what they share

    def create(self, address: Address, creation: Creation) -> Life:
        self.known.last_n += 1
        life = Life(self.known.last_n, address, creation.uid, -1, -1, True, 0, None, 0, creation)
        self.known.lives[life.n] = self.known.addresses[address] = life
        self.write(life, creation.batch)
        return life

    def enter(self, life: Life, write: Append) -> Appended:
        """Take an append whose right to be here is established."""
        first = self.repeated(life, write.admission)
        if first is None:
            first = self.produced(life.n, write.producer, write.batch)
        if first is not None:
            return Appended(first.ordinal, first.prev, duplicate=True, fiber=first.fiber)
        references = self.references(life.address.tenant, write.blobs)
        done = self.write(life, write.batch)
        self.plan.references += [(life.n, blob, done.ordinal) for blob in references]
        self.plan.synced = self.plan.synced or write.durability is Durability.FACT
        self.plan.stirs = self.plan.stirs or write.epoch is None
        self.alarms(life, write.due)
        if write.producer is not None:
            self.remember_write(life, write.producer, write.batch, done)
        if write.admission is None:
            return done
        return self.remember_admission(life, write.admission, done)

    def repeated(self, life: Life, admission: Admission | None) -> First | None:
        if admission is None:
            return None
        first = self.known.admissions.get((life.n, admission.key))
        if first is not None and first.digest != admission.digest:
            raise Conflict(
                f"idempotency key {admission.key!r} of {life.address} was used with another body (for {first.fiber}). "
                "Repeat the same body, or use a new key.",
                fiber=first.fiber,
            )  # S6
        return first

    def produced(self, n: int, producer: Producer | None, batch: Batch) -> First | None:
        if producer is None:
            return None
        standing = self.known.standings.get((n, producer.id))
        first = self.known.writes.get((n, producer.id, producer.epoch, producer.seq))
        known = first.digest if first else None
        verdict = judge(standing, producer.epoch, producer.seq, digest(batch.records), known)
        if verdict is Verdict.ACCEPT:
            return None
        if verdict is Verdict.DUPLICATE:
            return first
        said = explain(verdict, producer.id, standing, producer.epoch, producer.seq)
        raise ProducerConflict(said, verdict.value)  # S5

    def references(self, tenant: str, hashes: tuple[str, ...]) -> list[int]:
        found = []
        for hash in hashes:
            blob = self.known.blobs.get((tenant, hash))
            if blob is None:
                raise NotFound(f"content {hash} is not stored for tenant {tenant!r}; put_blob it before referring to it")
            found.append(blob)
        return found

    def write(self, life: Life, batch: Batch) -> Appended:
        prev = life.head
        ordinal = prev + 1 if life.same_boot else max(life.reserved, prev) + 1
        if ordinal > life.reserved:
            life.reserved = ordinal + RESERVED_BLOCK - 1
            life.moved = True
            self.plan.synced = True
        life.same_boot = True
        life.head = ordinal
        life.bytes += len(batch.records) + len(batch.chunks)
        self.changed[life.n] = life
        sum = checksum(life.n, ordinal, prev, life.epoch, batch.records, batch.chunks, batch.projection)
        self.plan.rows.append((life.n, ordinal, prev, life.epoch, batch.projection, sum, batch.records, batch.chunks))
        return Appended(ordinal, prev)

    def alarms(self, life: Life, due: tuple[Due, ...]) -> None:
        for alarm in due:
            self.plan.alarms[life.n, alarm.name] = alarm.at
            self.plan.stirs = True

    def remember_admission(self, life: Life, admission: Admission, done: Appended) -> Appended:
        first = First(done.ordinal, done.prev, admission.digest, admission.fiber)
        self.known.admissions[life.n, admission.key] = first
        self.plan.admissions.append(
            (life.n, admission.key, admission.fiber, admission.digest, done.ordinal, done.prev),
        )
        return Appended(done.ordinal, done.prev, fiber=admission.fiber)

    def remember_write(self, life: Life, producer: Producer, batch: Batch, done: Appended) -> None:
        content = digest(batch.records)
        self.known.standings[life.n, producer.id] = Standing(producer.epoch, producer.seq)
        key = (life.n, producer.id, producer.epoch, producer.seq)
        self.known.writes[key] = First(done.ordinal, done.prev, content)
        self.plan.writes.append((*key, content, done.ordinal, done.prev))


def _missing(write: Append) -> CairnError:
    if write.epoch is None:
        return NotFound(f"there is no instance {write.n}; it may have been deleted")
    return Fenced(f"instance {write.n} does not exist any more; this worker holds epoch {write.epoch} of it. Stop.")


def _fenced(life: Life, epoch: int) -> Fenced:
    return Fenced(
        f"instance {life.address} is at epoch {life.epoch}; this worker holds {epoch}. Its work was taken over; stop."
    )  # S4


def _require(write: Admit, life: Life | None) -> None:
    """The condition on the instance's uid."""
    if write.uid is UidCondition.ANY:
        return
    if write.uid is UidCondition.ABSENT:
        if life is not None:
            raise Conflict(f"instance {write.address} exists (uid {life.uid}); it was to be created", uid=life.uid)
    elif life is None:
        raise NotFound(f"instance {write.address} does not exist; uid {write.uid} was expected")
    elif life.uid != write.uid:
        raise Conflict(f"instance {write.address} has uid {life.uid}; uid {write.uid} was expected", uid=life.uid)
