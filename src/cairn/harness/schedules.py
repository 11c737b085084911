"""What an agent is told by the clock: schedules that its code declares, one submission for each occurrence.

Laws. A declared schedule has a name that is a function of what it says, so that any number of processes that declare it at
every start have one schedule. What the code does not declare any more fires in no process that runs this code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import UsageError
from cairn.harness import records as h
from cairn.runtime.client import Client
from cairn.runtime.schedule import Timing
from cairn.runtime.schedule_state import ScheduleState

if TYPE_CHECKING:
    from cairn.harness.application import AgentApplication

#: The conversation of an agent's schedules that name none.
SCHEDULED = "scheduled"


def checked_schedules(label: object, schedules: Sequence[Any]) -> tuple[Timing, ...]:
    """The schedules, each with its name and its conversation. *Raises* UsageError for what an agent cannot be told."""
    found: dict[str, Timing] = {}
    for given in (schedules,) if isinstance(schedules, Timing) else schedules:
        if not isinstance(given, Timing):
            raise UsageError(f"{label}: schedules holds {given!r}; write cron(…, message=…) or every(…, message=…)")
        if not given.message.strip():
            raise UsageError(f"{label}: a schedule says nothing to the agent; give it message='…'")
        if given.after_seconds is not None:
            raise UsageError(
                f"{label}: after(…) counts from when it was scheduled, and an agent always is; use every(…) or at(…)"
            )
        named = msgspec.structs.replace(given, key=given.key or _name(given), id=given.id or SCHEDULED)
        if found.setdefault(named.key, named) is not named:
            raise UsageError(f"{label}: two schedules are called {named.key!r}; name them apart with key='…'")
    return tuple(found.values())


def _name(timing: Timing) -> str:
    said = msgspec.json.encode([timing.when, timing.message, timing.id])
    return f"schedule-{hashlib.sha256(said).hexdigest()[:12]}"


async def declare(application: AgentApplication, client: Client) -> None:
    """What the agent's code says is scheduled. *Durable*. *Idempotent*: in every process, at every start."""
    timings = application.agent.schedules
    for id in sorted({timing.id for timing in timings}):
        known = {schedule.name: schedule for schedule in await client.schedules(id)}
        for timing in timings:
            if timing.id == id and not _stands(known.get(timing.key), timing, client.clock.wall()):
                delivery = h.Delivery(body=timing.message)
                await client.schedule(id, timing, h.SUBMISSION, delivery, declared=True)


def _stands(schedule: ScheduleState | None, timing: Timing, now: float) -> bool:
    """The schedule is as declared and not overdue: nobody has to be told of it."""
    if schedule is None or schedule.next <= now:
        return False
    return (schedule.when, schedule.missed, schedule.overlap, schedule.retry, bytes(schedule.arguments)) == (
        timing.when,
        timing.missed,
        timing.overlap,
        timing.retry,
        msgspec.json.encode(h.Delivery(body=timing.message)),
    )
