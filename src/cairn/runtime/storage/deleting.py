"""Deleting an instance: what nobody shares is gone, what forks share is hidden until the last of them goes too.

One transaction of its own. Freed pages are overwritten with zeros, so that what was deleted is in the file no more once the
write-ahead log has been moved and emptied (wal.py does that when the store is next idle, or closed).
"""

from __future__ import annotations

from cairn.runtime.storage.connection import Connection, overwriting
from cairn.runtime.storage.queries import query

#: Everything of an instance that no fork can share.
PRIVATE = ("admissions", "producers", "alarms", "references", "snapshot")


def delete(connection: Connection, n: int, now: float) -> bool:
    """The instance is deleted in the open transaction; False when there is none."""
    if not connection.execute(query("bury"), {"n": n, "now": now}):
        return False
    with overwriting(connection):
        _forget(connection, n, now)
    return True


def _forget(connection: Connection, n: int | None, now: float) -> None:
    """Remove it, and then each source that was only kept for it."""
    while n is not None:
        [(shared,)] = connection.execute(query("find_shared"), (n,))
        if shared is not None:
            _hide(connection, n, shared, now)
            return
        source = connection.execute(query("find_source"), (n,))
        connection.execute(query("forget_instance"), (n,))
        n = next((source_n for source_n, deleted_at in source if deleted_at is not None), None)


def _hide(connection: Connection, n: int, shared: int, now: float) -> None:
    """Only what forks share is left, and nobody can ask for it but through them."""
    connection.execute(query("forget_address"), {"n": n, "offset": shared, "now": now})
    connection.execute(query("forget_rows"), (n, shared))
    connection.execute(query("forget_checkpoints"), (n, shared))
    for what in PRIVATE:
        connection.execute(query(f"forget_{what}"), (n,))
