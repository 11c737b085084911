"""`local()`: real files and a real shell on the host. **No isolation at all.**

What an agent runs here runs as the user who started the worker: it can read and change every file that user can, `..` and
absolute paths included, and reach the network. Use it for code you would let a colleague run on this machine.

Laws. What it does promise is tidiness. A command sees only an allow-list of the worker's environment variables plus what the
caller names. Every process a command starts ends with it on timeout and cancellation, and within a second of the worker's
death, however that came. Files are replaced whole or not at all, and are on the disk when `write` returns.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from cairn.errors import SandboxError, UsageError
from cairn.harness.sandbox import host_files
from cairn.harness.sandbox.commands import GRACE_SECONDS, Request, to_the_end
from cairn.harness.sandbox.protocol import Capabilities, ExecResult, FileInfo, Place, ProcessInfo
from cairn.harness.sandbox.running import HostCommands

T = TypeVar("T")

#: What passes from the worker's environment: enough to find programs, the home directory, the language and the time zone.
#: Everything else may be a secret (API keys of the very model that asks) and has to be named by the caller.
PASSED_VARIABLES = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE"),
    *("TZ", "TERM", "TMPDIR", "TMP", "TEMP", "HOSTNAME"),
)


def local(
    cwd: str | os.PathLike[str] = ".",
    env: Collection[str] | Mapping[str, str] = (),
    *,
    grace_seconds: float = GRACE_SECONDS,
) -> LocalFactory:
    """A sandbox that is not one: the agent works on this machine's files, in `cwd`, with this machine's shell.

    There is no isolation: see the head of this module. `env` adds to the few variables that commands see: a collection of
    names passes those on from the worker, a mapping sets them. Both are read when the sandbox is opened. `grace_seconds` lie
    between asking a command to end (SIGTERM), on timeout and cancellation, and killing it.
    *Raises* UsageError when opened, if `cwd` is not a directory.
    """
    if isinstance(env, str):
        raise UsageError(f"local(env={env!r}) is one string; give a collection of names, ({env!r},), or a mapping")
    return LocalFactory(os.fspath(cwd), dict(env) if isinstance(env, Mapping) else tuple(env), grace_seconds)


@dataclass(frozen=True)
class LocalFactory:
    """What `local()` returns and `Agent(sandbox=…)` takes."""

    _cwd: str
    _env: tuple[str, ...] | dict[str, str]
    _grace_seconds: float

    name: ClassVar[str] = "local"
    about: ClassVar[str] = "no isolation: commands run as this user, on this machine's files and network"

    @property
    def key(self) -> str:
        return f"local:{os.path.abspath(os.path.expanduser(self._cwd))}"

    async def open(self, instance: str, directory: str, place: Place | None = None) -> LocalSandbox:
        """The working directory and the environment are taken as they are now. *Raises* UsageError: no such directory."""
        cwd = _directory(self._cwd)
        named = () if isinstance(self._env, dict) else self._env
        env = {name: os.environ[name] for name in (*PASSED_VARIABLES, *named) if name in os.environ}
        if isinstance(self._env, dict):
            env |= self._env
        return LocalSandbox(cwd, env, directory, self._grace_seconds)


def _directory(given: str) -> str:
    cwd = os.path.abspath(os.path.expanduser(given))
    if not os.path.isdir(cwd):
        raise UsageError(f"local(cwd={given!r}): {cwd} is not a directory; create it or name another")
    return cwd


class LocalSandbox:
    """The host, seen from one directory. Belongs to one instance; `directory` is where long outputs are kept."""

    name = "local"
    capabilities = Capabilities(isolation="none", network="host")

    #: An interpreter that commands can run: the worker's own is on this host, `python3` need not be.
    python = sys.executable

    def __init__(self, cwd: str, env: dict[str, str], directory: str, grace_seconds: float = GRACE_SECONDS) -> None:
        self._cwd = cwd
        self._env = env
        self._grace_seconds = grace_seconds
        self._shell = shutil.which("bash", path=env.get("PATH")) or "/bin/sh"
        self._commands = HostCommands(os.path.join(directory, "output"))

    @property
    def cwd(self) -> str:
        return self._cwd

    # ------------------------------------------------------------------ commands

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
        """Run a shell command (bash where there is one, else sh) to its end. Its standard input is empty.

        The exit code of a command ended by signal n is 128 + n. A process it left behind that still holds the output is ended
        (`background`); one that let go of it may go on until the sandbox is closed (`left_running`).
        *Cancelled*, timed out, or `on_started` raised: every process it started is dead when this returns.
        *Raises* SandboxError if the command could not be started, or its supervisor was killed.
        """
        variables = self._env | dict(env or {})
        self._commands.check(command, variables)
        where = self._path(cwd) if cwd else self._cwd
        request = Request([self._shell, "-c", command], where, variables, self._grace_seconds)
        ran = await self._commands.run(request, timeout_seconds=timeout_seconds, on_output=on_output, on_started=on_started)
        return ran.result

    async def reap(self, process: ProcessInfo) -> bool:
        """What is left of a tree is dead: a former owner's on this host, found by pid and start time, or by its mark."""
        return await self._commands.reap(process)

    async def close(self) -> None:
        """Nothing of any command lives, be it running or left running. Idempotent."""
        await self._commands.close()

    # ------------------------------------------------------------------ files

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        """See the protocol. A device or a pipe is refused: reading it might never end."""
        return await _in_thread(lambda: host_files.read(self._path(path), start, size))

    async def write(self, path: str, data: bytes) -> None:
        """See the protocol. *Durable*: the bytes are on the disk when it returns.

        A file that other names share (a hard link) parts from them. Where the directory cannot be written to but the file can,
        the file is overwritten in place, which a crash may cut short.
        """
        await _in_thread(lambda: host_files.replace(os.path.realpath(self._path(path)), data))

    async def stat(self, path: str) -> FileInfo | None:
        return await _in_thread(lambda: host_files.stat(self._path(path)))

    async def list(self, path: str) -> list[FileInfo]:
        return await _in_thread(lambda: host_files.entries(self._path(path)))

    async def remove(self, path: str) -> None:
        await _in_thread(lambda: host_files.remove(self._path(path)))

    async def real_path(self, path: str) -> str:
        return await _in_thread(lambda: os.path.realpath(self._path(path)))

    def _path(self, path: str) -> str:
        if "\0" in path:
            raise SandboxError(f"{path!r} contains a NUL character and cannot be a path")
        if path == "~" or path.startswith("~/"):
            path = self._env.get("HOME", "~") + path[1:]
        return os.path.join(self._cwd, path)


async def _in_thread(work: Callable[[], T]) -> T:
    """Files may be slow (a network mount, a sync): never on the event loop. Cancelled: ends first, so that no write is running
    when the caller lets go of a lock."""
    return await to_the_end(asyncio.to_thread(work))
