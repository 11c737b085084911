"""Files of a hosted machine, by shell scripts: the same for every provider, whatever its own file interface leaves out.

Laws. Content travels as base64, so a stream of text will do. A write is uploaded beside the old file and takes its place by
renaming. A script says what is wrong as one word; here it becomes Python's own error.
"""

from __future__ import annotations

import base64
import binascii
import errno
import itertools
import os
import posixpath
import shlex
from collections.abc import Awaitable, Callable
from typing import NoReturn

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import FileInfo

_numbers = itertools.count()

#: Says why a path cannot be used as asked, in one word; or nothing.
_WHY = """why() {
  if [ -d "$1" ]; then echo directory
  elif [ -e "$1" ]; then if [ -f "$1" ]; then [ -r "$1" ] || echo denied; else echo other; fi
  else above=$1
    while above=$(dirname "$above"); [ "$above" != / ] && [ ! -e "$above" ]; do :; done
    if [ -d "$above" ]; then echo missing; else echo notdirectory; fi
  fi
}
"""
_READ = _WHY + 'wrong=$(why @PATH@); if [ -n "$wrong" ]; then echo "!$wrong"; else @READ@ @PATH@ | base64; fi'
_STAT = (
    "if [ -e @PATH@ ]; then stat -L -c '%F|%s|%a|%Y' -- @PATH@; "
    "elif [ -L @PATH@ ]; then stat -c '%F|%s|%a|%Y' -- @PATH@; fi 2>&1"
)
_LIST = _WHY + (
    'wrong=$(why @PATH@); if [ "$wrong" != directory ]; then echo "!${wrong:-notdirectory}"; '
    "else find -H @PATH@ -mindepth 1 -maxdepth 1 -printf '%y|%s|%m|%T@|%f\\0' | base64; fi"
)
_PLACE = _WHY + (
    'path=$(readlink -m -- @PATH@); wrong=$(why "$path"); '
    'case "$wrong" in ""|missing) ;; *) echo "!$wrong"; exit;; esac; '
    'if [ -e "$path" ] && [ ! -w "$path" ]; then echo "!denied"; exit; fi; '
    'mkdir -p -- "$(dirname "$path")" && echo "$path"'
)
_TAKE = "if [ -e @PATH@ ]; then chmod --reference=@PATH@ -- @NEW@; fi; mv -f -- @NEW@ @PATH@ && echo done"

_KINDS = {"f": "file", "d": "directory", "l": "symlink"}
_NAMES = {"directory": "directory", "symbolic link": "symlink"}


class HostedFiles:
    """Files by absolute paths. `script` runs a script and returns what it wrote, `upload` makes a new file."""

    def __init__(self, script: Callable[[str], Awaitable[str]], upload: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._script = script
        self._upload = upload

    async def read(self, path: str, start: int, size: int | None) -> bytes:
        """A regular file's bytes from `start` on."""
        read = "cat --" if not start and size is None else f"tail -c +{start + 1} --"
        if size is not None:
            # `head` first, so that what is not asked for is not read either.
            read = f"(head -c {start + size} | tail -c +{start + 1}) <"
        said = await self._run(_READ, path, read=read)
        return _decoded(said)

    async def replace(self, path: str, data: bytes) -> None:
        """The file holds exactly `data`; a link is followed, directories are made, the mode of an old file is kept."""
        real = (await self._run(_PLACE, path)).removesuffix("\n")
        new = posixpath.join(posixpath.dirname(real), f".cairn-{os.getpid()}-{next(_numbers)}.tmp")
        await self._upload(new, data)
        said = await self._script(_TAKE.replace("@PATH@", shlex.quote(real)).replace("@NEW@", shlex.quote(new)))
        if said.strip() != "done":
            raise PermissionError(errno.EACCES, "cannot be written", path)

    async def stat(self, path: str) -> FileInfo | None:
        """What is there, links followed; a link that leads nowhere is itself there."""
        said = (await self._script(_STAT.replace("@PATH@", shlex.quote(path)))).strip()
        if not said:
            return None
        kind, size, mode, modified = said.rsplit("\n", 1)[-1].split("|")
        name = "file" if kind.startswith("regular") else _NAMES.get(kind, "other")
        return FileInfo(path, name, int(size), int(mode, 8), float(modified))

    async def entries(self, path: str) -> list[FileInfo]:
        """A directory's entries by name, links not followed."""
        said = _decoded(await self._run(_LIST, path))
        found = []
        for line in said.split(b"\0")[:-1]:
            kind, size, mode, modified, name = line.decode("utf-8", "surrogateescape").split("|", 4)
            there = posixpath.join(path, name)
            found.append(FileInfo(there, _KINDS.get(kind, "other"), int(size), int(mode, 8), float(modified)))
        return sorted(found, key=lambda info: info.path)

    async def remove(self, path: str) -> None:
        """Nothing is there any more. *Idempotent*."""
        said = await self._script(f"rm -rf -- {shlex.quote(path)} 2>&1")
        if said.strip():
            raise PermissionError(errno.EACCES, said.strip()[:200], path)

    async def real_path(self, path: str) -> str:
        """The one name of what is, or would be, there."""
        return (await self._script(f"readlink -m -- {shlex.quote(path)}")).removesuffix("\n")

    async def _run(self, script: str, path: str, read: str = "") -> str:
        said = await self._script(script.replace("@READ@", read).replace("@PATH@", shlex.quote(path)))
        if said.startswith("!"):
            _refuse(said[1:].strip(), path)
        return said


def _refuse(why: str, path: str) -> NoReturn:
    if why == "missing":
        raise FileNotFoundError(errno.ENOENT, "does not exist", path)
    if why == "directory":
        raise IsADirectoryError(errno.EISDIR, "is a directory", path)
    if why == "notdirectory":
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", path)
    if why == "denied":
        raise PermissionError(errno.EACCES, "permission denied", path)
    raise SandboxError(f"{path} is a device, a pipe or a socket, not a file")


def _decoded(said: str) -> bytes:
    try:
        return base64.b64decode("".join(said.split()), validate=True)
    except binascii.Error as error:
        raise SandboxError(f"the machine did not send the file: {said[:200]!r}") from error
