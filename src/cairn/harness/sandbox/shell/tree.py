"""The files a shell sees: the workspace under what this command changed, fetched as they are touched.

Laws. Nothing of the workspace is fetched before the shell asks for it, and nothing twice in one command; a lookup fetches one
entry, a listing one directory, a read one file. What is there is never changed: a change is kept here, and `changes` says at
the end how to get from what is there to what is here. Links are never followed: the shell's own file system does that, on top
of this one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

FILE, DIRECTORY, LINK = 0, 1, 2

#: Error kinds of the shell's file-system interface.
OTHER, NOT_FOUND, EXISTS, DENIED, INVALID, IS_DIRECTORY, NOT_DIRECTORY, NOT_EMPTY, UNSUPPORTED = range(9)

#: Where the workspace is in the shell's tree, and where in the workspace the shell's /tmp is kept.
WORKSPACE = "workspace"
SCRATCH = ".tmp"

#: Everything one command writes is in memory until it ends.
WRITTEN_BYTES_MAX = 256 * 1024 * 1024

#: Bytes of a name and of a path, and directories above each other: a little less than a workspace takes, so that it takes all.
NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4_000
DEPTH_MAX = 240

#: Devices whose content is made up at each read, and how much of it there is: as much as the library's own have.
RANDOM = ("/dev/random", "/dev/urandom")
DEVICE_BYTES = 1024 * 1024

#: Between two changes of one command.
TICK_SECONDS = 1e-6

DIRECTORY_MODE, FILE_MODE, LINK_MODE, SCRATCH_MODE = 0o755, 0o644, 0o777, 0o777


class FileError(Exception):
    """What the shell is told; `kind` is one of the interface's."""

    def __init__(self, kind: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Source(Protocol):
    """What is there: the workspace, by paths from its root (`/`)."""

    def look(self, path: str) -> Node | None: ...
    def list(self, path: str) -> list[tuple[str, Node]]: ...
    def read(self, path: str) -> bytes: ...
    def read_many(self, paths: Sequence[str]) -> Sequence[bytes]:
        """The contents of the first of them: as many as the host gives at once."""
        ...


@dataclass(eq=False, slots=True)
class Node:
    """One file, directory or link. `origin` is its path in the workspace, None for what this command made."""

    kind: int
    mode: int
    size: int = 0
    mtime: float = 0.0
    target: str = ""
    origin: str | None = None
    data: bytearray | None = None
    """A file's content once it was read or written."""
    is_written: bool = False
    is_moded: bool = False
    is_timed: bool = False
    """Its time was set, and is not that of its last change."""
    names: dict[str, Node | None] = field(default_factory=dict)
    """A directory's entries as far as they are known; None: certainly nothing."""
    is_whole: bool = False
    """All entries are known."""
    lost: set[str] = field(default_factory=set)
    """Names that stood for something in the workspace and no longer stand for it."""


class Files:
    """The tree of one command."""

    def __init__(self, source: Source, system: dict[str, Node], began: float, random: Callable[[str], bytes]) -> None:
        self._source = source
        self._system = system
        self._time = began
        self._random = random
        self.lock = threading.RLock()
        """Held by whoever looks or changes: the shell and code in Python do so from threads of their own."""
        self.root = Node(DIRECTORY, DIRECTORY_MODE, origin="")
        self.written = 0
        self.is_over = False

    def now(self) -> float:
        """The host's time when the command began, and later each time it is asked: who is newer can be told."""
        self._time += TICK_SECONDS
        return self._time

    # --- paths

    def _parts(self, path: str) -> list[str] | None:
        """The names below the workspace's root, or None for a path of the system."""
        if len(path.encode()) > PATH_BYTES_MAX or path.count("/") > DEPTH_MAX:
            raise FileError(INVALID, "File name too long")
        if self.is_over:
            raise FileError(DENIED, "the command has ended")
        parts = [part for part in path.split("/") if part and part != "."]
        if parts[:1] == [WORKSPACE]:
            return parts[1:]
        if parts[:1] == ["tmp"]:
            return [SCRATCH, *parts[1:]]
        return None

    def _find(self, path: str) -> Node | None:
        parts = self._parts(path)
        if parts is None:
            return self._system.get(path.rstrip("/") or "/")
        node: Node | None = self.root
        for index, name in enumerate(parts):
            assert node is not None
            if node.kind != DIRECTORY:
                raise FileError(NOT_DIRECTORY, "not a directory")
            below = self._child(node, name)
            if below is None:
                # /tmp is there before anything is in it.
                return Node(DIRECTORY, SCRATCH_MODE, is_whole=True) if parts == [SCRATCH] and index == 0 else None
            node = below
        return node

    def _get(self, path: str) -> Node:
        node = self._find(path)
        if node is None:
            raise FileError(NOT_FOUND, "No such file or directory")
        return node

    def _above(self, path: str) -> tuple[Node, str]:
        """The directory that a path's last name is in, which can be written to, and the name."""
        parts = self._parts(path)
        if not parts or path.rstrip("/") == "/tmp":
            raise FileError(DENIED, "Read-only file system")
        node = self.root
        for name in parts[:-1]:
            below = self._child(node, name)
            if below is None and node is self.root and name == SCRATCH:
                below = self._new(node, name, Node(DIRECTORY, SCRATCH_MODE, is_whole=True))
            if below is None:
                raise FileError(NOT_FOUND, "No such file or directory")
            if below.kind != DIRECTORY:
                raise FileError(NOT_DIRECTORY, "Not a directory")
            node = below
        return node, parts[-1]

    def _child(self, node: Node, name: str) -> Node | None:
        if name in node.names:
            return node.names[name]
        if node.is_whole or node.origin is None:
            return None
        found = node.names[name] = self._source.look(f"{node.origin}/{name}")
        return found

    def _children(self, node: Node) -> Iterator[tuple[str, Node]]:
        if not node.is_whole and node.origin is not None:
            for name, found in self._source.list(node.origin or "/"):
                if name not in node.lost:
                    node.names.setdefault(name, found)
            node.is_whole = True
        return ((name, below) for name, below in node.names.items() if below is not None)

    # --- what the shell asks

    def stat(self, path: str) -> Node:
        return self._get(path)

    def exists(self, path: str) -> bool:
        try:
            return self._find(path) is not None
        except FileError:
            return False

    def list(self, path: str) -> list[tuple[str, Node]]:
        node = self._get(path)
        if node.kind != DIRECTORY:
            raise FileError(NOT_DIRECTORY, "Not a directory")
        if self._parts(path) is None:
            top = path.rstrip("/")
            below = [(name[len(top) + 1 :], each) for name, each in self._system.items() if name.rpartition("/")[0] == top]
            below = [(name, each) for name, each in below if name]
            return [*below, (WORKSPACE, self.root), ("tmp", self._get("/tmp"))] if not top else below
        return list(self._children(node))

    def read(self, path: str) -> bytes:
        if path in RANDOM:
            return self._random(path)
        node = self._get(path)
        if node.kind == DIRECTORY:
            raise FileError(IS_DIRECTORY, "Is a directory")
        if node.kind == LINK:
            raise FileError(OTHER, "is a link")
        return bytes(self._content(node))

    def _content(self, node: Node) -> bytearray:
        if node.data is None:
            node.data = bytearray(self._source.read(node.origin)) if node.origin is not None and node.size else bytearray()
        return node.data

    def warm(self, nodes: Sequence[Node]) -> None:
        """Fetch the contents of these files together, as far as they are not here."""
        wanted = [node for node in nodes if node.data is None and node.origin is not None and node.size]
        while wanted:
            contents = self._source.read_many([node.origin for node in wanted if node.origin is not None])
            for node, data in zip(wanted, contents, strict=False):
                node.data = bytearray(data)
            if not contents:
                return
            wanted = wanted[len(contents) :]

    @contextmanager
    def opened(self, node: Node) -> Iterator[bytes]:
        """The content, for a moment: what was fetched only for this is let go."""
        try:
            yield bytes(self._content(node))
        except FileError:
            yield b""
        finally:
            if not node.is_written and node.origin is not None:
                node.data = None

    def read_link(self, path: str) -> str:
        node = self._get(path)
        if node.kind != LINK:
            raise FileError(INVALID, "not a link")
        return node.target

    # --- what the shell changes

    def write(self, path: str, data: bytes) -> None:
        node = self._writable(path)
        self._count(len(data))
        node.data = bytearray(data)
        self._changed(node)

    def append(self, path: str, data: bytes) -> None:
        node = self._writable(path)
        self._count(len(data))
        self._content(node).extend(data)
        self._changed(node)

    def _writable(self, path: str) -> Node:
        node = self._find(path)
        if node is not None and self._parts(path) is None:
            raise FileError(DENIED, "Read-only file system")
        if node is None:
            above, name = self._above(path)
            return self._new(above, name, Node(FILE, FILE_MODE, data=bytearray()))
        if node.kind == DIRECTORY:
            raise FileError(IS_DIRECTORY, "Is a directory")
        if node.kind == LINK:
            raise FileError(OTHER, "is a link")
        return node

    def _count(self, size: int) -> None:
        self.written += size
        if self.written > WRITTEN_BYTES_MAX:
            raise FileError(OTHER, "No space left on device")

    def _changed(self, node: Node) -> None:
        assert node.data is not None
        node.is_written, node.is_timed, node.size, node.mtime = True, False, len(node.data), self.now()

    def _new(self, above: Node, name: str, node: Node) -> Node:
        if not name or name in (".", "..") or "\0" in name:
            raise FileError(INVALID, "not a name")
        if len(name.encode()) > NAME_BYTES_MAX:
            raise FileError(INVALID, "File name too long")
        node.mtime = above.mtime = self.now()
        above.names[name] = node
        return node

    def mkdir(self, path: str, recursive: bool) -> None:
        node = self._find(path) if not recursive else self._existing_directory(path)
        if node is not None:
            if recursive and node.kind == DIRECTORY:
                return
            raise FileError(EXISTS, "File exists")
        parent = path.rstrip("/").rpartition("/")[0]
        if recursive and parent and self._find(parent) is None:
            self.mkdir(parent, True)
        above, name = self._above(path)
        self._new(above, name, Node(DIRECTORY, DIRECTORY_MODE, is_whole=True))

    def _existing_directory(self, path: str) -> Node | None:
        try:
            return self._find(path)
        except FileError as error:
            if error.kind == NOT_DIRECTORY:
                raise FileError(NOT_DIRECTORY, "Not a directory") from None
            raise

    def symlink(self, target: str, path: str) -> None:
        above, name = self._above(path)
        if self._child(above, name) is not None:
            raise FileError(EXISTS, "File exists")
        if target.startswith("/") and self._parts(target) is None:
            raise FileError(DENIED, "a link can only lead into /workspace or /tmp")
        self._new(above, name, Node(LINK, LINK_MODE, len(target), target=target))

    def chmod(self, path: str, mode: int) -> None:
        node = self._get(path)
        self._above(path)
        node.mode, node.is_moded = mode & 0o7777, True

    def set_time(self, path: str, mtime: float) -> None:
        node = self._get(path)
        self._above(path)
        node.mtime, node.is_timed = mtime, True

    def remove(self, path: str, recursive: bool) -> None:
        above, name = self._above(path)
        node = self._child(above, name)
        if node is None:
            raise FileError(NOT_FOUND, "No such file or directory")
        if node.kind == DIRECTORY and not recursive and any(True for _ in self._children(node)):
            raise FileError(NOT_EMPTY, "Directory not empty")
        self._take(above, name)

    def _take(self, above: Node, name: str) -> Node:
        """The entry, which is no longer there."""
        node = above.names[name]
        assert node is not None
        above.names[name] = None
        above.mtime = self.now()
        if above.origin is not None and node.origin == f"{above.origin}/{name}":
            above.lost.add(name)
        return node

    def rename(self, old: str, new: str) -> None:
        source, name = self._above(old)
        node = self._child(source, name)
        if node is None:
            raise FileError(NOT_FOUND, "No such file or directory")
        target, to = self._above(new)
        there = self._child(target, to)
        if there is node:
            return
        if there is not None:
            if there.kind == DIRECTORY and node.kind != DIRECTORY:
                raise FileError(IS_DIRECTORY, "Is a directory")
            if there.kind != DIRECTORY and node.kind == DIRECTORY:
                raise FileError(NOT_DIRECTORY, "Not a directory")
            if there.kind == DIRECTORY and any(True for _ in self._children(there)):
                raise FileError(NOT_EMPTY, "Directory not empty")
        if node.kind == DIRECTORY and f"{new.rstrip('/')}/".startswith(f"{old.rstrip('/')}/"):
            raise FileError(INVALID, "cannot be moved into itself")
        if there is not None:
            self._take(target, to)
        self._take(source, name)
        target.names[to] = node
        target.mtime = self.now()

    def copy(self, old: str, new: str) -> None:
        mode = self._get(old).mode
        data = self.read(old)
        is_new = self._find(new) is None
        self.write(new, data)
        if is_new:
            self._get(new).mode = mode & 0o777
