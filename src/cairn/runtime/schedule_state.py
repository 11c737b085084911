"""What the fold knows of one schedule: what it calls, when it is next, and which of its fibers are remembered.

Laws. Pure. When an occurrence comes is never computed here, it is recorded: a fold must not depend on the zone database of the
machine that folds (S15). A batch accepts the fiber of an occurrence and moves the schedule on, so an occurrence has one fiber
or none, whoever owns the instance.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

from cairn.runtime import records as r
from cairn.runtime.fiber_state import FiberState
from cairn.runtime.settings import SCHEDULE_DEAD_KEPT, SCHEDULE_SETTLED_KEPT

if TYPE_CHECKING:
    from cairn.runtime.state import RuntimeState


class ScheduleState(msgspec.Struct, omit_defaults=True):
    name: str
    method: str
    when: r.When
    of: int
    """The ordinal of the request that made it what it is."""
    next: float
    """The next occurrence, in wall seconds."""
    arguments: msgspec.Raw = r.NULL
    missed: r.Missed = "once"
    overlap: bool = False
    retry: r.Retry | None = None
    timeout_seconds: float | None = None
    declared: bool = False
    active: list[str] = []
    """Its fibers that have not settled."""
    kept: list[str] = []
    """Its fibers that have, oldest first: only so many are remembered."""
    dead: list[str] = []
    last: float | None = None
    """The last occurrence that was due, whether it ran or was missed."""
    missed_runs: int = 0
    """Firings that ran nothing, because it was too late."""

    @property
    def is_held(self) -> bool:
        """It waits for its last fiber, because its runs do not overlap."""
        return bool(self.active) and not self.overlap


def lag(schedule: ScheduleState, uid: str) -> float:
    """Seconds after its time at which an occurrence is dealt with: one time of many objects is not one moment."""
    if not schedule.when.jitter:
        return 0.0
    return schedule.when.jitter * zlib.crc32(f"{uid} {schedule.name}".encode()) / 2**32


def requested(state: RuntimeState, record: r.ScheduleRequested, ordinal: int) -> None:
    before = state.schedules.get(record.name)
    if before is not None and is_same(before, record):
        return
    state.schedules[record.name] = ScheduleState(
        name=record.name,
        method=record.method,
        when=record.when,
        of=ordinal,
        next=record.first,
        arguments=record.arguments.copy(),
        missed=record.missed,
        overlap=record.overlap,
        retry=record.retry,
        timeout_seconds=record.timeout_seconds,
        declared=record.declared,
        active=before.active if before is not None else [],
        kept=before.kept if before is not None else [],
        dead=before.dead if before is not None else [],
        last=before.last if before is not None else None,
    )


def is_same(schedule: ScheduleState, record: r.ScheduleRequested) -> bool:
    """Whether the request says what the schedule is already. Something that happens once is compared by its time, too."""
    return (
        schedule.method == record.method
        and schedule.when == record.when
        and bytes(schedule.arguments) == bytes(record.arguments)
        and (schedule.missed, schedule.overlap, schedule.declared) == (record.missed, record.overlap, record.declared)
        and (schedule.retry, schedule.timeout_seconds) == (record.retry, record.timeout_seconds)
    )


def fired(state: RuntimeState, record: r.ScheduleFired, ordinal: int) -> None:
    """A schedule that was cancelled or made another in between is not moved by what its former self did."""
    schedule = state.schedules.get(record.name)
    if schedule is None or schedule.of != record.of:
        return
    schedule.last = record.occurrence
    if record.fiber is None:
        schedule.missed_runs += 1
    if record.next is None:
        del state.schedules[record.name]
    else:
        schedule.next = record.next


def accepted(state: RuntimeState, fiber: FiberState) -> None:
    """An occurrence whose schedule was cancelled before it fired is not to run."""
    schedule = state.schedules.get(fiber.schedule or "")
    if schedule is None:
        fiber.abort = f"its schedule '{fiber.schedule}' was cancelled before it was due"
    else:
        schedule.active.append(fiber.id)


def settled(state: RuntimeState, fiber: FiberState) -> None:
    """The newest outcomes are remembered, of dead letters more than of others."""
    schedule = state.schedules.get(fiber.schedule or "")
    if schedule is None:
        return
    if fiber.id in schedule.active:
        schedule.active.remove(fiber.id)
    kept, limit = (schedule.dead, SCHEDULE_DEAD_KEPT) if fiber.dead else (schedule.kept, SCHEDULE_SETTLED_KEPT)
    kept.append(fiber.id)
    while len(kept) > limit:
        state.settled.pop(kept.pop(0), None)
