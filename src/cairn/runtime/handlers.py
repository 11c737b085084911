"""The turn of one object: its handlers, one after the other, in the order they came.

Laws. Whoever has the turn has it alone, to the end, awaits included; a handler that takes longer than it may is cut off, and
one that ignores that is left behind without the turn, unable to commit. Who waits for the turn when the object is on its way
out of memory has not begun and is told so. Abort, cancel and destroy do not wait for the turn: they cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cairn.clock import Clock
from cairn.errors import CallInterrupted, ObjectGone
from cairn.runtime.settings import CANCEL_GRACE_SECONDS
from cairn.runtime.waiting import nap

T = TypeVar("T")

logger = logging.getLogger("cairn.runtime")


class Leaving(Exception):
    """The instance is leaving this process's memory; what was asked of it has not begun. Ask again."""


class Cut(CallInterrupted):
    """The handler was cut off because its process stops, or lost the instance."""


class Handlers:
    """Who runs and who waits, of one activated instance."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.used_at = float("-inf")
        """When the last one ended, on the monotonic clock."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when nobody runs or waits any more."""
        self._clock = clock
        self._name = name
        self._turn = asyncio.Lock()
        self._count = 0
        self._ended = asyncio.Event()
        self._running: set[asyncio.Future[Any]] = set()
        self._is_closed = False
        self._is_gone = False

    @property
    def is_busy(self) -> bool:
        """Whether somebody runs or waits."""
        return self._count > 0

    @property
    def is_leaving(self) -> bool:
        """Whether nobody gets the turn any more, or for now."""
        return self._is_closed and not self._is_gone

    @asynccontextmanager
    async def turn(self, *, beside: bool = False) -> AsyncGenerator[None]:
        """The turn is the caller's in this block; with `beside`, only a place. *Raises* Leaving, ObjectGone: it was not had."""
        self._refuse()
        self._count += 1
        try:
            if beside:
                yield
            else:
                async with self._turn:
                    self._refuse()
                    yield
        finally:
            self._count -= 1
            self.used_at = self._clock.monotonic()
            if not self._count:
                self._ended.set()
                self.on_change()

    async def limited(self, work: Callable[[], Awaitable[T]], seconds: float, what: str) -> T:
        """What the work returns. *Cancelled*: it is, and waited for as long as a grace lasts. *Raises* TimeoutError after
        `seconds`; CallInterrupted, ObjectGone when it was cut."""
        task = asyncio.ensure_future(work())
        self._running.add(task)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if not done:
                raise TimeoutError(f"'{what}' of {self._name} took longer than its {seconds:g} s; nothing of it is committed")
            if task.cancelled():
                raise self._interrupted(what)
            return task.result()
        finally:
            await self._end(task)
            self._running.discard(task)

    def close(self) -> None:
        """From now on nobody gets the turn: Leaving."""
        self._is_closed = True

    def open(self) -> None:
        """The instance stays after all."""
        self._is_closed = False

    async def drain(self, seconds: float) -> None:
        """Nobody gets the turn any more, and who has it is given so long to end by itself, its commit included."""
        self.close()
        if self.is_busy:
            self._ended.clear()
            await nap(self._ended, seconds)

    async def cut(self, *, gone: bool = False) -> None:
        """Nobody gets the turn any more, and what runs has ended, or is left behind. `gone`: the object is destroyed."""
        self._is_closed, self._is_gone = True, gone
        for task in tuple(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=2 * CANCEL_GRACE_SECONDS)

    def _refuse(self) -> None:
        if self._is_gone:
            raise ObjectGone(f"{self._name} is destroyed")
        if self._is_closed:
            raise Leaving

    def _interrupted(self, what: str) -> Exception:
        if self._is_gone:
            return ObjectGone(f"{self._name} was destroyed while '{what}' ran; nothing of that is committed")
        return CallInterrupted(
            f"'{what}' of {self._name} was interrupted, because its process stops; nothing of it is committed"
        )

    async def _end(self, task: asyncio.Future[Any]) -> None:
        """Cancel what still runs, and give it a moment."""
        if task.done():
            return
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        task.cancel()
        if not (await asyncio.wait({task}, timeout=CANCEL_GRACE_SECONDS))[0]:
            logger.error("a handler of %s ignores its cancellation and is left behind: %r", self._name, task)
