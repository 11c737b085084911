"""The waits of one running method: begun in the log, and parked together once nothing of the fiber runs beside them.

Laws. A method is parked only when all its branches wait: what runs in a step beside a wait is not cut off. How a wait ends is
read from the fold; what is kept here is only who in memory has to be told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cairn.runtime import records as r
from cairn.runtime.settings import PARK_GRACE_SECONDS
from cairn.runtime.waiting import nap

if TYPE_CHECKING:
    from cairn.runtime.fiber import Fiber


class Parking:
    """Where the branches of one method wait."""

    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber
        self._open: dict[str, tuple[r.FiberWaiting, asyncio.Future[None]]] = {}
        self._busy = 0
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.parked: asyncio.Future[None] | None = None
        """Done once the fiber is parked in the log: its method is to be unwound. None: nobody unwinds, nothing is parked."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Something of the fiber runs that a park would cut off."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._bell.set()

    async def wait(self, waiting: r.FiberWaiting) -> None:
        """Return once the wait is over; a fiber that is parked meanwhile is called again instead. *Raises* what the log did."""
        if self.parked is not None and self.parked.done():
            raise asyncio.CancelledError  # the method is being unwound, and is called again
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open[waiting.name] = (waiting, waiter)
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
            self._task.add_done_callback(self._ended)
        self._bell.set()
        try:
            await waiter
        finally:
            self._open.pop(waiting.name, None)

    async def close(self) -> None:
        """Nobody waits here any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # --- beside the method

    async def _watch(self) -> None:
        """Until the fiber is parked or its method has nothing to wait for any more."""
        instance = self._fiber.instance
        forget = instance.observe(self._bell.set)
        try:
            while self._open:
                self._bell.clear()
                await self._settle_down()
                self._release()
                if not self._open:
                    return
                if self._busy == 0 and self.parked is not None:
                    await self._park()
                    return
                await self._begin()
                await nap(self._bell, self._next())
                await self._end_due()
                self._release()
        finally:
            self._task = None
            forget()

    async def _settle_down(self) -> None:
        """Let branches that can go on do so: a method that has just begun to wait in one may begin to work in another."""
        known = -1
        while self._busy == 0 and known != len(self._open):
            known = len(self._open)
            await asyncio.sleep(PARK_GRACE_SECONDS)

    def _new(self) -> list[r.FiberWaiting]:
        """Waits that the log does not know."""
        state = self._fiber.state
        return [waiting for name, (waiting, _) in self._open.items() if name not in state.waits and not self._is_over(name)]

    async def _begin(self) -> None:
        """Waits beside work are in the log at once: their time runs from now, whatever becomes of this process."""
        if new := self._new():
            await self._fiber.instance.together.append(new)

    async def _park(self) -> None:
        """All waits, new ones and known ones, and the park are one commit."""
        assert self.parked is not None
        fiber, state = self._fiber, self._fiber.state
        new = self._new()
        until = {waiting.name: waiting.until for waiting in new} | {name: wait.until for name, wait in state.waits.items()}
        names = tuple(name for name in self._open if name in until)
        soonest = min(names, key=lambda name: (until[name] is None, until[name] or 0.0))
        now = fiber.instance.clock.wall()
        parked = r.FiberParked(fiber=fiber.id, name=soonest, at=now, until=until[soonest], waits=names)
        if len(names) == 1 and new and new[0].on == "sleep":
            await fiber.instance.together.append([r.FiberParked(fiber=fiber.id, name=soonest, at=now, until=until[soonest])])
        else:
            await fiber.instance.together.append([*new, parked])
        self.parked.set_result(None)

    def _next(self) -> float | None:
        """Seconds until the first of the waits is due."""
        times = [wait.until for name, wait in self._fiber.state.waits.items() if name in self._open and wait.until is not None]
        return max(0.0, min(times) - self._fiber.instance.clock.wall()) if times else None

    async def _end_due(self) -> None:
        """Waits whose time came while something else of the fiber ran."""
        now = self._fiber.instance.clock.wall()
        waits = self._fiber.state.waits
        due = [name for name in self._open if name in waits and (until := waits[name].until) is not None and until <= now]
        if due:
            await self._fiber.instance.together.append([r.FiberWaited(fiber=self._fiber.id, name=name, at=now) for name in due])

    def _is_over(self, name: str) -> bool:
        state = self._fiber.state
        return name in state.waited and name not in state.waits

    def _release(self) -> None:
        """Tell those whose wait the log says is over."""
        for name, (_, waiter) in self._open.items():
            if self._is_over(name) and not waiter.done():
                waiter.set_result(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """What the log raised is raised at those who wait."""
        error = None if task.cancelled() else task.exception()
        for _, waiter in list(self._open.values()):
            if not waiter.done() and error is not None:
                waiter.set_exception(error)
