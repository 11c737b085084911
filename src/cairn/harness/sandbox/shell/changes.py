"""From what is there to what a command made of it: the fewest operations, in an order that works.

Laws. Pure. Only what the command touched is looked at. First what was moved is put aside, innermost first; then what is gone is
removed; then the tree is built from the top. So no operation needs a place that another one still holds, whatever was exchanged
with whatever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .tree import DIRECTORY, DIRECTORY_MODE, FILE, FILE_MODE, LINK, Files, Node

Operation = list[Any]


def changes(files: Files, place: str) -> tuple[list[Operation], list[bytes]]:
    """Operations on paths of the workspace, and the contents that `write` takes from, one after the other. What is moved lies
    in between in the directory `place`, which is not there before and after."""
    entries = list(_walk(files.root, ""))
    moved = [node for _, node, has_moved in entries if has_moved]
    aside: dict[str, str] = {}
    operations: list[Operation] = []
    for number, node in enumerate(sorted(moved, key=lambda each: -_origin(each).count("/"))):
        aside[_origin(node)] = f"{place}/{number}"
        operations.append(["move", _origin(node), aside[_origin(node)]])
    for directory in [files.root, *(node for _, node, _ in entries if node.lost)]:
        for name in sorted(directory.lost):
            path = f"{directory.origin}/{name}"
            now = directory.names.get(name)
            if path not in aside and (now is None or now.origin != path):
                operations.append(["remove", _after(path, aside)])
    contents: list[bytes] = []
    for path, node, _ in entries:
        operations += _built(path, node, aside, contents)
    return ([["mkdir", place], *operations, ["remove", place]] if aside else operations), contents


def _origin(node: Node) -> str:
    assert node.origin is not None
    return node.origin


def _walk(directory: Node, path: str) -> Iterator[tuple[str, Node, bool]]:
    """What is known of the tree below, from the top, and whether it was moved to where it is."""
    for name, node in directory.names.items():
        if node is not None:
            has_moved = node.origin is not None and (directory.origin is None or node.origin != f"{directory.origin}/{name}")
            yield f"{path}/{name}", node, has_moved
            if node.kind == DIRECTORY:
                yield from _walk(node, f"{path}/{name}")


def _after(path: str, aside: dict[str, str]) -> str:
    """Where what was at `path` is, once everything that moves was put aside."""
    head = path
    while head:
        if head in aside:
            return aside[head] + path[len(head) :]
        head = head.rpartition("/")[0]
    return path


def _built(path: str, node: Node, aside: dict[str, str], contents: list[bytes]) -> list[Operation]:
    found: list[Operation] = []
    if node.origin is None:
        if node.kind == DIRECTORY:
            found.append(["mkdir", path])
        elif node.kind == LINK:
            found.append(["link", path, node.target])
    elif node.origin in aside:
        found.append(["move", aside[node.origin], path])
    if node.kind == FILE and (node.is_written or node.origin is None):
        data = bytes(node.data or b"")
        contents.append(data)
        found.append(["write", path, len(data)])
    is_new = node.origin is None and node.mode != (DIRECTORY_MODE if node.kind == DIRECTORY else FILE_MODE)
    if node.kind != LINK and (node.is_moded or is_new):
        found.append(["mode", path, node.mode])
    if node.is_timed:
        found.append(["time", path, node.mtime])
    return found
