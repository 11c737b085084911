"""The face as a type checker sees it: what is written in `face.py` is what mypy says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FACE = Path(__file__).with_name("face.py")
#: The strictness and the cache of the ordinary type check: only `face.py` itself is new to it.
CONFIG = Path(__file__).parent.parent.parent / "pyproject.toml"


def said(line: str) -> str:
    """A line of mypy's as it stands in a comment: module names left out of types."""
    text = re.sub(r"[\w.]+\.(\w+)", r"\1", line)
    return text.replace("builtins.", "")


@pytest.mark.slow
def test_decorators_keep_the_types_of_functions_and_the_context_knows_its_state() -> None:
    """Architecture §7: typed state, tools that stay callable, and options that are checked before they run."""
    api = pytest.importorskip("mypy.api")

    output, _, _ = api.run(["--config-file", str(CONFIG), "--no-error-summary", "--hide-error-codes", str(FACE)])

    told: dict[int, list[str]] = {}
    for line in output.splitlines():
        match = re.match(r".*face\.py:(\d+): (note: Revealed type is \"(.*)\"|error: .*)$", line)
        if match:
            told.setdefault(int(match[1]), []).append(said(match[3] or match[2]))
    expected = {
        number: wanted for number, text in enumerate(FACE.read_text().splitlines(), 1) if (wanted := text.partition("  # ")[2])
    }
    for number, wanted in expected.items():
        assert any(line.startswith(wanted) for line in told.get(number, [])), (number, wanted, told.get(number))
    unexpected = {number: lines for number, lines in told.items() if number not in expected}
    assert not unexpected
