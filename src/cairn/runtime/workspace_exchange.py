"""Files in and out: a directory of this machine, a tar archive.

Laws. What comes in is somebody else's: names are checked as any others (S13), links are kept but never followed while something
is written, and what is no file, directory or link is refused by name. What goes out lies in a new directory or archive and
leads nowhere else: a link that would lead out of it there is written as the way to the same place inside. Memory is bounded by
a chunk, whatever the size. The machine's files are read and written on a thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Generator
from typing import BinaryIO, NamedTuple

from cairn.errors import UsageError
from cairn.runtime.files import CHUNK_BYTES, FILE_MODE, MODE_MASK, Entry, fail
from cairn.runtime.files_paths import within
from cairn.runtime.workspace_draft import Draft
from cairn.runtime.workspace_reading import Reading

# --- directories ----------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """Something in a directory of the machine: `file` is open when it is a file."""

    path: str
    status: os.stat_result
    file: int = -1
    target: str = ""


async def import_directory(draft: Draft, source: str | os.PathLike[str], into: str = "/") -> None:
    """Everything in the machine's directory is in the draft, below `into`. What was there and has other names stays.

    Raises WorkspaceError, naming what cannot be taken: a device, a socket, a name that is not UTF-8; OSError.
    """
    await draft.mkdir(into, parents=True, exist_ok=True)
    walk = _walk(os.fspath(source))
    try:
        while (found := await asyncio.to_thread(next, walk, None)) is not None:
            await _take(draft, found, f"{into.rstrip('/')}/{found.path}")
    finally:
        walk.close()


async def _take(draft: Draft, found: _Found, path: str) -> None:
    mode, status = stat.S_IMODE(found.status.st_mode) & MODE_MASK, found.status
    present = draft.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        if present is not None and not present.is_directory:
            fail(errno.EEXIST, path)
        await draft.mkdir(path, mode=mode, exist_ok=True)
        return
    if present is not None and (present.is_link or not stat.S_ISREG(status.st_mode)):
        await draft.remove(path)
    if stat.S_ISLNK(status.st_mode):
        await draft.symlink(found.target, path)
    else:
        await draft.write(path, _read(found.file), mode=mode)
        await draft.touch(path, mtime=status.st_mtime)


def _walk(source: str) -> Generator[_Found, None, None]:
    """What is in a directory, by name, a directory before what is in it. No link is followed, even a new one."""
    for above, directories, files, descriptor in os.fwalk(source, follow_symlinks=False):
        directories.sort()
        below = os.path.relpath(above, source)
        for name in sorted([*directories, *files]):
            path = name if below == "." else f"{below}/{name}"
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                yield _Found(path, status, target=os.readlink(name, dir_fd=descriptor))
            elif stat.S_ISREG(status.st_mode):
                yield from _opened(path, name, descriptor)
            elif stat.S_ISDIR(status.st_mode):
                yield _Found(path, status)
            else:
                fail(errno.EINVAL, path, "neither a file nor a directory nor a link")


def _opened(path: str, name: str, descriptor: int) -> Generator[_Found, None, None]:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            fail(errno.EINVAL, path, "not a file any more")
        yield _Found(path, status, file)
    finally:
        os.close(file)


async def _read(file: int) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(os.read, file, CHUNK_BYTES):
        yield piece


async def export_directory(files: Reading, target: str | os.PathLike[str], path: str = "/") -> None:
    """What is below `path` is in the machine's directory `target`, which is made, or is empty. Raises UsageError, OSError."""
    root = os.fspath(target)
    await asyncio.to_thread(_fresh, root)
    above = files.resolve(path).rstrip("/")
    late: list[tuple[str, Entry]] = []
    for entry in files.walk(path):
        there = f"{root}/{entry.path[len(above) + 1 :]}"
        if entry.is_directory:
            os.mkdir(there, 0o700)
            late.append((there, entry))
        elif entry.is_link:
            os.symlink(_target(files, entry, above), there)
        else:
            await _put(files, entry, there)
    for there, entry in reversed(late):  # what is in them has to be written first
        os.chmod(there, entry.mode)
        os.utime(there, (entry.mtime, entry.mtime))


def _target(files: Reading, entry: Entry, above: str) -> str:
    """Only all of a workspace is a world of its own; in a part of it a link may lead to what is left out."""
    node = files._nodes.node(entry.id)
    assert node is not None
    target = within(files._nodes, node)
    ups = target.split("/").count("..")
    if ups > entry.path[len(above) :].count("/") - 1:
        fail(errno.EXDEV, entry.path, f"the link leads to {entry.target!r}, which is outside of what is exported")
    return target


