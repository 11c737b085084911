"""A real worker in a real process, for the tests that kill, stop and hide it.

    python worker_process.py DIRECTORY              one worker, until a signal
    python worker_process.py DIRECTORY --nursery    reads `start` lines and forks a worker for each (imports once, so that a
                                                    storm of kills is not a storm of imports); prints its pid

Its fibers write one line per effect to `DIRECTORY/effects`: fiber, step, epoch, pid. Appends of a line are atomic.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.runtime.toy import Toy

from cairn.clock import SystemClock
from cairn.errors import StepUnknown
from cairn.ids import SystemIds
from cairn.runtime.fiber import Fiber
from cairn.runtime.storage import SqliteStore, threaded  # noqa: F401 - imported once, before the nursery forks
from cairn.runtime.worker import Worker, WorkerSettings

STEPS = 4


def application(directory: Path, pause: float) -> Toy:
    """Fibers that leave a trace in the world at each step."""
    effects = os.open(directory / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def touch(fiber: Fiber, what: str) -> str:
        os.write(effects, f"{fiber.id} {what} {fiber.instance.epoch} {os.getpid()}\n".encode())
        await asyncio.sleep(pause)
        return what

    async def steps(fiber: Fiber) -> list[str]:
        return [await fiber.step(f"s{i}", lambda i=i: touch(fiber, f"s{i}")) for i in range(STEPS)]  # type: ignore[misc]

    async def never(fiber: Fiber) -> str:
        try:
            return await fiber.step("launch", lambda: touch(fiber, "launch"), repeat="never")
        except StepUnknown:
            return await fiber.step("report", lambda: touch(fiber, "report"))

    async def keyed(fiber: Fiber) -> str:
        return await fiber.step("pay", lambda: touch(fiber, f"pay:{fiber.key('pay')}"), repeat="keyed")

    async def stash(fiber: Fiber) -> Any:
        for number in range(fiber.snapshot or 0, STEPS):
            await touch(fiber, f"n{number}")
            await fiber.stash(number + 1)
        return fiber.snapshot

    async def nap(fiber: Fiber) -> str:
        await fiber.sleep("nap", pause * 4)
        return await fiber.step("woke", lambda: touch(fiber, "woke"))

    async def beat(fiber: Fiber) -> None:
        """Runs until it is stopped, and shows that it does."""
        while True:
            await touch(fiber, "beat")

    async def forked(fiber: Fiber) -> None:
        """Leaves a child behind that outlives this process, with all its descriptors."""
        if (child := os.fork()) == 0:
            signal.pause()
        (directory / f"child-{child}").touch()
        await beat(fiber)

    async def rings(fiber: Fiber) -> str:
        try:
            return await fiber.step("ring", lambda: touch(fiber, "ring"), repeat="never")
        except StepUnknown:
            return "unknown"

    async def talks(fiber: Fiber) -> list[Any]:
        heard = await fiber.wait("go")
        answer = await fiber.ask("sure?", heard)
        return [heard, answer.value(), answer.by, await fiber.step("done", lambda: touch(fiber, "done"))]

    found = (steps, never, keyed, stash, nap, beat, forked, rings, talks)
    return Toy({method.__name__: method for method in found})


async def work(directory: Path, settings: WorkerSettings, pause: float) -> None:
    clock, ids = SystemClock(), SystemIds()
    store = SqliteStore(str(directory / "cairn.db"), clock=clock, ids=ids)
    await store.open()
    try:
        await Worker(store, [application(directory, pause)], clock=clock, ids=ids, settings=settings).serve()
    finally:
        await store.close()


def nursery(directory: Path, settings: WorkerSettings, pause: float) -> None:
    """Fork a worker per line of the standard input. Has no event loop and no store of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asyncio.run(work(directory, settings, pause))
            os._exit(0)
        print(pid, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--nursery", action="store_true")
    parser.add_argument("--lease", type=float, default=15.0)
    parser.add_argument("--sweep", type=float, default=0.2)
    parser.add_argument("--pause", type=float, default=0.01)
    options = parser.parse_args()
    settings = WorkerSettings(lease_seconds=options.lease, sweep_seconds=options.sweep, idle_seconds=0.5)
    if options.nursery:
        nursery(options.directory, settings, options.pause)
    else:
        asyncio.run(work(options.directory, settings, options.pause))


if __name__ == "__main__":
    main()
