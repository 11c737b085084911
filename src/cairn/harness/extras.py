"""What an agent needs of packages that are not everybody's: told before anything is accepted, not by its first turn."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from cairn.errors import MissingExtra

if TYPE_CHECKING:
    from cairn.harness.agent import Agent

#: What each sandbox imports when it is opened, by the sandbox's name, which is its extra's too.
_SANDBOXES = {"ssh": "asyncssh", "e2b": "e2b", "daytona": "daytona", "modal": "modal"}


def check_extras(agent: Agent[Any]) -> None:
    """Raises MissingExtra for the first package that the agent's sandbox or its programs lack. Imports nothing heavy."""
    name = getattr(agent.sandbox, "name", "")
    if name in _SANDBOXES and not _is_installed(_SANDBOXES[name]):
        text = f"{name}() needs the package '{_SANDBOXES[name]}', which is not installed"
        raise MissingExtra(f"{text}: pip install 'cairn-agents[{name}]'")
    if agent.codemode is not None and not _is_installed("pydantic_monty"):
        text = "codemode needs the package 'pydantic_monty', which is not installed"
        raise MissingExtra(f"{text}: pip install 'cairn-agents[programs]'")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):
        return False
