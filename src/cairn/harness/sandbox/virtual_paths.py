"""The workspace's paths as the shell has them, and back. Pure.

Laws. `/workspace` of the shell is the workspace's root, and its `/tmp` is `.tmp` there: so both last. Nothing else of the
shell's tree lasts, and nothing else can be named here. `..` is taken by the letter, as the shell takes it.
"""

from __future__ import annotations

import errno
import os
import posixpath

from cairn.errors import SandboxError

#: The workspace's root in the shell: its home, and where it begins.
HOME = "/workspace"
TEMPORARY = "/tmp"
#: Where in the workspace the shell's /tmp is.
SCRATCH = "/.tmp"


def inside(path: str, cwd: str = HOME, *, writing: bool = False) -> str:
    """The path in the workspace. *Raises* SandboxError, FileNotFoundError, PermissionError for what is not in it."""
    if "\0" in path:
        raise SandboxError(f"{path!r} contains a NUL character and cannot be a path")
    if path == "~" or path.startswith("~/"):
        path = HOME + path[1:]
    whole = posixpath.normpath("/" + posixpath.join(cwd, path).lstrip("/"))
    if whole == HOME or whole.startswith(HOME + "/"):
        return whole[len(HOME) :] or "/"
    if whole == TEMPORARY or whole.startswith(TEMPORARY + "/"):
        return SCRATCH + whole[len(TEMPORARY) :]
    if writing:
        raise PermissionError(errno.EROFS, f"{os.strerror(errno.EROFS)}; files are kept in {HOME} and {TEMPORARY}", path)
    raise FileNotFoundError(errno.ENOENT, f"not in {HOME} or {TEMPORARY}", path)


def outside(path: str) -> str:
    """The shell's name of a path of the workspace."""
    return HOME if path in ("", "/") else HOME + path


def target_inside(target: str) -> str:
    """Where a link of the shell leads, as the workspace writes it."""
    return inside(target, writing=True) if target.startswith("/") else target


def target_outside(target: str) -> str:
    return outside(target) if target.startswith("/") else target
