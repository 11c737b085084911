"""From a path to a node: component by component, through links, never out.

Laws. Pure. The root is the top: `..` there stays there and an absolute link begins there, as under chroot, so no path leads
anywhere but into the tree (S13). Links are followed where Linux follows them, forty at most. What a path means is decided on
the tree as one moment has it: nobody can exchange a link between the check and the use.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from cairn.errors import WorkspaceError
from cairn.runtime.files import LINKS_MAX, ROOT, Node, fail, split
from cairn.runtime.files_tree import Nodes


class Place(NamedTuple):
    """Where a path leads. `name` is empty when it names a directory by `/`, `.` or `..`."""

    parent: int
    name: str
    node: Node | None
    """None: nothing is there, but its directory is."""


def place(nodes: Nodes, path: str, *, follow: bool = True) -> Place:
    """Where the path leads; a link at its end is followed, or not. Raises WorkspaceError: ENOENT or ENOTDIR for what
    stands before the last name, ELOOP, and what `split` refuses."""
    ahead = split(path)[::-1]
    directory = path.endswith("/")
    here, links = ROOT, 0
    found = Place(ROOT, "", nodes.node(ROOT))
    while ahead:
        name = ahead.pop()
        if name in (".", ".."):
            here = here if name == "." else _node(nodes, here).parent or ROOT
            found = Place(here, "", nodes.node(here))
            continue
        child = nodes.child(here, name)
        node = nodes.node(child) if child is not None else None
        if node is None:
            if ahead:
                fail(errno.ENOENT, path)
            return Place(here, name, None)
        if node.kind == "link" and (ahead or follow or directory):
            links += 1
            if links > LINKS_MAX:
                fail(errno.ELOOP, path)
            here = ROOT if node.target.startswith("/") else here
            directory = directory or (not ahead and node.target.endswith("/"))
            ahead += split(node.target)[::-1]
            found = Place(here, "", nodes.node(here))
            continue
        if node.kind == "directory":
            found = Place(here, name, node)
            here = node.id
            continue
        if ahead or directory:
            fail(errno.ENOTDIR, path)
        return Place(here, name, node)
    return found


def bare(path: str) -> str:
    """Without slashes at its end, which ask for what a link leads to."""
    return path.rstrip("/") or path[:1]


def existing(nodes: Nodes, path: str, *, follow: bool = True) -> Node:
    """The node at a path. Raises WorkspaceError: ENOENT too."""
    found = place(nodes, path, follow=follow).node
    if found is None:
        fail(errno.ENOENT, path)
    return found


def directory(nodes: Nodes, path: str) -> Node:
    """Raises WorkspaceError: ENOTDIR too."""
    found = existing(nodes, path)
    if found.kind != "directory":
        fail(errno.ENOTDIR, path)
    return found


def _node(nodes: Nodes, id: int) -> Node:
    found = nodes.node(id)
    assert found is not None
    return found


def within(nodes: Nodes, link: Node) -> str:
    """The target of a link, such that it leads to the same place and never out where the tree stands in a real directory.

    A target stays as it is when its `..` all come first and there are no more of them than directories above: then, whatever
    other links do, it is followed from inside to inside. Any other is written anew, as the way to where it leads.
    """
    above = nodes.path(link.parent).split("/")[1:]
    above = above if above != [""] else []
    parts = [part for part in link.target.split("/") if part not in ("", ".")]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    if not link.target.startswith("/") and ".." not in parts[ups:] and ups <= len(above):
        return link.target
    found = _led(nodes, nodes.path(link.id))
    goal = found if found is not None else _lexical([] if link.target.startswith("/") else above, parts)
    shared = next((at for at, (a, b) in enumerate(zip(above, goal, strict=False)) if a != b), min(len(above), len(goal)))
    return "/".join([".."] * (len(above) - shared) + goal[shared:]) or "."


def _led(nodes: Nodes, path: str) -> list[str] | None:
    try:
        node = place(nodes, path).node
    except WorkspaceError:
        return None
    return [part for part in nodes.path(node.id).split("/") if part] if node is not None else None


def _lexical(start: list[str], parts: list[str]) -> list[str]:
    goal = list(start)
    for part in parts:
        if part == "..":
            del goal[-1:]
        else:
            goal.append(part)
    return goal
