"""Reading: functions of a connection, without state. What is read from the log is verified before it is returned (S2, S14)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

from cairn.errors import StoreCorrupt
from cairn.runtime.storage.connection import Connection
from cairn.runtime.storage.queries import query
from cairn.runtime.storage.row import checksum
from cairn.runtime.storage.store import Address, Batch, DueRow, InstanceRow, Row, WorkerRow


def find(connection: Connection, address: Address) -> InstanceRow | None:
    rows = connection.execute(query("find_address"), (address.tenant, address.kind, address.id))
    return _instance(rows[0]) if rows else None


def instance(connection: Connection, n: int) -> InstanceRow | None:
    rows = connection.execute(query("find_n"), (n,))
    return _instance(rows[0]) if rows else None


def instances(connection: Connection, kind: str | None, tenant: str | None, after: int, limit: int) -> list[InstanceRow]:
    arguments = {"after": after, "kind": kind, "tenant": tenant, "limit": limit}
    return [_instance(row) for row in connection.execute(query("find_page"), arguments)]


def _instance(row: tuple[Any, ...]) -> InstanceRow:
    n, tenant, kind, id, uid, incarnation, head, reserved, epoch, owner, created_at = row
    return InstanceRow(n, Address(kind, id, tenant), uid, incarnation, head, reserved, epoch, owner, created_at)


def rows(connection: Connection, n: int, after: int, limit: int, bytes_max: int) -> list[Row]:
    """Verified rows after an ordinal. Raises StoreCorrupt naming the instance and the ordinal."""
    # One more than asked for: the first row only says where the log stood. Closed even when a row is refused: an open
    # statement would keep the write-ahead log from ever beginning again.
    with closing(connection.rows(query("read_rows"), {"n": n, "after": after, "limit": limit + 1})) as cursor:
        found, last, head = _verified(n, cursor, limit, bytes_max)
    if last is None:
        last, head = -1, heads(connection, [n]).get(n, -1)
    if last < head and last != _MORE:
        raise StoreCorrupt(_damaged(n, head, f"is missing: the log ends at {last}"))  # S2
    return found


#: In place of the last ordinal, when there are rows that were not asked for.
_MORE = -2


def _verified(n: int, cursor: Iterable[tuple[Any, ...]], limit: int, bytes_max: int) -> tuple[list[Row], int | None, int]:
    """The rows; where the log ends, None when no row at all was found; the head at that moment."""
    found: list[Row] = []
    before: int | None = None
    size, head = 0, -1
    for ordinal, prev, epoch, merged_from, projection, stored, records, chunks, now in cursor:
        head = now
        if records is None:
            before = ordinal
            continue
        size += len(records) + len(chunks)
        if found and (size > bytes_max or len(found) == limit):
            return found, _MORE, head
        _verify_link(n, ordinal, prev, -1 if before is None else before)
        if checksum(n, ordinal, prev, epoch, records, chunks, projection, merged_from) != stored:
            raise StoreCorrupt(_damaged(n, ordinal, "does not match its checksum"))  # S14
        found.append(Row(ordinal, prev, epoch, Batch(records, chunks, projection), merged_from))
        before = ordinal
    return found, (_MORE if len(found) >= limit else before), head


def _verify_link(n: int, ordinal: int, prev: int, before: int) -> None:
    if prev != before:
        raise StoreCorrupt(_damaged(n, ordinal, f"follows {prev}, but the row before it is {before}"))  # S2


def _damaged(n: int, ordinal: int, what: str) -> str:
    return f"instance {n}, ordinal {ordinal}: the row {what}. Nothing after it is read; restore a backup."


def heads(connection: Connection, numbers: Iterable[int]) -> dict[int, int]:
    """The heads of those instances that exist."""
    return dict(connection.execute(query("heads_of"), (json.dumps(sorted(numbers)),)))


def workers(connection: Connection) -> list[WorkerRow]:
    return [
        WorkerRow(id, host, pid, tuple(json.loads(kinds)), started_at, lease_until, lock)
        for id, host, pid, kinds, started_at, lease_until, lock in connection.execute(query("all_workers"))
    ]


def due(connection: Connection, kinds: Sequence[str], now: float, limit: int, exclude: Sequence[str]) -> list[DueRow]:
    lists = {"kinds": json.dumps(list(kinds)), "excluded": json.dumps(list(exclude))}
    return [
        DueRow(n, Address(kind, id, tenant), name, due_at, epoch, owner)
        for n, tenant, kind, id, name, due_at, epoch, owner in connection.execute(
            query("due_now"), {"now": now, "limit": limit, **lists}
        )
    ]


def next_due(connection: Connection, kinds: Sequence[str], after: float | None) -> float | None:
    found = connection.execute(query("due_next"), {"kinds": json.dumps(list(kinds)), "after": after})
    return found[0][0] if found else None


def checkpoint(connection: Connection, n: int, at_or_before: int | None) -> tuple[int, bytes] | None:
    found = connection.execute(query("find_checkpoint"), {"n": n, "ordinal": at_or_before})
    return (found[0][0], found[0][1]) if found else None
