"""Opening a store's files, in the order that makes each step safe; and closing them.

Beside the database `x.db` lie `x.db-wal` and `x.db-shm` (SQLite's), `x.db.turn` and `x.db.wait` (the turn of writers),
`x.db.users` (who has it open) and `x.db.ballast` (the reserve). Only the first two hold data.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from cairn.errors import StoreError, StoreFormat, StoreUnsupported
from cairn.runtime.storage.ballast import Ballast
from cairn.runtime.storage.connection import CANTOPEN, NOTADB, READONLY, Connect, Connection, SqlError, configure, store_error
from cairn.runtime.storage.format import (
    Users,
    is_current,
    is_older,
    migrate,
    quick_check,
    require_local,
    require_ours,
    require_sqlite,
    sync_directory,
)
from cairn.runtime.storage.queries import query
from cairn.runtime.storage.turn import Turn, busy

MEMORY = ":memory:"

#: What an operating system says of a place where no store can be: trying again cannot help.
_NOT_A_PLACE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR})


@dataclass(slots=True)
class Files:
    """An open store's writing connection and the files beside it; a store in memory has only the first."""

    connection: Connection
    turn: Turn | None = None
    users: Users | None = None
    ballast: Ballast | None = None

    def close(self) -> None:
        """Nothing is held any more. The database is closed before others may think that nobody has it."""
        _close_quietly(self.connection)
        if self.users is not None:
            self.users.close()
        if self.turn is not None:
            self.turn.close()


def open_files(
    path: str, connect: Connect, boot: str, *, busy_seconds: float, mounts: str | None = None, ballast: bool = True
) -> Files:
    """A store of the current format, checked, ready to write.

    Raises StoreUnsupported, StoreFormat, StoreCorrupt, StoreFull, StoreBusy, StoreError; then nothing is left open.
    """
    require_sqlite()
    if path == MEMORY:
        return _open_memory(connect)
    directory = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(directory, exist_ok=True)
        require_local(directory, mounts)
        _require_database(path)
        turn, users = Turn(path), Users(path + ".users")
    except OSError as error:
        kind = StoreUnsupported if error.errno in _NOT_A_PLACE else StoreError
        raise kind(f"the store {path} cannot be opened: {error}. Check the path and its permissions.") from error
    try:
        connection = _open_database(path, connect, boot, turn, users, busy_seconds)
    except BaseException:
        users.close()
        turn.close()
        raise
    reserve = Ballast(path + ".ballast") if ballast else None
    if reserve is not None:
        reserve.hold()
    return Files(connection, turn, users, reserve)


def _open_memory(connect: Connect) -> Files:
    connection = connect(MEMORY)
    configure(connection, memory=True)
    migrate(connection, MEMORY)
    return Files(connection)


def _require_database(path: str) -> None:
    """Raises StoreFormat for a file that is no database, before anything could be written to it."""
    if os.path.isdir(path):
        raise StoreFormat(f"{path} is a directory; name a file in it, such as {os.path.join(path, 'cairn.db')}")
    if os.path.exists(path + "-wal") or os.path.exists(path + "-journal"):
        return  # after a power cut the first page may be torn here and whole there: SQLite has to put it together first
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        return
    if start and start != b"SQLite format 3\0":
        raise StoreFormat(f"{path} is not a database. Name another file for the store.")


def _open_database(path: str, connect: Connect, boot: str, turn: Turn, users: Users, busy_seconds: float) -> Connection:
    directory = os.path.dirname(os.path.abspath(path))
    size = os.path.getsize(path) if os.path.exists(path) else 0
    suspicious = users.enter(boot, os.path.exists(path + "-wal"), size)
    connection = None
    try:
        connection = connect(path)
        # A foreign file must not even get our journal mode.
        require_ours(connection, path)
        configure(connection, memory=False)
        if suspicious:
            quick_check(connection, path)
        if not is_current(connection) or connection.execute(query("workers_of_other_boots"), (boot,)) != [(0,)]:
            if is_older(connection):
                users.require_alone(path)
            _bring_up(connection, path, boot, turn, busy_seconds)
        # Also for a file that was there: whoever made it may have died before its name, or the end of its rollback journal,
        # was certain.
        sync_directory(directory)
        users.checked(boot)
        return connection
    except BaseException as error:
        if connection is not None:
            _close_quietly(connection)
        if isinstance(error, SqlError):
            raise _unopened(error, path) from error
        if isinstance(error, OSError):
            raise StoreError(f"the store {path} cannot be opened: {error}") from error
        raise


def _bring_up(connection: Connection, path: str, boot: str, turn: Turn, busy_seconds: float) -> None:
    """The only writing that opening does, and so the only wait: a current store opens beside a writer that is stopped."""
    if not turn.take_within(busy_seconds):
        raise busy(path, turn.holder())
    try:
        migrate(connection, path)
        connection.execute(query("drop_workers_of_other_boots"), (boot,))
    finally:
        turn.give()


def _unopened(error: SqlError, path: str) -> Exception:
    if error.code == NOTADB:
        return StoreFormat(f"{path} is not a database ({error}). Name another file for the store.")
    if error.code in (READONLY, CANTOPEN):
        return StoreUnsupported(f"the store {path} cannot be opened for writing ({error}). Check the path and its permissions.")
    return store_error(error, path)


def _close_quietly(connection: Connection) -> None:
    try:
        connection.close()
    except SqlError:
        pass  # everything confirmed is in the log; what closing would have tidied up, the next opening does