async def _put(files: Reading, entry: Entry, there: str) -> None:
    file = os.open(there, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        async for piece in files.stream(entry.path):
            if len(piece) < CHUNK_BYTES // 4:
                os.write(file, piece)  # less than a thread costs
            else:
                await asyncio.to_thread(_write_all, file, piece)
        os.fchmod(file, entry.mode)
        os.utime(file, (entry.mtime, entry.mtime))
    finally:
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _fresh(root: str) -> None:
    os.makedirs(root, exist_ok=True)
    if os.listdir(root):
        raise UsageError(f"{root} is not empty; files are exported into a new or an empty directory")


# --- archives -------------------------------------------------------------------------------------------------------


async def export_tar(files: Reading, archive: BinaryIO, path: str = "/") -> None:
    """What is below `path` is in the archive (pax, not compressed): the same files make the same bytes."""
    above = files.resolve(path).rstrip("/")
    for entry in files.walk(path):
        info = tarfile.TarInfo(entry.path[len(above) + 1 :])
        info.mode, info.mtime = entry.mode, int(entry.mtime)
        info.type = {"directory": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "file": tarfile.REGTYPE}[entry.kind]
        info.size = entry.size if entry.is_file else 0
        info.linkname = _target(files, entry, above) if entry.is_link else ""
        archive.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        if entry.is_file:
            async for piece in files.stream(entry.path):
                await asyncio.to_thread(archive.write, piece)
            archive.write(b"\0" * (-entry.size % tarfile.BLOCKSIZE))
    archive.write(b"\0" * 2 * tarfile.BLOCKSIZE)


async def import_tar(draft: Draft, archive: BinaryIO, into: str = "/") -> None:
    """Everything in the archive (compressed or not) is in the draft, below `into`.

    Raises WorkspaceError, naming the member: one that is absolute, leads upwards or through a link, or is a device; UsageError
    when it is no archive.
    """
    await draft.mkdir(into, parents=True, exist_ok=True)
    try:
        with await asyncio.to_thread(lambda: tarfile.open(fileobj=archive, mode="r:*")) as tar:
            while (member := await asyncio.to_thread(tar.next)) is not None:
                await _unpack(draft, tar, member, into.rstrip("/"))
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise UsageError(f"the archive cannot be read: {error}") from None


async def _unpack(draft: Draft, tar: tarfile.TarFile, member: tarfile.TarInfo, into: str) -> None:
    parts = _safe(member.name)
    if not parts:
        return
    path = "/".join([into, *parts])
    _check_way(draft, into, parts, member.name)
    present = draft.lstat(path)
    mode = member.mode & MODE_MASK
    if member.isdir():
        await draft.mkdir(path, mode=mode, parents=True, exist_ok=True)
        return
    if not (member.isfile() or member.issym() or member.islnk()):
        fail(errno.EINVAL, member.name, "the archive holds a device; only files, directories and links are taken")
    if present is not None and not present.is_directory:
        await draft.remove(path)
    await draft.mkdir("/".join([into, *parts[:-1]]) or "/", parents=True, exist_ok=True)
    if member.issym():
        await draft.symlink(member.linkname, path)
    elif member.islnk():
        await _linked(draft, into, _safe(member.linkname), path, member.name)
    else:
        content = tar.extractfile(member)
        assert content is not None
        await draft.write(path, _read_file(content), mode=mode or FILE_MODE)
        await draft.touch(path, mtime=float(member.mtime))


async def _linked(draft: Draft, into: str, parts: list[str], path: str, name: str) -> None:
    """A hard link becomes a file of its own with the same content, which is stored once."""
    _check_way(draft, into, parts, name)
    entry = draft.lstat("/".join([into, *parts]))
    if entry is None or not entry.is_file:
        fail(errno.EINVAL, name, "it is a link to a file that the archive did not hold before")
    await draft.copy(entry.path, path)


def _safe(name: str) -> list[str]:
    """The components of a member's name, all of them downwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        fail(errno.EINVAL, name, "the archive names a place outside of itself")
    return parts


def _check_way(draft: Draft, into: str, parts: list[str], name: str) -> None:
    """What is above it is no link: an archive could make one first and write through it to where nobody asked it to."""
    for depth in range(1, len(parts)):
        entry = draft.lstat("/".join([into, *parts[:depth]]))
        if entry is not None and entry.is_link:
            fail(errno.ELOOP, name, "the archive leads through a link")


async def _read_file(file: object) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):  # type: ignore[attr-defined]
        yield piece
