"""What goes into a store and comes out of it: plain values. Import them from store.py, which says what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Durability(Enum):
    FACT = "fact"
    """On the disk when the append returns."""
    DELTA = "delta"
    """Survives the process; a power cut may take it, always together with everything after it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an instance lives."""

    kind: str
    id: str
    tenant: str = "default"

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"


@dataclass(frozen=True, slots=True)
class Due:
    """Set (`at` = wall seconds) or clear (`at` = None) the alarm `name` of the instance the append goes to."""

    name: str
    at: float | None


@dataclass(frozen=True, slots=True)
class Admission:
    """Idempotency of a request (S6): one `key` per instance, one `fiber`, one body `digest`."""

    key: str
    fiber: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Producer:
    """Who writes, in which reign, which write (S5): the rule is `runtime/producer.py`."""

    id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The content of one log row."""

    records: bytes
    chunks: bytes = b""
    projection: int = 0


@dataclass(frozen=True, slots=True)
class Append:
    """One atomic append to one instance: the batch, and what changes with it in the same transaction."""

    n: int
    batch: Batch
    epoch: int | None = None
    """The owner's epoch; None makes this a request."""
    durability: Durability = Durability.FACT
    due: tuple[Due, ...] = ()
    admission: Admission | None = None
    producer: Producer | None = None
    blobs: tuple[str, ...] = ()
    """Hashes this batch refers to: they are kept as long as the instance."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the batch went. `prev` tells the owner whether somebody appended since it last looked."""

    ordinal: int
    prev: int
    duplicate: bool = False
    """The producer or the admission key was known: nothing was written; `ordinal` is the first one's."""
    fiber: str | None = None
    """For a request with an admission: the fiber that key belongs to."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer to `admit`. `offset` is the head before the request, so that reading from it shows the request."""

    n: int
    uid: str
    ordinal: int
    offset: int
    created: bool
    duplicate: bool
    fiber: str


@dataclass(frozen=True, slots=True)
class Row:
    """One batch as stored. Its checksum has been verified (S14)."""

    ordinal: int
    prev: int
    epoch: int
    batch: Batch
    merged_from: int | None = None


@dataclass(frozen=True, slots=True)
class InstanceRow:
    n: int
    address: Address
    uid: str
    incarnation: str
    head: int
    reserved: int
    epoch: int
    owner: str | None
    created_at: float
    forked_from: int | None = None
    """The instance whose rows this one's log begins with, and …"""
    fork_offset: int | None = None
    """… the last of them; its own rows are above."""
    bytes: int = 0
    """What the rows of its own weigh: records and chunks, not what SQLite adds; what a fork shares weighs on its source."""


@dataclass(frozen=True, slots=True)
class DueRow:
    n: int
    address: Address
    name: str
    due_at: float
    epoch: int
    owner: str | None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One process. `lease_until` is on the store's lease clock (boot time for SQLite)."""

    id: str
    host: str
    pid: int
    kinds: tuple[str, ...]
    started_at: float
    lease_until: float
    lock: str = ""
    """Identity of its lock file: `boot id:device:inode`."""


class UidCondition(Enum):
    ANY = "any"
    ABSENT = "absent"
    """Create only: refuse when the instance exists."""


@dataclass(frozen=True, slots=True)
class Creation:
    """What batch 0 says if the instance has to be created, and what it is then called."""

    uid: str
    incarnation: str
    batch: Batch
    at: float


@dataclass(frozen=True, slots=True)
class Forked:
    """A new instance whose log begins with another's."""

    n: int
    uid: str
    incarnation: str
    offset: int
    """The last ordinal it shares: where it was asked to part, or the end of the merged range that lay there."""
    ordinal: int
    """Where its own first batch is."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What a bearer token allows. The store never sees the token, only its hash."""

    hash: str
    name: str
    tenant: str
    grants: tuple[str, ...]
    agents: tuple[str, ...]
    trusted: bool
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of `check`."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class StoreInfo:
    where: str
    format: int
    instances: int
    rows: int
    bytes: int
    settings: dict[str, str] = field(default_factory=dict)
