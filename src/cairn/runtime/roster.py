"""The workers of a store, as one of them sees the others: alive, over, or dead and cleared away."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from cairn.clock import Clock
from cairn.runtime.lease import LeaseWatch
from cairn.runtime.owners import Owners
from cairn.runtime.settings import FORGET_WORKER_SECONDS
from cairn.runtime.storage.store import Store, WorkerRow

logger = logging.getLogger("cairn.runtime")


@dataclass(frozen=True, slots=True)
class Census:
    """One look at all workers."""

    live: frozenset[str] = frozenset()
    """They hold a lease that is not over, and are not provably dead."""
    expired: frozenset[str] = frozenset()
    """Their lease is over; they may come back, and are then fenced."""
    lease_until: dict[str, float] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        return self.live | self.expired


class Roster:
    """Takes the census and buries the dead: their row and lock file go, their instances are free."""

    def __init__(self, store: Store, owners: Owners, clock: Clock, worker: str, lease_seconds: float) -> None:
        self._store = store
        self._owners = owners
        self._clock = clock
        self._worker = worker
        self._watch = LeaseWatch(lease_seconds, owners.boot)

    async def census(self) -> Census:
        """Who is alive now. When it returns, the instances of provably dead workers are owned by nobody."""
        rows = await self._store.workers()
        self._watch.observe(rows, self._clock.monotonic())
        live, expired = set(), set()
        for row in rows:
            if row.id == self._worker:
                live.add(row.id)
            elif self._owners.is_dead(row):
                await self._bury(row)
            else:
                over = self._watch.over_for(row, self._store.lease_now(), self._clock.monotonic())
                if over < 0:
                    live.add(row.id)
                elif over < FORGET_WORKER_SECONDS:
                    expired.add(row.id)
                else:
                    await self._store.unregister(row.id)
        return Census(frozenset(live), frozenset(expired), {row.id: row.lease_until for row in rows})

    async def _bury(self, row: WorkerRow) -> None:
        logger.info("worker %s (pid %d on %s) is dead: its lock is free; taking over its work", row.id, row.pid, row.host)
        await self._store.unregister(row.id)
        self._owners.forget(row)
