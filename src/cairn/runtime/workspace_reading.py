"""Looking at files: the same for an instance's own, for a draft of them, and for them as they were.

Laws. What is there is answered from memory, at once; only content is awaited. A path is resolved when it is asked for, and what
is then read is the node it led to.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import msgspec

from cairn.errors import WorkspaceError
from cairn.runtime.files import Entry, Node, fail
from cairn.runtime.files_glob import glob
from cairn.runtime.files_paths import directory, existing
from cairn.runtime.files_tree import Nodes
from cairn.runtime.workspace_content import Contents

Entries = list[Entry]


class Usage(NamedTuple):
    """What the files take of their quota."""

    bytes: int
    files: int
    history: int
    """Bytes ever written."""


class Reading:
    """Files that can be looked at. Paths begin at the root, with or without `/`."""

    _contents: Contents

    @property
    def _nodes(self) -> Nodes:
        raise NotImplementedError

    def _pending(self, node: Node) -> bytes | None:
        """The content of a file of which nothing is stored yet."""
        return None

    # --- what is there

    def stat(self, path: str) -> Entry | None:
        """What the path leads to, links followed; None when that is nothing."""
        return self._found(path, follow=True)

    def lstat(self, path: str) -> Entry | None:
        """The same, but a link at the end is what is found."""
        return self._found(path, follow=False)

    def exists(self, path: str) -> bool:
        return self.stat(path) is not None

    def list(self, path: str = "/") -> Entries:
        """What is in a directory, by name. Raises WorkspaceError: ENOENT, ENOTDIR."""
        nodes = self._nodes
        found_at = directory(nodes, path)
        above = nodes.path(found_at.id).rstrip("/")
        found = []
        for name, id in sorted(nodes.children(found_at.id)):
            node = nodes.node(id)
            assert node is not None
            found.append(_entry(node, f"{above}/{name}"))
        return found

    def walk(self, path: str = "/") -> Iterator[Entry]:
        """Everything below a directory, by path, a directory before what is in it; links are not followed.
        Raises WorkspaceError."""
        waiting = self.list(path)[::-1]
        while waiting:
            entry = waiting.pop()
            yield entry
            if entry.is_directory:
                waiting += self.list(entry.path)[::-1]

    def glob(self, pattern: str, path: str = "/") -> Entries:
        """What matches below a directory, by path: `src/**/*.{py,md}`. Raises WorkspaceError."""
        nodes = self._nodes
        found = glob(nodes, directory(nodes, path), pattern)
        return sorted((_entry(node, nodes.path(node.id)) for node in found), key=lambda entry: entry.path)

    def readlink(self, path: str) -> str:
        """Raises WorkspaceError: EINVAL when it is no link."""
        node = existing(self._nodes, path, follow=False)
        if node.kind != "link":
            fail(errno.EINVAL, path, "it is no link")
        return node.target

    def resolve(self, path: str) -> str:
        """The path without links, `.` and `..`. Raises WorkspaceError when nothing is there."""
        return self._nodes.path(existing(self._nodes, path).id)

    def identity(self, id: int) -> str | None:
        """A name of a file's content as it is stored: the same name, the same bytes. None while it is not stored, or empty."""
        node = self._nodes.node(id)
        if node is None or node.content is None or self._pending(node) is not None:
            return None
        return msgspec.json.encode((node.size, node.content)).decode()

    def usage(self) -> Usage:
        nodes = self._nodes
        return Usage(nodes.used_bytes, nodes.used_files, nodes.written)

    def _found(self, path: str, *, follow: bool) -> Entry | None:
        nodes = self._nodes
        try:
            node = existing(nodes, path, follow=follow)
        except WorkspaceError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise
        return _entry(node, nodes.path(node.id))

    # --- content

    async def read(self, path: str, start: int = 0, size: int | None = None) -> bytes:
        """The bytes of a file, or some of them. Raises WorkspaceError: ENOENT, EISDIR."""
        node = self._file(path)
        data = self._pending(node)
        if data is None:
            data = self._contents.glance(node)
        if data is None:
            return await self._contents.read(node, start, size)
        return data if not start and size is None else data[start : None if size is None else start + size]

    async def read_text(self, path: str) -> str:
        """A file as UTF-8. Raises WorkspaceError: EILSEQ when it is not."""
        data = await self.read(path)
        try:
            return data.decode()
        except UnicodeDecodeError:
            fail(errno.EILSEQ, path, "not UTF-8 text; read its bytes")

    async def stream(self, path: str, start: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a file as it is now, a piece at a time: memory stays bounded. Raises WorkspaceError."""
        node = self._file(path)
        data = self._pending(node)
        if data is not None:
            yield data[start : None if size is None else start + size]
            return
        async for piece in self._contents.stream(node, start, size):
            yield piece

    def _file(self, path: str) -> Node:
        node = existing(self._nodes, path)
        if node.kind == "directory":
            fail(errno.EISDIR, path)
        if path.endswith("/"):
            fail(errno.ENOTDIR, path)
        return node


def _entry(node: Node, path: str) -> Entry:
    return Entry(
        path=path or "/",
        kind=node.kind,
        size=node.size if node.kind != "link" else len(node.target.encode()),
        mode=node.mode,
        mtime=node.mtime,
        id=node.id,
        target=node.target,
    )
