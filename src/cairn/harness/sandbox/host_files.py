"""Files of this machine, as `local()` needs them. Blocking: to be called in a thread.

Laws. Only regular files are read and written: a device or a pipe might never end. A write goes to a new file beside the old,
is synced, and takes its place by renaming, so that a reader and a crash see the old file or the new one, never a part.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat as modes
from pathlib import Path

from cairn.errors import SandboxError
from cairn.harness.sandbox.protocol import FileInfo


def read(path: str, start: int, size: int | None) -> bytes:
    """A regular file's bytes from `start` on."""
    # Non-blocking, because opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        _expect_file(os.fstat(descriptor).st_mode, path)
        file.seek(start)
        if size is None:
            return file.readall()
        parts = bytearray()
        while len(parts) < size and (part := file.read(size - len(parts))):
            parts += part
        return bytes(parts)


def _expect_file(mode: int, path: str) -> None:
    if modes.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory", path)
    if not modes.S_ISREG(mode):
        raise SandboxError(f"{path} is a device, a pipe or a socket, not a file")


def replace(path: str, data: bytes) -> None:
    """The file at the real path holds exactly `data`, on the disk; replaced whole where the system allows it."""
    try:
        before: os.stat_result | None = os.stat(path)
    except FileNotFoundError:
        before = None
        os.makedirs(os.path.dirname(path), exist_ok=True)
    if before is not None:
        _expect_file(before.st_mode, path)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "is read-only", path)
    try:
        _replace_whole(path, data, before)
    except OSError as error:
        # A single file mounted into a container cannot be renamed over; a directory may be closed to us, its file open.
        if before is None or error.errno not in (errno.EBUSY, errno.EACCES, errno.EPERM, errno.EXDEV):
            raise
        with open(path, "r+b") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


def _replace_whole(path: str, data: bytes, before: os.stat_result | None) -> None:
    folder = os.path.dirname(path)
    temporary, descriptor = _create_beside(folder)
    try:
        with open(descriptor, "wb") as file:
            if before is not None:
                _take_over(descriptor, before)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(folder)


def _create_beside(folder: str) -> tuple[str, int]:
    """A new file with the mode that a new file gets here (mkstemp's would be private)."""
    for number in itertools.count():
        temporary = os.path.join(folder, f".cairn-{os.getpid()}-{number}.tmp")
        try:
            return temporary, os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:  # another write's, or left by a crash of a process that had our pid
            continue
    raise AssertionError("unreachable")


def _take_over(descriptor: int, before: os.stat_result) -> None:
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.fchown(descriptor, before.st_uid, before.st_gid)
        except PermissionError:
            pass  # a file of another user that we may write becomes ours, as with every editor that saves by renaming
    os.fchmod(descriptor, modes.S_IMODE(before.st_mode))


def _sync_directory(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems cannot sync a directory; the rename is then as durable as they make it
    finally:
        os.close(descriptor)


def stat(path: str) -> FileInfo | None:
    """What is there, links followed; a link that leads nowhere is itself there."""
    for follow in (True, False):
        try:
            return _info(path, os.stat(path, follow_symlinks=follow))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
                raise
    return None


def entries(path: str) -> list[FileInfo]:
    """A directory's entries by name."""
    found = []
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                found.append(_info(entry.path, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:  # removed while we looked
                continue
    return sorted(found, key=lambda info: info.path)


def _info(path: str, status: os.stat_result) -> FileInfo:
    mode = status.st_mode
    kinds = ((modes.S_ISREG, "file"), (modes.S_ISDIR, "directory"), (modes.S_ISLNK, "symlink"))
    kind = next((name for test, name in kinds if test(mode)), "other")
    return FileInfo(path, kind, status.st_size, modes.S_IMODE(mode), status.st_mtime)


def remove(path: str) -> None:
    """Nothing is there any more. Idempotent."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
            return
        _sync_directory(str(Path(path).parent))
    except FileNotFoundError:
        return
