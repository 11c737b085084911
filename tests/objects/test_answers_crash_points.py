"""T3 for calls that wait: the loop dies before and after every durable append, and answers come whenever they come.

As `tests/crash/test_loop_crash_points.py`, which says how; the scenarios are in `answer_scenarios.py`.
"""

from __future__ import annotations

from functools import cache

import pytest
from tests.crash.comparing import assert_equal, check_run, check_settlements, check_world, unknown_by_right
from tests.crash.scenarios import Scenario
from tests.objects.answer_scenarios import ANSWER_SCENARIOS, BY_NAME

from cairn.testing import Crash, crash_points
from cairn.testing.play import Run, play

NAMES = [scenario.name for scenario in ANSWER_SCENARIOS]


@cache
def uninterrupted(name: str) -> Run:
    return play(BY_NAME[name].agent, BY_NAME[name].client)


def holds(scenario: Scenario, run: Run) -> None:
    """What must hold of any run. Of a rewind readers get a snapshot, which the check of the wire has not got."""
    if not scenario.name.startswith("rewind"):
        check_run(scenario, run)
        return
    assert run.violations() == [], "\n".join(map(str, run.violations()))
    unknown = unknown_by_right(run.records)
    check_world(scenario, run, unknown)
    check_settlements(scenario, run, bool(unknown))


def survives(name: str, *crashes: Crash, seed: int = 0) -> Run:
    scenario = BY_NAME[name]
    run = play(scenario.agent, scenario.client, crashes, seed=seed)
    try:
        holds(scenario, run)
        assert_equal(scenario, uninterrupted(name), run)
    except AssertionError as error:
        error.add_note(f"scenario {name}, crashes: {', '.join(map(str, crashes))}")
        error.add_note(
            "\n".join(f"  {event.kind} {event.name} {event.call} {' '.join(event.tags)}" for event in run.world.events)
        )
        raise
    return run


@pytest.mark.parametrize("name", NAMES)
def test_what_waits_for_an_answer_gets_it_once_and_goes_on(name: str) -> None:
    """S1 to S9: each scenario without a crash: the checker, the wire, the world and the settlements."""
    holds(BY_NAME[name], uninterrupted(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_waits_survives_a_crash_at_every_durable_append(name: str) -> None:
    """T3, S1 to S11: before and after each write of every scenario; the final log is that of the run without."""
    lives = [survives(name, crash).lives for crash in crash_points()]

    assert lives == [2] * 2 * uninterrupted(name).writes[0] + [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reject", "abort-waiting"])
def test_a_crash_during_the_recovery_of_a_waiting_call_changes_nothing_either(name: str) -> None:
    """T3, S1 to S11: every pair of crash points of the two shortest."""
    pairs = 0

    for first in crash_points():
        for second in crash_points():
            crash = Crash(first.at, first.when)
            survives(name, crash, second)
            first.reached = crash.reached
            pairs += second.reached

    assert pairs > 2 * uninterrupted(name).writes[0]
