"""Looking after a store: what is wrong with it, a copy of it, its numbers. Reads only; safe beside writers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from cairn.errors import NotFound, StoreCorrupt, StoreError, UsageError
from cairn.runtime.storage import blobs
from cairn.runtime.storage.connection import Connect, Connection
from cairn.runtime.storage.format import FORMAT, sync_directory
from cairn.runtime.storage.opening import MEMORY
from cairn.runtime.storage.queries import query
from cairn.runtime.storage.row import checksum
from cairn.runtime.storage.store import Problem, StoreInfo

#: Instances, or contents, looked at per statement: no read lasts so long that the write-ahead log cannot begin again.
PAGE = 100

#: SQLite's own findings that are reported, at most.
PAGE_PROBLEMS_MAX = 50


def check(connection: Connection) -> list[Problem]:
    """Everything that is wrong: pages, keys, checksums, links, rows that name what is not there, content."""
    return [
        *_check_pages(connection),
        *_check_keys(connection),
        *_check_logs(connection),
        *_check_blobs(connection),
    ]


def _check_pages(connection: Connection) -> Iterator[Problem]:
    for (found,) in connection.execute(f"pragma integrity_check({PAGE_PROBLEMS_MAX})"):
        if found != "ok":
            yield Problem("pages", str(found))


def _check_keys(connection: Connection) -> Iterator[Problem]:
    for table, row, parent, _ in connection.execute("pragma foreign_key_check"):
        yield Problem(f"table {table}", f"row {row} refers to a row of {parent} that is not there")


class _Numbers(NamedTuple):
    """What an instance's row says of its log."""

    n: int
    tenant: str
    kind: str
    id: str
    head: int
    reserved: int
    epoch: int
    source: int | None
    offset: int | None
    deleted_at: float | None
    bytes: int

    @property
    def where(self) -> str:
        if self.deleted_at is not None:
            return f"instance {self.n} (deleted)"
        return f"instance {self.n} ({self.kind}/{self.id} of tenant {self.tenant})"


def _check_logs(connection: Connection) -> Iterator[Problem]:
    after = 0
    while page := connection.execute(query("check_instances"), (after, PAGE)):
        for instance in page:
            yield from _check_log(connection, _Numbers(*instance))
        after = page[-1][0]


def _check_log(connection: Connection, numbers: _Numbers) -> Iterator[Problem]:
    """What is wrong now, if anything is: an instance may have been appended to, or deleted, since its numbers were read."""
    found, end, size = _read_log(connection, numbers)
    if (end, size) != (numbers.head, numbers.bytes):
        again = connection.execute(query("check_instance"), (numbers.n,))
        if not again:
            return
        numbers = _Numbers(*again[0])
        found, end, size = _read_log(connection, numbers)
    yield from found
    if end != numbers.head and not _moved(connection, numbers):
        yield Problem(numbers.where, f"the log ends at {end}, but the head is {numbers.head}")
    if size != numbers.bytes and not _moved(connection, numbers):
        yield Problem(numbers.where, f"its rows weigh {size} bytes, but it says {numbers.bytes}")
    if numbers.head > numbers.reserved:
        yield Problem(numbers.where, f"the head is {numbers.head}, above what is reserved ({numbers.reserved})")
    yield from _check_place(connection, numbers)
    for table, key in connection.execute(query("check_beyond"), {"n": numbers.n, "head": max(end, numbers.head)}):
        yield Problem(numbers.where, f"{table} {key!r} names an ordinal that the log does not have")


