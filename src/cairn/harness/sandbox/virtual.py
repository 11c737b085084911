"""`virtual()`: the instance's workspace under a virtual bash. The default place for an agent to work in.

Nothing of this machine is in it: no files, no programs, no network unless hosts are granted. The shell is a library that runs
in worker processes, which have given up everything but the socket to here (`shell/`), because the text of a script can crash
it.

Laws. What a command does is in the call's draft when it has ended, and nowhere before: its files, and where the shell is with
its variables and functions. A command that timed out, was cancelled or lost its worker has done nothing. The shell's state is
bytes that only a worker reads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cairn.errors import SandboxError, UsageError
from cairn.harness.sandbox.protocol import Capabilities, ExecResult, FileInfo, Place, ProcessInfo
from cairn.harness.sandbox.virtual_commands import Commands
from cairn.harness.sandbox.virtual_files import FilesOf
from cairn.harness.sandbox.virtual_paths import HOME, TEMPORARY, inside
from cairn.harness.sandbox.virtual_pool import ShellPool, shared_pool
from cairn.harness.sandbox.virtual_seed import checked as checked_seed
from cairn.harness.sandbox.virtual_view import SEARCHER, VirtualView, shell_of

if TYPE_CHECKING:
    from cairn.runtime.files import Quota
    from cairn.runtime.workspace import Workspace
    from cairn.runtime.workspace_draft import Draft

Seed = Mapping[str, str | bytes] | str | os.PathLike[str]


def virtual(
    *,
    network: Any = None,
    commands: Mapping[str, Callable[..., Any]] | None = None,
    seed: Seed | None = None,
    quota: Quota | None = None,
    jail: bool = True,
) -> VirtualFactory:
    """A workspace of the agent's own under a virtual bash, which lasts as long as the conversation.

    `network` grants hosts, by name or by `Grant(…)` with credentials that scripts never see; without it there is none.
    `commands` adds commands to the shell that are Python functions of yours and run outside the sandbox. `seed` is what a new
    workspace begins with: a mapping of paths to contents, or a directory. `quota` limits what it may grow to. `jail=False`
    runs workers where the system cannot close them in. *Raises* UsageError for what cannot work.
    """
    from cairn.harness.sandbox.virtual_network import Network

    granted = None if network is None else Network.of(network)
    return VirtualFactory(Commands(commands or {}), granted, checked_seed(seed), quota, jail)


@dataclass(frozen=True)
class VirtualFactory:
    """What `virtual()` returns and `Agent(sandbox=…)` takes."""

    commands: Commands
    network: Any
    _seed: Seed | None
    _quota: Quota | None
    _jail: bool

    name: ClassVar[str] = "virtual"

    @property
    def is_hermetic(self) -> bool:
        """Nothing that a command does leaves the workspace: it may be run again."""
        return self.network is None and not self.commands.names

    async def open(self, instance: str, directory: str, place: Place | None = None) -> VirtualSandbox:
        """The shell is where it was left. *Raises* UsageError without a workspace."""
        if place is None or place.workspace is None:
            raise UsageError("virtual() works on an instance's workspace; open it with a place that has one")
        workspace = place.workspace
        if self._quota is not None:
            workspace.quota = self._quota
        if self._seed is not None and not workspace.usage().history:
            from cairn.harness.sandbox.virtual_seed import plant

            await plant(workspace, self._seed)
        pool = shared_pool() if self._jail else shared_pool(jail=False)
        return VirtualSandbox(place, workspace, self, pool)


class VirtualSandbox:
    """An instance's workspace and shell. Each change made through it directly is a batch of its own; see `view`."""

    name = "virtual"
    searcher = SEARCHER

    def __init__(self, place: Place, workspace: Workspace, factory: VirtualFactory, pool: ShellPool) -> None:
        self._place = place
        self.workspace = workspace
        self.factory = factory
        self.capabilities = Capabilities("virtual", "listed" if factory.network else "none", background=False, has_system=False)
        self.pool = pool
        self.shell = shell_of(place.recall)
        self.is_closed = False
        self._running: set[asyncio.Task[Any]] = set()
        self._files = FilesOf(workspace, lambda: self.shell.cwd)

    @property
    def is_hermetic(self) -> bool:
        return self.factory.is_hermetic

    @property
    def about_shell(self) -> str:
        """What a model has to know of this shell."""
        own = ", ".join(self.factory.commands.names)
        return " ".join(
            [
                f"The shell is virtual: bash, the usual tools, jq, and python3 with its standard library, over files in {HOME}",
                f"and {TEMPORARY}; no git, compilers, package managers or other programs,",
                "and no network." if self.factory.network is None else f"and a network of {self.factory.network} through curl.",
                *([f"It also has the commands {own}."] if own else []),
                "Its directory, variables and functions stay for the next call. It waits for what runs in the background.",
            ]
        )

    @property
    def tenant(self) -> str:
        return self._place.tenant

    @property
    def cwd(self) -> str:
        return self.shell.cwd

    def view(self, draft: Draft) -> VirtualView:
        """The sandbox over a draft: nothing is kept unless the draft is, and with it `remembered`."""
        return VirtualView(self, draft)

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
        """See `VirtualView.exec`. *Durable*: what the command did is kept when this returns."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            async with self.workspace.turn:
                draft = self.workspace.draft()
                view = self.view(draft)
                result = await view.exec(command, cwd=cwd, env=env, timeout_seconds=timeout_seconds, on_output=on_output)
                await draft.commit()
                if view.remembered is not None:
                    await self._place.remember(view.remembered)
                view.committed()
                return result
        except asyncio.CancelledError:
            if self.is_closed and task.uncancel() == 0:
                raise SandboxError("this sandbox was closed while the command ran; nothing of it was kept") from None
            raise
        finally:
            self._running.discard(task)

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        return await self._files.read(path, start, size)

    async def write(self, path: str, data: bytes) -> None:
        """*Durable*."""
        where = inside(path, self.cwd, writing=True)
        await self.workspace.write(where, data, parents=True)

    async def stat(self, path: str) -> FileInfo | None:
        return self._files.stat(path)

    async def list(self, path: str) -> list[FileInfo]:
        return self._files.list(path)

    async def remove(self, path: str) -> None:
        """*Durable*."""
        async with self.workspace.transaction() as draft:
            await self.view(draft).remove(path)

    async def real_path(self, path: str) -> str:
        return self._files.real_path(path)

    async def reap(self, process: ProcessInfo) -> bool:
        """Nothing outlives the process that runs it."""
        return False

    async def close(self) -> None:
        """No command of it runs. The workers are others' too and stay. Idempotent."""
        self.is_closed = True
        running = [task for task in self._running if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
