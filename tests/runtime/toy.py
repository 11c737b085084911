"""A small application for the tests of the runtime: its methods are plain functions of the test, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from cairn.clock import Clock, SystemClock
from cairn.ids import Ids, SystemIds
from cairn.runtime import records as r
from cairn.runtime.client import Client
from cairn.runtime.fiber import Fiber
from cairn.runtime.instance import Instance
from cairn.runtime.method import run_method
from cairn.runtime.state import FiberState
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Store, WorkerRow

Method = Callable[[Fiber], Awaitable[Any]]


class Toy:
    """Methods take the fiber alone. Its own fold counts the records it has seen."""

    kind = "toy"
    records: tuple[type[r.Record], ...] = ()

    def __init__(self, methods: Mapping[str, Method] = {}, *, serial: bool = False) -> None:
        self.methods = methods
        self.serial = serial

    def initial(self) -> list[int]:
        return [0]

    def apply(self, state: list[int], record: r.Record, ordinal: int) -> None:
        state[0] += 1

    def dump(self, state: list[int]) -> bytes:
        return str(state[0]).encode()

    def load(self, data: bytes) -> list[int]:
        return [int(data)]

    projection = 0

    def project(self, state: Any, records: Sequence[r.Record]) -> bytes:
        return b""

    def progress(self, record: r.Record) -> str | None:
        return None

    def declares(self, schedule: str) -> bool:
        return False

    def refusal(self, state: Any, records: Sequence[r.Record]) -> str | None:
        return None

    async def tidy(self, instance: Any) -> None:
        return None

    def blocked(self, fiber: FiberState) -> r.ErrorInfo | None:
        if fiber.method in self.methods:
            return None
        return r.ErrorInfo(kind="unknown_method", message=f"toy has no method '{fiber.method}'")

    async def run(self, fiber: Fiber) -> None:
        await run_method(fiber, lambda: self.methods[fiber.state.method](fiber))


class World:
    """A store in memory (or a given one), a client, and as many owners as a test needs."""

    def __init__(
        self, store: Store | None = None, *, application: Toy | None = None, clock: Clock | None = None, ids: Ids | None = None
    ) -> None:
        self.clock = clock or SystemClock()
        self.ids = ids or SystemIds()
        self.store = store or SqliteStore(":memory:", inline=True, clock=self.clock, ids=self.ids)
        self.application = application or Toy()
        self.client = Client(self.store, self.application, clock=self.clock, ids=self.ids)

    async def __aenter__(self) -> World:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def activate(self, id: str = "a", worker: str = "w1") -> Instance:
        """Claim the instance as it is; it has to exist."""
        row = await self.store.find(self.client.address(id))
        assert row is not None
        lease = WorkerRow(worker, "host", 1, ("toy",), 0.0, 0.0)
        await self.store.register(lease, 1e9, lambda: True)
        instance = await Instance.activate(self.store, self.clock, self.ids, self.application, row, worker)
        assert instance is not None
        return instance

    async def records(self, id: str = "a") -> list[r.Record]:
        """Everything in the instance's log."""
        row = await self.store.find(self.client.address(id))
        assert row is not None
        decode = r.decoder(self.application.records).decode
        return [record for row in await self.store.read(row.n, -1, limit=100_000) for record in decode(row.batch.records)]


def run(main: Coroutine[Any, Any, None], *, seconds: float = 30) -> None:
    """Run an asynchronous test; one that hangs fails."""

    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await main

    asyncio.run(limited())
