"""An MCP server, written with the official SDK: over stdin and stdout, or the application of `app()` over HTTP."""

from __future__ import annotations

import os
import sys
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations


def made() -> MCPServer:
    server = MCPServer("test")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def add(a: int, b: int) -> int:
        """The sum."""
        return a + b

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True))
    def put(path: str, text: str) -> dict[str, Any]:
        """Write a file."""
        return {"path": path, "size": len(text), "pid": os.getpid()}

    @server.tool()
    def environment() -> list[str]:
        """The names of what is in the environment."""
        return sorted(os.environ)

    @server.tool()
    def die() -> str:
        """End the server at once."""
        os._exit(3)

    @server.tool()
    def fail(why: str) -> str:
        """Fail."""
        raise ToolError(why)

    @server.tool()
    def much() -> str:
        """Too much."""
        return "x" * 1_500_000

    return server


if __name__ == "__main__":
    print("this is for people, not for the protocol", file=sys.stderr)
    made().run("stdio")
