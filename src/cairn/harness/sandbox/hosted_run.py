"""One command on a hosted machine: what its script says in a stream of text, taken apart into start, output and report."""

from __future__ import annotations

import asyncio
import base64
import binascii
import shlex
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from cairn.errors import SandboxError
from cairn.harness.sandbox.commands import to_the_end
from cairn.harness.sandbox.output import HELD_BYTES_MAX, Output
from cairn.harness.sandbox.protocol import ExecResult, ProcessInfo
from cairn.harness.sandbox.remote_shell import SEPARATOR, exited, going, started, stopping

#: How long a script may take to say that it is there, and to say that it has ended what it was told to end.
START_SECONDS = 60.0
END_SECONDS = 30.0

Script = Callable[[str], Awaitable[str]]


class HostedRun:
    """`to_result`, or `end` by whoever wants it dead. `script` runs a short script and returns what it wrote."""

    def __init__(
        self,
        output: Output,
        on_output: Callable[[bytes], None] | None,
        script: Script,
        process: Callable[[int, int, float], ProcessInfo],
    ) -> None:
        self._output = output
        self._on_output = on_output
        self._script = script
        self._process = process
        self._head = ""
        self._report: str | None = None
        self._started: asyncio.Future[tuple[int, int, float]] = asyncio.get_running_loop().create_future()
        self._is_ending = False
        self._work: asyncio.Future[None] | None = None

    async def to_result(
        self,
        run: Callable[[str, Callable[[str], None]], Awaitable[None]],
        script: str,
        timeout_seconds: float | None,
        on_started: Callable[[ProcessInfo], Awaitable[None]] | None,
    ) -> ExecResult:
        """See `HostedSandbox.exec`."""
        self._work = asyncio.ensure_future(run(script, self.feed))
        first: list[asyncio.Future[Any]] = [self._work, self._started]
        await asyncio.wait(first, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not self._started.done():
            if self._work.done():
                self._work.result()
            raise SandboxError(f"the command did not start: {self._head.strip()[:300] or 'no answer'}")
        process = self._process(*self._started.result())
        if on_started is not None:
            await on_started(process)
            await self._script(going(self._mark))
        timed_out = False
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.shield(self._work)
        except TimeoutError:
            timed_out = True
            await to_the_end(self.end())
        return await self._result(timed_out)

    @property
    def _mark(self) -> str:
        pid, _, ticks = self._started.result()
        return f"{pid}.{ticks:.0f}"

    def feed(self, text: str) -> None:
        """The next of the stream."""
        if not self._started.done():
            self._head += text
            line, newline, text = self._head.partition("\n")
            if not newline:
                return
            found = started(line.encode())
            if found is None:
                self._head = text  # what a login shell says of itself
                self.feed("")
                return
            self._started.set_result(found)
        if self._report is not None:
            self._report += text
            return
        before, separator, after = text.partition(SEPARATOR)
        if before and not self._is_ending:
            data = before.encode("utf-8", "replace")
            self._output.feed(data)
            if self._on_output is not None:
                self._on_output(data)
        if separator:
            self._report = after

    async def _result(self, timed_out: bool) -> ExecResult:
        words = (self._report or "").split()
        if words[:1] == ["failed"]:
            raise SandboxError("the command could not be started: there is no such directory")
        report = exited(" ".join(words[:3]).encode())
        if report is None and not timed_out:
            raise SandboxError("the machine did not say how the command ended; how far it came is unknown")
        self._output.close()
        held, dropped = self._output.held, self._output.dropped
        if len(words) > 3:
            held, dropped = await self._exact(words[3])
        code, left = report or (137, 0)
        return ExecResult(
            exit_code=code,
            output=held,
            timed_out=timed_out,
            dropped=dropped,
            full_output=self._output.path or None,
            background=left > 0 and not timed_out,
        )

    async def _exact(self, path: str) -> tuple[bytes, int]:
        """The end of an output that was not text, and how much is missing of it."""
        name = shlex.quote(path)
        said = await self._script(f"wc -c < {name}; tail -c {HELD_BYTES_MAX} {name} | base64; rm -f {name}")
        size, _, encoded = said.strip().partition("\n")
        try:
            data = base64.b64decode(encoded)
            return data, int(size) - len(data)
        except (binascii.Error, ValueError) as error:
            raise SandboxError("the output of the command could not be read back from the machine") from error

    async def end(self) -> None:
        """The tree is dead, as far as the machine answers within `END_SECONDS`."""
        self._is_ending = True
        if self._work is None or (self._work.done() and self._report is not None):
            return
        with suppress(SandboxError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                if self._started.done():
                    await self._script(stopping(self._mark))
                    await asyncio.wait([self._work], timeout=2)
        self._work.cancel()
        await asyncio.wait([self._work])
