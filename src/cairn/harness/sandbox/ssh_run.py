"""One command on a host that is reached by SSH: its output, what its script reports, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cairn.errors import SandboxError
from cairn.harness.sandbox.commands import to_the_end
from cairn.harness.sandbox.output import Output
from cairn.harness.sandbox.protocol import ExecResult
from cairn.harness.sandbox.remote_shell import exited, started

#: How long a script may take to say that it is there, and to end what it was told to end, a round trip included.
START_SECONDS = 15.0
END_SECONDS = 15.0

#: One read of a command's output: what a channel's window lets through at once.
CHUNK_BYTES = 64 * 1024


class SshRun:
    """One command: from the script that waits to begin, to its result."""

    def __init__(self, process: Any, lost: type[Exception], output: Output, on_output: Callable[[bytes], None] | None) -> None:
        self._process = process
        self._lost = lost
        self._output = output
        self._on_output = on_output
        self._code = -1
        self._left = 0
        self._is_ending = False
        self._reading: asyncio.Future[Any] | None = None

    async def prepared(self) -> tuple[int, int, float]:
        """pid, group and start; nothing of the command has run. *Raises* SandboxError."""
        said = b""
        try:
            async with asyncio.timeout(START_SECONDS):
                while line := await self._process.stderr.readline():
                    if (found := started(line)) is not None:
                        return found
                    said += line
        except TimeoutError:
            pass
        raise SandboxError(f"the host did not start the command: {said.decode(errors='replace').strip()[:300] or 'no answer'}")

    async def to_result(self, timeout_seconds: float | None) -> ExecResult:
        self._process.stdin.write(b"go\n")
        self._reading = asyncio.gather(self._read_output(), self._read_report())
        timed_out = False
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.shield(self._reading)
        except TimeoutError:
            timed_out = True
            await to_the_end(self.end())
        if self._code < 0 and not timed_out:
            raise SandboxError("the connection was lost; how far the command came is unknown")
        self._output.close()
        return ExecResult(
            exit_code=self._code if self._code >= 0 else 137,
            output=self._output.held,
            timed_out=timed_out,
            dropped=self._output.dropped,
            full_output=self._output.path or None,
            background=self._left > 0 and not timed_out,
        )

    async def _read_output(self) -> None:
        while data := await self._process.stdout.read(CHUNK_BYTES):
            if self._is_ending:
                continue  # what shells remark on being killed is not the command's
            self._output.feed(data)
            if self._on_output is not None:
                self._on_output(data)

    async def _read_report(self) -> None:
        while line := await self._process.stderr.readline():
            if line.strip() == b"failed":
                raise SandboxError("the command could not be started: there is no such directory")
            if (found := exited(line)) is not None:
                self._code, self._left = found

    async def end(self) -> None:
        """The tree is dead, as far as the host answers within `END_SECONDS`; else it dies with the connection."""
        self._is_ending = True
        with suppress(OSError, TimeoutError, SandboxError, self._lost):
            if self._reading is None:
                self._reading = asyncio.gather(self._read_output(), self._read_report())
            self._process.stdin.write_eof()
            async with asyncio.timeout(END_SECONDS):
                await asyncio.shield(self._reading)
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
