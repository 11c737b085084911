"""Schedules: which times come next, in which zone, over changes of the clocks; and one fiber for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.runtime.stage import Stage, new_worker, play
from tests.runtime.toy import Toy, World

from cairn.errors import Conflict, UsageError
from cairn.runtime import records as r
from cairn.runtime.fiber import Fiber
from cairn.runtime.schedule import Timing, after, at, cron, every, following, latest, seconds
from cairn.testing import Simulation, simulate

OSLO = ZoneInfo("Europe/Oslo")
#: Where virtual time begins: 2025-06-15T15:06:40Z, 17:06:40 in Oslo.
START = 1_750_000_000.0


def wall(text: str, fold: int = 0) -> float:
    """A local time of Oslo, as seconds."""
    return datetime.fromisoformat(text).replace(tzinfo=OSLO, fold=fold).timestamp()


def times(expression: str, begin: float, count: int, tz: str = "Europe/Oslo") -> list[str]:
    """The next occurrences, as they show on a clock there."""
    when, found = cron(expression, tz=tz).when, begin
    shown = []
    for _ in range(count):
        following_ = following(when, found, found)
        assert following_ is not None
        found = following_
        shown.append(datetime.fromtimestamp(found, ZoneInfo(tz)).strftime("%d %H:%M%z"))
    return shown


def test_nine_in_the_morning_is_at_nine_in_summer_and_in_winter() -> None:
    """T13, L4: the offset changes on the last Sunday of October, the hour does not."""
    found = times("0 9 * * *", wall("2025-10-24T10:00"), 3)

    assert found == ["25 09:00+0200", "26 09:00+0100", "27 09:00+0100"]


def test_a_time_that_is_skipped_comes_right_after_the_gap() -> None:
    """T13, L4: on the last Sunday of March there is no 02:30; late rather than never, and once."""
    assert times("30 2 * * *", wall("2026-03-28T12:00"), 2) == ["29 03:00+0200", "30 02:30+0200"]


def test_a_time_that_is_repeated_happens_once() -> None:
    """T13, L4: on the last Sunday of October 02:30 comes twice."""
    assert times("30 2 * * *", wall("2025-10-25T12:00"), 2) == ["26 02:30+0200", "27 02:30+0100"]


def test_every_hour_goes_on_through_both_changes() -> None:
    """T13: an hour is an hour; 02:00 comes twice in autumn, and in spring there is none."""
    autumn = times("0 * * * *", wall("2025-10-26T00:30"), 4)
    spring = times("0 * * * *", wall("2026-03-29T00:30"), 3)

    assert autumn == ["26 01:00+0200", "26 02:00+0200", "26 02:00+0100", "26 03:00+0100"]
    assert spring == ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"]


EXPRESSIONS = ("0 9 * * 1-5", "30 2 * * *", "*/15 * * * *", "0 * * * *", "59 23 31 * *", "0 0 29 2 *", "0,30 1-3 * * *")


@given(st.sampled_from(EXPRESSIONS), st.floats(wall("2024-01-01T00:00"), wall("2027-01-01T00:00")))
@example("*/15 * * * *", wall("2027-01-01T00:00") - 2.4e-7)
def test_what_follows_is_later_and_the_latest_is_not(expression: str, now: float) -> None:
    """L4: nothing lies between the last occurrence and the next, whatever the zone does in between."""
    when = cron(expression, tz="Europe/Oslo").when
    upcoming = following(when, now, now)
    last = latest(when, 0.0, now)

    assert upcoming is not None and last <= now < upcoming
    assert following(when, last, last) == upcoming


@given(st.floats(1, 1e6), st.floats(0, 1e9), st.floats(0, 1e7))
def test_an_interval_keeps_its_beat(length: float, start: float, later: float) -> None:
    """L4: however late the present is, the next time is a whole number of intervals after the first, and the soonest."""
    when, now = r.When(seconds=length), start + later
    upcoming = following(when, start, now)

    assert upcoming is not None and now < upcoming <= now + length * 1.001 + 1e-3
    assert latest(when, start, now) <= now


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800), (5, 5), (timedelta(hours=1), 3600)],
)
def test_durations_are_written_as_people_write_them(text: Any, expected: float) -> None:
    """S14: the same in every place that takes one."""
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: every("soon"),
        lambda: every(0.5),
        lambda: cron("at nine"),
        lambda: cron("0 9 * * 1-5", tz="Mars/Olympus"),
        lambda: at("tomorrow"),
        lambda: every("1h", overlaps=True),
        lambda: every("1h", missed="all"),
    ],
)
def test_a_mistake_in_a_schedule_is_refused_where_it_is_written(make: Callable[[], Timing]) -> None:
    """S14: with what to write instead."""
    with pytest.raises(UsageError):
        make()


# --- one fiber for each occurrence


async def rings(fiber: Fiber) -> Any:
    return fiber.occurrence


async def runs(stage: Stage, name: str = "a") -> list[float]:
    """The occurrences that ran, by the log, as seconds since the beginning."""
    records = await stage.world.records(name)
    return [record.occurrence - START for record in records if isinstance(record, r.FiberAccepted) and record.occurrence]


def test_an_interval_runs_its_method_again_and_again_and_on_time() -> None:
    """L4: on the second, from a hibernating instance each time."""
    called: list[float] = []

    async def method(fiber: Fiber) -> None:
        called.append(fiber.instance.clock.wall() - START)

    async def body(stage: Stage) -> Any:
        await stage.client.schedule("a", every("1h"), "run")
        await stage.sleep(4 * 3600 + 10)
        return await runs(stage)

    assert play(method, body) == [3600, 7200, 10800, 14400]
    assert [round(each) for each in called] == [3600, 7200, 10800, 14400]


def test_cron_runs_at_its_local_times_over_a_change_of_the_clocks() -> None:
    """T13, L4: on a Saturday in October, the Sunday of the change and the Monday after; 09:00 by the clock on the wall."""

    async def method(fiber: Fiber) -> str:
        return datetime.fromtimestamp(fiber.instance.clock.wall(), OSLO).strftime("%a %H:%M")

    async def body(stage: Stage) -> Any:
        stage.simulation.clock.jump(wall("2025-10-25T08:55") - START)
        await stage.client.schedule("a", cron("0 9 * * *", tz="Europe/Oslo"), "run", key="daily")
        for day in ("26", "27", "28"):
            await stage.sleep(600)
            stage.simulation.clock.jump(wall(f"2025-10-{day}T08:55") - stage.now())
        fibers = await stage.client.fibers("a")
        return [bytes(fiber.result).decode().strip('"') for fiber in fibers]

    assert play(method, body) == ["Sat 09:00", "Sun 09:00", "Mon 09:00"]


def test_jitter_spreads_one_time_of_many_objects_and_keeps_each_ones_beat() -> None:
    """L4: ten objects, one cron: each is late by a part of its own, less than the jitter and the same every hour; its fibers
    are told the time that was meant, and none is missed, nor too late for `skip`."""
    called: dict[str, list[float]] = {}

    async def method(fiber: Fiber) -> None:
        assert fiber.occurrence is not None
        late = fiber.instance.clock.wall() - fiber.occurrence
        called.setdefault(fiber.instance.address.id, []).append(late)

    async def body(stage: Stage) -> Any:
        for number in range(10):
            timing = cron("0 * * * *", jitter="20m", missed="skip")
            await stage.client.schedule(f"o{number}", timing, "run", key="hourly")
        await stage.client.schedule("once", after("1h", jitter="1h"), "run")
        await stage.sleep(3 * 3600 + 20 * 60)
        return await runs(stage, "o3")

    meant = play(method, body)

    [once] = called.pop("once")
    assert 0 <= once < 3600
    assert [(START + each) % 3600 for each in meant] == [0.0] * 3
    assert all(len(late) == 3 and max(late) - min(late) < 0.1 for late in called.values())
    assert all(0 <= late[0] < 1200 for late in called.values())
    assert len({round(late[0]) for late in called.values()}) == 10


def test_something_that_happens_once_happens_once() -> None:
    """L4, S6: also when it is scheduled twice under one key; another body is a conflict."""

    async def body(stage: Stage) -> Any:
        for _ in range(2):
            await stage.client.schedule("a", after("10m"), "run", [1], key="k")
        with pytest.raises(Conflict):
            await stage.client.schedule("a", after("10m"), "run", [2], key="k")
        await stage.client.schedule("a", at(START + 60), "run")
        await stage.sleep(3600)
        await stage.client.schedule("a", after("10m"), "run", [1], key="k")
        await stage.sleep(3600)
        return [round(each) for each in await runs(stage)], await stage.client.schedules("a")

    assert play(rings, body) == ([60, 600], [])


def test_a_recurring_schedule_under_one_key_is_replaced_and_the_same_again_is_no_news() -> None:
    """S6: code that schedules at every start keeps one schedule and its beat."""

    async def body(stage: Stage) -> Any:
        await stage.client.schedule("a", every("1h"), "run", key="beat")
        await stage.sleep(1800)
        await stage.client.schedule("a", every("1h"), "run", key="beat")
        await stage.sleep(2000)
        await stage.client.schedule("a", every("10m"), "run", key="beat")
        await stage.sleep(1300)
        return [round(each) for each in await runs(stage)], len(await stage.client.schedules("a"))

    assert play(rings, body) == ([3600, 4400, 5000], 1)


def test_a_cancelled_schedule_runs_no_more() -> None:
    """L4: what has begun goes on."""

    async def body(stage: Stage) -> Any:
        name = await stage.client.schedule("a", every("1m"), "run")
        await stage.sleep(150)
        await stage.client.cancel("a", name)
        await stage.sleep(600)
        return await runs(stage), await stage.client.schedules("a")

    assert play(rings, body) == ([60, 120], [])


def test_a_run_does_not_begin_while_the_last_one_goes_on_unless_asked() -> None:
    """L4: one that comes due meanwhile is late, not lost; several that do are one."""

    async def slow(fiber: Fiber) -> float:
        began = fiber.instance.clock.wall()
        await fiber.instance.clock.sleep(150)
        return began - START

    async def body(stage: Stage) -> Any:
        await stage.client.schedule("held", every("1m"), "run")
        await stage.client.schedule("free", every("1m", overlap=True), "run")
        await stage.sleep(400)
        began = {}
        for name in ("held", "free"):
            fibers = await stage.client.fibers(name, status="completed")
            began[name] = [round(float(bytes(fiber.result))) for fiber in fibers]
        return began

    assert play(slow, body) == {"held": [60, 210], "free": [60, 120, 180, 240]}


@pytest.mark.parametrize(
    ("missed", "expected"),
    [("once", [600, 4200, 4800]), ("each", [*range(600, 4801, 600)]), ("skip", [600, 4800])],
)
def test_what_was_missed_while_nothing_ran_is_run_as_the_schedule_says(missed: Any, expected: list[float]) -> None:
    """L4: once by default, each, or none."""

    async def main(simulation: Simulation) -> list[float]:
        world = World(application=Toy({"run": rings}), clock=simulation.clock, ids=simulation.ids)
        async with world:
            async with new_worker(world, world.application) as worker:
                await world.client.schedule("a", every("10m", missed=missed), "run")
                await simulation.clock.sleep(700)
            await simulation.clock.sleep(3800)
            async with new_worker(world, world.application) as worker:
                await simulation.clock.sleep(400)
                return await runs(Stage(simulation, world, worker))

    assert simulate(main, seed=0, faults=False).value == expected


def test_a_failing_run_is_tried_again_and_ends_as_a_dead_letter_and_the_next_runs() -> None:
    """L3, L4, L7: the retries are durable; one bad day does not end the schedule."""
    called = Counter[float]()

    async def method(fiber: Fiber) -> None:
        called[fiber.occurrence or 0] += 1
        if fiber.occurrence == START + 3600:
            raise ConnectionError("the bank is closed")

    async def body(stage: Stage) -> Any:
        retry = r.Retry(attempts=3, first_seconds=60)
        await stage.client.schedule("a", every("1h", retry=retry), "run", key="pay")
        await stage.sleep(2 * 3600 + 10)
        [dead] = await stage.client.fibers("a", status="dead")
        return dead.occurrence, dead.error.message if dead.error else None, dead.schedule

    assert play(method, body) == (START + 3600, "the bank is closed", "pay")
    assert called == {START + 3600: 3, START + 7200: 1}


def test_a_schedule_of_a_method_that_is_gone_waits_for_it_and_says_so() -> None:
    """L7: its run is parked with the reason, and runs when a process has the method."""

    async def main(simulation: Simulation) -> Any:
        world = World(application=Toy({"run": rings}), clock=simulation.clock, ids=simulation.ids)
        async with world:
            async with new_worker(world, Toy({"other": rings})):
                await world.client.schedule("a", every("1h"), "run")
                await simulation.clock.sleep(3 * 3600)
                [parked] = await world.client.fibers("a")
            async with new_worker(world, Toy({"run": rings})):
                await simulation.clock.sleep(5)
                done = await world.client.fibers("a", status="completed")
            return parked.blocked.kind if parked.blocked else None, [(fiber.occurrence or 0) - START for fiber in done]

    assert simulate(main, seed=0, faults=False).value == ("unknown_method", [3600, 10800])


def test_a_fork_has_none_of_the_schedules() -> None:
    """S12: a copy of a conversation does not ring for it."""
    from cairn.runtime.state import RuntimeState

    state = RuntimeState()
    state.apply(r.InstanceCreated(kind="k", id="a", uid="u", at=0.0), 0)
    state.apply(r.ScheduleRequested(name="s", method="run", when=r.When(seconds=60.0), at=0.0, first=60.0), 1)
    state.apply(r.InstanceForked(kind="k", id="b", uid="v", source="u", offset=1, at=0.0), 2)

    assert state.schedules == {}


def test_only_the_newest_runs_are_remembered_and_more_of_the_dead_letters() -> None:
    """L7: a schedule that has rung for years is no larger than one that rang for a day."""

    async def method(fiber: Fiber) -> None:
        if round((fiber.occurrence or 0) - START) % 600 == 0:
            raise ValueError("every tenth")

    async def body(stage: Stage) -> Any:
        await stage.client.schedule("a", every("1m", retry=r.Retry(attempts=1)), "run")
        await stage.sleep(60 * 100 + 5)
        return len(await stage.client.fibers("a", status="completed")), len(await stage.client.fibers("a", status="dead"))

    assert play(method, body) == (20, 10)


def test_a_clock_that_is_set_back_repeats_no_occurrence_and_forward_loses_none() -> None:
    """T13, L4: an hour back, an hour forward; every occurrence that ran, ran once."""

    async def body(stage: Stage) -> Any:
        await stage.client.schedule("a", every("10m"), "run")
        await stage.sleep(1900)
        stage.simulation.clock.jump(-3600)
        await stage.sleep(2 * 3600)
        stage.simulation.clock.jump(3600)
        await stage.sleep(1300)
        return [round(each) for each in await runs(stage)]

    found = play(rings, body)

    assert len(found) == len(set(found))
    assert found == sorted(found)
    assert found[:3] == [600, 1200, 1800] and found[-1] == 10_200
