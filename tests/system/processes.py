"""Starting, watching and judging real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.runtime.toy import Toy

from cairn.clock import SystemClock
from cairn.ids import SystemIds
from cairn.runtime import records as r
from cairn.runtime.client import Client
from cairn.runtime.state import RuntimeState
from cairn.runtime.storage import SqliteStore
from cairn.testing.history import Log, logs_of

ROOT = Path(__file__).parent.parent.parent

#: Seconds after which a test that waits for another process gives up. A guard, not a measurement.
PATIENCE_SECONDS = 40.0


def command(directory: Path, *options: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("worker_process.py")), str(directory), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


class Process:
    """One worker process of its own."""

    def __init__(self, directory: Path, *options: str, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen([*prefix, *command(directory, *options)], env=environment())

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


class Nursery:
    """Forks workers on demand; all of them are dead when it is left."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.pids: list[int] = []
        self._process = subprocess.Popen(
            command(directory, "--nursery", *options),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self) -> int:
        """The pid of a new worker."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("start\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        self.pids.append(pid)
        return pid

    def kill(self, pid: int) -> None:
        self.pids.remove(pid)
        os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pid in list(self.pids):
            try:
                self.kill(pid)
            except ProcessLookupError:
                pass
        self._process.kill()
        self._process.communicate()


class Observer:
    """The test's own face of the store: sends work, reads logs. Owns nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        clock, ids = SystemClock(), SystemIds()
        self.store = SqliteStore(str(directory / "cairn.db"), clock=clock, ids=ids)
        self.client = Client(self.store, Toy(), clock=clock, ids=ids)

    async def __aenter__(self) -> Observer:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def owner(self, id: str) -> tuple[str | None, int]:
        row = await self.store.find(self.client.address(id))
        return (None, 0) if row is None else (row.owner, row.epoch)

    async def until_owned(self, id: str, *, beyond: int = 0) -> int:
        """The instance has an owner of an epoch beyond the given one; which."""

        async def owned() -> bool:
            owner, epoch = await self.owner(id)
            return owner is not None and epoch > beyond

        await until(owned, f"{id} owned beyond epoch {beyond}")
        return (await self.owner(id))[1]

    async def states(self) -> list[tuple[Log, RuntimeState]]:
        """Every log and its fold, by a fold of the test's own: it refuses a second settlement and a repeated step."""
        decode = r.decoder().decode
        found = []
        for log in await logs_of(self.store):
            state = RuntimeState()
            for row in log.rows:
                for record in decode(row.batch.records):
                    state.apply(record, row.ordinal)
            found.append((log, state))
        return found

    def effects(self) -> list[Effect]:
        path = self.directory / "effects"
        lines = path.read_text().splitlines() if path.exists() else []
        return [Effect(fiber, what, int(epoch), int(pid)) for fiber, what, epoch, pid in (line.split() for line in lines)]


@dataclass(frozen=True)
class Effect:
    fiber: str
    what: str
    epoch: int
    pid: int


async def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Wait for another process to bring something about; how long that took. Fails after `seconds`."""
    start = time.monotonic()
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return time.monotonic() - start
        assert time.monotonic() - start < seconds, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)
