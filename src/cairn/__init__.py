"""Cairn: AI agents that survive production. This is the face: the names a user types, each loaded at its first use.

Law. Importing this module imports nothing else, so that every command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cairn.errors import (
        CairnError,
        Conflict,
        ModelError,
        NonRetryable,
        NotFound,
        SandboxError,
        StepUnknown,
        ToolError,
        UsageError,
    )
    from cairn.framework.app import App
    from cairn.framework.http.auth import open_to_everyone
    from cairn.framework.http.tokens import Tokens
    from cairn.harness.agent import Agent
    from cairn.harness.asking import approval
    from cairn.harness.client_tool import client_tool
    from cairn.harness.context_face import Context
    from cairn.harness.function_tool import tool
    from cairn.harness.hooks import Received, Settled, Stopping
    from cairn.harness.limits import Limits
    from cairn.harness.messages import Image, Text
    from cairn.harness.sandbox.isolated import isolated
    from cairn.harness.sandbox.local import local
    from cairn.harness.sandbox.virtual import virtual
    from cairn.harness.skill import skill
    from cairn.harness.tools import Tool, ToolResult
    from cairn.harness.turn_view import Turn

    __version__: str

#: Where each name lives. A name is public by standing here, in the imports above and in `__all__`.
_HOMES = {
    "Agent": "cairn.harness.agent",
    "App": "cairn.framework.app",
    "CairnError": "cairn.errors",
    "Conflict": "cairn.errors",
    "Context": "cairn.harness.context_face",
    "Image": "cairn.harness.messages",
    "Limits": "cairn.harness.limits",
    "ModelError": "cairn.errors",
    "NonRetryable": "cairn.errors",
    "NotFound": "cairn.errors",
    "Received": "cairn.harness.hooks",
    "SandboxError": "cairn.errors",
    "Settled": "cairn.harness.hooks",
    "StepUnknown": "cairn.errors",
    "Stopping": "cairn.harness.hooks",
    "Text": "cairn.harness.messages",
    "Tokens": "cairn.framework.http.tokens",
    "Tool": "cairn.harness.tools",
    "ToolError": "cairn.errors",
    "ToolResult": "cairn.harness.tools",
    "Turn": "cairn.harness.turn_view",
    "UsageError": "cairn.errors",
    "approval": "cairn.harness.asking",
    "client_tool": "cairn.harness.client_tool",
    "isolated": "cairn.harness.sandbox.isolated",
    "local": "cairn.harness.sandbox.local",
    "open_to_everyone": "cairn.framework.http.auth",
    "skill": "cairn.harness.skill",
    "tool": "cairn.harness.function_tool",
    "virtual": "cairn.harness.sandbox.virtual",
}

__all__ = [
    "Agent",
    "App",
    "CairnError",
    "Conflict",
    "Context",
    "Image",
    "Limits",
    "ModelError",
    "NonRetryable",
    "NotFound",
    "Received",
    "SandboxError",
    "Settled",
    "StepUnknown",
    "Stopping",
    "Text",
    "Tokens",
    "Tool",
    "ToolError",
    "ToolResult",
    "Turn",
    "UsageError",
    "__version__",
    "approval",
    "client_tool",
    "isolated",
    "local",
    "open_to_everyone",
    "skill",
    "tool",
    "virtual",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: Any = version("cairn-agents")
        except PackageNotFoundError:
            # A source tree that was never installed, such as one on PYTHONPATH.
            value = "0+unknown"
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'cairn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
