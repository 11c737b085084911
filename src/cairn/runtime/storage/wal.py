"""The write-ahead log's size: moving committed pages into the database, off the path of the commits.

SQLite's own automatic checkpoint would do this inside some caller's commit. Here a second connection does it beside the
writer (PASSIVE), which never blocks it but also never catches up while it keeps writing; so a log that grew beyond a bound
is closed between two groups (RESTART), when PASSIVE has left little to move. When idle the file is emptied (TRUNCATE).
"""

from __future__ import annotations

from cairn.runtime.storage.connection import IOERR, Connection, SqlError

#: Log written between two PASSIVE checkpoints. Each costs two syncs: at 16 MiB that is one per some thousand appends.
PASSIVE_BYTES = 16 << 20

#: The log beyond which the writer stops for a RESTART. Reading it back after a crash takes about 0.1 s.
RESTART_BYTES = 64 << 20

#: What a write adds to the log beside its content: its instance's page and its index page.
PAGES_BYTES_PER_WRITE = 8_192

PAGE_BYTES = 4_096


class Wal:
    """The log of one database, seen from a connection that only makes checkpoints."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._written = 0
        self._length = 0
        self.is_running = False

    def wrote(self, writes: int, size: int) -> None:
        self._written += size + writes * PAGES_BYTES_PER_WRITE

    @property
    def wants_passive(self) -> bool:
        return self._written >= PASSIVE_BYTES and not self.is_running

    @property
    def wants_restart(self) -> bool:
        return self._length >= RESTART_BYTES and not self.is_running

    @property
    def wants_truncate(self) -> bool:
        return self._written > 0 and not self.is_running

    def passive(self) -> None:
        """Move what can be moved without waiting for anybody. Raises SqlError."""
        self._written = 0
        self._checkpoint("passive")

    def restart(self) -> None:
        """Move the rest, so that the log begins again. Called with the write turn."""
        self._length = 0
        self._checkpoint("restart")

    def truncate(self) -> None:
        """Move the rest and empty the file. Called with the write turn."""
        self._written = self._length = 0
        self._checkpoint("truncate")

    def close(self) -> None:
        self._connection.close()

    def _checkpoint(self, mode: str) -> None:
        try:
            [(_, pages, _)] = self._connection.execute(f"pragma wal_checkpoint({mode})")
        except SqlError as error:
            if error.code == IOERR:
                raise
            return  # busy or full: the log stays longer until the next time
        self._length = max(0, pages) * PAGE_BYTES
