"""Files of a few directories, found without ever leaving them: what file operations of an isolated sandbox go through.

Laws. A path is walked one name at a time, each opened relative to the directory before it and never through a link of the
kernel's; links are read and followed here, in the paths that the sandbox sees. So there is nothing to swap between a check and
a use: a link that turns up later leads to a place among these directories, or nowhere. `..` goes back the way that was come.
Blocking: to be called in a thread. Needs Linux (O_PATH).
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat as modes
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import FileInfo

#: As in the kernel.
LINKS_MAX = 40

#: The longest path Linux takes, with its closing zero.
PATH_BYTES_MAX = 4096

_LOOK = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path led. `entry` is what is there, without a way to read it; None: nothing is. A place has no `parent`."""

    path: str
    parent: int | None
    name: str
    entry: int | None

    def status(self) -> os.stat_result | None:
        return None if self.entry is None else os.fstat(self.entry)


class Places:
    """Directories by the path under which the sandbox sees them."""

    def __init__(self, directories: Mapping[str, str]) -> None:
        self._roots = {
            _names(path): os.open(directory, getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC)
            for path, directory in directories.items()
        }

    def close(self) -> None:
        """The directories are let go of. Idempotent."""
        roots, self._roots = self._roots, {}
        for descriptor in roots.values():
            os.close(descriptor)

    # ------------------------------------------------------------------ finding

    @contextmanager
    def find(self, path: str, *, follow: bool = True, make: bool = False) -> Iterator[Found]:
        """What an absolute path leads to; `follow` decides about the last name being a link, `make` creates directories.

        *Raises* SandboxError (outside of all places), FileNotFoundError, NotADirectoryError, OSError (ELOOP, too long).
        """
        with ExitStack() as held:
            yield _Walk(self._roots, held, follow, make).to(path)

    def real_path(self, path: str) -> str:
        """The one name of what is, or would be, there."""
        try:
            with self.find(path) as found:
                return found.path
        except (FileNotFoundError, NotADirectoryError):
            folder, name = os.path.split(path.rstrip("/"))
            there = os.path.normpath(os.path.join(self.real_path(folder), name))
            if not any(_names(there)[: len(root)] == root for root in self._roots):
                raise outside(path, self._roots) from None
            return there

    # ------------------------------------------------------------------ operations

    def read(self, path: str, start: int, size: int | None) -> bytes:
        """A regular file's bytes from `start` on."""
        with self.find(path) as found:
            _expect_file(found, path)
            with open(f"/proc/self/fd/{found.entry}", "rb", buffering=0) as file:
                file.seek(start)
                if size is None:
                    return file.readall()
                parts = bytearray()
                while len(parts) < size and (part := file.read(size - len(parts))):
                    parts += part
                return bytes(parts)

    def replace(self, path: str, data: bytes) -> None:
        """The file holds exactly `data`, on the disk; replaced whole, directories made."""
        with self.find(path, make=True) as found:
            before = found.status()
            if before is not None:
                _expect_file(found, path)
                if not os.access(f"/proc/self/fd/{found.entry}", os.W_OK):
                    raise PermissionError(errno.EACCES, "is read-only", path)
            if found.parent is None:
                raise IsADirectoryError(errno.EISDIR, "is a directory", path)
            _replace(found.parent, found.name, data, before)

    def stat(self, path: str) -> FileInfo | None:
        """What is there, links followed; a link that leads nowhere is itself there."""
        for follow in (True, False):
            try:
                with self.find(path, follow=follow) as found:
                    status = found.status()
                    if status is not None:
                        return _info(path, status)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except SandboxError:
                if follow:
                    continue  # a link to what is outside is there as a link
                raise
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
                    raise
        return None

    def entries(self, path: str) -> list[FileInfo]:
        """A directory's entries by name, links not followed."""
        with self.find(path) as found:
            status = found.status()
            if status is None:
                raise FileNotFoundError(errno.ENOENT, "does not exist", path)
            if not modes.S_ISDIR(status.st_mode) or found.entry is None:
                raise NotADirectoryError(errno.ENOTDIR, "is not a directory", path)
            listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found.entry)
            try:
                names = os.listdir(listing)
                return list(_infos(path, sorted(names), listing))
            finally:
                os.close(listing)

    def remove(self, path: str) -> None:
        """Nothing is there any more. Idempotent. *Raises* SandboxError for a place itself."""
        try:
            with self.find(path, follow=False) as found:
                status = found.status()
                if status is None:
                    return
                if found.parent is None:
                    raise SandboxError(f"{path} is where the sandbox keeps its files; remove what is in it")
                if modes.S_ISDIR(status.st_mode):
                    shutil.rmtree(found.name, dir_fd=found.parent)
                else:
                    os.unlink(found.name, dir_fd=found.parent)
        except (FileNotFoundError, NotADirectoryError):
            return


