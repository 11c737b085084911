"""Processes that serve a scenario and are killed: `python -m tests.system.loop_victim`, one JSON order a line on stdin.

The server imports everything once and forks a process for each order, so that a victim costs no interpreter start and is
a process all the same: its own locks, threads, store and memory. Time runs faster in it than outside (`SPEED`), for it
waits for retries and deadlines in earnest.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import msgspec
from tests.crash.scenarios import BY_NAME, Scenario

from cairn.harness.application import AgentApplication
from cairn.harness.handle import ConversationHandle
from cairn.harness.loop import Services
from cairn.ids import SystemIds
from cairn.runtime.owners import OwnerLocks
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address
from cairn.runtime.worker import Worker, WorkerSettings
from cairn.testing.faults import Crash, FaultyStore
from cairn.testing.play import CONVERSATION, all_settled
from cairn.testing.world import Witness, World

#: Seconds that pass in a victim while one passes outside: a retry of 40 s is waited for, and 0.4 s of silence still shows.
SPEED = 10.0

#: Fast seconds: far beyond any victim's life. What is tested here is death, which a lock proves, not an expired lease.
LEASE_SECONDS = 100_000.0

#: Seconds outside before a victim that hangs is killed by its alarm clock, and the test fails.
PATIENCE_SECONDS = 30


class Order(msgspec.Struct):
    """Serve this scenario in this directory until it is settled, or until the point of death is reached."""

    scenario: str
    directory: str
    base: float
    """The wall clock when time began to run fast."""
    die_at: int | None = None
    when: str = "before"


class FastSelector(selectors.DefaultSelector):
    """Waits as long as it is told, in fast seconds."""

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / SPEED if timeout is not None and timeout > 0 else timeout)


class FastLoop(asyncio.SelectorEventLoop):
    def time(self) -> float:
        return time.monotonic() * SPEED


class FastClock:
    """The machine's clocks, fast since `base`; the same for all processes that share it."""

    def __init__(self, base: float) -> None:
        self._base = base

    def wall(self) -> float:
        return self._base + (time.time() - self._base) * SPEED

    def monotonic(self) -> float:
        return time.monotonic() * SPEED

    def boottime(self) -> float:
        return time.monotonic() * SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


async def serve(scenario: Scenario, order: Order) -> None:
    """One life: until the client is done and all work is settled. SIGKILL at the point of death."""
    directory, clock, ids = Path(order.directory), FastClock(order.base), SystemIds()
    world = World(directory / "world.jsonl")
    agent = scenario.agent(world)
    inner = SqliteStore(str(directory / "cairn.db"), clock=clock, ids=ids)
    crash = None if order.die_at is None else Crash(order.die_at, order.when)  # type: ignore[arg-type]
    store = FaultyStore(Witness(inner, world), crash=crash, faults=frozenset(), clock=clock, on_crash=_kill_myself)
    await store.open()
    application = AgentApplication(agent, Services(resolve=lambda model: model), str(directory))  # type: ignore[arg-type,return-value]
    conversation = ConversationHandle(application, store, clock, ids, Address(agent.name, CONVERSATION))
    settings = WorkerSettings(lease_seconds=LEASE_SECONDS)
    owners = OwnerLocks(directory / "owners")
    async with Worker(store, [application], clock=clock, ids=ids, owners=owners, settings=settings) as worker:
        await scenario.client(conversation, world)
        await all_settled(application, store, conversation.address)
        await worker.idle()
    await store.close()


def _kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def victim(order: Order) -> None:
    """The forked process; it never returns."""
    status = 1
    try:
        signal.alarm(PATIENCE_SECONDS)
        with asyncio.Runner(loop_factory=lambda: FastLoop(FastSelector())) as runner:
            runner.run(serve(BY_NAME[order.scenario], order))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        pid = os.fork()
        if pid == 0:
            victim(order)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
