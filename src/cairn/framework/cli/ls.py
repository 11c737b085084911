"""`cairn ls`: which instances there are, who runs them, what they wait for, and what nobody serves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cairn.framework.cli.output import Exit, columns, duration, json_line, line, shortened
from cairn.framework.cli.store import existing, opened

if TYPE_CHECKING:
    from cairn.framework.cli.overview import Overview, Standing
    from cairn.runtime.state import FiberState
    from cairn.runtime.storage.store import WorkerRow

HEADING = ("INSTANCE", "HEAD", "OWNER", "WORK")

#: Of the reason for which a fiber waits for other code: its beginning names the method, `--json` has all of it.
BLOCKED_CHARACTERS = 100


def run(store: str | None, *, kind: str | None, limit: int, after: int, json: bool) -> int:
    """`cairn ls`: always 0 when the store could be read."""
    path = existing(store)

    async def work() -> None:
        from cairn.framework.cli.overview import overviews, workers
        from cairn.runtime.owners import beside

        async with opened(path) as it:
            known = await workers(it, beside(it))
            rows = await it.instances(kind=kind, after=after, limit=limit + 1)
            found = await overviews(it, rows[:limit], known)
        more = rows[limit - 1].n if len(rows) > limit else None
        if json:
            json_line(as_json(found, known, more))
        else:
            _print(found, more)

    asyncio.run(work())
    return Exit.OK


def as_json(found: Sequence[Overview], known: Sequence[tuple[WorkerRow, Standing]], more: int | None) -> dict[str, Any]:
    """The listing for programs. `next` is the `--after` that continues it, or null."""
    instances = [
        {
            "n": each.row.n,
            "kind": each.row.address.kind,
            "id": each.row.address.id,
            "uid": each.row.uid,
            "head": each.row.head,
            "bytes": each.row.bytes,
            "epoch": each.row.epoch,
            "owner": each.row.owner,
            "owner_is": each.standing.value if each.row.owner is not None else None,
            "served": each.served,
            "unsettled": [
                {
                    "fiber": fiber.id,
                    "method": fiber.method,
                    "phase": fiber.phase.value,
                    "attempt": fiber.attempt,
                    "parked_for": fiber.parked_for,
                    "parked_until": fiber.parked_until,
                    "blocked": fiber.blocked.message if fiber.blocked is not None else None,
                }
                for fiber in each.unsettled
            ],
            "dead": each.dead,
            "schedules": [{"name": schedule.name, "next": schedule.next} for schedule in each.schedules],
        }
        for each in found
    ]
    processes = [
        {"id": worker.id, "host": worker.host, "pid": worker.pid, "kinds": list(worker.kinds), "is": how.value}
        for worker, how in known
    ]
    return {"instances": instances, "workers": processes, "unserved_kinds": unserved(found), "next": more}


def unserved(found: Sequence[Overview]) -> list[str]:
    """Kinds that have unsettled work and no live worker, so that nothing will move."""
    return sorted({each.row.address.kind for each in found if each.unsettled and not each.served})


def _print(found: Sequence[Overview], more: int | None) -> None:
    if not found:
        line("no instances: nothing was sent to an agent in this store yet")
        return
    from cairn.clock import SystemClock

    now = SystemClock().wall()
    lines = [(str(each.row.address), str(each.row.head), owner(each), standing_work(each, now)) for each in found]
    for each in columns(lines, HEADING):
        line(each)
    for kind in unserved(found):
        line(f"no worker serves kind '{kind}': its work waits until a process that has registered it runs")
    if more is not None:
        line(f"there are more: cairn ls --after {more}")


def owner(each: Overview) -> str:
    """Who runs it, and how that process stands."""
    if each.row.owner is None:
        return "-"
    if each.owner is None:
        return "gone"
    return f"pid {each.owner.pid} on {each.owner.host}, {each.standing.value}"


def standing_work(each: Overview, now: float) -> str:
    """What it has not settled, or nobody has seen to, and when it rings: `settled, 1 dead letter, next schedule in 3h`."""
    parts = [work(each.unsettled, now)]
    if each.dead:
        parts.append(f"{each.dead} dead letter{'s' if each.dead > 1 else ''}")
    if each.schedules:
        which = "schedule" if len(each.schedules) == 1 else f"of {len(each.schedules)} schedules"
        left = each.schedules[0].next - now
        parts.append(f"next {which} " + (f"in {duration(left)}" if left > 0 else "due"))
    return ", ".join(parts)


def work(unsettled: Sequence[FiberState], now: float) -> str:
    """What it has not settled, by phase: `1 running, 2 accepted, 1 parked (approval, 3h left)`."""
    if not unsettled:
        return "settled"
    phases = Counter(fiber.phase.value for fiber in unsettled)
    parts = [f"{phases[phase]} {phase}" for phase in ("running", "accepted") if phases[phase]]
    parked = [_parked(fiber, now) for fiber in unsettled if fiber.phase.value == "parked"]
    if parked:
        parts.append(f"{len(parked)} parked ({'; '.join(parked[:3])}{'; …' if len(parked) > 3 else ''})")
    attempts = max(fiber.attempt for fiber in unsettled)
    if attempts > 1:
        parts.append(f"attempt {attempts}")
    return ", ".join(parts)


def _parked(fiber: FiberState, now: float) -> str:
    if fiber.blocked is not None:
        return shortened(fiber.blocked.message, BLOCKED_CHARACTERS)
    name = fiber.parked_for or "?"
    if fiber.parked_until is None:
        return name
    left = fiber.parked_until - now
    return f"{name}, {duration(left)} left" if left > 0 else f"{name}, due"
