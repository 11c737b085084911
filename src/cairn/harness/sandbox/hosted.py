"""The shape of sandboxes that a provider hosts: a machine per instance, found again by an id that is remembered with it.

Laws. An adapter is thin: it makes a machine, attaches to one, runs a shell script on it as a stream of text, uploads a file,
pauses and kills. Everything else is here and the same for all of them. The machine is made by the first thing done with it, not
by opening the sandbox. Its id is durable before anything runs on it. When the provider has ended it, the next call says so
once, and what follows works on a new machine without the files.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from cairn.errors import SandboxError, UsageError
from cairn.harness.sandbox.commands import to_the_end
from cairn.harness.sandbox.hosted_files import HostedFiles
from cairn.harness.sandbox.hosted_run import HostedRun
from cairn.harness.sandbox.output import Output, part_of
from cairn.harness.sandbox.protocol import Capabilities, ExecResult, FileInfo, ProcessInfo
from cairn.harness.sandbox.remote_shell import SCRIPT_BYTES_MAX, ending, preparing, running_text

if TYPE_CHECKING:
    from cairn.harness.sandbox.protocol import Place

T = TypeVar("T")

#: What becomes of the machine when the sandbox is closed: paused (it costs little and its files stay), left as it is for the
#: provider's own idle limit, or ended with all that is on it.
OnClose = Literal["pause", "keep", "kill"]

#: How long ending a tree may take, a round trip to a provider included.
END_SECONDS = 30.0


class MachineGone(SandboxError):
    """The provider has no such machine any more."""


class Machine(Protocol):
    """A provider's sandbox that runs."""

    @property
    def id(self) -> str:
        """By which `Provider.attach` finds it again."""
        ...

    async def run(self, script: str, on_text: Callable[[str], None]) -> None:
        """The script ran in a shell to its end; what it wrote to standard output was handed on as it came.

        *Cancelled*: it may go on; whoever cancels ends it by another script. *Raises* MachineGone, SandboxError.
        """
        ...

    async def upload(self, path: str, data: bytes) -> None:
        """A new file at an absolute path, in a directory that exists. *Raises* MachineGone, SandboxError."""
        ...

    async def pause(self) -> str:
        """It costs as little as the provider allows and keeps its files; the id by which they are found again."""
        ...

    async def kill(self) -> None:
        """It is gone with its files. *Idempotent*."""
        ...


class Provider(Protocol):
    """What an adapter implements."""

    @property
    def name(self) -> str: ...

    @property
    def network(self) -> str:
        """As in `Capabilities`."""
        ...

    async def create(self, labels: Mapping[str, str]) -> Machine:
        """A new machine. *Raises* MissingExtra, SandboxError."""
        ...

    async def attach(self, id: str) -> Machine:
        """The machine, running, paused or not before. *Raises* MachineGone, SandboxError."""
        ...


@dataclass(frozen=True, slots=True)
class HostedFactory:
    """What `e2b()`, `daytona()` and `modal()` return and `Agent(sandbox=…)` takes."""

    provider: Provider
    directory: str
    env: tuple[str, ...] | dict[str, str]
    on_close: OnClose

    @classmethod
    def of(
        cls, provider: Provider, directory: str, env: Collection[str] | Mapping[str, str], on_close: OnClose
    ) -> HostedFactory:
        """*Raises* UsageError."""
        if isinstance(env, str):
            raise UsageError(f"{provider.name}(env={env!r}) is one string; give a collection of names, or a mapping")
        if on_close not in ("pause", "keep", "kill"):
            raise UsageError(f"{provider.name}(on_close={on_close!r}): give 'pause', 'keep' or 'kill'")
        return cls(provider, directory, dict(env) if isinstance(env, Mapping) else tuple(env), on_close)

    @property
    def name(self) -> str:
        return self.provider.name

    @property
    def about(self) -> str:
        return f"a machine of its own at {self.name}"

    async def open(self, instance: str, directory: str, place: Place | None = None) -> HostedSandbox:
        """Nothing is made and nobody is asked yet."""
        named = self.env if isinstance(self.env, tuple) else ()
        env = {name: os.environ[name] for name in named if name in os.environ}
        if isinstance(self.env, dict):
            env |= self.env
        return HostedSandbox(self, instance, env, directory, place)


