"""What must hold before a file is used as a store: where it lies, what it is, which format, and how it was left.

A file is created, or migrated forward, in one transaction. A file that is not ours, or is newer than this code, is not
touched (S15). After an unclean stop of the machine the pages are checked before anything is read.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable

from cairn.errors import StoreBusy, StoreCorrupt, StoreFormat, StoreUnsupported
from cairn.runtime.storage.connection import SQLITE_VERSION_MIN, Connection, sqlite_version
from cairn.runtime.storage.queries import schema

#: "CaiR" in the file's header: `file(1)` and other programs can tell whose database it is.
APPLICATION_ID = int.from_bytes(b"CaiR", "big")

#: A store up to this size is checked after any unclean stop: that costs about as much as starting Python. A larger one only
#: when the machine itself stopped, since the death of a process leaves whole pages.
QUICK_CHECK_BYTES = 64 << 20

#: File systems whose locks or shared memory do not reach all processes that see the file (types as in /proc/mounts).
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs",
     "ocfs2", "gfs2", "virtiofs", "ncpfs", "coda", "afpfs", "webdav", "davfs"}
)  # fmt: skip
NETWORK_FUSE_PREFIXES = ("fuse.sshfs", "fuse.s3", "fuse.gcsfuse", "fuse.rclone", "fuse.glusterfs", "fuse.ceph", "fuse.goofys")

Migration = Callable[[Connection], None]


def _to(format: int) -> Migration:
    def migration(connection: Connection) -> None:
        for statement in schema(format):
            connection.execute(statement)

    return migration


#: Migration i brings a file from format i to i + 1. Forward only; a released entry, and its file, never changes.
MIGRATIONS: tuple[Migration, ...] = (_to(1), _to(2), _to(3))

FORMAT = len(MIGRATIONS)


def require_sqlite(version: tuple[int, int, int] | None = None) -> None:
    """Raises StoreUnsupported when the SQLite in this process is too old."""
    has = version or sqlite_version()
    if has < SQLITE_VERSION_MIN:
        raise StoreUnsupported(
            f"SQLite {'.'.join(map(str, has))} is too old; Cairn needs {'.'.join(map(str, SQLITE_VERSION_MIN))} or later"
        )


def require_local(directory: str, mounts: str | None = None) -> None:
    """Raises StoreUnsupported when the directory is on a network file system: its locks cannot be trusted."""
    found = file_system(os.path.realpath(directory), _mounts() if mounts is None else mounts)
    if found in NETWORK_FILE_SYSTEMS or found.startswith(NETWORK_FUSE_PREFIXES):
        raise StoreUnsupported(
            f"{directory} is on a network file system ({found}), where SQLite cannot lock safely. "
            "Put the store on a local disk."
        )


def file_system(path: str, mounts: str) -> str:
    """The type of the file system that holds an absolute path, from the text of /proc/mounts; "" when unknown."""
    best, found = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        at = fields[1].encode().decode("unicode_escape")
        is_above = path == at or path.startswith(at.rstrip("/") + "/")
        if is_above and len(at) >= len(best):  # the later of two mounts on one place is the visible one
            best, found = at, fields[2]
    return found


def _mounts() -> str:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""  # not Linux: SQLite's own locking checks are all there is


def boot_identity() -> str:
    """Names this boot of this machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return _boot_session() or "unknown"


def _boot_session() -> str:
    if sys.platform != "darwin":
        return ""
    import ctypes

    buffer = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(buffer))
    ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, 0)
    return buffer.value.decode("ascii")


def require_ours(connection: Connection, where: str) -> None:
    """Raises StoreFormat for a file of another program or of a newer Cairn. Changes nothing."""
    [(application,)] = connection.execute("pragma application_id")
    [(version,)] = connection.execute("pragma user_version")
    if application == APPLICATION_ID:
        if version > FORMAT:
            raise StoreFormat(
                f"{where} has store format {version}; this Cairn knows up to {FORMAT}. "
                "Upgrade Cairn; a store is never taken back."
            )
        return
    [(tables,)] = connection.execute("select count(*) from sqlite_schema")
    if application or version or tables:
        raise StoreFormat(f"{where} is a SQLite database, but not a Cairn store. Name another file.")


def is_current(connection: Connection) -> bool:
    """Whether the file has today's format already."""
    return connection.execute("pragma user_version") == [(FORMAT,)]


def is_older(connection: Connection) -> bool:
    """Whether the file is a store of a former format."""
    [(version,)] = connection.execute("pragma user_version")
    return 0 < int(version) < FORMAT


def migrate(connection: Connection, where: str, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """The file has the current format. One transaction: a crash leaves the old format, whole."""
    [(version,)] = connection.execute("pragma user_version")
    if version == len(migrations):
        return
    connection.execute("begin immediate")
    try:
        require_ours(connection, where)  # again, under the lock: two processes may create one file
        [(version,)] = connection.execute("pragma user_version")
        for migration in migrations[version:]:
            migration(connection)
        connection.execute(f"pragma application_id={APPLICATION_ID}")
        connection.execute(f"pragma user_version={len(migrations)}")
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def quick_check(connection: Connection, where: str) -> None:
    """Raises StoreCorrupt when pages of the file contradict each other."""
    found = [str(row[0]) for row in connection.execute("pragma quick_check(5)")]
    if found != ["ok"]:
        raise StoreCorrupt(f"{where} is damaged: {'; '.join(found)}. Restore a backup, or see `cairn store check`.")


def sync_directory(directory: str) -> None:
    """The directory's entries are on the disk."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class Users:
    """The processes that have the file open, as a shared `flock`; and in which boot the last of them opened it.

    SQLite removes the write-ahead log when the last connection closes. So a log that is found by a process that is alone
    means that the last stop was not clean.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._alone = False

    def enter(self, boot: str, wal_exists: bool, size: int) -> bool:
        """Join the users; True when the pages must be checked first. Whoever is alone keeps others out until `checked`."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            return False
        self._alone = True
        last = os.pread(self._file, 128, 0).decode("ascii", "replace").strip("\0\n ")
        return wal_exists and (last != boot or size <= QUICK_CHECK_BYTES)

    def require_alone(self, path: str) -> None:
        """Raises StoreBusy while another process has the file open: an older program would not understand what it reads."""
        if self._alone:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreBusy(
                f"{path} has an older format and is open in another process, which runs an older Cairn. "
                "Stop that process first; then the store is brought up to date."
            ) from None
        self._alone = True

    def checked(self, boot: str) -> None:
        if self._alone:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, boot.encode(), 0)
            fcntl.flock(self._file, fcntl.LOCK_SH)
            self._alone = False

    def close(self) -> None:
        os.close(self._file)
