"""What these tests share: an open local sandbox in a directory of its own, and a call that a tool can run in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cairn.errors import ToolError
from cairn.harness.messages import Image, Text
from cairn.harness.sandbox.files import file_tools
from cairn.harness.sandbox.local import LocalSandbox, local
from cairn.harness.sandbox.protocol import ProcessInfo, Sandbox
from cairn.harness.tools import ToolResult, result_of

T = TypeVar("T")


@dataclass
class Call:
    """The part of a CallContext that the file tools use."""

    sandbox: Sandbox | None
    shown: list[str] = field(default_factory=list)
    processes: list[ProcessInfo] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def progress(self, text: str) -> None:
        self.shown.append(text)
        self._more.set()

    async def has_shown(self, text: str) -> None:
        """Returns when exactly this has been shown as progress."""
        while text not in self.shown:
            self._more.clear()
            await self._more.wait()

    async def process_started(self, process: ProcessInfo) -> None:
        self.processes.append(process)


@dataclass
class Desk:
    """The file tools over a local sandbox in `folder`."""

    folder: Path
    sandbox: LocalSandbox
    tools: dict[str, Any]
    call: Call

    async def use(self, tool: str, **arguments: Any) -> str:
        """The text of the tool's result, which is no error."""
        result = await self.result(tool, **arguments)
        assert not result.is_error, text_of(result)
        return text_of(result)

    async def result(self, tool: str, **arguments: Any) -> ToolResult:
        """The tool's result as the loop would have it: validated, run, an error as a result."""
        declared = self.tools[tool]
        try:
            return result_of(tool, await declared.run(self.call, declared.validate(arguments)))
        except (ToolError, ValueError) as error:
            return ToolResult((Text(text=str(error)),), is_error=True)

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The text of the tool's error."""
        result = await self.result(tool, **arguments)
        assert result.is_error, text_of(result)
        return text_of(result)


def text_of(result: ToolResult) -> str:
    return "\n".join(block.text for block in blocks_of(result) if isinstance(block, Text))


def blocks_of(result: ToolResult) -> Sequence[Text | Image]:
    assert isinstance(result.content, tuple)
    return result.content


def at_desk(tmp_path: Path, body: Callable[[Desk], Awaitable[T]], env: dict[str, str] | None = None) -> T:
    """Run `body` with the tools over an empty directory."""

    async def main() -> T:
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        sandbox = await local(folder, env=env or {}).open("test/desk", str(tmp_path / "private"))
        try:
            async with asyncio.timeout(60):
                tools = {tool.name: tool for tool in file_tools()}
                return await body(Desk(folder, sandbox, tools, Call(sandbox)))
        finally:
            await sandbox.close()

    return asyncio.run(main())
