"""A worker that runs the test's own methods in virtual time, and whoever talks to it: one call for most tests of fibers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.runtime.toy import Method, Toy, World

from cairn.runtime.client import Client, Receipt
from cairn.runtime.threads import Threads
from cairn.runtime.worker import Worker, WorkerSettings
from cairn.testing import Simulation, simulate

#: Fewer rounds per virtual hour than in production: what is due rings by itself.
SETTINGS = WorkerSettings(idle_seconds=0.0, sweep_seconds=60.0, poll_seconds=300.0, lease_seconds=900.0)


@dataclass
class Stage:
    """What the body of a test is given. The worker serves from the beginning."""

    simulation: Simulation
    world: World
    worker: Worker

    @property
    def client(self) -> Client:
        return self.world.client

    def now(self) -> float:
        return self.simulation.clock.wall()

    async def sleep(self, seconds: float) -> None:
        await self.simulation.clock.sleep(seconds)

    async def start(self, method: str = "run", arguments: Any = None, **options: Any) -> Receipt:
        return await self.client.accept("a", method, arguments, **options)

    async def result(self, receipt: Receipt) -> Any:
        return await self.client.result(receipt)

    async def quiet(self) -> None:
        """Nothing runs and nothing is due."""
        await self.worker.idle()

    async def kinds(self) -> list[str]:
        return [type(record).__name__ for record in await self.world.records()]


def new_worker(world: World, application: Toy, settings: WorkerSettings = SETTINGS) -> Worker:
    return Worker(world.store, [application], clock=world.clock, ids=world.ids, threads=Threads(inline=True), settings=settings)


def play(
    methods: Mapping[str, Method] | Method,
    body: Callable[[Stage], Awaitable[Any]],
    *,
    settings: WorkerSettings = SETTINGS,
) -> Any:
    """Run the body beside a worker that knows these methods (one is called `run`); what the body returns."""

    async def main(simulation: Simulation) -> Any:
        known = methods if isinstance(methods, Mapping) else {"run": methods}
        world = World(application=Toy(known), clock=simulation.clock, ids=simulation.ids)
        async with world, new_worker(world, world.application, settings) as worker:
            return await body(Stage(simulation, world, worker))

    return simulate(main, seed=0, faults=False).value
