"""Files as they would be: changes over a tree that stays as it is, and the record that makes them so.

Laws. Pure. Costs what is changed, never what is there: nothing of the tree is copied. The operations and their errors are
Linux's. What comes out is the difference between the tree and the result, so that a file written ten times is one change, and
one made and removed again is none. When the tree has moved on meanwhile, what was changed here and there too is a conflict;
everything else is carried over.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

import msgspec

from cairn.errors import Conflict
from cairn.runtime.files import (
    DEPTH_MAX,
    DIRECTORY_MODE,
    FILE_MODE,
    INLINE_BYTES_MAX,
    LINK_MODE,
    MODE_MASK,
    ROOT,
    Change,
    Content,
    Kind,
    Node,
    Quota,
    check_target,
    error,
    fail,
    split,
)
from cairn.runtime.files_paths import Place, bare, existing, place
from cairn.runtime.files_tree import Nodes, Tree


class Overlay(Nodes):
    """Changes over `base`. What it says is there, and what counts for the quota, is both together."""

    def __init__(self, base: Tree, quota: Quota) -> None:
        self.base = base
        self.quota = quota
        self.revision = base.revision
        self.first = self.next = base.next
        self.inline: dict[int, bytes] = {}
        """Content of files that is to go into the record."""
        self.inline_bytes = 0
        self._nodes: dict[int, Node | None] = {}
        self._were: dict[int, Node | None] = {}
        """What each node that is changed here was in the tree."""
        self._names: dict[int, dict[str, int | None]] = {}
        self._named: dict[tuple[int, str], int | None] = {}
        """What each name that is changed here stood for in the tree."""
        self._timed: set[int] = set()
        """Directories whose time was set, and not only moved on by what happened in them."""
        self._bytes = self._files = self._written = 0

    # --- what is there

    @property
    def used_bytes(self) -> int:  # type: ignore[override]
        return self.base.used_bytes + self._bytes

    @property
    def used_files(self) -> int:  # type: ignore[override]
        return self.base.used_files + self._files

    @property
    def written(self) -> int:  # type: ignore[override]
        return self.base.written + self._written

    @property
    def is_empty(self) -> bool:
        return not self._nodes

    def node(self, id: int) -> Node | None:
        return self._nodes[id] if id in self._nodes else self.base.node(id)

    def child(self, directory: int, name: str) -> int | None:
        names = self._names.get(directory)
        return names[name] if names is not None and name in names else self.base.child(directory, name)

    def children(self, directory: int) -> Iterable[tuple[str, int]]:
        names = self._names.get(directory)
        if names is None:
            return self.base.children(directory)
        found = dict(self.base.children(directory))
        for name, id in names.items():
            if id is None:
                found.pop(name, None)
            else:
                found[name] = id
        return found.items()

    # --- changing it

    def mkdir(self, path: str, now: float, mode: int | None = None) -> Node:
        return self._make(path, "directory", now, DIRECTORY_MODE if mode is None else mode)

    def symlink(self, target: str, path: str, now: float) -> Node:
        check_target(target, path)
        return self._make(path, "link", now, LINK_MODE, target=target)

    def file(self, path: str, now: float, mode: int | None = None) -> Node:
        """The file at a path, made empty if there is none; a link at its end is followed, as open(2) does."""
        found = place(self, path)
        if found.node is None:
            node = self._new(found, path, "file", now, FILE_MODE if mode is None else mode)
        elif found.node.kind == "directory":
            fail(errno.EISDIR, path)
        else:
            node = found.node
        return node

    def put(self, id: int, size: int, content: Content | bytes | None, now: float) -> Node:
        """The file has this content. Raises WorkspaceFull, and is as it was."""
        node = self.node(id)
        assert node is not None and node.kind == "file"
        self.afford(self.path(id), size - node.size, 0, size)
        self.inline_bytes -= len(self.inline.pop(id, b""))
        if isinstance(content, bytes):
            assert len(content) == size <= INLINE_BYTES_MAX
            if content:
                self.inline[id] = content
                self.inline_bytes += size
            content = None
        self._bytes += size - node.size
        self._written += size
        return self._replace(node, size=size, content=content, mtime=now)

    def packed(self, places: dict[int, Content]) -> None:
        """Contents that were to go into the record are in the store instead."""
        for id, content in places.items():
            self.inline_bytes -= len(self.inline.pop(id))
            node = self.node(id)
            if node is not None:
                self._replace(node, content=content)

    def chmod(self, path: str, mode: int) -> None:
        self._replace(existing(self, path), mode=mode & MODE_MASK)

    def set_time(self, path: str, mtime: float, *, follow: bool = True) -> None:
        node = self._replace(existing(self, path, follow=follow), mtime=mtime)
        if node.kind == "directory":
            self._timed.add(node.id)

    def remove(self, path: str, now: float, *, recursive: bool = False) -> None:
        """What is there is gone: a file, a link itself, an empty directory; with `recursive` any."""
        found = place(self, bare(path), follow=False)
        node = found.node
        if node is None:
            fail(errno.ENOENT, path)
        if path.endswith("/") and node.kind == "link":
            existing(self, path)
        if not found.name:
            last = split(path)[-1:]
            fail(
                errno.ENOTEMPTY if last == [".."] else errno.EINVAL if last == ["."] else errno.EBUSY,
                path,
                "it has no name here",
            )
        if node.kind == "directory":
            if not recursive and any(True for _ in self.children(node.id)):
                fail(errno.ENOTEMPTY, path)
        elif path.endswith("/"):
            fail(errno.ENOTDIR, path)
        self._drop(node, now)

    def rename(self, old: str, new: str, now: float) -> None:
        """rename(2): what is at `new` is replaced, if it may be."""
        source, target = place(self, bare(old), follow=False), place(self, bare(new), follow=False)
        node, there = source.node, target.node
        if not source.name or not target.name:
            fail(errno.EBUSY, new if source.name else old)
        if node is None:
            fail(errno.ENOENT, old)
        if node.kind != "directory" and (old.endswith("/") or new.endswith("/")):
            fail(errno.ENOTDIR, new)
        if self._is_above(node.id, target.parent):
            fail(errno.EINVAL, new, "a directory cannot be moved into itself")
        if there is not None:
            if self._is_above(there.id, source.parent):
                fail(errno.ENOTEMPTY, new)
            if there.id == node.id:
                return
            self._check_replaced(node, there, new)
            self._drop(there, now)
        if node.kind == "directory" and target.parent != source.parent:
            self._check_depth(node, target.parent, new)
        self._name(source.parent, source.name, None, now)
        self._name(target.parent, target.name, node.id, now)
        self._replace(node, parent=target.parent, name=target.name)

    def _check_replaced(self, node: Node, there: Node, path: str) -> None:
        if node.kind == "directory":
            if there.kind != "directory":
                fail(errno.ENOTDIR, path)
            if any(True for _ in self.children(there.id)):
                fail(errno.ENOTEMPTY, path)
        elif there.kind == "directory":
            fail(errno.EISDIR, path)

    def _make(self, path: str, kind: Kind, now: float, mode: int, target: str = "") -> Node:
        found = place(self, bare(path), follow=False)
        if found.node is not None:
            fail(errno.EEXIST, path)
        if kind != "directory" and path.endswith("/"):
            fail(errno.ENOENT, path)
        return self._new(found, path, kind, now, mode, target)

    def _new(self, found: Place, path: str, kind: Kind, now: float, mode: int, target: str = "") -> Node:
        self.afford(path, 0, 1, 0)
        self._check_depth(None, found.parent, path)
        id, self.next = self.next, self.next + 1
        node = Node(id, found.parent, found.name, kind, mode & MODE_MASK, now, target=target)
        self._were[id] = None
        self._nodes[id] = node
        self._files += 1
        self._name(found.parent, found.name, id, now)
        return node

    def _drop(self, node: Node, now: float) -> None:
        for each in list(self.below(node.id)):
            self._files -= 1
            self._bytes -= each.size
            self.inline_bytes -= len(self.inline.pop(each.id, b""))
        self._were.setdefault(node.id, self.base.node(node.id))
        self._nodes[node.id] = None
        self._name(node.parent, node.name, None, now)

    def _replace(self, node: Node, **values: Any) -> Node:
        self._were.setdefault(node.id, self.base.node(node.id))
        node = self._nodes[node.id] = msgspec.structs.replace(node, **values)
        return node

    def _name(self, directory: int, name: str, id: int | None, now: float) -> None:
        self._named.setdefault((directory, name), self.base.child(directory, name))
        self._names.setdefault(directory, {})[name] = id
        above = self.node(directory)
        assert above is not None
        self._replace(above, mtime=now)
        self._timed.discard(directory)

    def _is_above(self, id: int, below: int) -> bool:
        """Whether the node is `below` or above it."""
        while below != ROOT:
            if below == id:
                return True
            node = self.node(below)
            assert node is not None
            below = node.parent
        return id == ROOT

    def _check_depth(self, node: Node | None, parent: int, path: str) -> None:
        depth = self._depth(parent) + 1
        if node is not None:
            own = self._depth(node.id)
            depth += max(self._depth(each.id) - own for each in self.below(node.id)) if depth > own else 0
        if depth > DEPTH_MAX:
            fail(errno.ENAMETOOLONG, path, f"at most {DEPTH_MAX} directories lie in each other")

    def _depth(self, id: int) -> int:
        depth = 0
        while id != ROOT:
            node = self.node(id)
            assert node is not None
            id, depth = node.parent, depth + 1
        return depth

    def afford(self, path: str, size: int, files: int, written: int) -> None:
        """Raises WorkspaceFull when so much more is too much."""
        quota = self.quota
        for used, more, most, what in (
            (self.used_bytes, size, quota.bytes, "bytes"),
            (self.used_files, files, quota.files, "files"),
            (self.written, written, quota.history, "bytes ever written, whose history is kept"),
        ):
            if more > 0 and used + more > most:
                detail = f"the workspace has {used:,} {what}, {more:,} more would exceed its quota of {most:,}"
                raise error(errno.EDQUOT, path, detail)

    # --- the difference

    def changes(self) -> list[Change]:
        """What makes the tree as it is now the same as this. Raises Conflict, WorkspaceFull."""
        moved = self.base.revision != self.revision
        if moved:
            self._check_conflicts()
        shift = self.base.next - self.first
        found = [change for id in self._nodes if (change := self._change(id)) is not None]
        return [_renumbered(change, self.first, shift) for change in found] if moved and shift else found

    def _check_conflicts(self) -> None:
        for (directory, name), was in self._named.items():
            if self.base.child(directory, name) != was:
                self._conflict(f"{self._path(directory)}/{name}".replace("//", "/"))
        for id, was_node in self._were.items():
            now = self.base.node(id)
            if id < self.first and not _same(was_node, now):
                self._conflict(self._path(id, was_node))
        quota = self.quota
        if self.used_bytes > quota.bytes or self.used_files > quota.files:
            raise error(errno.EDQUOT, "/", "others have used what was left of the workspace's quota")

    def _path(self, id: int, was: Node | None = None) -> str:
        if self._is_reachable(id):
            return self.path(id)
        node = self.base.node(id) or was
        return self.base.path(id) if self.base.node(id) is not None else node.name if node is not None else f"node {id}"

    def _conflict(self, path: str) -> None:
        raise Conflict(f"'{path}' was changed by somebody else since this draft was begun; read it again and decide anew")

    def _is_reachable(self, id: int) -> bool:
        while id != ROOT:
            node = self.node(id)
            if node is None or self.child(node.parent, node.name) != id:
                return False
            id = node.parent
        return True

    def _change(self, id: int) -> Change | None:
        old = self.base.node(id) if id < self.first else None
        if not self._is_reachable(id):
            return Change(id=id, gone=True) if old is not None else None
        node = self._nodes[id]
        assert node is not None
        values: dict[str, Any] = {}
        if old is None:
            values |= {"kind": node.kind, "parent": node.parent, "name": node.name, "mode": node.mode, "mtime": node.mtime}
            if node.kind == "link":
                values["target"] = node.target
        else:
            if (old.parent, old.name) != (node.parent, node.name):
                values |= {"parent": node.parent, "name": node.name}
            if old.mode != node.mode:
                values["mode"] = node.mode
            if old.mtime != node.mtime and (node.kind != "directory" or id in self._timed):
                values["mtime"] = node.mtime
        if node.kind == "file" and (old is None or id in self.inline or (old.size, old.content) != (node.size, node.content)):
            values |= self._content(node)
        return Change(id=id, **values) if values else None

    def _content(self, node: Node) -> dict[str, Any]:
        inline, content = self.inline.get(node.id), node.content
        if inline is not None:
            return {"size": node.size} | _inline(inline)
        if content is None:
            return {"size": node.size}
        return {
            "size": node.size,
            "chunks": content.chunks,
            "start": content.start,
            "manifest": content.manifest,
            "ordinal": content.ordinal,
            "of": content.id,
        }

    def hashes(self) -> tuple[str, ...]:
        """The content of the store that the changes refer to, apart from what stands in manifests."""
        found: dict[str, None] = {}
        for id, node in self._nodes.items():
            if node is not None and node.content is not None and self._is_reachable(id):
                found |= dict.fromkeys([*node.content.chunks, *filter(None, [node.content.manifest])])
        return tuple(found)


def _same(was: Node | None, now: Node | None) -> bool:
    """Whether nothing was done to it; what happens in a directory only moves its time on."""
    if was is now or was is None or now is None or was.kind != "directory":
        return was is now
    return msgspec.structs.replace(was, mtime=now.mtime) == now


def _inline(data: bytes) -> dict[str, Any]:
    """Text as text, so that a log can be read, unless its escapes make it longer than base64 would."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"data": data}
    return {"text": text} if len(msgspec.json.encode(text)) <= len(data) * 4 // 3 + 4 else {"data": data}


def _renumbered(change: Change, first: int, shift: int) -> Change:
    """The same with the numbers of what is new moved on, because others have used them."""
    values: dict[str, Any] = {}
    if change.id >= first:
        values["id"] = change.id + shift
    if change.parent is not None and change.parent >= first:
        values["parent"] = change.parent + shift
    return msgspec.structs.replace(change, **values) if values else change
