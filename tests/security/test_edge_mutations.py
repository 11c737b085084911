"""T22 at the edge: each sentence that keeps somebody out is removed in turn, and a test fails for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.mutations.run import Mutation, apply, demand_caught, demand_green
from tests.security.edge_mutations import MUTATIONS


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.promise} {mutation.name}")
def test_opening_the_edge_makes_a_test_fail(mutation: Mutation) -> None:
    """T22: a check that nothing notices the loss of keeps nobody out."""
    demand_caught(mutation)


@pytest.mark.slow
def test_the_tests_that_must_fail_pass_without_a_mutation() -> None:
    """T22: what fails anyway proves nothing."""
    demand_green(MUTATIONS)


def test_every_mutation_applies_to_the_code_as_it_is(tmp_path: Path) -> None:
    """T22: at once, not only when the slow tests run: the sentence is in the code exactly once."""
    root = Path(__file__).resolve().parents[2]
    for mutation in MUTATIONS:
        copy = tmp_path / mutation.file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((root / mutation.file).read_text())

        apply(mutation, tmp_path)

        assert copy.read_text() != (root / mutation.file).read_text()
