"""`ssh(host)`: another machine's shell and files over SSH. Extra: `cairn-agents[ssh]`.

What an agent runs there runs as the account that is logged in to: isolation is whatever that account and machine have. The
host's key has to be known; there is no silent first trust.

Laws. One connection per open sandbox. Nothing has to be installed there: a script in the login shell starts each command, ends
all of it, and ends it too when the connection is gone (`remote_shell.py`), so no command outlives its worker, and none outlives
its own end. Files go over SFTP. A connection that was lost leaves a command of unknown fate, and an error says so.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cairn.errors import MissingExtra, SandboxError, UsageError
from cairn.harness.sandbox.commands import to_the_end
from cairn.harness.sandbox.output import Output, part_of
from cairn.harness.sandbox.protocol import Capabilities, ExecResult, FileInfo, ProcessInfo
from cairn.harness.sandbox.remote_files import RemoteFiles
from cairn.harness.sandbox.remote_shell import SCRIPT_BYTES_MAX, ending, preparing, running
from cairn.harness.sandbox.ssh_run import SshRun

if TYPE_CHECKING:
    import asyncssh

    from cairn.harness.sandbox.protocol import Place

T = TypeVar("T")

#: How long connecting may take: three retransmissions of a lost packet.
CONNECT_SECONDS = 15.0

#: A connection that says nothing is asked this often, and given up after three silences.
KEEPALIVE_SECONDS = 15.0

#: How long ending a tree may take, a round trip and the search included.
END_SECONDS = 15.0


def ssh(
    host: str,
    *,
    user: str | None = None,
    port: int = 22,
    directory: str = "cairn",
    keys: Sequence[str | os.PathLike[str]] = (),
    known_hosts: str | os.PathLike[str] | None = None,
    env: Collection[str] | Mapping[str, str] = (),
    insecure_host_key: bool = False,
) -> SshFactory:
    """An account on another machine. Each instance has a directory of its own there, below `directory` (of the home).

    `keys` are files of private keys; without them the agent and the usual files of `~/.ssh` are used. `known_hosts` is a file
    in OpenSSH's format, `~/.ssh/known_hosts` if not given: a host whose key is not in it is refused. `insecure_host_key`
    accepts any: whoever can answer for the host then has the agent's files and credentials. `env` is as in `local()`.
    *Raises* UsageError; when opened, MissingExtra, and SandboxError when the host cannot be reached or proves to be another.
    """
    if isinstance(env, str):
        raise UsageError(f"ssh(env={env!r}) is one string; give a collection of names, ({env!r},), or a mapping")
    if not host or host.startswith("-"):
        raise UsageError(f"ssh({host!r}): give a host's name or address")
    hosts = None if known_hosts is None else os.fspath(known_hosts)
    chosen = dict(env) if isinstance(env, Mapping) else tuple(env)
    return SshFactory(host, user, port, directory, tuple(os.fspath(key) for key in keys), hosts, chosen, insecure_host_key)


@dataclass(frozen=True, slots=True)
class SshFactory:
    """What `ssh()` returns and `Agent(sandbox=…)` takes."""

    host: str
    user: str | None
    port: int
    directory: str
    keys: tuple[str, ...]
    known_hosts: str | None
    env: tuple[str, ...] | dict[str, str]
    insecure_host_key: bool

    @property
    def name(self) -> str:
        return "ssh"

    @property
    def key(self) -> str:
        return f"ssh:{self.user or ''}@{self.host}:{self.port}/{self.directory}"

    @property
    def about(self) -> str:
        key = ", accepting any host key" if self.insecure_host_key else ""
        return f"commands run on {self.host}, as the account logged in to{key}"

    async def open(self, instance: str, directory: str, place: Place | None = None) -> SshSandbox:
        """The instance's directory on the host exists. Connected, and again whenever the connection was lost."""
        own = place.uid if place is not None else instance.replace("/", "-")
        named = self.env if isinstance(self.env, tuple) else ()
        env = {name: os.environ[name] for name in named if name in os.environ}
        if isinstance(self.env, dict):
            env |= self.env
        sandbox = SshSandbox(self, own, env, directory)
        await sandbox.connect()
        return sandbox


