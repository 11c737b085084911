"""`isolated()`: real processes on this host that see a read-only system, their own files, and nothing else.

What an agent runs here has the programs of this machine (`/usr`), a few directories to write to, and no network unless given.
It cannot see other processes, other files, the worker's environment, or the host's users. It **shares the kernel**: a flaw in
that is a way out, so code you know to be hostile belongs on another machine (a hosted sandbox, a virtual machine).

Laws. Bubblewrap is used where it works, else Landlock, else nothing runs: there is no weaker mode to fall into silently. With
bubblewrap every command is a namespace of its own and nothing in it outlives it. Limits are the kernel's where it has them for
a set of processes (a control group), else per process (see `limits_kept`). File operations never follow a link out of the
sandbox's files, whatever a command does meanwhile (`beneath.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar

from cairn.errors import SandboxError, UsageError
from cairn.harness.sandbox import bubblewrap, cgroups, memory, seccomp
from cairn.harness.sandbox.beneath import Places
from cairn.harness.sandbox.commands import GRACE_SECONDS, Request, to_the_end
from cairn.harness.sandbox.confinement import landlock_confinement, landlock_missing, processes_of_user
from cairn.harness.sandbox.disk import DiskWatch
from cairn.harness.sandbox.isolated_workspace import IsolatedWorkspace
from cairn.harness.sandbox.protocol import Capabilities, ExecResult, FileInfo, ProcessInfo
from cairn.harness.sandbox.running import HostCommands, OnOutput, OnStarted, Ran
from cairn.harness.sandbox.text import size_of

if TYPE_CHECKING:
    from cairn.harness.sandbox.protocol import Place

logger = logging.getLogger(__name__)

T = TypeVar("T")

Backend = Literal["auto", "bubblewrap", "landlock"]
Network = Literal["none", "host"]

#: Where programs are looked for inside.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Where the workspace, the home, the scratch directory and the long outputs are inside; the last cannot be written to there.
_INSIDE = (bubblewrap.WORKSPACE, bubblewrap.HOME, "/tmp", "/output")

#: Shared memory (/dev/shm) of one command: Docker's default.
SCRATCH_BYTES = 64 * 1024 * 1024

#: What passes from the worker's environment: the time zone and the language say nothing about this host.
PASSED_VARIABLES = ("TZ", "LANG", "LC_ALL", "LC_CTYPE")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the commands of one sandbox may use, together where the kernel can count them together."""

    memory_bytes: int = 2 * 1024**3
    """A compiler or a test runner fits; without a control group each process may have this much."""
    processes: int = 256
    """`make -j` on a large machine fits; a fork bomb ends here."""
    cpus: float | None = None
    """How many processors' worth of time (needs a control group); None: all there are."""
    cpu_seconds: int = 3600
    """Processor time of one process."""
    seconds: float = 3600.0
    """Wall time of one command, whatever the caller asks for."""
    disk_bytes: int = 2 * 1024**3
    """All the sandbox's files together (see `disk.py`); also the largest file."""
    open_files: int = 4096

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None and name == "cpus":
                continue
            if not isinstance(value, (int, float)) or not value > 0:  # -1 is no limit at all for the kernel
                raise UsageError(f"isolated(limits=Limits({name}={value!r})): give a number above 0")


def isolated(
    directory: str | os.PathLike[str] | None = None,
    *,
    network: Network = "none",
    read_only: Collection[str] = (),
    env: Collection[str] | Mapping[str, str] = (),
    limits: Limits | None = None,
    backend: Backend = "auto",
    grace_seconds: float = GRACE_SECONDS,
) -> IsolatedFactory:
    """A sandbox of real processes that see a read-only system and their own files; see the head of this module.

    `directory`: work on this directory of the host instead of the instance's own files. `network="host"` gives the host's whole
    network, loopback included. `read_only` are further host directories that commands may read. `env` is as in `local()`.
    *Raises* UsageError when opened: neither bubblewrap nor Landlock can be used here (it says why), or no such directory.
    """
    if isinstance(env, str):
        raise UsageError(f"isolated(env={env!r}) is one string; give a collection of names, ({env!r},), or a mapping")
    if network not in ("none", "host"):
        raise UsageError(f"isolated(network={network!r}): give 'none' or 'host'")
    chosen = dict(env) if isinstance(env, Mapping) else tuple(env)
    bound = None if directory is None else os.fspath(directory)
    return IsolatedFactory(bound, network, tuple(read_only), chosen, limits or Limits(), backend, grace_seconds)


