"""`cairn schedules`: what rings when, over all instances; and cancelling one.

Laws. What is listed is what the logs say. A cancellation is durable when the verb returns, whether or not anything serves the
object; a run that began goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cairn.errors import NotFound, UsageError
from cairn.framework.cli.log import address
from cairn.framework.cli.output import Exit, columns, duration, json_line, line
from cairn.framework.cli.store import existing, opened

if TYPE_CHECKING:
    from cairn.runtime.records import When
    from cairn.runtime.schedule_state import ScheduleState
    from cairn.runtime.storage.store import InstanceRow, Store

HEADING = ("INSTANCE", "SCHEDULE", "WHEN", "NEXT", "METHOD", "RUNS")


@dataclass(frozen=True, slots=True)
class Request:
    """The command line."""

    store: str | None
    address: str | None
    cancel: str | None
    limit: int
    after: int
    json: bool


def run(given: Request) -> int:
    """`cairn schedules [KIND/ID] [--cancel SCHEDULE]`."""
    path = existing(given.store)
    if given.cancel is not None and given.address is None:
        raise UsageError("of which instance? write cairn schedules KIND/ID --cancel SCHEDULE, as the listing shows them")

    async def work() -> int:
        async with opened(path) as store:
            return await (_list(store, given) if given.cancel is None else _cancel(store, given, given.cancel))

    return asyncio.run(work())


async def _list(store: Store, given: Request) -> int:
    from cairn.clock import SystemClock
    from cairn.framework.cli.overview import fold

    rows, more = await _rows(store, given)
    found = [(row, schedule) for row in rows for schedule in (await fold(store, row.n)).schedules.values()]
    found.sort(key=lambda each: each[1].next)
    now = SystemClock().wall()
    if given.json:
        json_line({"schedules": [_as_json(row, schedule) for row, schedule in found], "next": more})
        return Exit.OK
    if not found and more is None:
        line("nothing is scheduled")
    for each in columns(list(_lines(found, now)), HEADING) if found else ():
        line(each)
    if more is not None:
        line(f"there are more instances: cairn schedules --after {more}")
    return Exit.OK


async def _rows(store: Store, given: Request) -> tuple[list[InstanceRow], int | None]:
    """The instances that something rings for, and where the next page begins."""
    from cairn.runtime.instance import WAKE

    if given.address is not None:
        return [await _row(store, given.address)], None
    rows = await store.instances(after=given.after, limit=given.limit + 1, alarm=WAKE)
    return rows[: given.limit], rows[given.limit - 1].n if len(rows) > given.limit else None


async def _row(store: Store, name: str) -> InstanceRow:
    row = await store.find(address(name))
    if row is None:
        raise NotFound(f"there is no instance '{name}' in this store; cairn ls shows what there is")
    return row


def _lines(found: list[tuple[InstanceRow, ScheduleState]], now: float) -> Iterator[tuple[str, ...]]:
    for row, schedule in found:
        left = schedule.next - now
        when = f"in {duration(left)}" if left > 0 else "due"
        yield (str(row.address), schedule.name, said(schedule.when), when, schedule.method, _runs(schedule))


def said(when: When) -> str:
    """As it was written, as far as that is recorded."""
    if when.cron:
        return f"cron {when.cron} ({when.tz})"
    return f"every {length(when.seconds)}" if when.seconds is not None else "once"


def length(seconds: float) -> str:
    """`1h30m`: as people write it in `every(…)`."""
    parts, left = [], seconds
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if (count := int(left // size)) > 0:
            parts.append(f"{count}{unit}")
            left -= count * size
    return "".join(parts) + (f"{left:g}s" if left or not parts else "")


def _runs(schedule: ScheduleState) -> str:
    parts = [f"{len(schedule.active)} under way"] if schedule.active else []
    if schedule.dead:
        parts.append(f"{len(schedule.dead)} dead")
    if schedule.missed_runs:
        parts.append(f"{schedule.missed_runs} missed")
    return ", ".join(parts) or "-"


def _as_json(row: InstanceRow, schedule: ScheduleState) -> dict[str, Any]:
    when = schedule.when
    return {
        "instance": str(row.address),
        "name": schedule.name,
        "cron": when.cron or None,
        "tz": when.tz or None,
        "every_seconds": when.seconds,
        "next": schedule.next,
        "last": schedule.last,
        "method": schedule.method,
        "missed": schedule.missed,
        "overlap": schedule.overlap,
        "declared": schedule.declared,
        "under_way": list(schedule.active),
        "dead": list(schedule.dead),
    }


async def _cancel(store: Store, given: Request, name: str) -> int:
    """The schedule is no more. One that an agent's code declares comes back when that code is served again: say so."""
    from cairn.clock import SystemClock
    from cairn.framework.cli.overview import fold
    from cairn.runtime import records as r
    from cairn.runtime.instance import wake_now
    from cairn.runtime.storage.store import Append, Batch

    assert given.address is not None, "asked before"
    row = await _row(store, given.address)
    known = (await fold(store, row.n)).schedules
    if name not in known:
        listed = ", ".join(known) or "none"
        raise NotFound(f"{row.address} has no schedule '{name}'; it has: {listed}")
    now = SystemClock().wall()
    request = r.CancelRequested(target=name, at=now)
    await store.append(Append(row.n, Batch(r.encode([request])), due=(wake_now(now),)))
    if given.json:
        json_line({"instance": str(row.address), "cancelled": name, "declared": known[name].declared})
        return Exit.OK
    line(f"schedule '{name}' of {row.address} is cancelled")
    if known[name].declared:
        line("its agent's code declares it: it comes back when the agent is served again; take it out there")
    return Exit.OK
