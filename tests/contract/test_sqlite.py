"""The store contract, played by the SQLite store on each of its three stages."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.testing.contract import CASES, Case, SkewedClock, run


class Sqlite:
    def __init__(self, path: str, *, inline: bool) -> None:
        self.clock = SkewedClock()
        self.survives = self.shared = path != ":memory:"
        self._path = path
        self._inline = inline

    def store(self, boot: str = "first boot") -> SqliteStore:
        return SqliteStore(self._path, clock=self.clock, ids=SystemIds(), inline=self._inline, boot=boot)


@pytest.fixture
def path() -> Iterator[str]:
    """A place for a file, in memory where there is such a place: the contract is not about power cuts."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield os.path.join(folder, "cairn.db")


def play(case: Case, subject: Sqlite) -> None:
    assert run(case, subject), "the case asks for what this stage does not have"


#: A store in memory has one connection and ends with it.
MEMORY_CASES = [case for case in CASES if not (case.survives or case.shared)]


@pytest.mark.parametrize("case", MEMORY_CASES, ids=str)
def test_in_memory(case: Case) -> None:
    """T6: the contract, inline on `:memory:`; the case cites its promises."""
    play(case, Sqlite(":memory:", inline=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_a_file_without_threads(case: Case, path: str) -> None:
    """T6: the contract, inline on a file; the case cites its promises."""
    play(case, Sqlite(path, inline=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_a_file_with_threads(case: Case, path: str) -> None:
    """T6: the contract, with the writer thread; the case cites its promises."""
    play(case, Sqlite(path, inline=False))


def test_the_contract_has_its_size() -> None:
    """T6: about 120 cases, each with a name of its own and a promise in its docstring."""
    assert len(CASES) >= 120
    assert len({case.name for case in CASES}) == len(CASES)
    assert all((case.run.__doc__ or "").startswith(("S", "L")) for case in CASES)