@dataclass(frozen=True, slots=True)
class IsolatedFactory:
    """What `isolated()` returns and `Agent(sandbox=…)` takes."""

    directory: str | None
    network: Network
    read_only: tuple[str, ...]
    env: tuple[str, ...] | dict[str, str]
    limits: Limits
    backend: Backend
    grace_seconds: float

    @property
    def name(self) -> str:
        return "isolated"

    @property
    def key(self) -> str:
        """Its own files are kept under the name of the sandbox."""
        return "isolated" if self.directory is None else f"isolated:{os.path.abspath(os.path.expanduser(self.directory))}"

    @property
    def about(self) -> str:
        network = "no network" if self.network == "none" else "the host's network"
        return f"isolated processes, {network}; shares this machine's kernel"

    async def open(self, instance: str, directory: str, place: Place | None = None) -> IsolatedSandbox | IsolatedWorkspace:
        """Over the instance's workspace, or over a directory: the one that was named, else a private one that lasts.

        The environment is taken as it is now; the means of isolation are tried once per process.
        """
        backend = await asyncio.to_thread(usable_backend, self.backend)
        host = await asyncio.to_thread(IsolatedSandbox, self, directory, backend)
        if self.directory is not None or place is None or place.workspace is None:
            return host
        return IsolatedWorkspace(host, place.workspace, directory)


@lru_cache(maxsize=3)
def usable_backend(wanted: Backend) -> Literal["bubblewrap", "landlock"]:
    """The means of isolation to use. Blocking. *Raises* UsageError that names what each lacks and what to do."""
    reasons = []
    if wanted != "landlock":
        reasons.append(bubblewrap.missing())
        if not reasons[-1]:
            return "bubblewrap"
    if wanted != "bubblewrap":
        reasons.append(landlock_missing())
        if not reasons[-1]:
            return "landlock"
    raise UsageError(f"isolated() cannot isolate here: {'; '.join(reasons)}. Or choose virtual(), which runs no processes.")


