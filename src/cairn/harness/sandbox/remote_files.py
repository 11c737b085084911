"""Files over SFTP, with the errors and the care of local ones.

Laws. A write goes to a new file beside the old one, is synced where the server can, and takes its place by renaming. What is no
regular file is neither read nor written. OpenSSH's protocol knows three errors; what lies behind one is looked up, so that
callers get Python's own.
"""

from __future__ import annotations

import errno
import itertools
import os
import posixpath
import shlex
import stat as modes
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import FileInfo

_numbers = itertools.count()


class RemoteFiles:
    """Files of the account, by absolute paths. `client` is the asyncssh module, `run` runs a command and returns its output."""

    def __init__(self, client: Any, sftp: Any, run: Callable[[str], Awaitable[tuple[int, str]]]) -> None:
        self._client = client
        self._sftp = sftp
        self._run = run

    async def read(self, path: str, start: int, size: int | None) -> bytes:
        """A regular file's bytes from `start` on."""
        _expect_file(await self._attributes(path), path)
        async with await self._open(path, "rb") as file:
            await file.seek(start)
            if size is None:
                return bytes(await file.read())
            parts = bytearray()
            while len(parts) < size and (part := await file.read(size - len(parts))):
                parts += part
            return bytes(parts)

    async def replace(self, path: str, data: bytes) -> None:
        """The file holds exactly `data`; a link is followed, directories are made."""
        real = await self.real_path(path)
        before = await self._lookup(real, follow=True)
        folder = posixpath.dirname(real)
        if before is None:
            await self._sftp.makedirs(folder, exist_ok=True)
        else:
            _expect_file(before, path)
        temporary = posixpath.join(folder, f".cairn-{os.getpid()}-{next(_numbers)}.tmp")
        try:
            async with await self._open(temporary, "xb") as file:
                await file.write(data)
                with suppress(self._client.SFTPError):  # not every server can
                    await file.fsync()
            if before is not None:
                await self._sftp.chmod(temporary, modes.S_IMODE(before.permissions) & 0o1777)
            await self._sftp.posix_rename(temporary, real)
        except BaseException:
            with suppress(OSError, self._client.Error):
                await self._sftp.remove(temporary)
            raise

    async def stat(self, path: str) -> FileInfo | None:
        """What is there, links followed; a link that leads nowhere is itself there."""
        found = await self._lookup(path, follow=True) or await self._lookup(path, follow=False)
        return None if found is None else _info(path, found)

    async def entries(self, path: str) -> list[FileInfo]:
        """A directory's entries by name, links not followed."""
        if not modes.S_ISDIR((await self._attributes(path)).permissions):
            raise NotADirectoryError(errno.ENOTDIR, "is not a directory", path)
        found = [
            _info(posixpath.join(path, str(entry.filename)), entry.attrs)
            for entry in await self._sftp.readdir(path)
            if entry.filename not in (".", "..")
        ]
        return sorted(found, key=lambda info: info.path)

    async def remove(self, path: str) -> None:
        """Nothing is there any more. *Idempotent*."""
        found = await self._lookup(path, follow=False)
        if found is None:
            return
        code, said = await self._run(f"rm -rf -- {shlex.quote(path)} 2>&1")
        if code != 0:
            raise PermissionError(errno.EACCES, said.strip()[:200] or "cannot be removed", path)

    async def real_path(self, path: str) -> str:
        """The one name of what is, or would be, there."""
        code, said = await self._run(f"readlink -m -- {shlex.quote(path)}")
        if code != 0 or not said.startswith("/"):
            raise SandboxError(f"{path} cannot be resolved on the host")
        return said.removesuffix("\n")

    # ------------------------------------------------------------------ looking

    async def _attributes(self, path: str) -> Any:
        """*Raises* FileNotFoundError, NotADirectoryError, PermissionError."""
        found = await self._lookup(path, follow=True)
        if found is not None:
            return found
        above = posixpath.dirname(path)
        while above not in ("", "/"):
            there = await self._lookup(above, follow=True)
            if there is not None and not modes.S_ISDIR(there.permissions):
                raise NotADirectoryError(errno.ENOTDIR, "is not a directory", above)
            if there is not None:
                break
            above = posixpath.dirname(above)
        raise FileNotFoundError(errno.ENOENT, "does not exist", path)

    async def _lookup(self, path: str, *, follow: bool) -> Any:
        try:
            return await (self._sftp.stat(path) if follow else self._sftp.lstat(path))
        except self._client.SFTPNoSuchFile:
            return None
        except self._client.SFTPPermissionDenied as error:
            raise PermissionError(errno.EACCES, "permission denied", path) from error
        except self._client.SFTPFailure:  # a loop of links, a name that is too long
            return None

    async def _open(self, path: str, mode: str) -> Any:
        try:
            return await self._sftp.open(path, mode, encoding=None)
        except self._client.SFTPPermissionDenied as error:
            raise PermissionError(errno.EACCES, "permission denied", path) from error
        except self._client.SFTPNoSuchFile as error:
            raise FileNotFoundError(errno.ENOENT, "does not exist", path) from error


def _expect_file(attributes: Any, path: str) -> None:
    if modes.S_ISDIR(attributes.permissions):
        raise IsADirectoryError(errno.EISDIR, "is a directory", path)
    if not modes.S_ISREG(attributes.permissions):
        raise SandboxError(f"{path} is a device, a pipe or a socket, not a file")


def _info(path: str, attributes: Any) -> FileInfo:
    mode = attributes.permissions or 0
    kinds = ((modes.S_ISREG, "file"), (modes.S_ISDIR, "directory"), (modes.S_ISLNK, "symlink"))
    kind = next((name for test, name in kinds if test(mode)), "other")
    return FileInfo(path, kind, attributes.size or 0, modes.S_IMODE(mode), float(attributes.mtime or 0))
