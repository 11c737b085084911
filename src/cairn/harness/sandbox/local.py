"""`local()`: real files and a real shell on the host. **No isolation at all.**

What an agent runs here runs as the user who started the worker: it can read and change every file that user can, `..` and
absolute paths included, and reach the network. Use it for code you would let a colleague run on this machine.

Laws. What it does promise is tidiness. A command sees only an allow-list of the worker's environment variables plus what the
caller names. Every process a command starts ends with it on timeout and cancellation, and within a second of the worker's
death, however that came. Files are replaced whole or not at all, and are on the disk when `write` returns.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import stat as modes
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

from cairn.errors import SandboxError, UsageError
from cairn.harness.sandbox.commands import (
    GRACE_SECONDS,
    Command,
    CommandServer,
    OutputPipe,
    Request,
    end_tree,
    to_the_end,
)
from cairn.harness.sandbox.output import Output
from cairn.harness.sandbox.protocol import ExecResult, FileInfo, ProcessInfo

T = TypeVar("T")

#: What passes from the worker's environment: enough to find programs, the home directory, the language and the time zone.
#: Everything else may be a secret (API keys of the very model that asks) and has to be named by the caller.
PASSED_VARIABLES = (
    "PATH HOME USER LOGNAME SHELL LANG LC_ALL LC_CTYPE TZ TERM TMPDIR TMP TEMP HOSTNAME".split()
)

#: After the command itself has ended: how long a child of it may still hold the output before it is ended. A pipeline's last
#: member takes milliseconds to end; a daemon never lets go.
HELD_OUTPUT_SECONDS = 0.25

#: How long the last of the output may take to be read once every process of the tree is dead.
DRAIN_SECONDS = 5.0

#: The longest command Linux accepts as one argument (MAX_ARG_STRLEN, 32 pages).
COMMAND_BYTES_MAX = 128 * 1024 - 1

_temporary_names = itertools.count(1)


def local(cwd: str | os.PathLike[str] = ".", env: Collection[str] | Mapping[str, str] = ()) -> LocalFactory:
    """A sandbox that is not one: the agent works on this machine's files, in `cwd`, with this machine's shell.

    There is no isolation: see the head of this module. `env` adds to the few variables that commands see: a collection of
    names passes those on from the worker, a mapping sets them. Both are read when the sandbox is opened.
    *Raises* UsageError when opened, if `cwd` is not a directory.
    """
    if isinstance(env, str):
        raise UsageError(f"local(env={env!r}) is one string; give a collection of names, ({env!r},), or a mapping")
    return LocalFactory(os.fspath(cwd), dict(env) if isinstance(env, Mapping) else tuple(env))


class LocalFactory:
    """What `local()` returns and `Agent(sandbox=…)` takes."""

    name = "local"

    def __init__(self, cwd: str, env: tuple[str, ...] | dict[str, str]) -> None:
        self._cwd = cwd
        self._env = env

    async def open(self, instance: str, directory: str) -> LocalSandbox:
        """The working directory and the environment are taken as they are now."""
        cwd = os.path.abspath(os.path.expanduser(self._cwd))
        if not os.path.isdir(cwd):
            raise UsageError(f"local(cwd={self._cwd!r}): {cwd} is not a directory; create it or name another")
        named = () if isinstance(self._env, dict) else self._env
        env = {name: os.environ[name] for name in (*PASSED_VARIABLES, *named) if name in os.environ}
        if isinstance(self._env, dict):
            env |= self._env
        return LocalSandbox(cwd, env, directory)


class LocalSandbox:
    """The host, seen from one directory. Belongs to one instance; `directory` is where long outputs are kept."""

    name = "local"

    def __init__(self, cwd: str, env: dict[str, str], directory: str, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._cwd = cwd
        self._env = env
        self._outputs = os.path.join(directory, "output")
        self._grace_seconds = grace_seconds
        self._shell = shutil.which("bash", path=env.get("PATH")) or "/bin/sh"
        self._server = CommandServer()
        self._left: list[Command] = []
        self._is_closed = False

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
        request = self._request(command, cwd, env)
        output = Output(self._outputs)
        pipe = OutputPipe(_both(output.feed, on_output) if on_output else output.feed)
        try:
            control = self._server.begin(pipe.writer)
            pipe.close_writer()
            running = await Command.prepare(control, request)
            try:
                return await self._follow(running, pipe, output, timeout_seconds, on_started)
            except BaseException:
                await to_the_end(running.end())
                raise
        finally:
            pipe.close()
            output.close()

    def _request(self, command: str, cwd: str | None, env: Mapping[str, str] | None) -> Request:
        if self._is_closed:
            raise SandboxError("this sandbox is closed; open another")
        size = len(command.encode("utf-8", "surrogateescape"))
        if size > COMMAND_BYTES_MAX:
            raise SandboxError(
                f"the command has {size} bytes, the system takes {COMMAND_BYTES_MAX}; write it to a file and run that"
            )
        variables = self._env | dict(env or {})
        if any("\0" in text for text in (command, *variables, *variables.values())):
            raise SandboxError("a command and its environment cannot contain a NUL character")
        where = self._path(cwd) if cwd else self._cwd
        return Request([self._shell, "-c", command], where, variables, self._grace_seconds)

    async def _follow(
        self,
        running: Command,
        pipe: OutputPipe,
        output: Output,
        timeout_seconds: float | None,
        on_started: Callable[[ProcessInfo], Awaitable[None]] | None,
    ) -> ExecResult:
        if on_started is not None and running.process is not None:
            await on_started(running.process)
        timed_out = background = False
        others = 0
        running.go()
        try:
            async with asyncio.timeout(timeout_seconds):
                _, others = await running.exited()
        except TimeoutError:
            timed_out = True
            await to_the_end(running.end())
        if others and not await _ended(pipe, HELD_OUTPUT_SECONDS):
            background = True
            await to_the_end(running.end())
        await _ended(pipe, DRAIN_SECONDS)
        if others and not background:
            self._leave(running)
        elif not running.is_gone:
            running.leave()
        output.close()
        return ExecResult(
            exit_code=running.exit_code if running.exit_code is not None else 137,
            output=output.held,
            timed_out=timed_out,
            dropped=output.dropped,
            full_output=output.path or None,
            background=background,
            left_running=0 if background else others,
        )

    def _leave(self, running: Command) -> None:
        self._left = [*(command for command in self._left if not command.is_gone), running]

    async def reap(self, process: ProcessInfo) -> bool:
        """What is left of a tree is dead: a former owner's on this host, found by pid and start time, or by its mark."""
        return await to_the_end(asyncio.to_thread(end_tree, process))

    async def close(self) -> None:
        """Nothing that a command left running lives any more. Idempotent."""
        self._is_closed = True
        left, self._left = self._left, []
        for command in left:
            await to_the_end(command.end())
        self._server.close()

    # ------------------------------------------------------------------ files

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        """See the protocol. A device or a pipe is refused: reading it might never end."""
        return await _in_thread(lambda: _read(self._path(path), start, size))

    async def write(self, path: str, data: bytes) -> None:
        """See the protocol. *Durable*: the bytes are on the disk when it returns.

        A file that other names share (a hard link) parts from them. Where the directory cannot be written to but the file can,
        the file is overwritten in place, which a crash may cut short.
        """
        await _in_thread(lambda: _replace(os.path.realpath(self._path(path)), data))

    async def stat(self, path: str) -> FileInfo | None:
        return await _in_thread(lambda: _stat(self._path(path)))

    async def list(self, path: str) -> list[FileInfo]:
        return await _in_thread(lambda: _list(self._path(path)))

    async def remove(self, path: str) -> None:
        await _in_thread(lambda: _remove(self._path(path)))

    async def real_path(self, path: str) -> str:
        return await _in_thread(lambda: os.path.realpath(self._path(path)))

    def _path(self, path: str) -> str:
        if "\0" in path:
            raise SandboxError(f"{path!r} contains a NUL character and cannot be a path")
        if path == "~" or path.startswith("~/"):
            path = self._env.get("HOME", "~") + path[1:]
        return os.path.join(self._cwd, path)


