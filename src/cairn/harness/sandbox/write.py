"""The `write` tool: a file's whole content."""

from __future__ import annotations

from typing import Any

from cairn.harness.sandbox.text import size_of
from cairn.harness.sandbox.toolbox import Locks, make_tool, sandbox_of, told_to_the_model
from cairn.harness.tools import Tool, ToolResult


def write_tool(locks: Locks) -> Tool:
    """Replaces files. Repeat class `safe`: the same call leaves the same file; nothing of the workspace runs in between."""

    async def run(context: Any, arguments: dict[str, Any]) -> ToolResult:
        sandbox = sandbox_of(context)
        path: str = arguments["path"]
        data = arguments["content"].encode("utf-8", "surrogatepass")
        with told_to_the_model(path):
            async with locks.hold(sandbox, path):
                before = await sandbox.stat(path)
                await sandbox.write(path, data)
        did = "Created" if before is None else "Replaced"
        return ToolResult(
            f"{did} {path} ({size_of(len(data))}).", details={"path": path, "bytes": len(data), "created": before is None}
        )

    return make_tool(
        "write",
        """Write a file: it is created, with its directories, or replaced as a whole. To change a part of a file, use edit.""",
        {
            "path": {
                "type": "string",
                "minLength": 1,
                "description": "The file, absolute or relative to the working directory.",
            },
            "content": {"type": "string", "description": "All that the file shall hold."},
        },
        run,
        required=("path", "content"),
        repeat="safe",
        writes=True,
    )
