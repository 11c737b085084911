"""The part of the shell's tree that is not the workspace: /bin, /dev, /etc and so on, as the library has them, read-only."""

from __future__ import annotations

from typing import Any

from .tree import DEVICE_BYTES, DIRECTORY, FILE, LINK, RANDOM, Node

_KINDS = {"file": FILE, "directory": DIRECTORY, "symlink": LINK}

#: Places that are the workspace's or have no meaning without a person.
_LEFT_OUT = ("/tmp", "/workspace")


def system_tree(files: Any) -> dict[str, Node]:
    """Every entry by its path, from a fresh file system of the library."""
    found = {"/": Node(DIRECTORY, 0o755, is_whole=True)}
    pending = ["/"]
    while pending:
        directory = pending.pop()
        for entry in files.read_dir(directory):
            path = f"{directory.rstrip('/')}/{entry['name']}"
            if path in _LEFT_OUT or path.startswith("/proc/"):
                continue
            about = entry["metadata"]
            node = Node(_KINDS.get(about["file_type"], FILE), about["mode"], about["size"], is_whole=True)
            if node.kind == DIRECTORY:
                pending.append(path)
            elif node.kind == LINK:
                node.target = files.read_link(path)
            elif not path.startswith("/dev/"):
                node.data = bytearray(files.read_file(path))
            found[path] = node
    found["/dev/null"] = Node(FILE, 0o666, data=bytearray())
    found["/dev/zero"] = Node(FILE, 0o666, data=bytearray(DEVICE_BYTES))
    for path in RANDOM:
        found[path] = Node(FILE, 0o666)
    return found
