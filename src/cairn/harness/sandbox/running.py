"""Commands that this host runs for a sandbox: one under its supervisor from request to result, and all of them until `close`.

Laws. What `local()` and `isolated()` have in common, so that both end a tree, bound an output and tell a result in one way. A
sandbox says only which program is started and what its process gives up first.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cairn.errors import SandboxError
from cairn.harness.sandbox.commands import Command, CommandServer, OutputPipe, Request, end_tree, to_the_end
from cairn.harness.sandbox.output import Output
from cairn.harness.sandbox.protocol import ExecResult, ProcessInfo

#: After the command itself has ended: how long a child of it may still hold the output before it is ended. A pipeline's last
#: member takes milliseconds to end; a daemon never lets go.
HELD_OUTPUT_SECONDS = 0.25

#: How long the last of the output may take to be read once every process of the tree is dead.
DRAIN_SECONDS = 5.0

#: The longest command Linux accepts as one argument (MAX_ARG_STRLEN, 32 pages).
COMMAND_BYTES_MAX = 128 * 1024 - 1

OnOutput = Callable[[bytes], None] | None
Beside = Callable[[ProcessInfo], Awaitable[str]] | None
OnStarted = Callable[[ProcessInfo], Awaitable[None]] | None


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, what its launcher said (`Request.status`), and why we ended it, if `beside` gave a reason."""

    result: ExecResult
    status: str
    ended_for: str


class HostCommands:
    """The commands of one open sandbox on this host. `outputs` is the directory for outputs that are too long."""

    def __init__(self, outputs: str) -> None:
        self._outputs = outputs
        self._server = CommandServer()
        self._commands: set[Command] = set()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def check(self, command: str, env: dict[str, str]) -> None:
        """*Raises* SandboxError: closed, or the system could not take the command as it is."""
        if self._is_closed:
            raise SandboxError("this sandbox is closed; open another")
        size = len(command.encode("utf-8", "surrogateescape"))
        if size > COMMAND_BYTES_MAX:
            raise SandboxError(
                f"the command has {size} bytes, the system takes {COMMAND_BYTES_MAX}; write it to a file and run that"
            )
        if any("\0" in text for text in (command, *env, *env.values())):
            raise SandboxError("a command and its environment cannot contain a NUL character")

    async def run(
        self,
        request: Request,
        *,
        timeout_seconds: float | None = None,
        on_output: OnOutput = None,
        on_started: OnStarted = None,
        beside: Beside = None,
        leave: bool = True,
    ) -> Ran:
        """The request's program has ended, and so has everything it started that held the output.

        `beside` runs as long as the command does; when it returns, with a reason, the whole tree is ended for that reason.
        Without `leave` nothing of the tree lives, whether it held the output or not.
        *Cancelled*, timed out, or `on_started` raised: every process it started is dead when this returns.
        *Raises* SandboxError if the command could not be started, or its supervisor was killed.
        """
        output = Output(self._outputs)
        pipe = OutputPipe(_both(output.feed, on_output) if on_output else output.feed)
        try:
            control = self._server.begin(pipe.writer)
            pipe.close_writer()
            running = await self._prepared(control, request)
            self._commands = {command for command in self._commands if not command.is_gone} | {running}
            try:
                return await _follow(running, pipe, output, timeout_seconds, on_started, beside, leave)
            except BaseException:
                await to_the_end(running.end())
                raise
        finally:
            pipe.close()
            output.close()

    async def _prepared(self, control: socket.socket, request: Request) -> Command:
        try:
            return await Command.prepare(control, request)
        except SandboxError:
            self._server.close()  # whatever is wrong with it: the next command gets a new one
            raise

    async def reap(self, process: ProcessInfo) -> bool:
        """What is left of a tree is dead: a former owner's on this host, found by pid and start time, or by its mark."""
        return await to_the_end(asyncio.to_thread(end_tree, process))

    async def close(self) -> None:
        """Nothing of any command lives, be it running or left running. Idempotent."""
        self._is_closed = True
        commands, self._commands = self._commands, set()
        await to_the_end(_all_ended([command for command in commands if not command.is_gone]))
        self._server.close()


async def _follow(
    running: Command,
    pipe: OutputPipe,
    output: Output,
    timeout_seconds: float | None,
    on_started: OnStarted,
    beside: Beside,
    leave: bool,
) -> Ran:
    if on_started is not None:
        await on_started(running.process)
    timed_out = background = False
    others = 0
    running.go()
    watch = _Watch(running, beside)
    try:
        async with asyncio.timeout(timeout_seconds):
            _, others = await running.exited()
    except TimeoutError:
        timed_out = True
        await to_the_end(running.end())
    finally:
        ended_for = await watch.stop()
    if others and (not await _ended(pipe, HELD_OUTPUT_SECONDS) or not leave):
        background = True
        await to_the_end(running.end())
    await _ended(pipe, DRAIN_SECONDS)
    if not others and not timed_out:
        running.leave()
    output.close()
    result = ExecResult(
        exit_code=running.exit_code if running.exit_code is not None else 137,
        output=output.held,
        timed_out=timed_out,
        dropped=output.dropped,
        full_output=output.path or None,
        background=background,
        left_running=0 if background else others,
    )
    return Ran(result, running.status, ended_for)


class _Watch:
    """What is looked at while a command runs; its verdict ends the command."""

    def __init__(self, running: Command, beside: Beside) -> None:
        self._reason = ""
        self._task = asyncio.ensure_future(self._watch(running, beside)) if beside is not None else None

    async def _watch(self, running: Command, beside: Callable[[ProcessInfo], Awaitable[str]]) -> None:
        self._reason = await beside(running.process)
        await to_the_end(running.end())

    async def stop(self) -> str:
        """Nothing is watched any more; the reason for which the command was ended, or nothing."""
        if self._task is not None:
            if not self._reason:
                self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        return self._reason


def _both(first: Callable[[bytes], None], second: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        first(data)
        second(data)

    return feed


async def _all_ended(commands: Sequence[Command]) -> None:
    await asyncio.gather(*(command.end() for command in commands))


async def _ended(pipe: OutputPipe, seconds: float) -> bool:
    """Whether every writer let go of the output within the time."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.shield(pipe.eof)
    except TimeoutError:
        return False
    return True
