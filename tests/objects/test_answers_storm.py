"""Answers in bad weather: three workers, two who send, two who answer; judged from outside."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.objects.answer_world import Outcome, run_answers

from cairn.testing import seeds, simulate

#: Seeds of the storm in CI; `CAIRN_TEST_SEEDS` runs more.
SEEDS = 6


def run(seed: int) -> Outcome:
    outcome = simulate(run_answers, seed=seed).value
    judge(outcome, f"seed {seed}; repeat with: CAIRN_TEST_SEED={seed} python -m pytest {__file__}")
    return outcome


def judge(outcome: Outcome, failed: str) -> None:
    """Every promise that an answer can break."""
    assert outcome.violations == [], "\n".join(map(str, [failed, *outcome.violations]))
    unsettled = [fiber for state in outcome.states.values() for fiber in state.unsettled()]
    assert not unsettled, f"{failed}: after healing still {unsettled}"  # L3
    settled = {id for state in outcome.states.values() for id in state.settled}
    assert outcome.admitted == settled, failed  # S1, S7
    assert outcome.asked.keys() <= outcome.outcomes.keys(), f"{failed}: a question without an end"
    for key, said in outcome.taken.items():
        assert len(said) == 1, f"{failed}: {key} took {said}"  # one answer each
        ended = outcome.outcomes[key]
        # What was taken was done; an abort that came with it closes the call all the same.
        expected = {"approve": ("ok", "unknown"), "reject": ("rejected",), "output": ("ok",)}[said[0]]
        assert ended.outcome in (*expected, "aborted"), f"{failed}: {key} was answered {said[0]} and ended {ended.outcome}"
        assert (key in outcome.called) <= (said[0] == "approve"), f"{failed}: {key} ran and was answered {said[0]}"
    for key, asking in outcome.asked.items():
        called = outcome.called.get(key)
        if called is not None:
            assert outcome.taken.get(key) == ["approve"], f"{failed}: {key} ran and nobody was told that it was approved"
            assert bytes(called.arguments) == bytes(asking.arguments) and called.by in (asking.by or (called.by,))  # X10
        ran = outcome.effects[key[1], "ran"]
        assert ran <= (called is not None), f"{failed}: {key} ran {ran} times"  # S8, S9


def test_a_storm_breaks_no_promise_of_an_answer() -> None:
    """T7, X10: the sentence of the next test, for a fast look."""
    for seed in seeds(1):
        run(seed)


@pytest.mark.slow
def test_no_storm_breaks_a_promise_of_an_answer_and_every_question_ends() -> None:
    """T7, S1, S5 to S9, L3, X10: a call has one answer at most, runs once at most and only when approved, and all settles."""
    outcomes: Counter[str] = Counter()
    refused: Counter[str] = Counter()

    for seed in seeds(SEEDS):
        outcome = run(seed)
        outcomes.update(outcome.outcomes[key].outcome for key in outcome.asked)
        refused.update(outcome.refused)

    if len(seeds(SEEDS)) >= SEEDS:
        assert {"ok", "rejected", "expired", "withdrawn"} <= outcomes.keys(), outcomes
        assert {"Conflict", "Denied"} <= refused.keys(), refused