def _both(first: Callable[[bytes], None], second: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        first(data)
        second(data)

    return feed


async def _ended(pipe: OutputPipe, seconds: float) -> bool:
    """Whether every writer let go of the output within the time."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.shield(pipe.eof)
    except TimeoutError:
        return False
    return True


async def _in_thread(work: Callable[[], T]) -> T:
    """Files may be slow (a network mount, a sync): never on the event loop. Cancelled: ends first, so that no write is running
    when the caller lets go of a lock."""
    return await to_the_end(asyncio.to_thread(work))


# ---------------------------------------------------------------------- blocking, in a thread


def _read(path: str, start: int, size: int | None) -> bytes:
    # Non-blocking, because opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        _expect_file(os.fstat(descriptor).st_mode, path)
        file.seek(start)
        if size is None:
            return file.readall()
        parts = bytearray()
        while len(parts) < size and (part := file.read(size - len(parts))):
            parts += part
        return bytes(parts)


def _expect_file(mode: int, path: str) -> None:
    if modes.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory", path)
    if not modes.S_ISREG(mode):
        raise SandboxError(f"{path} is a device, a pipe or a socket, not a file")


def _replace(path: str, data: bytes) -> None:
    try:
        before: os.stat_result | None = os.stat(path)
    except FileNotFoundError:
        before = None
        os.makedirs(os.path.dirname(path), exist_ok=True)
    if before is not None:
        _expect_file(before.st_mode, path)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "is read-only", path)
    try:
        _replace_whole(path, data, before)
    except OSError as error:
        # A single file mounted into a container cannot be renamed over; a directory may be closed to us, its file open.
        if before is None or error.errno not in (errno.EBUSY, errno.EACCES, errno.EPERM, errno.EXDEV):
            raise
        with open(path, "r+b") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


def _replace_whole(path: str, data: bytes, before: os.stat_result | None) -> None:
    folder = os.path.dirname(path)
    temporary, descriptor = _create_beside(folder)
    try:
        with open(descriptor, "wb") as file:
            if before is not None:
                _take_over(descriptor, before)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(folder)


def _create_beside(folder: str) -> tuple[str, int]:
    """A new file with the mode that a new file gets here (mkstemp's would be private)."""
    while True:
        temporary = os.path.join(folder, f".cairn-{os.getpid()}-{next(_temporary_names)}.tmp")
        try:
            return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:  # left by a crash of a process that had our pid
            continue


def _take_over(descriptor: int, before: os.stat_result) -> None:
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.fchown(descriptor, before.st_uid, before.st_gid)
        except PermissionError:
            pass  # a file of another user that we may write becomes ours, as with every editor that saves by renaming
    os.fchmod(descriptor, modes.S_IMODE(before.st_mode))


def _sync_directory(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems cannot sync a directory; the rename is then as durable as they make it
    finally:
        os.close(descriptor)


def _stat(path: str) -> FileInfo | None:
    for follow in (True, False):
        try:
            return _info(path, os.stat(path, follow_symlinks=follow))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
                raise
    return None


def _list(path: str) -> list[FileInfo]:
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                found.append(_info(entry.path, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:  # removed while we looked
                continue
    return sorted(found, key=lambda info: info.path)


def _info(path: str, status: os.stat_result) -> FileInfo:
    mode = status.st_mode
    kinds = ((modes.S_ISREG, "file"), (modes.S_ISDIR, "directory"), (modes.S_ISLNK, "symlink"))
    kind = next((name for test, name in kinds if test(mode)), "other")
    return FileInfo(path, kind, status.st_size, modes.S_IMODE(mode), status.st_mtime)


def _remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
            return
        _sync_directory(str(Path(path).parent))
    except FileNotFoundError:
        return
