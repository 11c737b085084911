"""What importing and asking for help may load. Modules are counted, never seconds: a count is the same on every machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Each costs more than all of Cairn: tens of milliseconds to seconds.
HEAVY = {
    "anthropic", "apsw", "google.genai", "httpx", "httpx2", "hypothesis", "openai", "pydantic", "pydantic_ai", "pytest",
    "requests", "starlette", "uvicorn", "uvloop",
}  # fmt: skip

#: What a command line that only prints text has no use for.
UNNEEDED = HEAVY | {"asyncio", "msgspec", "rich", "sqlite3", "ssl"}


def loaded(code: str) -> set[str]:
    """Every module in a fresh interpreter after running `code`."""
    script = f"{code}\nimport sys\nsys.stderr.write(chr(10).join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_the_package_loads_nothing_but_itself() -> None:
    """`import cairn` is a line in every agent's file; it must not be felt."""
    found = loaded("import cairn")

    assert not found & UNNEEDED
    assert {name for name in found if name.startswith("cairn.")} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["log", "--help"], ["store", "check", "--help"], ["--version"], ["lss"]])
def test_asking_for_help_loads_the_parser_only(arguments: list[str]) -> None:
    """Help answers while the finger is still on the key."""
    found = loaded(f"from cairn.framework.cli import main\nassert main({arguments!r}) in (0, 2)")

    assert not found & UNNEEDED


def test_writing_an_agent_loads_no_provider() -> None:
    """A provider's client is imported when the first request is made, or while the store opens."""
    found = loaded("from cairn import Agent, tool\nAgent('a', model='anthropic:x')")

    assert not found & HEAVY
