"""Real workers and real fibers through hundreds of virtual hours of bad weather."""

from __future__ import annotations

from typing import Any

import pytest
from tests.simulation.runtime_world import Outcome, run_world

from cairn.runtime.state import FiberState
from cairn.testing import seeds, simulate

#: Seeds of the storm in CI; `CAIRN_TEST_SEEDS` runs more.
SEEDS = 24
JUMPING_SEEDS = 8
REPEATED_SEEDS = 2

EXHAUSTED = ("failed", "attempts_exhausted")


def run(seed: int, **options: Any) -> Outcome:
    outcome = simulate(lambda simulation: run_world(simulation, **{"jumps": False, **options}), seed=seed).value
    judge(outcome, f"seed {seed}; repeat with: CAIRN_TEST_SEED={seed} python -m pytest {__file__}")
    return outcome


def judge(outcome: Outcome, failed: str) -> None:
    """Every promise that a run of the runtime can break."""
    assert outcome.violations == [], "\n".join(map(str, [failed, *outcome.violations]))
    # A clock that was ahead for a while can have put the end of a sleep beyond the end of the simulation.
    late = outcome.finished_wall
    fibers = [fiber for state in outcome.states.values() for fiber in state.unsettled()]
    unsettled = [fiber for fiber in fibers if fiber.parked_until is None or fiber.parked_until < late]
    assert not unsettled, f"{failed}: after healing still {unsettled}"  # L1, L2, L3
    known = {id for state in outcome.states.values() for id in (*state.settled, *state.fibers)}
    assert outcome.accepted == known, failed  # S1
    for state in outcome.states.values():
        for fiber in state.settled.values():
            kind = fiber.error.kind if fiber.error is not None else None
            assert (fiber.outcome, kind) in allowed(fiber), f"{failed}: {fiber}"
    for (fiber_id, what), count in outcome.effects.items():
        if what == "launch":
            assert count == 1, f"{failed}: a never step of {fiber_id} ran {count} times"  # S9
        if what == "pay":
            assert len(outcome.keys[fiber_id, what]) == 1, f"{failed}: {fiber_id} paid under several keys"  # S9


def allowed(fiber: FiberState) -> set[tuple[str | None, str | None]]:
    """The outcomes such a fiber may have: its own, an abort, or its spent budget (some fibers kill their process)."""
    own = {"failing": ("failed", "ValueError"), "hopeless": ("failed", "NonRetryable")}
    return {own.get(fiber.method, ("completed", None)), ("aborted", "aborted"), EXHAUSTED}


def exhausted(outcome: Outcome) -> int:
    """How many fibers died of the weather."""
    fibers = [fiber for state in outcome.states.values() for fiber in state.settled.values()]
    return sum(fiber.error is not None and fiber.error.kind == EXHAUSTED[1] for fiber in fibers)


def test_a_few_storms_break_nothing() -> None:
    """T7: the sentence of the next test, for a fast look: ten virtual minutes of storm."""
    for seed in seeds(2):
        run(seed, storm_seconds=600.0)


@pytest.mark.slow
def test_no_storm_breaks_a_promise_and_what_was_accepted_settles_after_it() -> None:
    """T7, T20: S1 to S9 throughout; L1, L2, L3 within ten minutes of healing, with one worker per process that survives."""
    takeovers = fenced = dead_letters = accepted = 0

    for seed in seeds(SEEDS):
        outcome = run(seed)
        takeovers += outcome.takeovers
        fenced += outcome.fenced
        dead_letters += exhausted(outcome)
        accepted += len(outcome.accepted)

    assert dead_letters <= accepted // 50  # a budget that bad weather alone spends would be too small
    # Without these the storms would have been too mild to mean anything.
    assert takeovers >= 10 * len(seeds(SEEDS))
    assert fenced or len(seeds(SEEDS)) < SEEDS


@pytest.mark.slow
def test_clocks_that_jump_an_hour_break_nothing() -> None:
    """T13: S1 to S9 with wall clocks that jump and drift; a sleep of a fiber ends once (L4)."""
    for seed in seeds(JUMPING_SEEDS):
        outcome = run(seed, jumps=True)
        after = [count for (_, what), count in outcome.effects.items() if what == "after"]
        assert after


@pytest.mark.slow
def test_a_storm_of_workers_is_the_same_storm_every_time() -> None:
    """T8: seeds twice, with the workers and the store inside: byte-equal traces."""
    for seed in seeds(REPEATED_SEEDS):
        first, second = (simulate(lambda s: run_world(s, jumps=True), seed=seed).trace_hash for _ in range(2))
        assert first == second
