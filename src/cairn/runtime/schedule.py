"""Schedules: when something is to happen, and which of its times come next.

    at("2027-01-01T09:00", tz="Europe/Oslo")    after("10m")    every("30m")    cron("0 9 * * 1-5", tz="Europe/Oslo")

Laws. Pure: the present is an argument. Times are wall time in a named zone: a schedule of 09:00 is at 09:00 in summer and in
winter. A time that a change of the clocks skips is dealt with right after the gap, one that it repeats happens once, as in
Debian's cron; schedules of every hour or minute go on through both. Two times that fall together are one.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

import msgspec

from cairn.errors import UsageError
from cairn.runtime import records as r
from cairn.runtime.schedule_state import ScheduleState, lag
from cairn.runtime.settings import SCHEDULE_LATE_SECONDS, SCHEDULE_SECONDS_MIN

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)([smhdw]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")

#: How far behind the present a clock can show the same time again: the longest shift that a zone is known to have made.
_SHIFT_SECONDS_MAX = 7200.0


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When something is to happen, and how it is to be taken. Made by `at`, `after`, `every` and `cron`.

    `missed`: what becomes of occurrences while nothing ran: "once" (the last of them), "each", or "skip". `overlap`: a run
    may begin while the last one goes on. `retry`: what happens when a run fails; after its tries it is a dead letter.
    `jitter`, a duration: occurrences are dealt with up to so much later, those of one schedule always by the same part of it.
    For an agent: `message` is what it is told, `id` which conversation, `key` the schedule's name there.
    """

    when: r.When
    after_seconds: float | None = None
    missed: r.Missed = "once"
    overlap: bool = False
    retry: r.Retry | None = None
    message: str = ""
    id: str = ""
    key: str = ""

    def first(self, now: float) -> float:
        """The first occurrence after `now`; for something that happens once, its time. Raises UsageError: there is none."""
        if self.after_seconds is not None:
            return now + self.after_seconds
        found = self.when.at if self.when.at is not None and self.when.seconds is None else following(self.when, now, now)
        if found is None:
            raise UsageError(f"cron('{self.when.cron}') never happens")
        return found


def at(when: datetime | float | str, *, tz: str = "", **options: object) -> Timing:
    """Once, at that time: a datetime, seconds since the epoch, or a text such as "2027-01-01T09:00"; local to `tz`, or UTC."""
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise UsageError(f"at({when!r}): write a time such as '2027-01-01T09:00'") from None
    if isinstance(when, datetime):
        when = (when if when.tzinfo is not None else when.replace(tzinfo=zone(tz))).timestamp()
    return _timing(r.When(at=when, tz=tz), options)


def after(duration: float | str | timedelta, **options: object) -> Timing:
    """Once, so long after it was scheduled: seconds, a timedelta, or a text such as "10m" or "1h30m"."""
    length = seconds(duration)
    return msgspec.structs.replace(_timing(r.When(at=0.0, seconds=None), options), after_seconds=length)


def every(duration: float | str | timedelta, **options: object) -> Timing:
    """Again and again, so long apart, counted from when it was scheduled. Raises UsageError below one second."""
    length = seconds(duration)
    if length < SCHEDULE_SECONDS_MIN:
        raise UsageError(
            f"every({duration!r}): a schedule has at least {SCHEDULE_SECONDS_MIN:g} s between its times; loop instead"
        )
    return _timing(r.When(seconds=length), options)


def cron(expression: str, *, tz: str = "UTC", **options: object) -> Timing:
    """As the cron expression says (five fields; a sixth first one is seconds), in the zone `tz`. Raises UsageError."""
    from cronsim import CronSim, CronSimError

    zone(tz)
    if not isinstance(expression, str):
        raise UsageError(f"cron({expression!r}): a text of five fields is needed: minute hour day month weekday")
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise UsageError(f"cron({expression!r}): {error}; five fields are needed: minute hour day month weekday") from None
    return _timing(r.When(cron=expression, tz=tz), options)


