"""One activated instance at work: which of its fibers run now, until nothing is left to do.

Laws. What can run is computed from the fold (`ready.py`) each time something changed; nothing is remembered but the tasks
themselves. A task that ends while its fiber is neither settled nor parked has lost track of its effects: the instance is
dropped, not continued, so that the next claim counts an attempt and recovery decides (S9). A store that fails is no
fault of the fiber's: that also drops the instance, and does not settle anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Any

from cairn.errors import Fenced, StoreError
from cairn.runtime import records as r
from cairn.runtime.destroying import finish, finish_subs
from cairn.runtime.fiber import Fiber
from cairn.runtime.handling import Handling
from cairn.runtime.instance import WAKE, Instance, wake_at, wake_now
from cairn.runtime.method import Interrupted, seen
from cairn.runtime.ready import candidates, due_schedules, next_occurrence, ready_at
from cairn.runtime.schedule import fire
from cairn.runtime.settings import (
    CANCEL_GRACE_SECONDS,
    CONNECTIONS_RECHECK_SECONDS_MAX,
    CONNECTIONS_RECHECK_SECONDS_MIN,
    DESTROY_WAIT_SECONDS,
)
from cairn.runtime.state import FiberState, Phase, backoff_seconds
from cairn.runtime.step import error_info
from cairn.runtime.storage.store import Due
from cairn.runtime.waiting import nap

logger = logging.getLogger("cairn.runtime")


#: Occurrences dealt with before fibers are looked at again: a schedule that catches up on a year must not starve the others.
FIRINGS_MAX = 100


class _End(Enum):
    IDLE = auto()
    STOPPED = auto()
    FENCED = auto()
    LOST = auto()
    DESTROYED = auto()


class Runner:
    """Runs one instance until it is idle for `idle_seconds`, is fenced, or is told to stop; then it hibernates.

    `on_quiet` is called whenever it finds nothing to do. After `tidy_seconds` of that the application may tidy up, beside
    whatever comes next.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        idle_seconds: float,
        tidy_seconds: float | None = None,
        on_quiet: Callable[[], None] = lambda: None,
    ) -> None:
        self.instance = instance
        self.idle_seconds = idle_seconds
        self.tidy_seconds = tidy_seconds
        self._is_quiet = False
        self._on_quiet = on_quiet
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[tuple[str, int], float] = {}
        self._bell = asyncio.Event()
        self._seen = -1
        self._stopping = False
        self._beside: set[asyncio.Task[None]] = set()
        instance.handlers.on_change = self._bell.set

    @property
    def is_quiet(self) -> bool:
        """Whether it has found nothing to do, and nobody has called since."""
        return self._is_quiet and not self.instance.handlers.is_busy

    def lose(self, workers: frozenset[str]) -> None:
        """These workers are known, others are dead: connections whose sockets they had are over."""
        known = self.instance.runtime.connections.values()
        application = self.instance.application
        if isinstance(application, Handling) and any(each.worker and each.worker not in workers for each in known):
            self._start_beside("lost", application.lost(self.instance))

    def stop(self) -> None:
        """Ask for a clean stop: nothing new is started, what runs is interrupted and goes on elsewhere."""
        self._stopping = True
        self._bell.set()

    async def run(self) -> None:
        """Returns when the instance is released or fenced.

        *Cancelled*: its fibers are cancelled and the instance is dropped in memory; the store still names its owner.
        *Raises* what the log or the store raised; the instance has been dropped then.
        """
        watcher = asyncio.create_task(self.instance.watch())
        watcher.add_done_callback(self._ring)
        forget = self.instance.observe(self._look)
        try:
            while not await self._once(watcher):
                pass
        except Exception:
            await self._cancel_all()
            await self.instance.drop()
            raise
        except BaseException:
            self.instance.fence()  # not one more append: others may own the instance before its tasks have ended
            raise
        finally:
            forget()
            beside = [watcher, *self._beside]
            for task in beside:
                task.cancel()
            await self._cancel_all()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _once(self, watcher: asyncio.Task[None]) -> bool:
        """Work until there is a reason to let go, and let go; False when something new came in between."""
        end = await self._work(watcher)
        if end is _End.DESTROYED:
            return await self._destroy()
        if end is not _End.IDLE:
            if end is _End.STOPPED:
                await self.instance.handlers.drain(CANCEL_GRACE_SECONDS)
            await self.instance.handlers.cut()
            await self._cancel_all()
        if end is _End.LOST:
            await self.instance.drop()
        elif end is not _End.FENCED:
            self.instance.handlers.close()
            if not await self.instance.release(self._wake):
                self.instance.handlers.open()
                return False
        return True

    async def _destroy(self) -> bool:
        """Nothing of it runs any more; it is gone, or makes room for its sub-objects and comes back."""
        await self.instance.handlers.cut(gone=True)
        await self._cancel_all()
        if await finish(self.instance):
            return True
        wall = self.instance.clock.wall
        return await self.instance.release(lambda: wake_at(wall() + DESTROY_WAIT_SECONDS))

    async def _work(self, watcher: asyncio.Task[None]) -> _End:
        """Start what can run until there is nothing."""
        clock = self.instance.clock
        idle_since = clock.monotonic()
        handlers = self.instance.handlers
        self._resume()
        while not self.instance.fenced:
            self._bell.clear()
            self._seen = self.instance.runtime.moves
            self._is_quiet = False
            if self.instance.runtime.destroy:
                return _End.DESTROYED
            if self._stopping:
                return _End.STOPPED
            if watcher.done():
                watcher.result()
            if not self._reap():
                return _End.LOST
            occurs = await self._fire()
            wait = _sooner(self._start_ready(), occurs)
            if not self._is_busy():
                idle_since = max(idle_since, handlers.used_at)
                quiet = clock.monotonic() - idle_since
                if quiet >= self.idle_seconds:
                    return _End.IDLE
                waits = (wait, self.idle_seconds - quiet, self._tidy_in(quiet))
                wait = min(each for each in waits if each is not None)
                self._settle_down()
            await nap(self._bell, wait)
            if self._is_busy():
                idle_since = clock.monotonic()
        return _End.FENCED

    def _is_busy(self) -> bool:
        return bool(self._tasks) or self.instance.handlers.is_busy or any(t.get_name() != "tidying" for t in self._beside)

    def _resume(self) -> None:
        """What a process left undone when it died."""
        if any(sub.leaving for sub in self.instance.runtime.subs.values()):
            self._start_beside("sub-objects", finish_subs(self.instance))

    def _start_beside(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the fibers, once at a time; what it raises is logged, and tried again by the next owner."""
        if any(task.get_name() == name for task in self._beside):
            work.close()
            return
        task = asyncio.create_task(work, name=name)
        self._beside.add(task)
        task.add_done_callback(self._is_done)

    def _is_done(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.instance.fenced:
            text = "'%s' of %s failed and is tried again: %s"
            logger.warning(text, task.get_name(), self.instance.address, error)
        if task.get_name() != "tidying":  # it leaves nothing to look for, and would be begun again at once
            self._bell.set()

    def _look(self) -> None:
        """Called at every fold and fence: most of them are steps, after which there is nothing else to start."""
        if self.instance.fenced or self.instance.runtime.moves != self._seen:
            self._bell.set()

    def _ring(self, _: asyncio.Future[None]) -> None:
        self._bell.set()

    def _settle_down(self) -> None:
        if not any(fiber.phase is Phase.RUNNING for fiber in self.instance.runtime.unsettled()):
            self.instance.clock.set()
        self._is_quiet = True
        self._on_quiet()

    def _tidy_in(self, quiet: float) -> float | None:
        """Seconds until it is time to tidy up; None once that has begun, or when nobody wants it."""
        if self.tidy_seconds is None or any(task.get_name() == "tidying" for task in self._beside):
            return None
        if quiet < self.tidy_seconds:
            return self.tidy_seconds - quiet
        self._start_beside("tidying", self.instance.application.tidy(self.instance))
        return None

    def _candidates(self) -> list[FiberState]:
        return list(candidates(self.instance.runtime, serial=self.instance.application.serial))

    def _start_ready(self) -> float | None:
        """Start every fiber that may run now; return in how many seconds the next one may."""
        next_in = None
        for fiber in self._candidates():
            if fiber.id in self._tasks:
                continue
            wait = self._ready_in(fiber)
            if wait is None:
                continue
            if wait <= 0:
                task = self._tasks[fiber.id] = asyncio.create_task(self._run(Fiber(self.instance, fiber.id)))
                task.add_done_callback(self._ring)
            else:
                next_in = wait if next_in is None else min(next_in, wait)
        return next_in

    async def _fire(self) -> float | None:
        """Every occurrence that is due has its fiber, or was missed for good; return in how many seconds the next one is."""
        instance, wall = self.instance, self.instance.clock.machine.wall
        runtime = instance.runtime
        for _ in range(FIRINGS_MAX):
            due = due_schedules(runtime, instance.application, wall())
            if not due:
                break
            batch = fire(due[0], instance.uid, wall(), knows=lambda id: runtime.fiber(id) is not None)
            await instance.append(batch)
        upcoming = next_occurrence(runtime, instance.application)
        return max(0.0, upcoming - wall()) if upcoming is not None else None

    def _ready_in(self, fiber: FiberState) -> float | None:
        """Seconds until the fiber may run; None: not before something else happens.

        A retry's wait is measured from here on without the wall clock, which may be set back while it lasts.
        """
        at = ready_at(fiber)
        if at is None or (fiber.blocked is not None and fiber.abort is None and self._blocked(fiber) is not None):
            return None
        wait = at - self.instance.clock.wall()
        if wait > 0 and fiber.phase is Phase.RUNNING:
            now = self.instance.clock.monotonic()
            limit = now + min(wait, backoff_seconds(fiber.interrupted, fiber.id))
            wait = self._retries.setdefault((fiber.id, fiber.interrupted), limit) - now
        return max(0.0, wait)

    def _wake(self) -> Due:
        """When the hibernating instance has to be owned again."""
        waits = [self._ready_in(fiber) if fiber.blocked is None else 0.0 for fiber in self._candidates()]
        soonest = min((wait for wait in waits if wait is not None), default=None)
        occurs, now = next_occurrence(self.instance.runtime, self.instance.application), self.instance.clock.wall()
        if (soonest is not None and soonest <= 0) or any(sub.leaving for sub in self.instance.runtime.subs.values()):
            return wake_now(now)
        at = _sooner(_sooner(now + soonest if soonest is not None else None, occurs), self._recheck(now))
        return Due(WAKE, None) if at is None else wake_at(at)

    def _recheck(self, now: float) -> float | None:
        """When to look whether the processes that have its clients' sockets are alive."""
        known = self.instance.runtime.connections.values()
        if not known or not isinstance(self.instance.application, Handling):
            return None
        there = now - max(each.since for each in known)
        return now + min(max(there, CONNECTIONS_RECHECK_SECONDS_MIN), CONNECTIONS_RECHECK_SECONDS_MAX)

    def _blocked(self, fiber: FiberState) -> r.ErrorInfo | None:
        return self.instance.application.blocked(fiber)

    async def _run(self, fiber: Fiber) -> None:
        try:
            if (reason := self._blocked(fiber.state)) is not None:
                await self._park_blocked(fiber, reason)
            else:
                await self.instance.application.run(fiber)
        except (Interrupted, Fenced):
            return
        except Exception as error:
            if self.instance.fenced or fiber.id not in self.instance.runtime.fibers:
                return
            if isinstance(error, StoreError):
                raise
            logger.exception("fiber '%s' of %s failed", fiber.id, self.instance.address)
            await fiber.settle("failed", error=error_info(error))

    async def _park_blocked(self, fiber: Fiber, reason: r.ErrorInfo) -> None:
        """Keep a fiber this code cannot run for the code that can; only a person's abort ends it."""
        state = fiber.state
        if state.abort is not None:
            await fiber.settle("aborted", error=r.ErrorInfo(kind="aborted", message=state.abort))
            return
        logger.warning("fiber '%s' of %s is parked: %s", fiber.id, self.instance.address, reason.message)
        parked = r.FiberParked(fiber=fiber.id, name="code", at=self.instance.clock.wall(), error=reason)
        await self.instance.append([parked])

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
        """Cancel what runs and give it a moment; what ignores that is left behind, and its appends are refused."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.add_done_callback(seen)
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2 * CANCEL_GRACE_SECONDS)


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)
