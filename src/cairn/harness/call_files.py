"""The sandbox as one running call has it, when its files are the instance's workspace.

Laws. The first command or write of a call takes the workspace's turn and begins a draft; from then on the call sees the draft.
The draft's records go into the batch of the call's outcome, and the turn is given back when that batch is in the log, or when
it is certain that it will not be. A call that did not return leaves no file behind. Readers take no turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from cairn.errors import SandboxError
from cairn.harness import records as h
from cairn.harness.sandbox.protocol import DraftView, ExecResult, FileInfo, ProcessInfo, Sandbox, WorkspaceSandbox
from cairn.runtime import records as r

if TYPE_CHECKING:
    from cairn.runtime.workspace import Workspace
    from cairn.runtime.workspace_draft import Draft


class CallFiles:
    """A `Sandbox` for one call."""

    def __init__(self, sandbox: WorkspaceSandbox, workspace: Workspace) -> None:
        self._sandbox = sandbox
        self._workspace = workspace
        self._beginning = asyncio.Lock()
        self._draft: Draft | None = None
        self._view: DraftView | None = None
        self._is_over = False
        self._is_staged = False

    # --- for whoever runs the call

    async def stage(self) -> list[r.Record]:
        """What goes into the batch of the call's outcome; the call can do nothing more.

        *Raises* WorkspaceError, SandboxError.
        """
        self._is_over = True
        if self._draft is None or self._view is None:
            return []
        if self._view.is_spoiled:
            raise SandboxError("what a command did could not be kept, so nothing of this call is")
        await self._draft.prepare()
        records = self._draft.records()
        if self._view.remembered is not None:
            records.append(h.SandboxRemembered(sandbox=self._sandbox.name, value=self._view.remembered))
        self._is_staged = True
        return records

    @property
    def blobs(self) -> tuple[str, ...]:
        """What the staged records refer to."""
        return self._draft.blobs if self._draft is not None and self._is_staged else ()

    def committed(self) -> None:
        """The outcome is in the log, with what was staged. *Idempotent*."""
        if self._view is not None and self._is_staged:
            self._view.committed()
        self.drop()

    def drop(self) -> None:
        """What was not committed never happened, and the next may have the turn. *Idempotent*."""
        self._is_over, self._view = True, None
        if self._draft is not None:
            self._draft = None
            self._workspace.turn.release()

    # --- the sandbox

    @property
    def name(self) -> str:
        return self._sandbox.name

    @property
    def cwd(self) -> str:
        return self._now.cwd

    @property
    def searcher(self) -> str | None:
        """The command that searches in files, where the sandbox has one of its own."""
        return getattr(self._sandbox, "searcher", None)

    @property
    def _now(self) -> Sandbox:
        return self._view or self._sandbox

    async def _writing(self) -> DraftView:
        async with self._beginning:
            self._check()
            if self._view is None:
                await self._workspace.turn.acquire()
                self._draft = self._workspace.draft()
                self._view = self._sandbox.view(self._draft)
                if self._is_over:  # while it waited
                    self.drop()
                    self._check()
        assert self._view is not None
        return self._view

    def _check(self) -> None:
        if self._is_over:
            raise SandboxError("this call is over; nothing more can be done to the files in its name")

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
        view = await self._writing()
        return await view.exec(
            command, cwd=cwd, env=env, timeout_seconds=timeout_seconds, on_output=on_output, on_started=on_started
        )

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        return await self._now.read(path, start=start, size=size)

    async def write(self, path: str, data: bytes) -> None:
        await (await self._writing()).write(path, data)

    async def stat(self, path: str) -> FileInfo | None:
        return await self._now.stat(path)

    async def list(self, path: str) -> list[FileInfo]:
        return await self._now.list(path)

    async def remove(self, path: str) -> None:
        await (await self._writing()).remove(path)

    async def real_path(self, path: str) -> str:
        return await self._now.real_path(path)

    async def reap(self, process: ProcessInfo) -> bool:
        return await self._sandbox.reap(process)

    async def close(self) -> None:
        """The sandbox is the run's, and stays open."""
