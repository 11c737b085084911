"""Patterns over a tree: `*` and `?` within a name, `[abc]`, `**` for any number of directories, `{py,md}` for either.

Laws. Pure. Only directories that can match are entered. Links are found, never entered: a pattern ends. A name that begins
with a dot is a name.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from fnmatch import translate

from cairn.runtime.files import Node, fail
from cairn.runtime.files_tree import Nodes

#: What a pattern of `{…}` may unfold into: enough for every list of file types, not for a list of lists of lists.
ALTERNATIVES_MAX = 256

_SPECIAL = re.compile(r"[*?\[]")

Test = Callable[[str], object]


def glob(nodes: Nodes, start: Node, pattern: str) -> Iterator[Node]:
    """The nodes below `start` that match, each once, in no order. Raises WorkspaceError for a pattern that is none."""
    seen: set[int] = set()
    for each in _alternatives(pattern):
        parts = [part for part in each.split("/") if part not in ("", ".")]
        if ".." in parts:
            fail(errno.EINVAL, pattern, "a pattern cannot lead upwards")
        for node in _matches(nodes, start, tuple(map(_part, parts))):
            if node.id not in seen and node.id != start.id:
                seen.add(node.id)
                yield node


def _part(part: str) -> str | Test | None:
    """None for `**`, a name, or a test of names."""
    if part == "**":
        return None
    return re.compile(translate(part)).match if _SPECIAL.search(part) else part


def _matches(nodes: Nodes, start: Node, parts: tuple[str | Test | None, ...]) -> Iterator[Node]:
    waiting: list[tuple[Node, int]] = [(start, 0)]
    tried: set[tuple[int, int]] = set()
    while waiting:
        node, at = waiting.pop()
        if (node.id, at) in tried:
            continue
        tried.add((node.id, at))
        if at == len(parts):
            yield node
            continue
        part = parts[at]
        if part is None:
            waiting.append((node, at + 1))
        if node.kind == "directory":
            waiting += _entered(nodes, node, part, at)


def _entered(nodes: Nodes, node: Node, part: str | Test | None, at: int) -> Iterator[tuple[Node, int]]:
    if isinstance(part, str):
        child = nodes.child(node.id, part)
        if child is not None and (found := nodes.node(child)) is not None:
            yield found, at + 1
        return
    for name, child in nodes.children(node.id):
        if (part is None or part(name)) and (found := nodes.node(child)) is not None:
            yield found, at if part is None else at + 1


def _alternatives(pattern: str) -> list[str]:
    """The patterns without braces that a pattern with braces means."""
    done: list[str] = []
    waiting = [pattern]
    while waiting:
        each = waiting.pop()
        inner = re.search(r"\{([^{}]*,[^{}]*)\}", each)
        if inner is None:
            done.append(each)
        else:
            waiting += [each[: inner.start()] + choice + each[inner.end() :] for choice in inner[1].split(",")]
        if len(done) + len(waiting) > ALTERNATIVES_MAX:
            fail(errno.EINVAL, pattern, f"it stands for more than {ALTERNATIVES_MAX} patterns")
    return done
