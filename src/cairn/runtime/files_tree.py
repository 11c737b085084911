"""The fold of an instance's file records: its files as they are at one offset.

Laws. Pure. A change of one of many files costs the same as of one of few, in the record and in the fold. What does not fit the
tree as it is (a name that is taken, a parent that is not there, a directory below itself, a stale base) is refused before
it is appended and is an error when it is read (S14). The changes of one record take effect together: first everything moved
or removed leaves its place, then what is removed goes, then everything made or moved takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from cairn.errors import StoreCorrupt
from cairn.runtime import records as r
from cairn.runtime.files import DIRECTORY_MODE, ROOT, Change, Content, Node

_NOBODY: dict[str, int] = {}


class Nodes:
    """What can be asked of files, committed or not."""

    revision: int
    next: int
    """The number of the next node that is made."""
    used_bytes: int
    used_files: int
    written: int
    """Bytes of content ever written."""

    def node(self, id: int) -> Node | None:
        raise NotImplementedError

    def child(self, directory: int, name: str) -> int | None:
        raise NotImplementedError

    def children(self, directory: int) -> Iterable[tuple[str, int]]:
        """Names and numbers, in no order."""
        raise NotImplementedError

    def path(self, id: int) -> str:
        """Where a node is, from the root: `/src/app.py`."""
        names = []
        while id != ROOT:
            node = self.node(id)
            assert node is not None, "a node that is there has a parent that is there"
            names.append(node.name)
            id = node.parent
        return "/" + "/".join(reversed(names))

    def below(self, id: int) -> Iterator[Node]:
        """A node and everything in it, each directory before what is in it."""
        waiting = [id]
        while waiting:
            found = self.node(waiting.pop())
            if found is None:
                continue
            yield found
            if found.kind == "directory":
                waiting += [child for _, child in self.children(found.id)]


class Tree(Nodes):
    """Committed files."""

    def __init__(self) -> None:
        self.revision = 0
        self.next = ROOT + 1
        self.used_bytes = self.used_files = self.written = 0
        self._nodes: dict[int, Node] = {ROOT: Node(ROOT, 0, "", "directory", DIRECTORY_MODE, 0.0)}
        self._children: dict[int, dict[str, int]] = {}

    def node(self, id: int) -> Node | None:
        return self._nodes.get(id)

    def child(self, directory: int, name: str) -> int | None:
        return self._children.get(directory, _NOBODY).get(name)

    def children(self, directory: int) -> Iterable[tuple[str, int]]:
        return self._children.get(directory, _NOBODY).items()

    # --- folding

    def refusal(self, base: int, changes: Sequence[Change]) -> str | None:
        """Why these changes cannot follow; None when they can."""
        if base != self.revision:
            return f"it was made for revision {base} of the files, which are at {self.revision}"
        named = {change.id: change for change in changes}
        if len(named) != len(changes):
            return "it changes one node twice"
        places: set[tuple[int, str]] = set()
        for change in changes:
            if (wrong := self._unfit(change, named, places)) is not None:
                return f"node {change.id} {wrong}"
        return None

    def _unfit(self, change: Change, named: dict[int, Change], places: set[tuple[int, str]]) -> str | None:
        old = self._nodes.get(change.id)
        if old is None and (change.kind is None or change.id < self.next or change.parent is None or not change.name):
            return "is not there"
        if old is not None and change.kind is not None:
            return "exists"
        if (change.parent is None) != (change.name is None) or change.name in ("", ".", "..") or "/" in (change.name or ""):
            return f"cannot be {change.name!r} in node {change.parent}"
        if change.size is not None and (change.kind or (old.kind if old is not None else "")) != "file":
            return "is no file and has no content"
        if change.gone or change.parent is None:
            return "is the root" if change.gone and change.id == ROOT else None
        place = (change.parent, change.name or "")
        taken = self.child(*place)
        if place in places or (taken is not None and not _leaves(named.get(taken))):
            return f"is to be {change.name!r}, which is taken"
        places.add(place)
        return self._astray(change, named)

    def _astray(self, change: Change, named: dict[int, Change]) -> str | None:
        """Follow its parents, as they will be, up to the root."""
        above, steps = change.parent or 0, 0
        while above != ROOT:
            moved, node = named.get(above), self._nodes.get(above)
            kind = moved.kind if moved is not None and moved.kind is not None else node.kind if node is not None else None
            if kind != "directory" or (moved is not None and moved.gone):
                return f"is to be in node {above}, which is not a directory"
            steps += 1
            if above == change.id or steps > len(self._nodes) + len(named):
                return "is to be below itself"
            parent = moved.parent if moved is not None and moved.parent is not None else node.parent if node is not None else 0
            above = parent
        return None

    def apply(self, record: r.FilesChanged, changes: Sequence[Change], ordinals: Sequence[int]) -> None:
        """The changes, of which `ordinals` says in which batch each stands."""
        if (wrong := self.refusal(record.base, changes)) is not None:
            raise StoreCorrupt(f"files.changed at ordinal {ordinals[-1] if ordinals else '?'}: {wrong} (S14)")
        changed: set[int] = set()
        for change in changes:
            if _leaves(change) and (node := self._nodes.get(change.id)) is not None:
                del self._children[node.parent][node.name]
                changed.add(node.parent)
        for change in changes:
            if change.gone:
                self._remove(change.id)
        for change, ordinal in zip(changes, ordinals, strict=True):
            if not change.gone:
                self._put(change, ordinal)
                if change.parent is not None:
                    changed.add(change.parent)
        said = {change.id for change in changes if change.mtime is not None}
        for id in changed - said:
            if (node := self._nodes.get(id)) is not None:
                self._nodes[id] = msgspec.structs.replace(node, mtime=record.at)
        self.revision += 1

    def _remove(self, id: int) -> None:
        for node in list(self.below(id)):
            del self._nodes[node.id]
            self._children.pop(node.id, None)
            self.used_files -= 1
            self.used_bytes -= node.size

    def _put(self, change: Change, ordinal: int) -> None:
        old = self._nodes.get(change.id)
        if old is None:
            self.used_files += 1
            self.next = max(self.next, change.id + 1)
        else:
            self.used_bytes -= old.size
        node = self._nodes[change.id] = changed(old, change, ordinal)
        self.used_bytes += node.size
        self.written += change.size or 0
        if change.parent is not None:
            self._children.setdefault(node.parent, {})[node.name] = node.id

    # --- checkpoints

    def dump(self) -> _Stored:
        return _Stored(self.revision, self.next, self.written, list(self._nodes.values()))

    @classmethod
    def load(cls, stored: _Stored) -> Tree:
        tree = cls()
        tree.revision, tree.next, tree.written = stored.revision, stored.next, stored.written
        for node in stored.nodes:
            tree._nodes[node.id] = node
            if node.id != ROOT:
                tree._children.setdefault(node.parent, {})[node.name] = node.id
                tree.used_files += 1
                tree.used_bytes += node.size
        return tree


class _Stored(msgspec.Struct, array_like=True):
    revision: int
    next: int
    written: int
    nodes: list[Node]


class _Checkpoint(msgspec.Struct, array_like=True):
    tree: _Stored
    transaction: str = ""
    staged: list[tuple[int, Change]] = []


def _leaves(change: Change | None) -> bool:
    """Whether the node is not where it was."""
    return change is not None and (change.gone or change.parent is not None)


def changed(old: Node | None, change: Change, ordinal: int) -> Node:
    """A node after a change that stands in the batch `ordinal`."""
    if old is None:
        assert change.kind is not None and change.parent is not None and change.name
        old = Node(change.id, change.parent, change.name, change.kind, 0, 0.0)
    given: dict[str, Any] = {
        name: value for name in ("parent", "name", "mode", "mtime", "target") if (value := getattr(change, name)) is not None
    }
    if change.size is not None:
        given |= {"size": change.size, "content": _content(change, ordinal)}
    return msgspec.structs.replace(old, **given)


def _content(change: Change, ordinal: int) -> Content | None:
    if change.text is not None or change.data is not None:
        return Content(ordinal=ordinal, id=change.id)
    if change.chunks or change.manifest:
        return Content(change.chunks, change.start, change.manifest)
    if change.ordinal >= 0:
        return Content(ordinal=change.ordinal, id=change.of)
    return None


#: The records that this fold is made of, and the fork: what is staged at its offset is not its own.
OF_FILES = (r.FilesChanged, r.FilesStaged, r.InstanceForked)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Checkpoint).decode


class Files:
    """The files of an instance inside its fold. Read from a checkpoint when somebody asks for them, not before."""

    def __init__(self, stored: msgspec.Raw | None = None) -> None:
        self._stored = stored
        self._tree = Tree() if stored is None else None
        self._transaction = ""
        self._staged: list[tuple[int, Change]] = []

    @property
    def tree(self) -> Tree:
        """Raises StoreCorrupt when the checkpoint's part cannot be read."""
        if self._tree is None:
            assert self._stored is not None
            try:
                found = _decode(self._stored)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
                raise StoreCorrupt(f"the files of a checkpoint cannot be read: {wrong}") from None
            self._tree = Tree.load(found.tree)
            self._transaction, self._staged = found.transaction, found.staged
        return self._tree

    def refusal(self, records: Iterable[r.Record]) -> str | None:
        """Why the owner must not append these now: the files would be others than its draft was made of."""
        seen = 0
        for record in records:
            if isinstance(record, r.FilesChanged):
                seen += 1
                changes, _ = self._whole(record, 0)
                wrong = "it changes files twice in one batch" if seen > 1 else self.tree.refusal(record.base, changes)
                if wrong is not None:
                    return wrong
        return None

    def apply(self, record: r.Record, ordinal: int) -> None:
        tree, self._stored = self.tree, None
        if isinstance(record, r.FilesStaged):
            if record.transaction != self._transaction:
                self._transaction, self._staged = record.transaction, []
            self._staged += [(ordinal, _without_content(change, ordinal)) for change in record.changes]
            return
        if isinstance(record, r.FilesChanged):
            tree.apply(record, *self._whole(record, ordinal))
        self._transaction, self._staged = "", []

    def changes(self, record: r.FilesChanged) -> list[Change]:
        """What a record that comes next changes, with what is staged for it."""
        return self._whole(record, 0)[0]

    def _whole(self, record: r.FilesChanged, ordinal: int) -> tuple[list[Change], list[int]]:
        """Its changes and those staged for it, and where each stands."""
        staged = self._staged if record.staged and record.staged == self._transaction else []
        changes = [change for _, change in staged] + list(record.changes)
        return changes, [at for at, _ in staged] + [ordinal] * len(record.changes)

    def dump(self) -> msgspec.Raw:
        """Its part of a checkpoint; what nobody has asked for since it was loaded, as it was."""
        if self._stored is not None:
            return self._stored
        assert self._tree is not None
        if self._tree.revision == 0 and not self._staged:
            return r.NULL
        return msgspec.Raw(_encode(_Checkpoint(self._tree.dump(), self._transaction, self._staged)))

    @classmethod
    def load(cls, stored: msgspec.Raw) -> Files:
        return cls() if not bytes(stored) or bytes(stored) == b"null" else cls(stored.copy())


def _without_content(change: Change, ordinal: int) -> Change:
    """Content stays in the log, where it is; what is staged only remembers the place."""
    if change.text is None and change.data is None:
        return change
    return msgspec.structs.replace(change, text=None, data=None, ordinal=ordinal, of=change.id)