def _timing(when: r.When, options: dict[str, object]) -> Timing:
    if "jitter" in options:
        options = dict(options)
        jitter = seconds(options.pop("jitter"))  # type: ignore[arg-type]
        if jitter < 0:
            raise UsageError(f"jitter={jitter:g}: it makes later, not earlier; give a duration of 0 or more")
        when = msgspec.structs.replace(when, jitter=jitter)
    unknown = [name for name in options if name not in Timing.__struct_fields__ or name in ("when", "after_seconds")]
    if unknown:
        raise UsageError(f"a schedule has no option {unknown[0]!r}; it has: missed, overlap, retry, jitter, message, id, key")
    if options.get("missed", "once") not in ("once", "each", "skip"):
        raise UsageError(f"missed={options['missed']!r}: use 'once', 'each' or 'skip'")
    return Timing(when=when, **options)  # type: ignore[arg-type]


def seconds(duration: float | str | timedelta) -> float:
    """A duration as seconds. Raises UsageError."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        if not _DURATION.fullmatch(duration.strip()):
            raise UsageError(f"{duration!r} is no duration; write '30s', '10m', '1h30m', '2d', '1w' or a number of seconds")
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(duration))
    return float(duration)


@lru_cache
def zone(name: str) -> tzinfo:
    """The time zone of that name. Raises UsageError: there is none here."""
    if name in ("", "UTC"):
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"there is no time zone {name!r} here; use a name such as 'Europe/Oslo' "
            f"(a machine without zones gets them by: pip install tzdata)"
        ) from None


def following(when: r.When, start: float, now: float) -> float | None:
    """The first occurrence after `now`, of those counted from the occurrence `start`; None when there is none."""
    if when.cron:
        return next((found for found in _cron(when, now) if found > now), None)
    if when.seconds is None:
        return None
    steps = max(1, int((now - start) // when.seconds) + 1)
    found = start + steps * when.seconds
    return found if found > now else found + when.seconds  # a division that was rounded up


def latest(when: r.When, start: float, now: float) -> float:
    """The last occurrence at or before `now`; `start` is one, and not after it."""
    if when.cron:
        return max(start, next((found for found in _cron(when, now + _SHIFT_SECONDS_MAX, back=True) if found <= now), start))
    if when.seconds is None:
        return start
    found = start + ((now - start) // when.seconds) * when.seconds
    return found if found <= now else found - when.seconds


def _cron(when: r.When, now: float, *, back: bool = False) -> Iterator[float]:
    from cronsim import CronSim

    # A whole second: a datetime rounds, and would skip an occurrence that is less than a microsecond away.
    begin = datetime.fromtimestamp(math.floor(now), zone(when.tz))
    return (found.timestamp() for found in CronSim(when.cron, begin, reverse=back))


class Firing(msgspec.Struct, frozen=True):
    """What is to be done about a schedule that is due."""

    occurrence: float
    runs: bool
    """A fiber is to be accepted for it; else it was missed for good."""
    next: float | None


def firing(schedule: ScheduleState, now: float) -> Firing:
    """Which occurrence is dealt with now. `now` is not before `schedule.next`."""
    start, when = schedule.next, schedule.when
    if schedule.missed == "each":
        return Firing(start, True, following(when, start, start))
    occurrence = latest(when, start, now)
    in_time = schedule.missed == "once" or now - occurrence <= SCHEDULE_LATE_SECONDS
    return Firing(occurrence, in_time, following(when, occurrence, max(now, occurrence)))


def occurrence_id(uid: str, name: str, occurrence: float) -> str:
    """The one fiber of an occurrence: the same whoever computes it, for as long as the instance lives."""
    text = f"{uid}\x1f{name}\x1f{occurrence:.3f}"
    return f"occ_{hashlib.sha256(text.encode()).hexdigest()[:26]}"


def fire(schedule: ScheduleState, uid: str, now: float, *, knows: Callable[[str], bool]) -> list[r.Record]:
    """The batch that deals with a schedule that is due. `knows`: a fiber of that id was accepted before."""
    found = firing(schedule, max(schedule.next, now - lag(schedule, uid)))
    id = occurrence_id(uid, schedule.name, found.occurrence)
    runs = found.runs and not knows(id)
    fired = r.ScheduleFired(
        name=schedule.name,
        at=now,
        of=schedule.of,
        occurrence=found.occurrence,
        fiber=id if runs else None,
        next=found.next,
    )
    if not runs:
        return [fired]
    accepted = r.FiberAccepted(
        fiber=id,
        method=schedule.method,
        at=now,
        arguments=schedule.arguments,
        timeout_seconds=schedule.timeout_seconds,
        retry=schedule.retry,
        schedule=schedule.name,
        occurrence=found.occurrence,
    )
    return [accepted, fired]
