"""A process's lease: one row that says until when this process may be taken for alive. Boot-clock seconds, so that no
change of the wall clock ends or prolongs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from cairn.clock import Clock
from cairn.runtime.storage.connection import Connection
from cairn.runtime.storage.queries import query
from cairn.runtime.storage.store import WorkerRow

#: Renewals per lease: three may fail or come late before it runs out.
RENEWALS_PER_LEASE = 4


@dataclass(frozen=True, slots=True)
class Lease:
    """What is renewed, for how long each time, and whether it still should be."""

    worker: WorkerRow
    seconds: float
    boot: str
    alive: Callable[[], bool]

    @property
    def interval(self) -> float:
        return self.seconds / RENEWALS_PER_LEASE

    def is_alive(self) -> bool:
        """Whether to renew. A question that fails is no sign of life."""
        try:
            return self.alive()
        except Exception:
            return False

    def renew(self, connection: Connection, clock: Clock) -> None:
        """The lease runs for its full length from now. Creates the row if it is not there."""
        row = self.worker
        until = clock.boottime() + self.seconds
        kinds = json.dumps(list(row.kinds))
        connection.execute(query("keep_worker"), (row.id, row.host, row.pid, kinds, row.started_at, until, row.lock, self.boot))

    @staticmethod
    def drop(connection: Connection, worker: str) -> None:
        """The worker is gone and its instances are free."""
        connection.execute(query("drop_worker"), (worker,))
