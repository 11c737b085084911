"""T22: the battery can see. Each sentence that keeps a promise is removed in turn, and a test fails for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.mutations.mutations import MUTATIONS
from tests.mutations.nursery import Nursery
from tests.mutations.run import Mutation, Survived, demand_applies, demand_caught, demand_green

EXHAUSTIVE = "tests/testing/test_exhaustive.py"

#: A mutation of a tool, to test the runner with: the last answer of each question is never given.
REAL = Mutation(
    name="one answer short",
    promise="T4",
    file="src/cairn/testing/exhaustive.py",
    old="self._digits[-1][0] + 1 == self._digits[-1][1]",
    new="self._digits[-1][0] + 2 >= self._digits[-1][1]",
    tests=(f"{EXHAUSTIVE}::test_every_combination_is_visited_once",),
)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.promise} {mutation.name}")
def test_breaking_a_promise_makes_a_test_fail(mutation: Mutation, place: Nursery) -> None:
    """T22: a fence, a sync, a digest, a checksum that nothing notices the loss of protects nothing."""
    demand_caught(mutation, place)


@pytest.mark.slow
def test_the_tests_that_must_fail_pass_without_a_mutation(place: Nursery) -> None:
    """T22: what fails anyway proves nothing."""
    demand_green(MUTATIONS, place)


def test_every_mutation_applies_to_the_code_as_it_is(tmp_path: Path) -> None:
    """T22: at once, not only when the slow tests run: the sentence is in the code exactly once."""
    demand_applies(MUTATIONS, tmp_path)


@pytest.mark.slow
def test_the_runner_tells_a_caught_mutation_from_three_kinds_of_blindness() -> None:
    """T22: caught; survived; not applicable; not run."""
    survives = replace(REAL, new=f"bool({REAL.old})")
    moved = replace(REAL, old="a sentence that was deleted last year")
    does_not_run = replace(REAL, tests=(f"{EXHAUSTIVE}::test_that_does_not_exist",))
    breaks_the_import = replace(REAL, old="from __future__ import annotations", new="import does_not_exist")

    assert "test_every_combination_is_visited_once" in demand_caught(REAL)
    with pytest.raises(Survived, match="survived: T4 is broken"):
        demand_caught(survives)
    with pytest.raises(Survived, match="does not apply: its sentence is 0 times"):
        demand_caught(moved)
    with pytest.raises(Survived, match="did not run"):
        demand_caught(does_not_run)
    with pytest.raises(Survived, match="did not run"):
        demand_caught(breaks_the_import)
