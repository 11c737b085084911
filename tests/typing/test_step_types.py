"""`fiber.step` as a type checker sees it: `steps.py` says what it has to be, and what has to be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

STEPS = Path(__file__).with_name("steps.py")
#: The strictness and the cache of the ordinary type check: only `steps.py` itself is new to it.
CONFIG = Path(__file__).parent.parent.parent / "pyproject.toml"


@pytest.mark.slow
def test_a_step_has_the_type_of_what_its_callback_returns() -> None:
    """Architecture §7: of a plain function, an async one, a lambda, one that takes its Try; a wrong option is an error."""
    api = pytest.importorskip("mypy.api")

    output, errors, status = api.run(["--config-file", str(CONFIG), "--no-error-summary", str(STEPS)])

    assert status == 0, output + errors
