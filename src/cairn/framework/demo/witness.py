"""What really happened outside of the log: one line in a file for each call that began and each request that was made.

Laws. A line is written before what it tells of, with one `write` to a file opened for appending, so that a process that is
killed leaves whole lines. The log says what the agent knows; this file says what was done. The demo compares the two.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from cairn.harness.tools import CallContext, Tool

#: Beside the agent's file.
EFFECTS = "effects.jsonl"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was begun, by the process `pid`."""

    kind: Literal["call", "request"]
    pid: int
    id: str
    """Of a call, its id; of a request, how many finished answers it contained."""
    tool: str = ""
    characters: int = 0
    """Of a request: how much of an unfinished answer it contained."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Writes to one file."""

    path: Path

    def call(self, context: CallContext, tool: str) -> None:
        """The tool is about to run."""
        self._write(Line(kind="call", pid=os.getpid(), id=context.call, tool=tool))

    def request(self, finished: int, characters: int) -> None:
        """The model is asked."""
        self._write(Line(kind="request", pid=os.getpid(), id=str(finished), characters=characters))

    def _write(self, line: Line) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, msgspec.json.encode(line) + b"\n")
        finally:
            os.close(file)

    def lines(self) -> list[Line]:
        """Everything written so far."""
        data = self.path.read_bytes() if self.path.exists() else b""
        return [msgspec.json.decode(line, type=Line) for line in data.splitlines() if line.strip()]

    def tools(self, tools: Sequence[Tool]) -> list[Tool]:
        """The same tools, each of whose calls is witnessed."""
        return [self._seen(tool) for tool in tools]

    def _seen(self, tool: Tool) -> Tool:
        async def run(context: Any, arguments: dict[str, Any]) -> Any:
            self.call(context, tool.name)
            return await tool.run(context, arguments)

        return replace(tool, run=run)


def times_run(lines: Sequence[Line]) -> Counter[str]:
    """Call → how often it was begun."""
    return Counter(line.id for line in lines if line.kind == "call")


def times_asked(lines: Sequence[Line]) -> Counter[int]:
    """Number of finished answers before it → how often an answer was asked for."""
    return Counter(int(line.id) for line in lines if line.kind == "request")
