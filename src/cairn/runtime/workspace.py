"""The workspace: an instance's files, in its log.

Every change is a record, so the files are what the log says at any offset: they are forked with their instance, read as of
then, and they agree with everything else the log says. Content is in the record when it is small, else in chunks of the store.

Laws. One change at a time per instance: whoever writes holds the turn. A change is one batch, whole or not at all. What is read
is what is committed; a draft's reader sees the draft too. Which files there are is decided in files*.py (pure); chunks are put
and got in workspace_content.py; this file holds neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from cairn.errors import UsageError
from cairn.runtime.files import Quota
from cairn.runtime.files_tree import Nodes, Tree
from cairn.runtime.instance import Instance
from cairn.runtime.workspace_content import Contents
from cairn.runtime.workspace_draft import Draft
from cairn.runtime.workspace_reading import Reading

Data = bytes | AsyncIterable[bytes]


class Turn(asyncio.Lock):
    """The right to change an instance's files. A task that has it and asks again is told, instead of waiting for ever."""

    def __init__(self) -> None:
        super().__init__()
        self._holder: asyncio.Task[Any] | None = None

    async def acquire(self) -> Literal[True]:
        task = asyncio.current_task()
        if self.locked() and task is self._holder:
            raise UsageError(
                "this task holds the workspace's turn already (inside a transaction, or a tool call that writes); "
                "use the draft it has instead of the workspace"
            )
        await super().acquire()
        self._holder = task
        return True

    def release(self) -> None:
        self._holder = None
        super().release()


class Workspace(Reading):
    """The files of an instance that this process owns.

    Each write is one durable batch when it returns. *Cancelled*: it is done or not done. *Raises* WorkspaceError with the errno
    of the Linux call of that name, WorkspaceFull, Fenced; then nothing was changed.
    """

    def __init__(self, instance: Instance, quota: Quota | None = None) -> None:
        self.instance = instance
        self.quota = quota or Quota()
        self.turn = Turn()
        self._contents = Contents(instance.store, instance.n, instance.address.tenant)

    @classmethod
    def of(cls, instance: Instance, quota: Quota | None = None) -> Workspace:
        """The workspace of an instance: always the same one, from now on with the quota if one is given."""
        if instance.workspace is None:
            instance.workspace = cls(instance)
        if quota is not None:
            instance.workspace.quota = quota
        return instance.workspace

    @property
    def tree(self) -> Tree:
        return self.instance.files.tree

    @property
    def _nodes(self) -> Nodes:
        return self.instance.files.tree

    def now(self) -> float:
        return self.instance.clock.wall()

    # --- several changes

    def draft(self) -> Draft:
        """Changes that go into a batch of the caller's: hold `turn` from here until `append` has returned."""
        return Draft(self)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Draft]:
        """Everything done to the draft inside is one batch, durable when the block has ended; nothing of it when it raises.

        A task that is inside uses the draft, not the workspace, to change anything.
        """
        async with self.turn:
            draft = self.draft()
            yield draft
            await draft.commit()

    # --- one change

    async def write(self, path: str, data: Data, *, mode: int | None = None, parents: bool = False) -> None:
        """The file has this content; it is made if there is none, with its directories if `parents`. A link is followed."""
        async with self.transaction() as draft:
            await draft.write(path, data, mode=mode, parents=parents)

    async def append(self, path: str, data: Data) -> None:
        """The file, made if there is none, ends with this content. Costs what is appended, not what is there."""
        async with self.transaction() as draft:
            await draft.append(path, data)

    async def mkdir(self, path: str, *, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """There is a directory."""
        async with self.transaction() as draft:
            await draft.mkdir(path, mode=mode, parents=parents, exist_ok=exist_ok)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """A file, a link itself, an empty directory is gone; with `recursive` a directory with all in it."""
        async with self.transaction() as draft:
            await draft.remove(path, recursive=recursive)

    async def rename(self, old: str, new: str) -> None:
        """What was at `old` is at `new`, with all that is in it. Costs the same for a file and for a tree of a million."""
        async with self.transaction() as draft:
            await draft.rename(old, new)

    async def copy(self, old: str, new: str) -> None:
        """The file at `new` has the content and the mode of the one at `old`."""
        async with self.transaction() as draft:
            await draft.copy(old, new)

    async def symlink(self, target: str, path: str) -> None:
        """There is a link. It may lead to nothing; it never leads out."""
        async with self.transaction() as draft:
            await draft.symlink(target, path)

    async def chmod(self, path: str, mode: int) -> None:
        """Of its mode nine bits are kept."""
        async with self.transaction() as draft:
            await draft.chmod(path, mode)

    async def touch(self, path: str, *, mtime: float | None = None) -> None:
        """The file, made if there is none, or the directory has this time, or the present."""
        async with self.transaction() as draft:
            await draft.touch(path, mtime=mtime)
