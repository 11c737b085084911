"""Who owns an instance when processes freeze, die and come back: hundreds of storms over the real store, in virtual time."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.simulation.ownership import scenario

from cairn.testing import seeds, simulate


def run(seed: int) -> tuple[Counter[str], int]:
    outcome = simulate(scenario, seed=seed).value
    failed = f"seed {seed}; repeat with: CAIRN_TEST_SEED={seed} python -m pytest {__file__}"

    assert outcome.violations == [], "\n".join(map(str, [failed, *outcome.violations]))
    assert outcome.settled == outcome.accepted, failed
    return outcome.fenced, outcome.takeovers


def test_a_few_storms_break_nothing() -> None:
    """T7: the sentence of the next test, for a fast look."""
    for seed in seeds(5):
        run(seed)


@pytest.mark.slow
def test_no_storm_breaks_a_promise_and_after_it_everything_accepted_settles() -> None:
    """T7, T20: S1 to S7 throughout, by the checker; L1, L2, L3 after healing. Zombies exist, and are refused (S4)."""
    fenced: Counter[str] = Counter()
    takeovers = 0

    for seed in seeds(150):
        fenced_here, takeovers_here = run(seed)
        fenced += fenced_here
        takeovers += takeovers_here

    # Without these the storms would have been too mild to mean anything.
    assert fenced["append"] >= len(seeds(150)) // 4 or len(seeds(150)) < 20
    assert takeovers >= len(seeds(150))


@pytest.mark.slow
def test_a_storm_is_the_same_storm_every_time() -> None:
    """T8: eight seeds twice, with the whole store inside: byte-equal traces."""
    for seed in seeds(8):
        assert simulate(scenario, seed=seed).trace_hash == simulate(scenario, seed=seed).trace_hash
