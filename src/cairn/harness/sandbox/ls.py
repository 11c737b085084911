"""The `ls` tool: what is in a directory."""

from __future__ import annotations

import posixpath
from typing import Any

from cairn.errors import ToolError
from cairn.harness.sandbox.protocol import FileInfo
from cairn.harness.sandbox.text import TEXT_BYTES_MAX, head
from cairn.harness.sandbox.toolbox import locate, make_tool, sandbox_of, told_to_the_model
from cairn.harness.tools import Tool, ToolResult

#: More entries say nothing more about a directory.
ENTRIES_MAX = 500


def ls_tool() -> Tool:
    """Lists directories. Repeat class `safe`: it changes nothing."""
    return make_tool(
        "ls",
        f"""List a directory, hidden entries too, by name; directories end in /. At most {ENTRIES_MAX} entries.""",
        {
            "path": {"type": "string", "description": "The directory; the working directory if not given."},
            "limit": {"type": "integer", "minimum": 1, "description": f"The most entries; {ENTRIES_MAX} if not given."},
        },
        _run,
        required=(),
        repeat="safe",
    )


async def _run(context: Any, arguments: dict[str, Any]) -> ToolResult:
    sandbox = sandbox_of(context)
    asked: str = arguments.get("path") or "."
    limit = min(arguments.get("limit") or ENTRIES_MAX, ENTRIES_MAX)
    with told_to_the_model(asked):
        path, info = await locate(sandbox, asked)
        if info.kind != "directory":
            raise ToolError(f"{asked} is a {info.kind}, not a directory.")
        entries = await sandbox.list(path)
    names = sorted((_name(entry) for entry in entries), key=lambda name: (name.casefold(), name))
    if not names:
        return ToolResult(f"({asked} is empty)")
    cut = head("\n".join(names[:limit]), limit, TEXT_BYTES_MAX)
    if cut.lines == len(names):
        return ToolResult(cut.text)
    return ToolResult(f"{cut.text}\n\n[{cut.lines} of {len(names)} entries.]")


def _name(entry: FileInfo) -> str:
    name = posixpath.basename(entry.path).replace("\n", "?")
    return f"{name}/" if entry.kind == "directory" else name
