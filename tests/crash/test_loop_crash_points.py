"""T3: the loop dies before and after every durable append, facts and deltas, and goes on where the log says it was.

Method: each scenario is played once without a crash, which gives its durable writes 1 to K, admission, claim and release
included. Then once for each point before and after each of them: the store refuses everything from there on, the process
is gone, and another one takes over. `comparing.py` says what may differ from the first run; everything else must be equal.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import pytest
from tests.crash.comparing import assert_equal, check_run
from tests.crash.scenarios import BY_NAME, PAIRED, SCENARIOS

from cairn.testing import Crash, crash_points, seeds
from cairn.testing.play import Run, play

NAMES = [scenario.name for scenario in SCENARIOS]


@cache
def uninterrupted(name: str) -> Run:
    return play(BY_NAME[name].agent, BY_NAME[name].client)


def survives(name: str, *crashes: Crash, seed: int = 0) -> Run:
    """Play the scenario with these crashes and hold it against the run without."""
    scenario = BY_NAME[name]
    run = play(scenario.agent, scenario.client, crashes, seed=seed)
    try:
        check_run(scenario, run)
        assert_equal(scenario, uninterrupted(name), run)
    except AssertionError as error:
        error.add_note(f"scenario {name}, crashes: {', '.join(map(str, crashes))}; repeat with CAIRN_TEST_SEED={seed}")
        error.add_note(
            "\n".join(f"  {event.kind} {event.name} {event.call} {' '.join(event.tags)}" for event in run.world.events)
        )
        raise
    return run


def single_crashes(name: str) -> Iterator[Run]:
    """The scenario with one crash, at each point in turn; the last run is the one that the crash did not reach."""
    for crash in crash_points():
        yield survives(name, crash)


def test_an_agent_with_a_tool_survives_a_crash_at_every_durable_append() -> None:
    """T3, S1 to S10: one scenario at all its points, for a fast look; the other scenarios are below."""
    lives = [run.lives for run in single_crashes("one-tool")]

    assert lives == [2] * 2 * uninterrupted("one-tool").writes[0] + [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_agent_in_the_middle_of_anything_survives_a_crash_at_every_durable_append(name: str) -> None:
    """T3, F7, S1 to S11: every scenario, before and after each of its writes; the final log is that of the run without."""
    lives = [run.lives for run in single_crashes(name)]

    assert lives == [2] * 2 * uninterrupted(name).writes[0] + [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRED)
def test_a_crash_during_the_recovery_from_a_crash_changes_nothing_either(name: str) -> None:
    """T3, S1 to S11: every pair of crash points of seven scenarios; the second one counts in the second life."""
    pairs = 0

    for first in crash_points():
        for second in crash_points():
            crash = Crash(first.at, first.when)
            survives(name, crash, second)
            first.reached = crash.reached
            pairs += second.reached

    assert pairs > 2 * uninterrupted(name).writes[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in PAIRED])
def test_two_crashes_anywhere_change_nothing_and_neither_does_the_schedule(name: str) -> None:
    """T3, S1 to S11: of the larger scenarios, pairs of points and schedules by chance, from the seed."""
    for seed in seeds(12):
        dice = random.Random(f"{name} {seed}")
        writes = uninterrupted(name).writes[0]
        crashes = [Crash(dice.randint(1, writes), dice.choice(("before", "after"))) for _ in range(2)]
        survives(name, *crashes, seed=seed)
