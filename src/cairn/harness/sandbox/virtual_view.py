"""The virtual sandbox as one call sees it: a draft of the files, and a shell that moves with it.

Laws. What a command does is in the draft when it has ended, and nowhere before. A command that timed out, was cancelled or lost
its worker has done nothing. The shell's state is bytes that only a worker reads.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from cairn.errors import SandboxError, WorkspaceError, WorkspaceFull
from cairn.harness.sandbox.protocol import REMEMBERED_BYTES_MAX, ExecResult, FileInfo, ProcessInfo
from cairn.harness.sandbox.virtual_files import FilesOf
from cairn.harness.sandbox.virtual_host import CommandHost
from cairn.harness.sandbox.virtual_log import CommandLog
from cairn.harness.sandbox.virtual_overlay import carry_out
from cairn.harness.sandbox.virtual_paths import HOME, inside
from cairn.harness.sandbox.virtual_process import WorkerLost
from cairn.harness.sandbox.virtual_wire import Done, Garbage

if TYPE_CHECKING:
    from cairn.harness.sandbox.virtual import VirtualSandbox
    from cairn.runtime.workspace_draft import Draft

#: A command without a timeout of its own.
SECONDS_DEFAULT = 3_600.0

#: As for a real shell: the longest command Linux accepts as one argument.
COMMAND_BYTES_MAX = 128 * 1024 - 1

#: What a shell says of a command that it had to give up, as timeout(1) does.
TIMED_OUT_CODE = 124
#: What bash ends with when it cannot read the script.
SYNTAX_CODE = 2

#: The shell's command that searches for the grep tool: Python's expressions, as everywhere, with a worker's deadline.
SEARCHER = "cairn-search"


class Shell(msgspec.Struct, frozen=True, array_like=True):
    """Where an instance's shell is. `state` is for workers alone."""

    cwd: str = HOME
    state: bytes = b""


encode_shell = msgspec.msgpack.Encoder().encode
_decode_shell = msgspec.msgpack.Decoder(Shell).decode


def shell_of(recall: bytes | None) -> Shell:
    """What was remembered; a new shell if that cannot be read, as after an update."""
    try:
        return Shell() if recall is None else _decode_shell(recall)
    except msgspec.MsgspecError:
        return Shell()


