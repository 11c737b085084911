"""`isolated()` over an instance's workspace: its files as a real directory for each command, what it changed as a draft.

Laws. The directory is a copy (`mirror.py`): it is made equal to the draft before a command, and taken into the draft after
one that ended. A command that timed out, was cancelled, or was ended for a limit leaves nothing: the next one finds the
files as they were. File operations go to the draft itself; the home, /tmp and long outputs are not part of the workspace.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cairn.errors import SandboxError, WorkspaceError
from cairn.harness.sandbox.beneath import LINKS_MAX
from cairn.harness.sandbox.mirror import Mirror
from cairn.harness.sandbox.protocol import Capabilities, ExecResult, FileInfo, ProcessInfo

if TYPE_CHECKING:
    from cairn.harness.sandbox.isolated import IsolatedSandbox
    from cairn.runtime.files import Entry
    from cairn.runtime.workspace import Workspace
    from cairn.runtime.workspace_draft import Draft
    from cairn.runtime.workspace_reading import Reading

_KINDS = {"file": "file", "directory": "directory", "link": "symlink"}


class IsolatedWorkspace:
    """The sandbox of one instance. What is done through it directly is a batch of its own; see `view`."""

    name = "isolated"

    #: Home and /tmp are not part of the workspace: a command that ran half may have left something there.
    is_hermetic = False

    about_shell = (
        "Commands run isolated on a Linux machine, in /workspace, with its programs and no network unless told otherwise. /tmp "
        "and the home directory last while you work, but only /workspace is kept. Processes left in the background are ended."
    )

    def __init__(self, host: IsolatedSandbox, workspace: Workspace, directory: str) -> None:
        self._host = host
        self._workspace = workspace
        self.mirror = Mirror(host.directories[0], os.path.join(os.path.realpath(directory), "mirror"), host.workspace)
        self._files = Names(workspace, host)
        self._is_closed = False

    @property
    def host(self) -> IsolatedSandbox:
        return self._host

    @property
    def cwd(self) -> str:
        return self._host.cwd

    @property
    def capabilities(self) -> Capabilities:
        return replace(self._host.capabilities, background=False)

    def view(self, draft: Draft) -> IsolatedView:
        """The sandbox over a draft: nothing in the workspace is kept unless the draft is."""
        return IsolatedView(self, draft)

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
        """See `IsolatedView.exec`. *Durable*: what the command did to the workspace is kept when this returns."""
        async with self._workspace.turn:
            draft = self._workspace.draft()
            result = await self.view(draft).exec(
                command, cwd=cwd, env=env, timeout_seconds=timeout_seconds, on_output=on_output, on_started=on_started
            )
            await draft.commit()
            return result

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        return await self._files.read(path, start, size)

    async def write(self, path: str, data: bytes) -> None:
        """*Durable*."""
        async with self._workspace.transaction() as draft:
            await self.view(draft).write(path, data)

    async def stat(self, path: str) -> FileInfo | None:
        return await self._files.stat(path)

    async def list(self, path: str) -> list[FileInfo]:
        return await self._files.list(path)

    async def remove(self, path: str) -> None:
        """*Durable*."""
        async with self._workspace.transaction() as draft:
            await self.view(draft).remove(path)

    async def real_path(self, path: str) -> str:
        return await self._files.real_path(path)

    async def reap(self, process: ProcessInfo) -> bool:
        return await self._host.reap(process)

    async def close(self) -> None:
        """No command lives; what the directory holds is remembered beside it. *Idempotent*."""
        if not self._is_closed:
            self._is_closed = True
            await self._host.close()
            await asyncio.to_thread(self.mirror.close)


class IsolatedView:
    """The sandbox as one call sees it: over a draft of the workspace."""

    name = "isolated"
    remembered: bytes | None = None

    def __init__(self, sandbox: IsolatedWorkspace, draft: Draft) -> None:
        self._sandbox = sandbox
        self._draft = draft
        self._files = Names(draft, sandbox.host)
        self.is_spoiled = False
        """The draft has a part of what a command did, and must not be kept."""

    @property
    def cwd(self) -> str:
        return self._sandbox.cwd

    def committed(self) -> None:
        """Nothing to do: what the directory holds is compared with the workspace before the next command."""

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
        """Run a shell command to its end; what it changed is in the draft when this returns.

        *Cancelled*, timed out, or ended for a limit: it has changed nothing, and every process it started is dead.
        *Raises* SandboxError: it could not be run; or what it did does not fit into the workspace.
        """
        if self.is_spoiled:
            raise SandboxError("what the last command did could not be kept, so nothing of this call will be; begin another")
        mirror = self._sandbox.mirror
        await mirror.lay_out(self._draft)
        result, is_whole = await self._sandbox.host.run(
            command, cwd=cwd, env=env, timeout_seconds=timeout_seconds, on_output=on_output, on_started=on_started, leave=False
        )
        if is_whole:
            self.is_spoiled = True
            try:
                await mirror.take_in(self._draft)
            except (WorkspaceError, OSError) as error:
                raise SandboxError(f"the command ran, but what it did cannot be kept: {error}") from error
            self.is_spoiled = False
        return result

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        return await self._files.read(path, start, size)

    async def write(self, path: str, data: bytes) -> None:
        where = self._files.inside(path)
        if where is None:
            await self._sandbox.host.write(path, data)
        else:
            await self._draft.write(where, data, parents=True)

    async def stat(self, path: str) -> FileInfo | None:
        return await self._files.stat(path)

    async def list(self, path: str) -> list[FileInfo]:
        return await self._files.list(path)

    async def remove(self, path: str) -> None:
        where = self._files.inside(path)
        if where is None:
            await self._sandbox.host.remove(path)
        elif self._draft.lstat(where) is not None:
            await self._draft.remove(where, recursive=True)

    async def real_path(self, path: str) -> str:
        return await self._files.real_path(path)

    async def reap(self, process: ProcessInfo) -> bool:
        return await self._sandbox.reap(process)

    async def close(self) -> None:
        """The sandbox stays open."""


class Names:
    """Files by the names that commands see: the workspace's from `reading`, the others from the sandbox's directories."""

    def __init__(self, reading: Reading, host: IsolatedSandbox) -> None:
        self._reading = reading
        self._host = host

    def inside(self, path: str) -> str | None:
        """The path in the workspace; None when it is not there. *Raises* SandboxError: it can be no path, or all is closed."""
        whole = posixpath.normpath(self._host.absolute(path))
        root = self._host.workspace
        if whole == root or whole.startswith(root + "/"):
            return whole[len(root) :] or "/"
        return None

    async def read(self, path: str, start: int, size: int | None) -> bytes:
        where = self.inside(path)
        if where is None:
            return await self._host.read(path, start=start, size=size)
        return await self._reading.read(where, start, size)

    async def stat(self, path: str) -> FileInfo | None:
        where = self.inside(path)
        if where is None:
            return await self._host.stat(path)
        found = self._stat(where)
        return None if found is None else _info(found, path)

    def _stat(self, where: str) -> Entry | None:
        """Links followed; one that leads nowhere, or in a circle, is itself there."""
        try:
            return self._reading.stat(where) or self._reading.lstat(where)
        except WorkspaceError as error:
            if error.errno == errno.ELOOP:
                return self._reading.lstat(where)
            raise

    async def list(self, path: str) -> list[FileInfo]:
        where = self.inside(path)
        if where is None:
            return await self._host.list(path)
        return [_info(entry, self._host.workspace + entry.path) for entry in self._reading.list(where)]

    async def real_path(self, path: str) -> str:
        where = self.inside(path)
        if where is None:
            return await self._host.real_path(path)
        return (self._host.workspace + self._real(where, LINKS_MAX)).rstrip("/")

    def _real(self, where: str, links: int) -> str:
        if where == "/":
            return where
        above, name = posixpath.split(where)
        top = self._real(above, links)
        there = posixpath.join(top, name)
        try:
            found = self._reading.lstat(there)
        except WorkspaceError:
            found = None
        if found is None or not found.is_link or not links:
            return there
        return self._real(posixpath.normpath(posixpath.join("/", top, found.target)), links - 1)


def _info(entry: Entry, path: str) -> FileInfo:
    return FileInfo(path, _KINDS[entry.kind], entry.size, entry.mode, entry.mtime)
