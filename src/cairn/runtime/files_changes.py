"""What became of files between two moments: paths created, changed, moved, removed; and as text, what became of one.

Laws. Pure. Nodes are compared by their numbers, so a file that was moved is moved, whatever it is called now, and a directory
that was moved is one change. Costs what was changed, not what is there. Of files too long to be compared, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import unified_diff
from typing import Literal, NamedTuple

import msgspec

from cairn.runtime.files import Change, Kind, Node
from cairn.runtime.files_tree import Tree

What = Literal["created", "changed", "moved", "removed"]

#: What a diff is made of, at most: comparing takes time that grows faster than the text (Cloudflare's workspace: 10,000 lines).
DIFF_LINES_MAX = 10_000
DIFF_BYTES_MAX = 1 << 20


class FileChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One path that is not what it was. `was` is where it was before, if elsewhere."""

    path: str
    what: What
    kind: Kind
    was: str = ""
    content: bool = False
    """Its bytes are others; a change without is of its mode, time or place."""
    ordinal: int = -1
    """The batch that did it, when it is told as it happens."""


class Before(NamedTuple):
    """A node as it was, and where."""

    node: Node
    path: str


class Watcher:
    """Remembers what the nodes were that a record is going to change; says what became of them."""

    def __init__(self) -> None:
        self._before: dict[int, Before | None] = {}

    def note(self, tree: Tree, changes: Iterable[Change]) -> None:
        """Before a record is applied: this is what it changes."""
        for change in changes:
            node = tree.node(change.id)
            if node is None:
                self._before.setdefault(change.id, None)
            elif change.gone or change.parent is not None:  # with what is in it: it is elsewhere, or gone, too
                for each in tree.below(change.id):
                    self._note(tree, each)
            else:
                self._note(tree, node)

    def _note(self, tree: Tree, node: Node) -> None:
        if node.id not in self._before:
            self._before[node.id] = Before(node, tree.path(node.id))

    def changes(self, tree: Tree, ordinal: int = -1) -> list[FileChange]:
        """What is different in `tree`, by path. What lies in a directory that was moved has not changed."""
        found = [change for id, before in self._before.items() if (change := _change(tree, id, before, ordinal)) is not None]
        return sorted(found, key=lambda change: change.path)


def _change(tree: Tree, id: int, before: Before | None, ordinal: int) -> FileChange | None:
    node = tree.node(id)
    if before is None:
        if node is None:
            return None
        path, content = tree.path(id), node.kind == "file"
        return FileChange(path=path, what="created", kind=node.kind, content=content, ordinal=ordinal)
    if node is None:
        return FileChange(path=before.path, what="removed", kind=before.node.kind, ordinal=ordinal)
    path, was = tree.path(id), before.node
    content = (was.size, was.content) != (node.size, node.content)
    if (was.parent, was.name) != (node.parent, node.name):
        return FileChange(path=path, what="moved", kind=node.kind, was=before.path, content=content, ordinal=ordinal)
    if content or was.mode != node.mode or (was.mtime != node.mtime and node.kind != "directory"):
        return FileChange(path=path, what="changed", kind=node.kind, content=content, ordinal=ordinal)
    return None


def unified(old: bytes, new: bytes, old_path: str, new_path: str, context: int = 3) -> str:
    """The difference of two files as `diff -u` shows it; one line when they are no text, or too long. Empty: they are equal."""
    if old == new:
        return ""
    texts = [_lines(data) for data in (old, new)]
    if texts[0] is None or texts[1] is None:
        return f"Files {old_path} and {new_path} differ ({len(old):,} and {len(new):,} bytes)\n"
    return "".join(_ended(unified_diff(texts[0], texts[1], old_path, new_path, n=context)))


def _lines(data: bytes) -> Sequence[str] | None:
    if len(data) > DIFF_BYTES_MAX or b"\0" in data:
        return None
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    kept = [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    return None if len(kept) > DIFF_LINES_MAX else kept


def _ended(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