def _read_log(connection: Connection, numbers: _Numbers) -> tuple[list[Problem], int, int]:
    """What is wrong with an instance's own rows, the last ordinal, and what they weigh."""
    problems: list[Problem] = []
    before, newest = -1 if numbers.offset is None else numbers.offset, 0
    size = 0
    with closing(connection.rows(query("check_rows"), (numbers.n,))) as rows:
        for ordinal, prev, of, merged_from, projection, stored, records, chunks in rows:
            row = f"{numbers.where}, ordinal {ordinal}"
            if prev != before:
                problems.append(Problem(row, f"follows {prev}, but the row before it is {before}"))
            if checksum(numbers.n, ordinal, prev, of, records, chunks, projection, merged_from) != stored:
                problems.append(Problem(row, "does not match its checksum"))
            if merged_from is not None and not prev < merged_from < ordinal:
                problems.append(Problem(row, f"stands for rows from {merged_from} on, which is not between {prev} and it"))
            if of < newest:
                problems.append(Problem(row, f"has epoch {of} after epoch {newest}"))
            before, newest = ordinal, max(newest, of)
            size += len(records) + len(chunks)
    if newest > numbers.epoch:
        problems.append(Problem(numbers.where, f"the log has epoch {newest}, above the instance's ({numbers.epoch})"))
    return problems, before, size


def _moved(connection: Connection, numbers: _Numbers) -> bool:
    """Whether the instance is being written to just now: then its numbers and its rows were of two moments."""
    return connection.execute(query("check_instance"), (numbers.n,)) != [tuple(numbers)]


def _check_place(connection: Connection, numbers: _Numbers) -> Iterator[Problem]:
    """A fork begins at a row of its source."""
    if numbers.source is not None and connection.execute(query("check_offset"), (numbers.source, numbers.offset)) == [(0,)]:
        yield Problem(numbers.where, f"begins after ordinal {numbers.offset} of instance {numbers.source}, which is not there")


def _check_blobs(connection: Connection) -> Iterator[Problem]:
    after = 0
    while page := connection.execute(query("check_blobs"), (after, PAGE)):
        for blob, tenant, hash, size in page:
            where = f"content {hash} of tenant {tenant}"
            try:
                if len(blobs.get(connection, tenant, hash)) != size:
                    yield Problem(where, f"is not {size} bytes long")
            except NotFound:
                pass  # collected since the page was read
            except StoreCorrupt as error:
                yield Problem(where, str(error))
            after = blob


def backup(connection: Connection, path: str, partial: str, connect: Connect) -> None:
    """A consistent copy at `path`. It appears there whole or not at all. Raises UsageError when something is there.

    The copy belongs to no boot and no process: whoever opens it continues above every ordinal that the original had
    reserved, and finds no owner alive.
    """
    if os.path.exists(path):
        raise UsageError(f"{path} exists; a backup never overwrites. Name another file.")
    try:
        connection.execute("vacuum into ?", (partial,))
        _detach(partial, connect)
        _sync(partial)
        os.link(partial, path)  # unlike a rename, fails when somebody was faster
        sync_directory(os.path.dirname(os.path.abspath(path)))
    except FileExistsError:
        raise UsageError(f"{path} exists; a backup never overwrites. Name another file.") from None
    except OSError as error:
        raise StoreError(f"the backup {path} could not be written: {error}") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _detach(path: str, connect: Connect) -> None:
    copy = connect(path)
    try:
        copy.execute("pragma foreign_keys=ON")
        copy.execute("delete from workers")
        copy.execute("update instances set boot = ''")
    finally:
        copy.close()


def _sync(path: str) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def info(connection: Connection, where: str, boot: str) -> StoreInfo:
    """Sizes and settings."""
    [(instances, rows, workers)] = connection.execute(query("info"))
    [(pages,)] = connection.execute("pragma page_count")
    [(size,)] = connection.execute("pragma page_size")
    [(mode,)] = connection.execute("pragma journal_mode")
    [(sqlite,)] = connection.execute("select sqlite_version()")
    settings = {"journal": str(mode), "sqlite": str(sqlite), "boot": boot, "workers": str(workers)}
    if where != MEMORY and os.path.exists(where + "-wal"):
        settings["wal_bytes"] = str(os.path.getsize(where + "-wal"))
    return StoreInfo(where, FORMAT, instances, rows, pages * size, settings)
