"""An instance with a virtual sandbox, for tests: its workspace, what was remembered for it, and the same after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.workspace.desk import Desk

from cairn.harness.sandbox.protocol import Place
from cairn.harness.sandbox.virtual import VirtualSandbox, virtual
from cairn.harness.sandbox.virtual_pool import ShellPool, shared_pool


class Remembered:
    """What was remembered last; kept by the test, as the log keeps it."""

    def __init__(self) -> None:
        self.value: bytes | None = None

    async def __call__(self, value: bytes) -> None:
        self.value = value


class VirtualDesk:
    """`async with VirtualDesk() as desk:` — `desk.sandbox` is open; options are those of `virtual()`."""

    sandbox: VirtualSandbox

    def __init__(self, *, tenant: str = "one", pool: ShellPool | None = None, quota: Any = None, **options: Any) -> None:
        self.desk = Desk(quota=quota)
        self.remembered = Remembered()
        self.tenant = tenant
        self._pool = pool
        self._options = options

    async def __aenter__(self) -> VirtualDesk:
        await self.desk.__aenter__()
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sandbox.close()
        await self.desk.__aexit__()
        if self._pool is None:
            shared_pool().close()

    @property
    def files(self) -> Any:
        return self.desk.files

    async def open(self, **options: Any) -> VirtualSandbox:
        """The sandbox is opened (again), as after a restart: from what is durable."""
        place = Place(self.tenant, "uid", self.desk.files, self.remembered.value, self.remembered)
        self.sandbox = await virtual(**(self._options | options)).open("toy/a", "/nowhere", place)
        if self._pool is not None:
            self.sandbox.pool = self._pool
        return self.sandbox

    async def restart(self) -> VirtualSandbox:
        """Another owner folds the log and opens the sandbox."""
        await self.sandbox.close()
        await self.desk.claim()
        return await self.open()

    async def run(self, command: str, **options: Any) -> tuple[int, str]:
        result = await self.sandbox.exec(command, **options)
        return result.exit_code, result.output.decode()

    def tree(self) -> dict[str, str]:
        """Every path with its kind."""
        return {entry.path: entry.kind for entry in self.files.walk()}


@asynccontextmanager
async def desks(count: int, **options: Any) -> AsyncIterator[Sequence[VirtualDesk]]:
    """So many instances over one pool."""
    made = [VirtualDesk(**options) for _ in range(count)]
    for desk in made:
        await desk.__aenter__()
    try:
        yield made
    finally:
        for desk in made:
            await desk.__aexit__()