class IsolatedSandbox:
    """The isolated commands and the files of one instance. `directory` holds its files, home, /tmp and long outputs."""

    name = "isolated"

    def __init__(self, chosen: IsolatedFactory, directory: str, backend: Literal["bubblewrap", "landlock"]) -> None:
        self._chosen = chosen
        self._backend = backend
        self.directories = _furnish(directory, chosen.directory)
        inside = dict(zip(_INSIDE, self.directories, strict=True))
        if backend == "landlock":
            inside = {outside: outside for outside in self.directories}
        self.workspace, self._home, self._temporary, self._output = inside
        self._places = Places(inside)
        self._inside = inside
        limits = chosen.limits
        self._group = cgroups.make(limits.memory_bytes, limits.processes, limits.cpus)
        if self.limits_kept["processes"] == "not":
            logger.warning(
                "isolated(): nothing limits the number of processes, because this worker is root and may not make a control "
                "group; run it as an ordinary user, or give it a writable one"
            )
        self._disk = DiskWatch(self.directories[:3], limits.disk_bytes)
        self._commands = HostCommands(self.directories[3])
        self._env = self._environment()
        self._shell = shutil.which("bash", path="/usr/bin:/bin") or "/bin/sh"

    def _environment(self) -> dict[str, str]:
        named = self._chosen.env if isinstance(self._chosen.env, tuple) else ()
        passed = {name: os.environ[name] for name in (*PASSED_VARIABLES, *named) if name in os.environ}
        own = {"PATH": PATH, "HOME": self._home, "TMPDIR": self._temporary, "USER": "user", "LOGNAME": "user", "TERM": "dumb"}
        given = self._chosen.env if isinstance(self._chosen.env, dict) else {}
        return {"LANG": "C.UTF-8"} | own | passed | given

    @property
    def cwd(self) -> str:
        return self.workspace

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(isolation="kernel", network=self._chosen.network, background=self._backend == "landlock")

    @property
    def limits_kept(self) -> Mapping[str, str]:
        """How each limit is kept here: `together` for all processes of the sandbox, `watched` (added
        up by the worker, four or five times a second), or `not`."""
        together = self._group is not None
        number = "together" if together or os.geteuid() != 0 else "not"  # the kernel counts no process of root's
        return {
            "memory": "together" if together else "watched",
            "processes": number,
            "cpus": "together" if together else "not",
            "disk": "watched",
        }

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
        """Run a shell command to its end. Its standard input is empty; it has no terminal.

        With bubblewrap every process it left behind ends with it (`background`). A command that filled the disk or the
        memory is ended, and its output says so at the end.
        *Cancelled*, timed out, or `on_started` raised: every process it started is dead when this returns.
        *Raises* SandboxError if the command could not be started, or its supervisor was killed.
        """
        result, _ = await self.run(
            command, cwd=cwd, env=env, timeout_seconds=timeout_seconds, on_output=on_output, on_started=on_started
        )
        return result

    async def run(
        self,
        command: str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        on_output: OnOutput = None,
        on_started: OnStarted = None,
        leave: bool = True,
    ) -> tuple[ExecResult, bool]:
        """As `exec`, and whether it came to its own end, not to ours. Without `leave` no process is left running."""
        variables = self._env | dict(env or {})
        self._commands.check(command, variables)
        where = self.absolute(cwd) if cwd else self.workspace
        request = await _in_thread(lambda: self._request(command, where, variables))
        allowed = self._chosen.limits.seconds
        ran = await self._commands.run(
            request,
            timeout_seconds=allowed if timeout_seconds is None else min(timeout_seconds, allowed),
            on_output=on_output,
            on_started=on_started,
            beside=self._overused,
            leave=leave,
        )
        return self._result(ran, where), not (ran.result.timed_out or ran.ended_for)

    async def _overused(self, process: ProcessInfo) -> str:
        """Returns when the command has taken more than it may of what the kernel does not count here."""
        watches = [asyncio.ensure_future(self._disk.overfull())]
        if self._group is None:
            watches.append(asyncio.ensure_future(memory.overused(process, self._chosen.limits.memory_bytes)))
        try:
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.wait(watches)

    def _request(self, command: str, where: str, env: dict[str, str]) -> Request:
        limits = self._chosen.limits
        own = {"RLIMIT_CPU": limits.cpu_seconds, "RLIMIT_FSIZE": limits.disk_bytes, "RLIMIT_CORE": 0}
        own["RLIMIT_NOFILE"] = limits.open_files
        if self._group is None:
            own["RLIMIT_DATA"] = limits.memory_bytes
        confine: dict[str, object] = {"limits": own, "cgroups": self._group.members if self._group else []}
        grace = self._chosen.grace_seconds
        if self._backend == "landlock":
            if self._group is None:
                own["RLIMIT_NPROC"] = processes_of_user() + limits.processes
            confine |= landlock_confinement(self.directories, self._chosen.read_only, has_network=self._has_network)
            return Request([self._shell, "-c", command], self._places.real_path(where), env, grace, confine)
        box = self._box()
        confine["feeds"] = bubblewrap.feeds(box, bubblewrap.options(box, where, env))
        program = shutil.which("bwrap") or "bwrap"
        return Request(bubblewrap.argv(program, box, self._shell, command), "/", {}, grace, confine, status=True)

    @property
    def _has_network(self) -> bool:
        return self._chosen.network == "host"

    def _box(self) -> bubblewrap.Box:
        *writable, (output, kept) = self._inside.items()
        return bubblewrap.Box(
            writable=dict(writable),
            readable={output: kept} | {path: os.path.abspath(path) for path in self._chosen.read_only},
            has_network=self._has_network,
            processes_max=self._chosen.limits.processes,
            scratch_bytes=SCRATCH_BYTES,
            filter=seccomp.program(os.uname().machine),
        )

    def _result(self, ran: Ran, where: str) -> ExecResult:
        result = ran.result
        if self._backend == "bubblewrap" and not ran.status.startswith("b") and not result.timed_out and not ran.ended_for:
            said = result.output.decode(errors="replace").strip()
            raise SandboxError(f"the sandbox for the command could not be set up in {where}: {said or 'it was killed'}")
        notes = [ran.ended_for] if ran.ended_for else []
        if result.exit_code == 137 and self._group is not None and self._group.was_out_of_memory():
            notes.append(f"Processes were killed: they took more than {size_of(self._chosen.limits.memory_bytes)} of memory.")
        output = result.output + b"".join(b"\n[" + note.encode() + b"]\n" for note in notes)
        full = result.full_output and os.path.join(self._output, os.path.basename(result.full_output))
        if self._backend == "bubblewrap":
            # Only the launcher knows: its namespace may still be dying when the supervisor counts what lives.
            result = replace(result, background="l" in ran.status, left_running=0)
        return replace(result, output=output, full_output=full)

    async def reap(self, process: ProcessInfo) -> bool:
        """What is left of a tree is dead: a former owner's on this host."""
        return await self._commands.reap(process)

    async def close(self) -> None:
        """No command lives, and `/tmp` is empty; the other files stay for the next who opens it. Idempotent."""
        if self._commands.is_closed:
            return
        await self._commands.close()
        await _in_thread(self._leave)

    def _leave(self) -> None:
        if self._group is not None:
            self._group.close()
        self._places.close()
        shutil.rmtree(self.directories[2], ignore_errors=True)

    # ------------------------------------------------------------------ files

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        return await _in_thread(lambda: self._places.read(self.absolute(path), start, size))

    async def write(self, path: str, data: bytes) -> None:
        """See the protocol. *Durable*: the bytes are on the disk when it returns."""
        await _in_thread(lambda: self._places.replace(self.absolute(path), data))

    async def stat(self, path: str) -> FileInfo | None:
        return await _in_thread(lambda: self._places.stat(self.absolute(path)))

    async def list(self, path: str) -> list[FileInfo]:
        return await _in_thread(lambda: self._places.entries(self.absolute(path)))

    async def remove(self, path: str) -> None:
        await _in_thread(lambda: self._places.remove(self.absolute(path)))

    async def real_path(self, path: str) -> str:
        return await _in_thread(lambda: self._places.real_path(self.absolute(path)))

    def absolute(self, path: str) -> str:
        """The path as commands see it. *Raises* SandboxError: it can be none, or the sandbox is closed."""
        if "\0" in path:
            raise SandboxError(f"{path!r} contains a NUL character and cannot be a path")
        if self._commands.is_closed:
            raise SandboxError("this sandbox is closed; open another")
        if path == "~" or path.startswith("~/"):
            path = self._home + path[1:]
        return os.path.join(self.workspace, path)


def _furnish(directory: str, bound: str | None) -> tuple[str, str, str, str]:
    """The workspace, the home, /tmp and the long outputs, as directories of this host that exist."""
    own = [os.path.join(os.path.realpath(directory), name) for name in ("files", "home", "tmp", "output")]
    for path in own:
        os.makedirs(path, mode=0o700, exist_ok=True)
    workspace = own[0]
    if bound is not None:
        workspace = os.path.realpath(os.path.expanduser(bound))
        if not os.path.isdir(workspace):
            raise UsageError(f"isolated({bound!r}): {workspace} is not a directory; create it or name another")
    return workspace, own[1], own[2], own[3]


async def _in_thread(work: Callable[[], T]) -> T:
    return await to_the_end(asyncio.to_thread(work))