class HostedSandbox:
    """One instance's machine at a provider."""

    def __init__(self, chosen: HostedFactory, instance: str, env: dict[str, str], directory: str, place: Place | None) -> None:
        self.name = chosen.name
        self.capabilities = Capabilities(isolation="machine", network=chosen.provider.network, background=False)
        self._chosen = chosen
        self._instance = instance
        self._env = env
        self._outputs = os.path.join(directory, "output")
        self._place = place
        self._id = place.recall.decode() if place is not None and place.recall else ""
        self._machine: Machine | None = None
        self._attaching = asyncio.Lock()
        self._cwd = self._boot = ""
        self._running: set[HostedRun] = set()
        self._is_closed = False

    @property
    def cwd(self) -> str:
        """Where the machine says it is; before it was asked, the directory as it was named."""
        return self._cwd or self._chosen.directory

    # ------------------------------------------------------------------ the machine

    async def machine(self) -> Machine:
        """The instance's machine, made if it has none. *Durable*: its id. *Raises* SandboxError: it was ended by the provider,
        which is said once."""
        async with self._attaching:
            if self._is_closed:
                raise SandboxError("this sandbox is closed; open another")
            if self._machine is None:
                machine = await self._attached() if self._id else await self._created()
                await self._prepare(machine)
                self._machine = machine
            return self._machine

    async def _attached(self) -> Machine:
        try:
            return await self._chosen.provider.attach(self._id)
        except MachineGone as error:
            raise await self._lost() from error

    async def _created(self) -> Machine:
        uid = self._place.uid if self._place is not None else self._instance
        machine = await self._chosen.provider.create({"cairn": uid})
        await self._remember(machine.id)
        return machine

    async def _remember(self, id: str) -> None:
        self._id = id
        if self._place is not None:
            await self._place.remember(id.encode())

    async def _lost(self) -> SandboxError:
        """Forget the machine; the error that says so is made once, for the next call makes a new one."""
        self._machine = None
        await self._remember("")
        return SandboxError(
            f"the {self.name} sandbox was ended by its provider and its files are gone; the next call begins a new, empty one"
        )

    async def _prepare(self, machine: Machine) -> None:
        said: list[str] = []
        await machine.run(preparing(self._chosen.directory), said.append)
        lines = "".join(said).split("\n")
        if len(lines) < 3 or not lines[0].startswith("/"):
            raise SandboxError(f"the {self.name} sandbox has no usable shell: it said {''.join(said)[:200]!r}")
        self._cwd, self._boot = lines[0], lines[1]

    async def _on_machine(self, work: Callable[[Machine], Awaitable[T]]) -> T:
        machine = await self.machine()
        try:
            return await work(machine)
        except MachineGone as error:
            raise await self._lost() from error

    async def _script(self, script: str) -> str:
        """What a short script wrote."""
        said: list[str] = []
        await self._on_machine(lambda machine: machine.run(script, said.append))
        return "".join(said)

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

        Output that is not UTF-8 is handed on with replacement characters and is exact in the result.
        *Cancelled*, timed out, or `on_started` raised: every process it started is dead when this returns.
        *Raises* SandboxError: the provider cannot be reached, or has ended the machine; the command's fate may be unknown.
        """
        variables = self._env | dict(env or {})
        if any("\0" in text for text in (command, *variables, *variables.values())):
            raise SandboxError("a command and its environment cannot contain a NUL character")
        await self.machine()
        where = self._path(cwd) if cwd else self._cwd
        script = running_text(command, where, variables, waits=on_started is not None)
        if len(script.encode("utf-8", "surrogateescape")) > SCRIPT_BYTES_MAX:
            raise SandboxError(f"the command is too long for one of {SCRIPT_BYTES_MAX} bytes; write it to a file and run that")
        output = Output(self._outputs)
        run = HostedRun(output, on_output, self._script, self._process)
        self._running.add(run)
        try:
            return await self._on_machine(lambda machine: run.to_result(machine.run, script, timeout_seconds, on_started))
        except BaseException:
            await to_the_end(run.end())
            raise
        finally:
            self._running.discard(run)
            output.close()

    def _process(self, pid: int, group: int, started: float) -> ProcessInfo:
        return ProcessInfo(pid=pid, group=group, started=started, boot=self._boot, host=f"{self.name}:{self._id}")

    async def reap(self, process: ProcessInfo) -> bool:
        """What is left of a tree is dead, if its machine still is the instance's."""
        if process.host != f"{self.name}:{self._id}":
            return False
        async with asyncio.timeout(END_SECONDS):
            return (await to_the_end(self._script(ending(f"{process.pid}.{process.started:.0f}")))).strip() == "ended"

    async def close(self) -> None:
        """No command lives; the machine is paused, kept or ended, as was chosen. *Idempotent*."""
        if self._is_closed:
            return
        await to_the_end(_all_ended(tuple(self._running)))
        self._is_closed = True
        machine, self._machine = self._machine, None
        if machine is None:
            return
        with suppress(SandboxError):  # it is the provider's to end what cannot be reached
            if self._chosen.on_close == "kill":
                await machine.kill()
                await self._remember("")
            elif self._chosen.on_close == "pause":
                id = await machine.pause()
                if id != self._id:
                    await self._remember(id)

    # ------------------------------------------------------------------ files

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        if self._is_output(path):
            return await asyncio.to_thread(part_of, path, start, size)
        return await (await self._files()).read(self._path(path), start, size)

    async def write(self, path: str, data: bytes) -> None:
        await to_the_end((await self._files()).replace(self._path(path), data))

    async def stat(self, path: str) -> FileInfo | None:
        if self._is_output(path):
            return FileInfo(path, "file", await asyncio.to_thread(os.path.getsize, path))
        return await (await self._files()).stat(self._path(path))

    async def list(self, path: str) -> list[FileInfo]:
        return await (await self._files()).entries(self._path(path))

    async def remove(self, path: str) -> None:
        if self._is_output(path):
            await asyncio.to_thread(os.unlink, path)
            return
        await (await self._files()).remove(self._path(path))

    async def real_path(self, path: str) -> str:
        return await (await self._files()).real_path(self._path(path))

    async def _files(self) -> HostedFiles:
        await self.machine()

        async def upload(path: str, data: bytes) -> None:
            await self._on_machine(lambda machine: machine.upload(path, data))

        return HostedFiles(self._script, upload)

    def _is_output(self, path: str) -> bool:
        """A long output is kept on this machine, where it was received."""
        return os.path.dirname(path) == self._outputs and os.path.isfile(path)

    def _path(self, path: str) -> str:
        if "\0" in path:
            raise SandboxError(f"{path!r} contains a NUL character and cannot be a path")
        if path == "~" or path.startswith("~/"):
            path = posixpath.join(self._cwd, path[2:])
        return posixpath.join(self._cwd, path)


async def _all_ended(runs: Collection[HostedRun]) -> None:
    await asyncio.gather(*(run.end() for run in runs))
