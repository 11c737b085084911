"""Merging: the rows of a settled block become one row at the last of their ordinals, which says what it stands for (S3).

One transaction of its own. What is not exactly as the caller saw it is left alone: somebody was faster, or a fork needs it.
"""

from __future__ import annotations

from cairn.runtime.storage.connection import Connection
from cairn.runtime.storage.queries import query
from cairn.runtime.storage.row import checksum
from cairn.runtime.storage.store import Batch


def merge(connection: Connection, n: int, first: int, last: int, batch: Batch) -> bool:
    """The range is one row in the open transaction; False, and nothing written, when it is not a range that can be."""
    around = {"n": n, "first": first, "last": last}
    size = _mergeable(connection, n, first, last)
    if size is None:
        return False
    [(prev, epoch)] = connection.execute(query("merge_ends"), around)
    sum = checksum(n, last, prev, epoch, batch.records, batch.chunks, batch.projection, first)
    connection.execute(query("merge_away"), around)
    content = {"projection": batch.projection, "checksum": sum, "records": batch.records, "chunks": batch.chunks}
    connection.execute(query("merge_into"), {**around, **content, "prev": prev})
    connection.execute(query("merge_weight"), (len(batch.records) + len(batch.chunks) - size, n))
    # A fold, or a reader's state, that ends inside could not be continued: the next row holds what it has already.
    connection.execute(query("merge_checkpoints"), around)
    connection.execute(query("merge_snapshots"), around)
    return True


def _mergeable(connection: Connection, n: int, first: int, last: int) -> int | None:
    """What the rows weigh; None when they are not to be merged."""
    if connection.execute(query("find_n"), (n,)) == []:
        return None
    around = {"n": n, "first": first, "last": last}
    [(count, lowest, highest, merged, size)] = connection.execute(query("merge_range"), around)
    if count < 2 or (lowest, highest) != (first, last) or merged:
        return None
    return int(size) if connection.execute(query("merge_forks"), around) == [(0,)] else None
