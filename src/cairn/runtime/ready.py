"""Which fibers of an instance may run, and when, and when the next are due: computed from the fold, remembered by nobody.

Laws. Pure. The same answer decides what a runner starts, when a hibernating instance wakes, and whether claiming it is
worth a record at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from cairn.runtime.application import Application
from cairn.runtime.schedule_state import ScheduleState, lag
from cairn.runtime.state import FiberState, Phase, RuntimeState, backoff_seconds

#: The wake time of something that can run at once.
NOW = 0.0


def candidates(runtime: RuntimeState, *, serial: bool) -> Iterator[FiberState]:
    """Those whose turn it is: all, or the oldest (S11). One that is to be aborted, or runs beside the others, never waits for
    its turn."""
    is_first = True
    for fiber in runtime.unsettled():
        if not serial or is_first or fiber.beside or fiber.abort is not None:
            yield fiber
        is_first = is_first and fiber.beside


def ready_at(fiber: FiberState) -> float | None:
    """When a fiber may run, in wall seconds; `NOW`, or None: not before something else happens."""
    if fiber.abort is not None or fiber.phase is Phase.ACCEPTED:
        return NOW
    if fiber.phase is Phase.RUNNING:
        wait = backoff_seconds(fiber.interrupted, fiber.id)
        return fiber.interrupted_at + wait if wait else NOW
    if fiber.blocked is not None or fiber.woken:
        return NOW
    return min((wait.until for wait in fiber.waits.values() if wait.until is not None), default=None)


def _may_fire(schedule: ScheduleState, application: Application) -> bool:
    """It does not wait for its last run, and for no other code."""
    return not schedule.is_held and (not schedule.declared or application.declares(schedule.name))


def due_schedules(runtime: RuntimeState, application: Application, now: float) -> list[ScheduleState]:
    """Those with an occurrence to be dealt with, the earliest first."""
    every = runtime.schedules.values()
    found = [each for each in every if each.next + lag(each, runtime.uid) <= now and _may_fire(each, application)]
    return sorted(found, key=lambda schedule: schedule.next)


def next_occurrence(runtime: RuntimeState, application: Application) -> float | None:
    """When the next schedule is due; None: when a run that holds one up has settled, or somebody makes one."""
    may = (each for each in runtime.schedules.values() if _may_fire(each, application))
    return min((each.next + lag(each, runtime.uid) for each in may), default=None)


def next_wake(runtime: RuntimeState, application: Application, *, after: float) -> float | None:
    """When the next fiber, of those that cannot run yet, may run, or a schedule is due; None: when somebody sends something."""
    fibers = candidates(runtime, serial=application.serial)
    times = [next_occurrence(runtime, application), *(ready_at(fiber) for fiber in fibers)]
    return min((at for at in times if at is not None and at > after), default=None)


def waits_for_code(runtime: RuntimeState, application: Application, now: float) -> bool:
    """Whether all there is to do has been parked for want of code, and this code has not got it either."""
    if due_schedules(runtime, application, now):
        return False
    fibers = [fiber for fiber in candidates(runtime, serial=application.serial) if ready_at(fiber) == NOW]
    return bool(fibers) and all(
        fiber.blocked is not None and fiber.abort is None and application.blocked(fiber) is not None for fiber in fibers
    )
