"""The arithmetic of leases: when a worker has to stop, and when another one's time is over.

Laws. Pure: the present is an argument. A lease is for liveness, the epoch is for safety (S4): every answer here may be
wrong about a process that is slow, and then its appends are refused. Each side measures with its own clock only; rates may
differ by a percent, offsets do not matter.

    written by the store         lease_until = the time before the renewal was sent + lease_seconds
    the worker itself            stops at lease_until - margin, when no renewal was confirmed by then
    everybody else               may take over at lease_until

`lease_until` is on the boot clock, which all processes of one kernel share. A row left by an earlier boot is on another
clock: its number says nothing, so it is judged by whether it moves while we watch for a whole lease.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from cairn.runtime.storage.store import WorkerRow


class Standing(Enum):
    """How a worker's own lease stands."""

    SOUND = "sound"
    LOST = "lost"
    """Its margin has begun without a renewal: others may be about to take over. Stop, claim nothing."""


def standing(lease_until: float, now: float, *, margin_seconds: float) -> Standing:
    """What a worker may do under a lease that was last confirmed to run until `lease_until`."""
    return Standing.SOUND if now < lease_until - margin_seconds else Standing.LOST


def margin_of(lease_seconds: float, *, margin_seconds: float) -> float:
    """The margin of a lease: never more than a third of it, so that a short lease (in tests) has time to be renewed."""
    return min(margin_seconds, lease_seconds / 3)


class LeaseWatch:
    """Remembers when each other worker's lease was last seen to move."""

    def __init__(self, lease_seconds: float, boot: str) -> None:
        self._lease_seconds = lease_seconds
        self._boot = boot
        self._seen: dict[str, tuple[float, float]] = {}

    def observe(self, rows: Iterable[WorkerRow], monotonic: float) -> None:
        """Note what the rows say now. Forgets workers that have no row any more."""
        seen: dict[str, tuple[float, float]] = {}
        for row in rows:
            before = self._seen.get(row.id)
            moved = before is None or before[0] != row.lease_until
            seen[row.id] = (row.lease_until, monotonic) if moved or before is None else before
        self._seen = seen

    def over_for(self, row: WorkerRow, lease_now: float, monotonic: float) -> float:
        """Seconds since this lease was over; negative while it runs. The row has been observed."""
        if boot_of(row) == self._boot:
            return lease_now - row.lease_until
        _, since = self._seen[row.id]
        return monotonic - since - self._lease_seconds


def boot_of(row: WorkerRow) -> str:
    """The boot a worker's row was written in; empty where the store knows of no kernel."""
    return row.lock.partition(":")[0]
