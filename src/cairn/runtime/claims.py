"""What a worker claims next: fair between tenants, patient with instances that cannot be activated.

Laws. Pure: the present is an argument. What is kept here is a memory of failures of this process; losing it costs a try.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cairn.runtime.settings import POISON_BACKOFF_BASE_SECONDS, POISON_BACKOFF_MAX_SECONDS
from cairn.runtime.storage.store import DueRow

#: Seconds after its last try at which a failure is forgotten: by then somebody else has it, or it is not due any more.
FORGET_SECONDS = 2 * POISON_BACKOFF_MAX_SECONDS


def choose(rows: Iterable[DueRow], running: Mapping[str, int], free: int) -> list[DueRow]:
    """At most `free` instances to claim, once each, oldest alarm first, the tenant that runs least first."""
    queues: dict[str, list[DueRow]] = {}
    seen: set[int] = set()
    for row in rows:
        if row.n not in seen:
            seen.add(row.n)
            queues.setdefault(row.address.tenant, []).append(row)
    load = Counter(dict(running))
    chosen: list[DueRow] = []
    while queues and len(chosen) < free:
        tenant = min(queues, key=lambda tenant: load[tenant])
        chosen.append(queues[tenant].pop(0))
        load[tenant] += 1
        if not queues[tenant]:
            del queues[tenant]
    return chosen


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an instance is left alone for now."""

    what: str
    failures: int
    until: float
    """On this process's monotonic clock."""
    alarm: float | None = None
    """For one that waits for code: a request moves its alarm, and may be an abort."""


class Troubles:
    """The instances this process could not carry on, and when it will try them again (L7)."""

    def __init__(self) -> None:
        self._by_instance: dict[int, Trouble] = {}

    def __len__(self) -> int:
        return len(self._by_instance)

    def __iter__(self) -> Iterator[tuple[int, Trouble]]:
        return iter(self._by_instance.items())

    def failed(self, n: int, what: str, now: float) -> Trouble:
        """One more failure: the wait doubles."""
        before = self._by_instance.get(n)
        failures = before.failures + 1 if before is not None else 1
        wait = min(POISON_BACKOFF_BASE_SECONDS * 2.0 ** (failures - 1), POISON_BACKOFF_MAX_SECONDS)
        trouble = self._by_instance[n] = Trouble(what, failures, now + wait)
        return trouble

    def waits(self, n: int, what: str, until: float, alarm: float) -> None:
        """Nothing to do for this code until then, or until the alarm moves."""
        self._by_instance[n] = Trouble(what, 0, until, alarm)

    def cured(self, n: int) -> None:
        self._by_instance.pop(n, None)

    def is_waiting(self, row: DueRow, now: float) -> bool:
        """Whether the instance is to be left alone at this moment."""
        trouble = self._by_instance.get(row.n)
        if trouble is None or now >= trouble.until:
            return False
        return trouble.alarm is None or trouble.alarm == row.due_at

    def why(self, row: DueRow, now: float) -> str | None:
        """Why the instance failed, while it is left alone for that; None for one that only waits for code."""
        trouble = self._by_instance.get(row.n)
        return trouble.what if trouble is not None and trouble.failures and now < trouble.until else None

    def next_try(self, now: float) -> float | None:
        """Seconds until the next of them may be tried again. Those that may be already are looked at by every scan."""
        for n, trouble in list(self._by_instance.items()):
            if now > trouble.until + FORGET_SECONDS:
                self.cured(n)
        return min((trouble.until - now for trouble in self._by_instance.values() if trouble.until > now), default=None)
