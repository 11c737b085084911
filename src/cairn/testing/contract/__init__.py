"""The store contract: what every `Store` must do, as cases that any implementation can run.

    from cairn.testing.contract import CASES, run

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_my_store(case, tmp_path):
        if not run(case, MySubject(tmp_path)):
            pytest.skip("needs what this store cannot do")

A subject says how to get at one place for logs. Each case gets a place of its own, uses only the `Store` protocol, and fails
with an AssertionError. Its name is the sentence it proves, its docstring cites the promises.
"""

from cairn.testing.contract import (
    admitting,
    appending,
    care,
    content,
    deleting,
    forking,
    keeping,
    merging,
    owning,
    producing,
    reading,
    ringing,
    waiting,
    weighing,
)
from cairn.testing.contract.case import Case, SkewedClock, Subject, run

_MODULES = (
    admitting,
    appending,
    producing,
    reading,
    owning,
    ringing,
    waiting,
    content,
    forking,
    deleting,
    merging,
    keeping,
    weighing,
    care,
)

CASES: tuple[Case, ...] = tuple(found for module in _MODULES for found in module.CASES)

__all__ = ["CASES", "Case", "SkewedClock", "Subject", "run"]