class VirtualView:
    """The sandbox as one call sees it: over a draft, with a shell that is the sandbox's again when the draft is committed."""

    name = "virtual"
    searcher = SEARCHER

    def __init__(self, sandbox: VirtualSandbox, draft: Draft) -> None:
        self._sandbox = sandbox
        self._draft = draft
        self._shell = sandbox.shell
        self._files = FilesOf(draft, lambda: self._shell.cwd)
        self.is_spoiled = False
        """The draft has a part of what a command did, and must not be kept."""

    @property
    def cwd(self) -> str:
        return self._shell.cwd

    @property
    def remembered(self) -> bytes | None:
        return None if self._shell is self._sandbox.shell else encode_shell(self._shell)

    def committed(self) -> None:
        """The draft and what was to be remembered are in the log."""
        self._sandbox.shell = self._shell

    async def exec(
        self,
        command: str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        on_output: Callable[[bytes], None] | None = None,
        on_started: Callable[[ProcessInfo], Awaitable[None]] | None = None,
    ) -> ExecResult:
        """Run a script to its end, background jobs included. With `cwd` or `env` it runs in a copy of the shell, which is then
        forgotten. There is no process to be told of: `on_started` is not called.

        *Cancelled*, timed out: the command has done nothing. *Raises* SandboxError: it could not be run, or its worker was
        lost, and it has done nothing; or what it did does not fit into the workspace.
        """
        self._check(command, env or {})
        seconds = timeout_seconds or SECONDS_DEFAULT
        factory, log = self._sandbox.factory, CommandLog(on_output)
        host = CommandHost(self._draft, log, factory.commands, factory.network)
        request = {
            "script": command,
            "cwd": None if cwd is None else self._absolute(cwd),
            "env": dict(env or {}),
            "seconds": seconds,
            "now": self._sandbox.workspace.now(),
            "aside": self._aside(),
            "commands": factory.commands.names,
            "network": factory.network is not None,
        }
        async with self._sandbox.pool.worker(self._sandbox.tenant) as worker:
            try:
                done, payload = await worker.run(request, self._shell.state, host, seconds)
                if done.timed_out or done.used:
                    worker.kill()  # whatever it was busy with, it may be still
                if not done.timed_out:
                    await self._keep(done, payload)
            except (Garbage, WorkerLost) as error:
                worker.kill()
                raise SandboxError(_lost(str(error))) from error
        return await self._result(done, log)

    def _check(self, command: str, env: Mapping[str, str]) -> None:
        if self._sandbox.is_closed:
            raise SandboxError("this sandbox is closed; open another")
        if self.is_spoiled:
            raise SandboxError("what the last command did could not be kept, so nothing of this call will be; begin another")
        if any("\0" in text for text in (command, *env, *env.values())):
            raise SandboxError("a command and its environment cannot contain a NUL character")
        size = len(command.encode("utf-8", "surrogateescape"))
        if size > COMMAND_BYTES_MAX:
            raise SandboxError(
                f"the command has {size} bytes, a shell takes {COMMAND_BYTES_MAX}; write it to a file and run that"
            )

    def _absolute(self, cwd: str) -> str:
        return os.path.normpath(os.path.join(self._shell.cwd, cwd)) if not cwd.startswith("~") else HOME + cwd[1:]

    def _aside(self) -> str:
        """A directory that is not there: the place of what is moved, in between."""
        return next(path for n in count() if self._draft.lstat(path := f"/.cairn-moving-{n}") is None)

    async def _keep(self, done: Done, payload: bytes) -> None:
        """The draft is as the command left it, and so is the shell."""
        if not 0 <= done.state <= len(payload):
            raise Garbage("a shell worker sent less than it announced")
        contents, state = payload[: len(payload) - done.state], payload[len(payload) - done.state :]
        self.is_spoiled = bool(done.changes)
        try:
            await carry_out(self._draft, done.changes, contents)
        except WorkspaceFull as error:
            raise SandboxError(f"the command ran, but nothing of what it did is kept: {error}") from error
        except OSError as error:  # the shell refuses such things itself: this one is not to be trusted
            raise Garbage(f"did what cannot be done to files ({error})") from error
        self.is_spoiled = False
        if state:
            if len(state) > REMEMBERED_BYTES_MAX // 2:
                self.is_spoiled = bool(done.changes)
                raise SandboxError(
                    f"the shell's variables and functions have {len(state):,} bytes, more than is kept between commands; "
                    "nothing of this command is kept. Put large texts into files"
                )
            self._shell = Shell(done.cwd if done.cwd.startswith("/") and "\0" not in done.cwd else HOME, state)

    async def _result(self, done: Done, log: CommandLog) -> ExecResult:
        code = done.code & 0xFF
        if done.error is not None:
            log.feed(f"bash: {done.error}\n".encode("utf-8", "replace"))
            code = SYNTAX_CODE if done.error.startswith("parse error") else code or 1
        try:
            kept = await log.kept(self._draft)
        except WorkspaceError:  # the workspace is full: the end of the output is what there is
            kept = None
        return ExecResult(
            exit_code=TIMED_OUT_CODE if done.timed_out else code,
            output=log.held,
            timed_out=done.timed_out,
            dropped=log.dropped,
            full_output=kept,
        )

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        return await self._files.read(path, start, size)

    async def write(self, path: str, data: bytes) -> None:
        await self._draft.write(inside(path, self.cwd, writing=True), data, parents=True)

    async def stat(self, path: str) -> FileInfo | None:
        return self._files.stat(path)

    async def list(self, path: str) -> list[FileInfo]:
        return self._files.list(path)

    async def remove(self, path: str) -> None:
        where = inside(path, self.cwd, writing=True)
        if self._draft.lstat(where) is not None:
            await self._draft.remove(where, recursive=True)

    async def real_path(self, path: str) -> str:
        return self._files.real_path(path)

    async def reap(self, process: ProcessInfo) -> bool:
        return False

    async def close(self) -> None:
        """Nothing to do: the sandbox stays open."""


def _lost(why: str) -> str:
    return (
        f"the command was lost: its shell {why}. Nothing it did was kept; files and shell are as they were before it. "
        "Do it another way: in smaller steps, with less nesting or less data"
    )
