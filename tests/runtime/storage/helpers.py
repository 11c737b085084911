"""Small moves shared by the tests of the SQLite store."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from cairn.ids import SystemIds
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.connection import Connection, Parameters, SqliteConnection
from cairn.runtime.storage.store import Address, Append, Batch, Creation
from cairn.testing.contract import SkewedClock

#: A folder in memory where there is one: most tests here are not about the disk.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@contextmanager
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        yield path


def make(path: str, **more: Any) -> SqliteStore:
    """A store that is not yet open, without the megabyte of reserve."""
    return SqliteStore(path, **{"clock": SkewedClock(), "ids": SystemIds(), "ballast": False, "boot": "first boot", **more})


async def opened(path: str, **more: Any) -> SqliteStore:
    store = make(path, **more)
    await store.open()
    return store


async def born(store: SqliteStore, id: str = "one", **more: Any) -> int:
    creation = Creation(f"uid of {id}", "incarnation", Batch(b'["born"]'), 1.0)
    request = Append(0, Batch(b'["asked"]'), **more)
    return (await store.admit(Address("toy", id), creation, request)).n


def tamper(path: str, sql: str, *parameters: object) -> None:
    """Change a closed store behind its back."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql, parameters)


class Watched(SqliteConnection):
    """A connection that writes down its statements."""

    def __init__(self, path: str, said: list[str]) -> None:
        super().__init__(path)
        self._said = said

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        self._said.append(sql)
        return super().execute(sql, parameters)


def watched(said: list[str]) -> Any:
    def connect(path: str) -> Connection:
        return Watched(path, said)

    return connect
