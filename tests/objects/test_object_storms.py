"""Objects called from three to five processes at once, through storms."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.objects.object_world import Outcome, contiguous, run_objects

from cairn.runtime.sub_objects import parent_of
from cairn.testing import seeds, simulate

SEEDS = 3
JUMPING_SEEDS = 1


def run(seed: int, **options: Any) -> Outcome:
    options = {"jumps": False, "storm_seconds": 600.0, **options}
    outcome = simulate(lambda simulation: run_objects(simulation, **options), seed=seed).value
    judge(outcome, f"seed {seed}; repeat with: CAIRN_TEST_SEED={seed} python -m pytest {__file__}")
    return outcome


def judge(outcome: Outcome, failed: str) -> None:
    """Every promise that such a run can break."""
    assert outcome.violations == [], "\n".join(map(str, [failed, *outcome.violations]))
    told = outcome.told
    for account, tokens in outcome.tokens.items():
        twice = [token for token, count in Counter(tokens).items() if count > 1]
        assert not twice, f"{failed}: added twice to {account}: {twice}"  # S7: a call has one answer
    there = {token: (account, place) for account, tokens in outcome.tokens.items() for place, token in enumerate(tokens, 1)}
    for token, answer in told.answers.items():
        assert there.get(token) == (told.asked[token], answer), f"{failed}: {token} was told {answer}: {there.get(token)}"  # S1
    for token in told.refused:
        assert token not in there, f"{failed}: {token} was told that it was not committed"  # S10
    for heard in told.frames:
        assert contiguous(heard, outcome.broadcast), f"{failed}: a socket heard {heard} of {outcome.broadcast}"  # S3
    assert not outcome.unsettled, f"{failed}: after healing still {outcome.unsettled}"  # L1 L2
    assert not outcome.destroyed, f"{failed}: still there: {outcome.destroyed}"  # S7
    ids = {log.instance.address.id for log in outcome.logs}
    orphans = {id for id in ids if parent_of(id) is not None} - outcome.subs
    assert not orphans, f"{failed}: nobody knows of {orphans}"
    assert not told.felled & ids, f"{failed}: felled and there: {told.felled & ids}"


def test_a_storm_over_objects_breaks_nothing() -> None:
    """T7: the sentence of the next test, for a fast look."""
    for seed in seeds(1):
        outcome = run(seed, storm_seconds=300.0)
        assert outcome.told.answers and outcome.told.frames


@pytest.mark.slow
def test_no_storm_loses_an_update_or_gives_a_call_two_answers() -> None:
    """T7, T20: S1 S2 S3 S7 S10 S11; L1 L2 after healing: two processes that address one object, sockets that follow it from a
    third, objects that are divided and destroyed meanwhile."""
    told, heard = 0, 0
    for seed in seeds(SEEDS):
        outcome = run(seed)
        told += len(outcome.told.answers)
        heard += sum(map(len, outcome.told.frames))
    assert told > 50 and heard > 50


@pytest.mark.slow
def test_clocks_that_jump_an_hour_change_nothing_of_that() -> None:
    """T13: deadlines and leases are not measured by the clock people see."""
    for seed in seeds(JUMPING_SEEDS):
        run(seed, jumps=True)


@pytest.mark.slow
def test_such_a_storm_is_the_same_storm_every_time() -> None:
    """T8: one seed twice: byte-equal traces."""
    first, second = (simulate(lambda s: run_objects(s, jumps=True, storm_seconds=300.0), seed=0).trace_hash for _ in range(2))
    assert first == second
