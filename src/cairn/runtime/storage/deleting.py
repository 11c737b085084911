"""Deleting an instance: hidden from everybody in one small transaction, then purged a piece per transaction.

In pieces, so that no append ever waits for a large log to go, nor a full disk for room to write down that it is gone. What
forks share is not purged until the last of them goes too. Purging goes on where it was left: when a store is opened, when
the next instance is deleted, when content is collected. Freed pages are overwritten with zeros, so that what was
deleted is not in the file any more once the write-ahead log has been moved and emptied (wal.py).
"""

from __future__ import annotations

from cairn.runtime.storage.connection import Connection, overwriting
from cairn.runtime.storage.queries import query

#: One transaction's worth of rows, and of their content: an append behind it waits for some ms.
PIECE_ROWS = 256
PIECE_BYTES = 1 << 20

#: Content stored later than this may be about to be referred to by somebody else: it is left to `collect_blobs`. Between
#: storing and referring lie seconds.
CONTENT_GRACE_SECONDS = 3_600.0


def delete(connection: Connection, n: int, now: float) -> bool:
    """The instance is hidden in the open transaction, for good; False when there is none."""
    if not connection.execute(query("bury"), {"n": n, "now": now}):
        return False
    connection.execute(query("hide_instance"), {"n": n, "now": now})
    connection.execute(query("hide_alarms"), (n,))
    return True


def is_purged(connection: Connection) -> bool:
    """Whether nothing of deleted instances is left but what forks share."""
    return not connection.execute(query("purge_next"))


def purge(connection: Connection, now: float) -> bool:
    """A piece of what deleted instances left is gone in the open transaction; False when there was none."""
    found = connection.execute(query("purge_next"))
    if not found:
        return False
    [(n, offset, shared)] = found
    floor = shared if shared is not None else -1 if offset is None else offset
    with overwriting(connection):
        if not _purge_keys(connection, n) and not _purge_content(connection, n, now - CONTENT_GRACE_SECONDS):
            _purge_rows(connection, n, floor)
        if shared is None and connection.execute(query("purge_sizes"), (n, floor, 1)) == []:
            connection.execute(query("purge_instance"), (n,))  # and by its key whatever is still there
    return True


def _purge_keys(connection: Connection, n: int) -> bool:
    """A piece of what belongs to no row; False when there was none."""
    piece = {"n": n, "limit": PIECE_ROWS}
    return any(connection.execute(query(name), piece) for name in ("purge_admissions", "purge_producers"))


def _purge_content(connection: Connection, n: int, before: float) -> bool:
    """A piece of the content only it refers to; False when it refers to none."""
    found = connection.execute(query("purge_content"), (n, PIECE_ROWS))
    size = 0
    for blob, weight in found:
        if size and size + weight > PIECE_BYTES:
            break
        connection.execute(query("purge_reference"), (n, blob))
        connection.execute(query("purge_blob"), {"blob": blob, "before": before})
        size += weight
    return bool(found)


def _purge_rows(connection: Connection, n: int, floor: int) -> None:
    """The newest rows above `floor`, so that what is left is a log that ends earlier, whole (S2)."""
    first, end, size = floor + 1, floor, 0
    for ordinal, prev, weight in connection.execute(query("purge_sizes"), (n, floor, PIECE_ROWS)):
        if size and size + weight > PIECE_BYTES:
            break
        first, end = ordinal, prev
        size += weight
    connection.execute(query("purge_rows"), (n, first))
    connection.execute(query("purge_checkpoints"), (n, floor))
    connection.execute(query("purge_snapshot"), (n,))
    connection.execute(query("purge_dumps"), (n,))
    connection.execute(query("purge_head"), (end, size, n))
