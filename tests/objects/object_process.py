"""A real process that runs objects, for the tests that kill it: `python object_process.py DIRECTORY`, until a signal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime.connections import Connection
from cairn.runtime.object import DurableObject, ObjectApplication, callable
from cairn.runtime.request import Request
from cairn.runtime.storage import SqliteStore
from cairn.runtime.worker import Worker, WorkerSettings


@dataclass
class Entries:
    tokens: list[str] = field(default_factory=list)


class Ledger(DurableObject[Entries]):
    @callable
    async def add(self, token: str) -> int:
        self.state.tokens.append(token)
        self.broadcast(token)
        await asyncio.sleep(0.01)
        return len(self.state.tokens)

    @callable(read_only=True)
    async def read(self) -> list[str]:
        return self.state.tokens

    @callable
    async def grow(self, name: str) -> int:
        return int(await self.sub_object(Ledger, name).add(name))

    @callable
    async def lines(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
            await asyncio.sleep(0.05)

    async def on_connect(self, connection: Connection, request: Request) -> None:
        connection.send("hello")


async def main(directory: Path) -> None:
    clock, ids = SystemClock(), SystemIds()
    store = SqliteStore(str(directory / "cairn.db"), clock=clock, ids=ids)
    await store.open()
    try:
        settings = WorkerSettings(sweep_seconds=0.2, idle_seconds=0.5)
        await Worker(store, [ObjectApplication(Ledger)], clock=clock, ids=ids, settings=settings).serve()
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
