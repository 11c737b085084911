"""T22 for sandboxes with real processes: each sentence that holds a command is removed in turn, and a test fails for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.mutations.nursery import Nursery
from tests.mutations.run import Mutation, demand_applies, demand_caught, demand_green
from tests.mutations.sandbox_mutations import MUTATIONS

needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap"
)


@needs_bubblewrap
@pytest.mark.system
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.promise} {mutation.name}")
def test_breaking_what_holds_a_command_makes_a_test_fail(mutation: Mutation, place: Nursery) -> None:
    """T22: a namespace, a limit, a flag that nothing notices the loss of protects nobody."""
    demand_caught(mutation, place)


@needs_bubblewrap
@pytest.mark.system
def test_the_tests_that_must_fail_pass_without_a_mutation(place: Nursery) -> None:
    """T22: what fails anyway proves nothing."""
    demand_green(MUTATIONS, place)


def test_every_mutation_applies_to_the_code_as_it_is(tmp_path: Path) -> None:
    """T22: at once, not only when the slow tests run: the sentence is in the code exactly once."""
    demand_applies(MUTATIONS, tmp_path)
