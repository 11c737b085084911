"""One open database connection: the seam between the store and a SQLite driver.

This is the only file that imports `sqlite3`. Everything else talks to `Connection`, so that the same SQL and the same
code run over the standard library's driver and over one with faults in its disk (`cairn.testing.disk`).
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

from cairn.errors import CairnError, StoreBusy, StoreCorrupt, StoreError, StoreFull

#: STRICT tables, RETURNING, UPDATE FROM and the JSON operators all exist from here on (February 2022).
SQLITE_VERSION_MIN = (3, 38, 0)

#: How long SQLite itself waits for a lock. Only a fallback: processes queue for the write turn first (turn.py).
BUSY_MS = 10_000

#: Statements kept prepared per connection: all of queries.sql, its multi-row forms included, several times over.
STATEMENTS_CACHED = 256

#: Page cache of one connection, in KiB: the hot pages of a few thousand instances.
CACHE_KIB = 8_192

# Primary result codes of SQLite (sqlite.org/rescode.html) that the store tells apart.
BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN = 5, 6, 8, 10, 11, 13, 14
TOOBIG, CONSTRAINT, NOTADB = 18, 19, 26
IOERR_FSYNC, IOERR_DIR_FSYNC, IOERR_SHMSIZE = 10 | 4 << 8, 10 | 5 << 8, 10 | 19 << 8


class SqlError(Exception):
    """What a driver raised: SQLite's extended result code and message."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.extended = code
        self.code = code & 0xFF


#: What a statement's arguments come as: in order, or by name.
Parameters: TypeAlias = Sequence[object] | Mapping[str, object]


class Connection(Protocol):
    """A connection in autocommit mode; transactions are begun and ended by statements. Raises SqlError."""

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement."""
        ...

    def rows(self, sql: str, parameters: Parameters = ()) -> Generator[tuple[Any, ...], None, None]:
        """The rows of one statement as they are found; closing the iterator ends the statement."""
        ...

    @property
    def in_transaction(self) -> bool: ...

    def close(self) -> None: ...


Connect = Callable[[str], Connection]


class SqliteConnection:
    """A connection of the standard library's driver. Used by one thread at a time, not bound to one."""

    def __init__(self, path: str) -> None:
        try:
            self._db = sqlite3.connect(
                path,
                timeout=BUSY_MS / 1000,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=STATEMENTS_CACHED,
            )
        except sqlite3.Error as error:
            raise _translated(error) from error

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise _translated(error) from error

    def rows(self, sql: str, parameters: Parameters = ()) -> Generator[tuple[Any, ...], None, None]:
        try:
            cursor = self._db.execute(sql, parameters)
            try:
                yield from cursor
            finally:
                cursor.close()
        except sqlite3.Error as error:
            raise _translated(error) from error

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def close(self) -> None:
        try:
            self._db.close()
        except sqlite3.Error as error:
            raise _translated(error) from error


def _translated(error: sqlite3.Error) -> SqlError:
    return SqlError(str(error), getattr(error, "sqlite_errorcode", 1))


def sqlite_version() -> tuple[int, int, int]:
    """The version of the SQLite library in this process."""
    return sqlite3.sqlite_version_info


def configure(connection: Connection, *, memory: bool) -> None:
    """Say everything that differs between builds of SQLite, or that a default leaves unsafe."""
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "secure_delete=FAST",
        "temp_store=MEMORY",
        f"cache_size=-{CACHE_KIB}",
        "synchronous=FULL",
    ):
        connection.execute(f"pragma {pragma}")
    if memory:
        return
    [(mode,)] = connection.execute("pragma journal_mode=WAL")
    if str(mode).lower() != "wal":
        raise StoreError(f"the database cannot use a write-ahead log here (journal mode is {mode!r})")
    connection.execute("pragma wal_autocheckpoint=0")
    if sys.platform == "darwin":
        connection.execute("pragma fullfsync=1")
        connection.execute("pragma checkpoint_fullfsync=1")


@contextmanager
def moment(connection: Connection) -> Generator[None, None, None]:
    """What is read in the block is of one moment, whoever writes meanwhile."""
    if connection.in_transaction:
        yield
        return
    connection.execute("begin")
    try:
        yield
    finally:
        connection.execute("rollback")


@contextmanager
def overwriting(connection: Connection) -> Generator[None, None, None]:
    """Pages freed in the block are zeroed, at the cost of writing each of them once more: for what somebody wants gone."""
    connection.execute("pragma secure_delete=ON")
    try:
        yield
    finally:
        connection.execute("pragma secure_delete=FAST")


def store_error(error: SqlError, where: str) -> CairnError:
    """The error of the caller's world for what SQLite said about the store at `where`."""
    if error.code == FULL or error.extended == IOERR_SHMSIZE:
        return StoreFull(f"{where}: the disk or a quota is full ({error}). Nothing was written; free space and try again.")
    if error.code in (BUSY, LOCKED):
        return StoreBusy(f"{where}: another connection holds the database ({error}). Nothing was written; try again.")
    if error.code in (CORRUPT, NOTADB):
        return StoreCorrupt(f"{where}: the database file is damaged ({error}). Stop, copy the file, run `cairn store check`.")
    return StoreError(f"{where}: SQLite failed ({error}, code {error.extended}). Nothing was written.")
