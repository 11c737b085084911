"""Who is provably dead: each worker holds a kernel lock for as long as its process lives.

A POSIX record lock (`fcntl.lockf`) is visible across pid namespaces, is gone the moment the process is, and is not
inherited by a forked child; so a lock that can be taken proves its owner dead, and nothing else does. Pids and boot ids
lie (containers share a boot and not the pids; pids are reused) and are recorded for people only.

Laws of POSIX locks, which shape this file:
- They belong to the process: closing *any* descriptor of the file drops the lock. So a file this process holds is never
  opened again here; `_held` says which those are. It is global because the lock is: two workers in one process must see
  each other alive.
- They are not seen by their own process: probing one's own file would succeed.
- A forked child holds none of its parent's: it starts with an empty `_held`.

A worker's file exists, locked, before its row does, and is removed after its row is; so a row without a file was tampered
with (or restored from a backup) and proves nothing: only its lease decides.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cairn.errors import StoreUnsupported
from cairn.runtime.storage.store import Store, WorkerRow

#: Descriptors of the locks this process holds, by (device, inode), and the process they belong to.
_held: dict[tuple[int, int], int] = {}
_owner_pid = -1
_guard = threading.Lock()

#: Tries to create and lock a file that a cleaner may be removing at that moment.
_HOLD_TRIES = 100


class Owners(Protocol):
    """How the workers of one store prove that they live."""

    @property
    def boot(self) -> str:
        """The identity of this boot, the first part of every lock's identity."""
        ...

    def hold(self, worker: str) -> str:
        """Take the worker's lock for the life of this process; its identity, for the worker's row."""
        ...

    def drop(self, worker: str) -> None:
        """Give the lock up. Only after the worker's row is gone."""
        ...

    def is_dead(self, row: WorkerRow) -> bool:
        """Whether the worker is *provably* dead. False is no proof of the contrary."""
        ...

    def forget(self, row: WorkerRow) -> None:
        """Remove what a dead worker left. Only after its row is gone."""
        ...


class LeaseOnly:
    """No proof is possible (a store in memory): a worker lives until its lease is over."""

    boot = ""

    def hold(self, worker: str) -> str:
        return ""

    def drop(self, worker: str) -> None: ...

    def is_dead(self, row: WorkerRow) -> bool:
        return False

    def forget(self, row: WorkerRow) -> None: ...


def beside(store: Store) -> Owners:
    """The lock files of a store that is a file, in the directory of that file; else nothing can be proved."""
    path = getattr(store, "path", ":memory:")
    return LeaseOnly() if path == ":memory:" else OwnerLocks(Path(path).resolve().parent / "owners")


class OwnerLocks:
    """Lock files in a directory beside the store: `<data dir>/owners/<worker id>`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.boot = boot_id()

    def hold(self, worker: str) -> str:
        """The file exists and is locked by this process until it ends (or `drop`). Raises StoreUnsupported."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self._path(worker)
        with _guard:
            _after_fork()
            for _ in range(_HOLD_TRIES):
                identity = _take(path)
                if identity is not None:
                    return f"{self.boot}:{identity[0]}:{identity[1]}"
        raise StoreUnsupported(f"{path} cannot be locked by its own worker; is {self.directory} on a local file system?")

    def drop(self, worker: str) -> None:
        path = self._path(worker)
        with _guard:
            _after_fork()
            identity = _identity(path)
            fd = _held.pop(identity, None) if identity is not None else None
            if fd is not None:
                path.unlink(missing_ok=True)
                os.close(fd)

    def is_dead(self, row: WorkerRow) -> bool:
        """Its file is the one it recorded, and its lock can be taken."""
        path = self._path(row.id)
        with _guard:
            _after_fork()
            identity = _identity(path)
            if identity is None or identity in _held or not self._recorded(row, identity):
                return False
            return _is_free(path)

    def forget(self, row: WorkerRow) -> None:
        if self.is_dead(row):
            self._path(row.id).unlink(missing_ok=True)

    def _recorded(self, row: WorkerRow, identity: tuple[int, int]) -> bool:
        """Whether the file at the worker's path is the file the worker locked, not a copy of it.

        Device numbers may change from boot to boot, so across boots the inode has to do.
        """
        boot, _, file = row.lock.partition(":")
        device, _, inode = file.partition(":")
        same_device = device == str(identity[0]) or boot != self.boot
        return same_device and inode == str(identity[1])

    def _path(self, worker: str) -> Path:
        return self.directory / worker


def boot_id() -> str:
    """What the kernel calls this boot; empty where it does not say (macOS)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _after_fork() -> None:
    global _owner_pid
    if _owner_pid != os.getpid():
        _held.clear()
        _owner_pid = os.getpid()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _take(path: Path) -> tuple[int, int] | None:
    """Create and lock the file; None when a cleaner was faster, and has removed it or is about to."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    opened = os.fstat(fd)
    identity = opened.st_dev, opened.st_ino
    if _identity(path) != identity:
        os.close(fd)
        return None
    _held[identity] = fd
    return identity


def _is_free(path: Path) -> bool:
    """Whether no process holds the lock. Probed with a shared lock, so that two who probe do not see each other."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        with suppress(OSError):
            os.close(fd)
