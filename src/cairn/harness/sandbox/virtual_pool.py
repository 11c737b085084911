"""The shell workers of one process: few, shared by all agents, gone when nobody has used them for a while.

Laws. A worker runs one command at a time and serves one tenant for all its life. Whoever waits longest is served first, and an
instance waits once, because its commands come one after another: so a hundred agents share the workers evenly. An agent that
does nothing costs nothing: its shell is bytes in its log.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from weakref import WeakKeyDictionary

from cairn.harness.sandbox.virtual_process import ShellProcess

#: Workers at work at the same time: commands that wait (sleep, network) leave the processor to others. About 40 MB each.
WORKERS_MAX = max(4, 2 * (os.cpu_count() or 1))

#: Workers that are kept for the next command, and for how long.
WARM_MAX = 2
WARM_SECONDS = 60.0

#: Commands after which a worker is replaced: whatever it has gathered in memory goes with it.
COMMANDS_MAX = 1_000

Start = Callable[[str], Awaitable[ShellProcess]]


class ShellPool:
    """Workers by tenant."""

    def __init__(self, start: Start = ShellProcess.start, *, workers_max: int = WORKERS_MAX, warm_max: int = WARM_MAX) -> None:
        self._start = start
        self._workers_max = workers_max
        self._warm_max = warm_max
        self._idle: list[ShellProcess] = []
        self._turns = 0
        """Commands that have a worker, or are about to."""
        self._working: set[ShellProcess] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timers: dict[ShellProcess, asyncio.TimerHandle] = {}
        self.is_closed = False

    @property
    def processes(self) -> int:
        """How many there are, at work or waiting for work."""
        return len(self._working) + len(self._idle)

    @property
    def pids(self) -> list[int]:
        """Of those that wait for work."""
        return [worker.pid for worker in self._idle]

    @asynccontextmanager
    async def worker(self, tenant: str) -> AsyncIterator[ShellProcess]:
        """A worker for one command. *Raises* SandboxError when none can be started."""
        await self._turn()
        worker = None
        try:
            worker = self._take(tenant) or await self._start(tenant)
            self._working.add(worker)
            yield worker
        finally:
            self._turns -= 1
            if worker is not None:
                self._working.discard(worker)
                self._put(worker)
            self._next()

    async def _turn(self) -> None:
        if self._turns < self._workers_max and not self._waiting:
            self._turns += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # given, and not taken: it is the next one's
                self._turns -= 1
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting and self._turns < self._workers_max:
            turn = self._waiting.popleft()
            if not turn.done():
                self._turns += 1
                turn.set_result(None)

    def _take(self, tenant: str) -> ShellProcess | None:
        """The worker of this tenant that was used last; one of somebody else's is ended when there would be too many."""
        for worker in reversed(self._idle):
            if worker.tenant == tenant:
                self._leave(worker)
                return worker
        if self._idle and self.processes >= self._workers_max:
            self._end(self._idle[0])
        return None

    def _put(self, worker: ShellProcess) -> None:
        if worker.is_dead:
            return
        if self.is_closed or worker.commands >= COMMANDS_MAX:
            worker.kill()
            return
        self._idle.append(worker)
        self._timers[worker] = asyncio.get_running_loop().call_later(WARM_SECONDS, self._end, worker)
        while len(self._idle) > self._warm_max:
            self._end(self._idle[0])

    def _leave(self, worker: ShellProcess) -> None:
        self._idle.remove(worker)
        self._timers.pop(worker).cancel()

    def _end(self, worker: ShellProcess) -> None:
        self._leave(worker)
        worker.kill()

    def close(self) -> None:
        """No worker waits for work, and those at work end with what they do. Idempotent."""
        self.is_closed = True
        for worker in tuple(self._idle):
            self._end(worker)


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool, ShellPool]] = WeakKeyDictionary()


def shared_pool(*, jail: bool = True) -> ShellPool:
    """The pool of the running event loop: the same for all its agents."""
    pools = _pools.setdefault(asyncio.get_running_loop(), {})
    if jail not in pools or pools[jail].is_closed:
        pools[jail] = ShellPool(partial(ShellProcess.start, needs_jail=jail))
    return pools[jail]
