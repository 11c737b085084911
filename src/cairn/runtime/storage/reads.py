"""Reading: functions of a connection, without state. What is read from the log is verified before it is returned (S2, S14)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

from cairn.errors import StoreCorrupt
from cairn.runtime.storage.connection import Connection, moment
from cairn.runtime.storage.lineage import lineage
from cairn.runtime.storage.queries import query
from cairn.runtime.storage.row import checksum
from cairn.runtime.storage.store import Address, Batch, DueRow, InstanceRow, Row, WorkerRow


def find(connection: Connection, address: Address) -> InstanceRow | None:
    rows = connection.execute(query("find_address"), (address.tenant, address.kind, address.id))
    return _instance(rows[0]) if rows else None


def instance(connection: Connection, n: int) -> InstanceRow | None:
    rows = connection.execute(query("find_n"), (n,))
    return _instance(rows[0]) if rows else None


def page(
    connection: Connection,
    kind: str | None,
    tenant: str | None,
    after: int,
    limit: int,
    newest_first: bool,
    before: int | None,
    alarm: str | None,
) -> list[InstanceRow]:
    """A page of instances, in one of the three orders a listing may have."""
    arguments: dict[str, Any] = {"after": after, "kind": kind, "tenant": tenant, "limit": limit}
    name = "find_page"
    if alarm is not None:
        name, arguments["alarm"] = "find_alarmed", alarm
    elif newest_first:
        name = "find_newest" if kind is None or tenant is None else "find_newest_of_kind"
        arguments["before"] = _ABOVE_ALL if before is None else before
    return [_instance(row) for row in connection.execute(query(name), arguments)]


#: SQLite's largest integer.
_ABOVE_ALL = (1 << 63) - 1


def _instance(row: tuple[Any, ...]) -> InstanceRow:
    n, tenant, kind, id, *more = row
    uid, incarnation, head, reserved, epoch, owner, created_at, source, offset, size = more
    address = Address(kind, id, tenant)
    return InstanceRow(n, address, uid, incarnation, head, reserved, epoch, owner, created_at, source, offset, size)


def rows(connection: Connection, n: int, after: int, limit: int, bytes_max: int) -> list[Row]:
    """Verified rows after an ordinal. Raises StoreCorrupt naming the instance and the ordinal."""
    page = _Page(n, limit, bytes_max)
    # One more than asked for: the first row only says where the log stood. Closed even when a row is refused: an open
    # statement would keep the write-ahead log from ever beginning again.
    with closing(connection.rows(query("read_rows"), {"n": n, "after": after, "limit": limit + 1})) as cursor:
        first = next(cursor, None)
        head, offset = first[8:] if first is not None else (heads(connection, [n]).get(n), None)
        if head is None:
            return []
        if offset is None or after >= offset:
            page.take(chain([first] if first is not None else [], cursor), base=-1 if offset is None else offset)
            page.ends_at(head)
            return page.found
    return _shared(connection, page, after)


def _shared(connection: Connection, page: _Page, after: int) -> list[Row]:
    """The same of a fork, from a row that it shares on."""
    with moment(connection):
        for segment in lineage(connection, page.n):
            if page.is_full or segment.upto <= after:
                continue
            arguments = {"n": segment.n, "after": after, "upto": segment.upto, "limit": page.limit - len(page.found) + 1}
            with closing(connection.rows(query("read_shared"), arguments)) as cursor:
                page.take(cursor, base=segment.above, n=segment.n)
            page.ends_at(segment.upto)
    return page.found


class _Page:
    """Rows read so far, each verified: its checksum, and that it follows the one before it."""

    def __init__(self, n: int, limit: int, bytes_max: int) -> None:
        self.n = n
        self.limit = limit
        self.found: list[Row] = []
        self.is_full = False
        self._bytes_max = bytes_max
        self._bytes = 0
        self._last = -1

    def take(self, cursor: Iterable[tuple[Any, ...]], base: int, n: int | None = None) -> None:
        """The rows of instance `n` (this one's own by default); the first of all follows `base`."""
        owner = self.n if n is None else n
        self._last = base
        for ordinal, prev, epoch, merged_from, projection, stored, records, chunks, *_ in cursor:
            if records is None:  # where the log stood
                self._last = ordinal
                continue
            size = len(records) + len(chunks)
            if self.found and (self._bytes + size > self._bytes_max or len(self.found) == self.limit):
                self.is_full = True
                return
            self._bytes += size
            if prev != self._last:
                raise StoreCorrupt(_damaged(owner, ordinal, f"follows {prev}, but the row before it is {self._last}"))  # S2
            if checksum(owner, ordinal, prev, epoch, records, chunks, projection, merged_from) != stored:
                raise StoreCorrupt(_damaged(owner, ordinal, "does not match its checksum"))  # S14
            self.found.append(Row(ordinal, prev, epoch, Batch(records, chunks, projection), merged_from))
            self._last = ordinal
        self.is_full = len(self.found) >= self.limit

    def ends_at(self, head: int) -> None:
        """Raises StoreCorrupt when the rows ended by themselves, and before that ordinal."""
        if not self.is_full and self._last < head:
            raise StoreCorrupt(_damaged(self.n, head, f"is missing: the log ends at {self._last}"))  # S2


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


def snapshot(connection: Connection, n: int, projection: int) -> tuple[int, bytes] | None:
    found = connection.execute(query("find_snapshot"), (n, projection))
    return (found[0][0], found[0][1]) if found else None


def checkpoint(connection: Connection, n: int, at_or_before: int | None) -> tuple[int, bytes] | None:
    found = connection.execute(query("find_checkpoint"), {"n": n, "ordinal": at_or_before})
    return (found[0][0], found[0][1]) if found else None
