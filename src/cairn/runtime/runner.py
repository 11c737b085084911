"""One activated instance at work: which of its fibers run now, until nothing is left to do.

Laws. What can run is computed from the fold each time something changed; nothing is remembered but the tasks themselves.
A task that ends while its fiber is neither settled nor parked has lost track of its effects: the instance is dropped, not
continued, so that the next claim counts an attempt and recovery decides (S9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

from cairn.errors import Fenced
from cairn.runtime.fiber import Fiber, Interrupted, Parked, backoff_seconds, error_info
from cairn.runtime.instance import Instance
from cairn.runtime.state import FiberState, Phase

logger = logging.getLogger("cairn.runtime")


def ready_at(fiber: FiberState) -> float | None:
    """When a fiber may run, in wall seconds: 0 is now, None is not before something else happens."""
    if fiber.abort is not None or fiber.phase is Phase.ACCEPTED:
        return 0.0
    if fiber.phase is Phase.RUNNING:
        return fiber.resumed_at + backoff_seconds(fiber.interrupted)
    return fiber.parked_until


class Runner:
    """Runs one instance until it is idle for `idle_seconds`, is fenced, or is told to stop; then it hibernates."""

    def __init__(self, instance: Instance, *, idle_seconds: float) -> None:
        self.instance = instance
        self.idle_seconds = idle_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask for a clean stop: nothing new is started, what runs is interrupted and goes on elsewhere."""
        self._stop.set()

    async def run(self) -> None:
        """Returns when the instance is released or fenced. *Cancelled*: tasks are cancelled, the instance is dropped."""
        watcher = asyncio.create_task(self.instance.watch())
        try:
            clean = await self._until_idle(watcher)
        except BaseException:
            await self._cancel_all()
            raise
        else:
            await self._cancel_all()
            await self._release(clean)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _until_idle(self, watcher: asyncio.Task[None]) -> bool:
        """Start what can run until there is nothing, and say whether the end is a clean one."""
        clock = self.instance.clock
        idle_since = clock.monotonic()
        while not (self.instance.fenced or self._stop.is_set()):
            changed = self.instance.changed()
            try:
                if not self._reap():
                    return False
                wake = self._start_ready()
                if self._tasks:
                    idle_since = clock.monotonic()
                now = clock.wall()
                linger = self.idle_seconds - (clock.monotonic() - idle_since)
                if not self._tasks and linger <= 0 and (wake is None or wake > now):
                    return True
                limits = [max(0.0, wake - now)] if wake is not None else []
                if not self._tasks:
                    limits.append(max(0.0, linger))
                timeout = min(limits, default=None)
            except BaseException:
                changed.close()
                raise
            await self._wait(changed, watcher, timeout)
        return True

    async def _wait(self, changed: Coroutine[Any, Any, Any], watcher: asyncio.Task[None], timeout: float | None) -> None:
        extra = [asyncio.ensure_future(changed), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait({*extra, watcher, *self._tasks.values()}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in extra:
                future.cancel()
        if watcher.done() and not self.instance.fenced:
            watcher.result()

    def _candidates(self) -> Iterator[FiberState]:
        fibers = self.instance.runtime.unsettled()
        yield from fibers[:1] if self.instance.application.serial else fibers

    def _start_ready(self) -> float | None:
        """Start every fiber that may run now; return when the next one may."""
        now, wake = self.instance.clock.wall(), None
        for fiber in self._candidates():
            if fiber.id in self._tasks:
                continue
            at = ready_at(fiber)
            if at is not None and at <= now:
                self._tasks[fiber.id] = asyncio.create_task(self._run(Fiber(self.instance, fiber.id)))
            elif at is not None:
                wake = at if wake is None else min(wake, at)
        return wake

    async def _run(self, fiber: Fiber) -> None:
        try:
            await self.instance.application.run(fiber)
        except (Parked, Interrupted, Fenced):
            return
        except Exception as error:
            if self.instance.fenced or fiber.state.is_settled:
                return
            logger.exception("fiber '%s' of %s failed", fiber.id, self.instance.address)
            await fiber.settle("failed", error=error_info(error))

    def _reap(self) -> bool:
        """Forget finished tasks; False when one of them left its fiber running."""
        sound = True
        for id, task in list(self._tasks.items()):
            if not task.done():
                continue
            del self._tasks[id]
            if not task.cancelled() and isinstance(error := task.exception(), BaseException):
                if isinstance(error, Fenced):
                    continue
                raise error
            state = self.instance.runtime.fiber(id)
            sound = sound and (state is None or state.phase in (Phase.SETTLED, Phase.PARKED))
        return sound

    async def _cancel_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _release(self, clean: bool) -> None:
        try:
            await self.instance.release(clean=clean)
        except Fenced:
            return
