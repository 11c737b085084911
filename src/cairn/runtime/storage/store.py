"""What a store promises. Two dialects (SQLite here, Postgres later), one contract: `cairn.testing.contract`.

Vocabulary. An *instance* is a row `n` (never reused) and its log. A *batch* is one log row: the records of one append, at
one *ordinal* that the store allocates; every row names the ordinal before it (`prev`), so a legal gap differs from a
lost batch (S2). An *owner append* carries the epoch and is refused when it is not current (S4); a *request* carries none.
A *fact* has reached the disk when the call returns; a *delta* has survived the death of the process, not of the machine.

The store knows bytes, not meanings: `records` is a JSON array it never parses, `chunks` whatever the layer above projects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from cairn.runtime.storage.values import Address as Address
from cairn.runtime.storage.values import Admission as Admission
from cairn.runtime.storage.values import Admitted as Admitted
from cairn.runtime.storage.values import Append as Append
from cairn.runtime.storage.values import Appended as Appended
from cairn.runtime.storage.values import Batch as Batch
from cairn.runtime.storage.values import Creation as Creation
from cairn.runtime.storage.values import Due as Due
from cairn.runtime.storage.values import DueRow as DueRow
from cairn.runtime.storage.values import Durability as Durability
from cairn.runtime.storage.values import Forked as Forked
from cairn.runtime.storage.values import InstanceRow as InstanceRow
from cairn.runtime.storage.values import Problem as Problem
from cairn.runtime.storage.values import Producer as Producer
from cairn.runtime.storage.values import Row as Row
from cairn.runtime.storage.values import StoreInfo as StoreInfo
from cairn.runtime.storage.values import TokenRow as TokenRow
from cairn.runtime.storage.values import UidCondition as UidCondition
from cairn.runtime.storage.values import WorkerRow as WorkerRow


class Store(Protocol):
    """A place for logs. Every method is safe to call from several tasks; one store serves one event loop.

    *Cancelled*: a write that was handed over still happens; a read stops. *Raises* StoreError where said in `errors.py`.
    """

    async def open(self) -> None: ...

    async def close(self) -> None:
        """Everything accepted before is written; leases held through this store are given up."""
        ...

    # --- appending

    async def admit(
        self,
        address: Address,
        creation: Creation,
        request: Append,
        uid: str | UidCondition = UidCondition.ANY,
    ) -> Admitted:
        """Create the instance if absent (batch 0, then the request as batch 1, one transaction) and append the request.

        `request.n` and `request.epoch` are ignored. *Idempotent* by `request.admission.key`: a known key with the same
        digest answers the first fiber, with another digest raises Conflict. A condition on `uid` that fails raises
        NotFound or Conflict and writes nothing, except that a known admission wins over it.
        """
        ...

    async def append(self, append: Append) -> Appended:
        """The batch is in the log.

        *Raises* Fenced for an owner append (epoch not current, or no such instance), NotFound for a request to no instance
        or a blob that is not stored, Conflict, ProducerConflict.
        """
        ...

    # --- reading

    async def find(self, address: Address) -> InstanceRow | None: ...

    async def instance(self, n: int) -> InstanceRow | None: ...

    async def instances(
        self,
        *,
        kind: str | None = None,
        tenant: str | None = None,
        after: int = 0,
        limit: int = 100,
        newest_first: bool = False,
        before: int | None = None,
        alarm: str | None = None,
    ) -> list[InstanceRow]:
        """Instances by `n`, a page at a time: rising from `after`, or with `newest_first` falling from `before`. With `alarm`
        only those that have an alarm of that name, whenever it rings, and always rising."""
        ...

    async def read(self, n: int, after: int, *, limit: int = 1000, bytes_max: int = 4 << 20) -> list[Row]:
        """Rows with ordinal > `after`, in order, at least one if there is one. Verifies checksum and link (S14).

        A row with `merged_from` <= `after` stands for rows of which the reader has seen some and not others. A fork's
        log begins with the rows it shares. Nothing when there is no such instance.
        """
        ...

    async def changed(self, n: int, after: int, timeout: float | None = None) -> int:
        """Return the head once it is beyond `after`, whoever appended (any process); or the head at `timeout`.

        *Raises* NotFound when there is no such instance, also when it is deleted (by any process) during the wait.
        """
        ...

    async def boundary(self, n: int, at: int) -> int:
        """The ordinal of the last row at or before `at`; of the merged row that covers `at`, if one does.

        It is where a fork at `at` would part. *Raises* NotFound: no such instance, or it has no row there.
        """
        ...

    # --- the life of a whole log

    async def fork(self, source: int, at: int, address: Address, creation: Creation) -> Forked:
        """A new instance at `address` begins with the source's rows up to `at` (shared, not copied), then `creation.batch`.

        It has no owner, the epoch of the last shared row (S4), and none of the source's keys, producers, alarms and
        snapshots; content that the shared rows refer to is kept for it too. `at` is the ordinal of a row, or lies in
        a merged range: then the fork parts at the range's end. *Durable* when it returns. *Raises* NotFound: no
        source, or no row at `at`; Conflict: the address is taken; UsageError: another tenant's source (S12).
        """
        ...

    async def delete(self, n: int) -> bool:
        """Nothing of the instance can be read, listed, claimed or appended to; its address is free. False: there is none.

        One transaction, *Durable*. An owner's append is Fenced from then on, a request NotFound, and so is a wait in
        `changed`. Rows that forks share are kept for them, unreadable here, until the last such fork is deleted.
        Content that nobody else refers to goes with it; what was stored within the last hour is left to `collect_blobs`.
        What remains is its address, uid and the time, in `tombstones`. *Idempotent*.
        """
        ...

    async def merge(self, n: int, first: int, last: int, batch: Batch) -> bool:
        """The instance's rows from ordinal `first` to `last` are one row at `last` that says so (`merged_from`).

        One transaction; a power cut may undo it whole. Checkpoints and snapshots in between are gone with it. Only for
        rows that nobody has to tell apart again: the deltas of one settled block. False and nothing done
        unless both are rows of the instance's own, at least two in all, none merged before and none but `last`
        the end of what a fork shares. *Idempotent*: the second time is False.
        """
        ...

    # --- ownership

    async def register(self, worker: WorkerRow, lease_seconds: float, alive: Callable[[], bool]) -> None:
        """Write the worker's lease and keep renewing it from the store's own thread while `alive()` is true."""
        ...

    async def unregister(self, worker: str) -> None:
        """Stop renewing and remove the worker. Its instances are free at once."""
        ...

    async def workers(self) -> list[WorkerRow]: ...

    def lease_now(self) -> float:
        """The present on the lease clock."""
        ...

    async def claim(self, n: int, worker: str, *, expected_epoch: int, make: Callable[[int], Batch]) -> Appended | None:
        """Own the instance: epoch = expected + 1, and the batch made for that epoch appended as a fact, all at once.

        None when the epoch is no longer the expected one (somebody else was first). The caller has established that
        the former owner is gone; the epoch keeps it safe if that was wrong.
        """
        ...

    async def release(
        self, n: int, epoch: int, batch: Batch | None, due: Sequence[Due] = (), *, expected_head: int | None = None
    ) -> bool:
        """Give the instance up: append `batch` as a fact, set `due`, clear the owner. Silently nothing when already fenced.

        With `expected_head`, False and nothing done when somebody appended beyond it: an owner that goes to sleep sets
        its alarms from what it has folded, and must not sleep over a request that it has not (L1). Else True.
        """
        ...

    # --- what is due

    async def due(
        self, kinds: Sequence[str], now: float, limit: int = 100, *, exclude_owners: Sequence[str] = ()
    ) -> list[DueRow]:
        """Alarms at or before `now` of instances of these kinds, oldest first, owned by anybody or nobody.

        Instances of `exclude_owners` are left out: what a live worker runs must not fill the scan (L7).
        """
        ...

    async def next_due(self, kinds: Sequence[str], *, after: float | None = None) -> float | None:
        """When the next alarm of these kinds rings, on the wall clock; the first later than `after`, when given."""
        ...

    async def wait_for_work(self, timeout: float | None) -> None:
        """Return when something may have become due or changed in any process, or at `timeout`.

        At once when it did since the calling task last called `due` or this: nothing is lost between looking and waiting.
        """
        ...

    # --- projections and content

    async def save_checkpoint(self, n: int, epoch: int, ordinal: int, state: bytes) -> None:
        """Keep a fold at `ordinal` (the two newest are kept). Nothing when fenced."""
        ...

    async def checkpoint(self, n: int, at_or_before: int | None = None) -> tuple[int, bytes] | None:
        """The newest checkpoint at or before an ordinal; a fork's may be of a row that it shares."""
        ...

    async def save_snapshot(self, n: int, ordinal: int, projection: int, state: bytes) -> None:
        """Keep what a reader of version `projection` has seen at `ordinal`, in place of what was kept before.

        A cache: anybody may write it, a power cut may take it. Nothing when the instance is gone, has no such ordinal
        of its own, or a later one of the same version is kept.
        """
        ...

    async def snapshot(self, n: int, projection: int) -> tuple[int, bytes] | None:
        """The ordinal and the state kept last for this version, if any."""
        ...

    async def save_dump(self, n: int, name: str, data: bytes | None) -> None:
        """Keep the state of something that the instance runs, in place of what had the name; None: keep none.

        A cache, as a snapshot is: a power cut may take it, and a fork has none. Nothing when the instance is gone.
        """
        ...

    async def dump(self, n: int, name: str) -> bytes | None:
        """What was kept last under the name, if anything."""
        ...

    async def put_blob(self, tenant: str, data: bytes) -> str:
        """Store content and return its hash (`sha256:…`). Unreferenced content lives for a grace period."""
        ...

    async def get_blob(self, tenant: str, hash: str) -> bytes:
        """Raises NotFound; StoreCorrupt when the content no longer has that hash."""
        ...

    async def collect_blobs(self, grace_seconds: float) -> int:
        """Delete content nobody refers to and older than the grace period; how many were deleted."""
        ...

    # --- who may come in

    async def put_token(self, token: TokenRow) -> None:
        """The token is known. *Durable*. Raises Conflict when its tenant has one of that name."""
        ...

    async def token(self, hash: str) -> TokenRow | None: ...

    async def tokens(self, tenant: str | None = None) -> list[TokenRow]:
        """Every token, or a tenant's, by tenant and name; also those that have expired."""
        ...

    async def delete_token(self, name: str, tenant: str = "default") -> bool:
        """The token is unknown. *Durable*. False when it was before."""
        ...

    # --- care

    async def backup(self, path: str) -> None:
        """A consistent copy of the live store at `path`, which must not exist."""
        ...

    async def check(self) -> list[Problem]:
        """Everything that is wrong: pages, checksums, links, dangling rows. Empty is good."""
        ...

    async def info(self) -> StoreInfo: ...
