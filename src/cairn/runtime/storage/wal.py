"""The write-ahead log's size: moving committed pages into the database, off the path of the commits.

SQLite's own automatic checkpoint would do this inside some caller's commit. Here a second connection does the bulk of it
beside the writer, which neither blocks the other. While the writer goes on, that never quite catches up; so the writer
then moves the few pages that are left, between two groups, and SQLite begins the log again in place. That matters: a commit
that overwrites the log costs half of one that makes the file longer, because the file system need not record a new length.
For the same reason an idle log is moved but not emptied unless it has grown long.
"""

from __future__ import annotations

import os

from cairn.runtime.storage.connection import IOERR, Connection, SqlError

#: Log written between two rounds. SQLite's own default is 1,000 pages, which is this.
ROUND_BYTES = 4 << 20

#: A log file longer than this is emptied when idle: some reader kept it from beginning again.
LONG_BYTES = 16 << 20

#: What a write adds to the log beside its content: its instance's page and its index page.
PAGES_BYTES_PER_WRITE = 8_192


class Wal:
    """The log of the database at `path`, seen from a connection that only makes checkpoints (all in PASSIVE or TRUNCATE)."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path + "-wal"
        self._written = 0
        self.is_running = False
        """The bulk is being moved beside the writer."""
        self.is_nearly_moved = False
        """The bulk was moved: the rest can be, by the writer."""
        self.is_to_be_emptied = False
        """Something in it was deleted and is to be gone, not only moved."""

    def wrote(self, writes: int, size: int) -> None:
        self._written += size + writes * PAGES_BYTES_PER_WRITE

    @property
    def wants_round(self) -> bool:
        return self._written >= ROUND_BYTES and not self.is_running

    @property
    def wants_rest(self) -> bool:
        """Something could be moved while nothing else is going on."""
        return (self._written > 0 or self.is_to_be_emptied) and not self.is_running

    def bulk(self) -> None:
        """Most of the log is moved; the writer may go on meanwhile. Raises SqlError."""
        self._written = 0
        self._checkpoint("passive")
        self.is_nearly_moved = True

    def rest(self) -> None:
        """All of the log is moved, if no reader is in the way. Called with the write turn."""
        self.is_nearly_moved = False
        self._checkpoint("passive")

    def idle(self) -> None:
        """All of the log is moved, and a long one emptied, or one that holds what was deleted. Called with the write turn."""
        self._written = 0
        is_long = os.path.exists(self._path) and os.path.getsize(self._path) > LONG_BYTES
        if self._checkpoint("truncate" if is_long or self.is_to_be_emptied else "passive"):
            self.is_to_be_emptied = False

    def truncate(self) -> None:
        """The log is empty, if no reader is in the way. Called with the write turn."""
        self._written = 0
        self._checkpoint("truncate")

    def close(self) -> None:
        try:
            self._connection.close()
        except SqlError:
            pass  # nothing depends on this connection any more

    def _checkpoint(self, mode: str) -> bool:
        """Whether it was done to the end. Busy or full: the log stays longer until the next time."""
        try:
            [(is_busy, *_)] = self._connection.execute(f"pragma wal_checkpoint({mode})")
        except SqlError as error:
            if error.code == IOERR:
                raise
            return False
        return not is_busy