class _Walk:
    """One path, name by name. The way so far is a stack, so that `..` never asks the file system where it is."""

    def __init__(self, roots: Mapping[tuple[str, ...], int], held: ExitStack, follow: bool, make: bool) -> None:
        self._roots = roots
        self._held = held
        self._follow = follow
        self._make = make
        self._way: list[tuple[str, int | None]] = []

    def to(self, path: str) -> Found:
        if len(os.fsencode(path)) >= PATH_BYTES_MAX:
            raise OSError(errno.ENAMETOOLONG, "is too long", path)
        pending = deque(_names(path))
        links = 0
        while pending:
            name = pending.popleft()
            if name == "..":
                if self._way:
                    self._way.pop()
                continue
            if self._is_above_files(path, name):
                continue
            entry = self._open(path, name, not pending)
            if entry is None:
                return Found(self._path(name), self._here(), name, None)
            target = _target(entry) if pending or self._follow else None
            if target is None:
                self._way.append((name, entry))
                continue
            links += 1
            if links > LINKS_MAX:
                raise OSError(errno.ELOOP, "leads through too many links", path)
            if target.startswith("/"):
                self._way.clear()
            pending.extendleft(reversed(_names(target)))
        return self._arrived(path)

    def _is_above_files(self, path: str, name: str) -> bool:
        """Whether the next name is a place, or one of the names before a place; then that is where we are."""
        names = (*(each for each, _ in self._way), name)
        if names in self._roots:
            self._way.append((name, self._roots[names]))
            return True
        if self._here() is not None:
            return False
        if any(root[: len(names)] == names for root in self._roots):
            self._way.append((name, None))
            return True
        raise outside(path, self._roots)

    def _open(self, path: str, name: str, is_last: bool) -> int | None:
        """One name below where we are; None if it is the last one and nothing is there."""
        here = self._here()
        assert here is not None
        try:
            return self._held_open(name, here)
        except FileNotFoundError:
            if is_last:
                return None
            if not self._make:
                raise FileNotFoundError(errno.ENOENT, "does not exist", path) from None
        with suppress(FileExistsError):  # somebody else made it; whatever it is, it is opened next
            os.mkdir(name, dir_fd=here)
        return self._held_open(name, here)

    def _held_open(self, name: str, here: int) -> int:
        descriptor = os.open(name, _LOOK, dir_fd=here)
        self._held.callback(os.close, descriptor)
        return descriptor

    def _arrived(self, path: str) -> Found:
        here = self._here()
        if here is None:
            raise outside(path, self._roots)
        parent = self._way[-2][1] if tuple(name for name, _ in self._way) not in self._roots else None
        return Found(self._path(), parent, self._way[-1][0], here)

    def _here(self) -> int | None:
        return self._way[-1][1] if self._way else None

    def _path(self, *more: str) -> str:
        return "/" + "/".join((*(name for name, _ in self._way), *more))


def outside(path: str, roots: Iterable[tuple[str, ...]]) -> SandboxError:
    """The error for a path that leads to none of the places."""
    places = ", ".join(sorted("/" + "/".join(root) for root in roots))
    return SandboxError(f"{path} leads outside of the sandbox's files ({places}); what the system has, commands can show")


def _names(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name not in ("", "."))


def _target(entry: int) -> str | None:
    """Where a link leads; None for what is no link."""
    if not modes.S_ISLNK(os.fstat(entry).st_mode):
        return None
    return os.readlink("", dir_fd=entry)


def _expect_file(found: Found, path: str) -> None:
    status = found.status()
    if status is None:
        raise FileNotFoundError(errno.ENOENT, "does not exist", path)
    if modes.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory", path)
    if not modes.S_ISREG(status.st_mode):
        raise SandboxError(f"{path} is a device, a pipe or a socket, not a file")


def _replace(folder: int, name: str, data: bytes, before: os.stat_result | None) -> None:
    temporary, descriptor = create_beside(folder)
    try:
        with open(descriptor, "wb") as file:
            if before is not None:
                _take_over(descriptor, before)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(listing)
    finally:
        os.close(listing)


def create_beside(folder: int) -> tuple[str, int]:
    """A new file in the directory, under a name that nobody has."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for number in itertools.count():
        name = f".cairn-{os.getpid()}-{number}.tmp"
        try:
            return name, os.open(name, flags, 0o666, dir_fd=folder)
        except FileExistsError:
            continue
    raise AssertionError("unreachable")


def _take_over(descriptor: int, before: os.stat_result) -> None:
    with suppress(PermissionError):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    # Never more than a command could have asked for itself: a mode of a file somebody else put here may hold set-uid bits.
    os.fchmod(descriptor, modes.S_IMODE(before.st_mode) & 0o1777)


def _infos(path: str, names: list[str], folder: int) -> Iterator[FileInfo]:
    for name in names:
        with suppress(FileNotFoundError):  # removed while we looked
            yield _info(os.path.join(path, name), os.stat(name, dir_fd=folder, follow_symlinks=False))


def _info(path: str, status: os.stat_result) -> FileInfo:
    mode = status.st_mode
    kinds = ((modes.S_ISREG, "file"), (modes.S_ISDIR, "directory"), (modes.S_ISLNK, "symlink"))
    kind = next((name for test, name in kinds if test(mode)), "other")
    return FileInfo(path, kind, status.st_size, modes.S_IMODE(mode), status.st_mtime)
