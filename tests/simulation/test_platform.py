"""Fibers that wait, ask, retry, run others and ring by the clock, through storms."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from tests.simulation.platform_world import RING_SECONDS, Outcome, occurrences, result, run_platform
from tests.simulation.runtime_world import HEALED_SECONDS

from cairn.runtime.state import FiberState, RuntimeState
from cairn.testing import seeds, simulate

SEEDS = 10
JUMPING_SEEDS = 5


def run(seed: int, **options: Any) -> Outcome:
    options = {"jumps": False, "storm_seconds": 900.0, **options}
    outcome = simulate(lambda simulation: run_platform(simulation, **options), seed=seed).value
    judge(outcome, f"seed {seed}; repeat with: CAIRN_TEST_SEED={seed} python -m pytest {__file__}")
    return outcome


def sleeps(fiber: FiberState, state: RuntimeState, finished: float) -> bool:
    """A clock that was ahead for a while put its end beyond the end of the simulation; or that of one it waits for."""
    others = [state.fibers[wait.event] for wait in fiber.waits.values() if wait.on == "fiber"]
    return (fiber.parked_until or 0.0) >= finished or any(sleeps(other, state, finished) for other in others)


def judge(outcome: Outcome, failed: str) -> None:
    """Every promise that such a run can break."""
    assert outcome.violations == [], "\n".join(map(str, [failed, *outcome.violations]))
    fibers = {id: fiber for state in outcome.states.values() for id, fiber in state.settled.items()}
    unsettled = [
        fiber
        for state in outcome.states.values()
        for fiber in state.unsettled()
        if fiber.schedule is None and not sleeps(fiber, state, outcome.finished_wall)
    ]
    assert not unsettled, f"{failed}: after healing still {unsettled}"  # L1, L2, L3
    known = fibers.keys() | {id for state in outcome.states.values() for id in state.fibers}
    assert outcome.accepted <= known, failed  # S1
    payloads = [result(each) for each in fibers.values() if each.method == "waits" and each.outcome == "completed"]
    assert len(payloads) == len(set(payloads)), f"{failed}: one signal was taken twice"  # S6
    assert set(payloads) <= outcome.told.signals.keys(), failed
    for id, who in outcome.told.heard.items():
        if id not in fibers:
            continue
        # An answer that was taken is the one the fiber got; a cancel may still have come first.
        assert fibers[id].outcome != "completed" or result(fibers[id])[1] == who, f"{failed}: {id} heard somebody else"
    for (fiber, what), count in outcome.effects.items():
        assert what != "ring" or count == 1, f"{failed}: an occurrence ({fiber}) was done {count} times"  # S9
    for each in outcome.logs:
        rang = occurrences(each)
        assert len(rang) == len(set(rang)) and rang == sorted(rang), f"{failed}: {each.instance.address}: {rang}"  # L4


def test_a_storm_over_fibers_that_wait_breaks_nothing() -> None:
    """T7: the sentence of the next test, for a fast look."""
    for seed in seeds(1):
        run(seed, storm_seconds=300.0)


@pytest.mark.slow
def test_no_storm_loses_a_signal_an_answer_or_an_occurrence_nor_doubles_one() -> None:
    """T7, T20: S1 to S9; L1 to L4 after healing; each occurrence of a schedule that catches up has one fiber."""
    for seed in seeds(SEEDS):
        outcome = run(seed)
        for log in outcome.logs:
            if log.instance.address.id != "each":
                continue
            rang = occurrences(log)
            assert rang, f"seed {seed}: nothing rang"
            gaps = {round(later - earlier, 3) for earlier, later in pairwise(rang)}
            assert gaps <= {RING_SECONDS}, f"seed {seed}: {gaps}"
            assert outcome.finished_wall - rang[-1] < RING_SECONDS + HEALED_SECONDS


@pytest.mark.slow
def test_clocks_that_jump_an_hour_neither_repeat_an_occurrence_nor_lose_a_signal() -> None:
    """T13, L4: S1 to S9 with wall clocks that jump and drift."""
    for seed in seeds(JUMPING_SEEDS):
        run(seed, jumps=True)


@pytest.mark.slow
def test_such_a_storm_is_the_same_storm_every_time() -> None:
    """T8: one seed twice: byte-equal traces."""
    first, second = (simulate(lambda s: run_platform(s, jumps=True, storm_seconds=300.0), seed=0).trace_hash for _ in range(2))
    assert first == second
