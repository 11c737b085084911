"""The store's reading threads, each with a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

from cairn.runtime.storage.connection import Connect, Connection, SqlError, configure, store_error

T = TypeVar("T")

#: Threads that read. A read takes well under a millisecond and holds the GIL for most of it; the second is for long ones.
READERS = 2


class Readers:
    """Threads with a connection each."""

    def __init__(self, where: str, connect: Connect) -> None:
        self._where = where
        self._connect = connect
        self._pool = ThreadPoolExecutor(READERS, "cairn-reader")
        self._free: SimpleQueue[Connection] = SimpleQueue()

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)

    async def close(self, first: Callable[[], None]) -> None:
        """Nothing reads any more. `first` is done here too, since it waits."""
        await asyncio.get_running_loop().run_in_executor(self._pool, first)
        await asyncio.get_running_loop().run_in_executor(self._pool, self._close)
        self._pool.shutdown()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            try:
                connection = self._free.get_nowait()
            except Empty:
                connection = reader(self._where, self._connect)
            try:
                return work(connection)
            finally:
                self._free.put(connection)
        except SqlError as error:
            raise store_error(error, self._where) from error

    def _close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait().close()


def reader(where: str, connect: Connect, busy_ms: int | None = None) -> Connection:
    """A connection that only reads, or makes checkpoints."""
    connection = connect(where)
    configure(connection, memory=False)
    if busy_ms is not None:
        connection.execute(f"pragma busy_timeout={busy_ms}")
    return connection
