"""T22 for programs: each sentence that holds one is removed in turn, and a test fails for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.mutations.nursery import Nursery
from tests.mutations.program_mutations import MUTATIONS
from tests.mutations.run import Mutation, demand_applies, demand_caught, demand_green


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.promise} {mutation.name}")
def test_breaking_what_holds_a_program_makes_a_test_fail(mutation: Mutation, place: Nursery) -> None:
    """T22: a digest, a signature, an order, a limit, a grant that nothing notices the loss of protects nobody."""
    demand_caught(mutation, place)


@pytest.mark.slow
def test_the_tests_that_must_fail_pass_without_a_mutation(place: Nursery) -> None:
    """T22: what fails anyway proves nothing."""
    demand_green(MUTATIONS, place)


def test_every_mutation_applies_to_the_code_as_it_is(tmp_path: Path) -> None:
    """T22: at once, not only when the slow tests run: the sentence is in the code exactly once."""
    demand_applies(MUTATIONS, tmp_path)
