"""Files of a workspace as a sandbox gives them: the same for the workspace itself and for a draft of it."""

from __future__ import annotations

import asyncio
import errno
import posixpath
from collections.abc import Callable
from typing import TYPE_CHECKING

from cairn.errors import WorkspaceError
from cairn.harness.sandbox.protocol import FileInfo
from cairn.harness.sandbox.virtual_paths import SCRATCH, inside, outside

if TYPE_CHECKING:
    from cairn.runtime.files import Entry
    from cairn.runtime.workspace_reading import Reading

_KINDS = {"file": "file", "directory": "directory", "link": "symlink"}

#: Links that a path may lead through, as everywhere.
LINKS_MAX = 40


class FilesOf:
    """Reading. `cwd` is asked at each path: it is where the shell is."""

    def __init__(self, reading: Reading, cwd: Callable[[], str]) -> None:
        self._reading = reading
        self._cwd = cwd

    async def read(self, path: str, start: int, size: int | None) -> bytes:
        await asyncio.sleep(0)  # what is in memory is there at once; who reads in a loop must not keep others from running
        return await self._reading.read(inside(path, self._cwd()), start, size)

    def stat(self, path: str) -> FileInfo | None:
        """Links followed; one that leads nowhere, or in a circle, is itself there."""
        try:
            where = inside(path, self._cwd())
        except FileNotFoundError:
            return None
        try:
            found = self._reading.stat(where) or self._reading.lstat(where)
        except WorkspaceError as error:
            if error.errno != errno.ELOOP:
                raise
            found = self._lstat(where)
        return None if found is None else _info(found, posixpath.join(self._cwd(), path))

    def _lstat(self, where: str) -> Entry | None:
        try:
            return self._reading.lstat(where)
        except WorkspaceError:
            return None

    def list(self, path: str) -> list[FileInfo]:
        where = inside(path, self._cwd())
        if where == SCRATCH and self._reading.lstat(where) is None:
            return []
        return [_info(entry, outside(entry.path)) for entry in self._reading.list(where)]

    def real_path(self, path: str) -> str:
        """The one name of what is there, or would be if it were written."""
        return outside(self._real(inside(path, self._cwd()), LINKS_MAX))

    def _real(self, where: str, links: int) -> str:
        if where == "/":
            return where
        above, name = posixpath.split(where)
        top = self._real(above, links)
        there = posixpath.join(top, name)
        found = self._lstat(there)
        if found is None or not found.is_link or not links:
            return there
        return self._real(posixpath.normpath(posixpath.join("/", top, found.target)), links - 1)


def _info(entry: Entry, path: str) -> FileInfo:
    return FileInfo(path, _KINDS[entry.kind], entry.size, entry.mode, entry.mtime)