def _client() -> Any:
    try:
        import asyncssh
    except ImportError as error:
        raise MissingExtra("ssh() needs asyncssh: pip install 'cairn-agents[ssh]'") from error
    return asyncssh


class SshSandbox:
    """One instance's directory on the host."""

    name = "ssh"
    capabilities = Capabilities(isolation="machine", network="host", background=False)

    def __init__(self, chosen: SshFactory, own: str, env: dict[str, str], directory: str) -> None:
        self._chosen = chosen
        self._own = own
        self._env = env
        self._outputs = os.path.join(directory, "output")
        self._connection: asyncssh.SSHClientConnection | None = None
        self._files: RemoteFiles | None = None
        self._connecting = asyncio.Lock()
        self._running: set[SshRun] = set()
        self._cwd = ""
        self._boot = self._host = ""
        self._is_closed = False

    @property
    def cwd(self) -> str:
        return self._cwd

    # ------------------------------------------------------------------ the connection

    async def connect(self) -> tuple[asyncssh.SSHClientConnection, RemoteFiles]:
        """A connection that was alive a moment ago. *Raises* SandboxError."""
        async with self._connecting:
            if self._is_closed:
                raise SandboxError("this sandbox is closed; open another")
            if self._connection is not None and self._files is not None and not self._connection.is_closed():
                return self._connection, self._files
            client = _client()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._connected(client)
            except (OSError, TimeoutError, client.Error) as error:
                raise SandboxError(self._refusal(client, error)) from error

    async def _connected(self, client: Any) -> tuple[asyncssh.SSHClientConnection, RemoteFiles]:
        chosen = self._chosen
        options: dict[str, Any] = {"port": chosen.port, "keepalive_interval": KEEPALIVE_SECONDS, "config": None}
        if chosen.user is not None:
            options["username"] = chosen.user
        if chosen.keys:
            options |= {"client_keys": list(chosen.keys), "agent_path": None}
        if chosen.insecure_host_key:
            options["known_hosts"] = None
        elif chosen.known_hosts is not None:
            options["known_hosts"] = chosen.known_hosts
        connection = await client.connect(chosen.host, **options)
        done = await connection.run(preparing(posixpath.join(chosen.directory, self._own)))
        lines = str(done.stdout).split("\n")
        if done.exit_status != 0 or len(lines) < 3:
            connection.close()
            raise OSError(f"its shell said: {str(done.stderr).strip()[:300] or 'nothing'}")
        self._cwd, self._boot, self._host = lines[0], lines[1], f"ssh:{lines[2]}"
        self._connection, self._files = connection, RemoteFiles(client, await connection.start_sftp_client(), self._run_text)
        return connection, self._files

    def _refusal(self, client: Any, error: BaseException) -> str:
        where = f"{self._chosen.user + '@' if self._chosen.user else ''}{self._chosen.host}:{self._chosen.port}"
        if isinstance(error, client.HostKeyNotVerifiable):
            hosts = self._chosen.known_hosts or "~/.ssh/known_hosts"
            return (
                f"{where}: its key is not the one in {hosts}, or none is ({error}); add it with ssh-keyscan when you trust it"
            )
        if isinstance(error, client.PermissionDenied):
            return f"{where} does not let this user in ({error}); name a key with ssh(keys=…)"
        return f"{where} cannot be reached: {str(error) or type(error).__name__}"

    async def _run_text(self, command: str) -> tuple[int, str]:
        connection, _ = await self.connect()
        done = await connection.run(command, encoding="utf-8", errors="surrogateescape", stdin=_client().DEVNULL)
        return done.exit_status or 0, str(done.stdout)

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
        """Run a shell command (bash where there is one) to its end. Its standard input is empty.

        *Cancelled*, timed out, or `on_started` raised: every process it started is dead when this returns.
        *Raises* SandboxError: the host cannot be reached; or the connection was lost, and how far the command came is unknown.
        """
        variables = self._env | dict(env or {})
        if any("\0" in text for text in (command, *variables, *variables.values())):
            raise SandboxError("a command and its environment cannot contain a NUL character")
        connection, _ = await self.connect()
        where = self._path(cwd) if cwd else self._cwd
        script = running(command, where, variables)
        if len(script.encode("utf-8", "surrogateescape")) > SCRIPT_BYTES_MAX:
            raise SandboxError(f"the command is too long for one of {SCRIPT_BYTES_MAX} bytes; write it to a file and run that")
        output = Output(self._outputs)
        try:
            return await self._run(connection, script, output, timeout_seconds, on_output, on_started)
        except (OSError, _client().Error) as error:
            raise SandboxError(f"the connection was lost; how far the command came is unknown: {error}") from error
        finally:
            output.close()

    async def _run(
        self,
        connection: asyncssh.SSHClientConnection,
        script: str,
        output: Output,
        timeout_seconds: float | None,
        on_output: Callable[[bytes], None] | None,
        on_started: Callable[[ProcessInfo], Awaitable[None]] | None,
    ) -> ExecResult:
        process = await connection.create_process(script, encoding=None)
        running = SshRun(process, _client().Error, output, on_output)
        self._running.add(running)
        try:
            pid, group, ticks = await running.prepared()
            if on_started is not None:
                await on_started(ProcessInfo(pid=pid, group=group, started=ticks, boot=self._boot, host=self._host))
            return await running.to_result(timeout_seconds)
        except BaseException:
            await to_the_end(running.end())
            raise
        finally:
            process.close()
            self._running.discard(running)

    async def reap(self, process: ProcessInfo) -> bool:
        """What is left of a tree is dead: a former owner's, from whichever machine it was started."""
        await self.connect()
        if (process.boot, process.host) != (self._boot, self._host):
            return False
        async with asyncio.timeout(END_SECONDS):
            _, said = await to_the_end(self._run_text(ending(f"{process.pid}.{process.started:.0f}")))
        return said.strip() == "ended"

    async def close(self) -> None:
        """Nothing of any command lives; the files stay. *Idempotent*."""
        if self._is_closed:
            return
        await to_the_end(_all_ended(tuple(self._running)))
        self._is_closed = True
        if self._connection is not None:
            self._connection.close()
            with suppress(OSError, TimeoutError, _client().Error):
                async with asyncio.timeout(5):
                    await self._connection.wait_closed()

    # ------------------------------------------------------------------ files

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        if self._is_output(path):
            return await asyncio.to_thread(part_of, path, start, size)
        return await self._with_files(lambda files: files.read(self._path(path), start, size))

    async def write(self, path: str, data: bytes) -> None:
        """See the protocol. *Durable* as far as the host's SFTP server can sync files."""
        await to_the_end(self._with_files(lambda files: files.replace(self._path(path), data)))

    async def stat(self, path: str) -> FileInfo | None:
        if self._is_output(path):
            return FileInfo(path, "file", await asyncio.to_thread(os.path.getsize, path))
        return await self._with_files(lambda files: files.stat(self._path(path)))

    async def list(self, path: str) -> list[FileInfo]:
        return await self._with_files(lambda files: files.entries(self._path(path)))

    async def remove(self, path: str) -> None:
        if self._is_output(path):
            await asyncio.to_thread(os.unlink, path)
            return
        await self._with_files(lambda files: files.remove(self._path(path)))

    async def real_path(self, path: str) -> str:
        return await self._with_files(lambda files: files.real_path(self._path(path)))

    async def _with_files(self, work: Callable[[RemoteFiles], Awaitable[T]]) -> T:
        _, files = await self.connect()
        client = _client()
        try:
            return await work(files)
        except client.Error as error:
            raise SandboxError(f"{self._chosen.host}: {error}") from error

    def _is_output(self, path: str) -> bool:
        """A long output is kept on this machine, where it was received; the host need not have room for it."""
        return os.path.dirname(path) == self._outputs and os.path.isfile(path)

    def _path(self, path: str) -> str:
        if "\0" in path:
            raise SandboxError(f"{path!r} contains a NUL character and cannot be a path")
        if path == "~" or path.startswith("~/"):
            path = "." + path[1:]
            return posixpath.normpath(posixpath.join(self._cwd, "../..", path))
        return posixpath.join(self._cwd, path)


async def _all_ended(commands: Sequence[SshRun]) -> None:
    await asyncio.gather(*(command.end() for command in commands))
