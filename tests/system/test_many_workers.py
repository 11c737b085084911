"""Several worker processes on one file, while others append to the instances they own: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.runtime.toy import run
from tests.system.processes import Observer, Process, until

from cairn.testing import check_log

pytestmark = pytest.mark.system

WORKERS = 3
CLIENTS = 2
INSTANCES = 24
REQUESTS = 96


def test_workers_share_the_work_of_one_file_and_foreign_requests_reach_the_owner(tmp_path: Path) -> None:
    """S1 S2 S4 S5, L1: three owners and two clients: no gap, no duplicate, every step done once."""

    async def main() -> None:
        async with Observer(tmp_path) as one, Observer(tmp_path) as two:
            with ExitStack() as stack:
                for _ in range(WORKERS):
                    stack.enter_context(Process(tmp_path, "--pause", "0.005"))
                await until(lambda: registered(one), "all workers are registered")

                accepted = await asyncio.gather(*(send(observer, name) for name, observer in (("one", one), ("two", two))))

                ids = set().union(*accepted)
                await until(lambda: settled(one, ids), "everything settles")
            await judge(one, ids)

    run(main(), seconds=120)


async def registered(observer: Observer) -> bool:
    return len(await observer.store.workers()) == WORKERS


async def send(observer: Observer, name: str) -> set[str]:
    """Requests to instances that have owners by then: both clients write to the same ones."""
    found = set()
    for number in range(REQUESTS // CLIENTS):
        receipt = await observer.client.accept(f"i{number % INSTANCES}", "steps", key=f"{name}-{number}")
        found.add(receipt.fiber)
    return found


async def settled(observer: Observer, ids: set[str]) -> bool:
    return sum(len(state.settled) for _, state in await observer.states()) == len(ids)


async def judge(observer: Observer, ids: set[str]) -> None:
    assert await observer.store.check() == []
    known: set[str] = set()
    for log, state in await observer.states():
        assert not list(check_log(log))
        assert all(fiber.outcome == "completed" and fiber.attempt == 1 for fiber in state.settled.values())
        known |= state.settled.keys()
    assert known == ids
    effects = observer.effects()
    assert max(Counter((effect.fiber, effect.what) for effect in effects).values()) == 1  # nobody died: nothing runs twice
    assert len({effect.pid for effect in effects}) > 1  # the first to look does not get everything
