"""The place in which mutations are tried: one for all of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.mutations.nursery import Nursery, nursery


@pytest.fixture(scope="module")
def place() -> Iterator[Nursery]:
    with nursery() as made:
        yield made
