"""A store that crashes, stops, lags and forgets: what a program meets that runs for long enough.

Laws. A crash is a line in the order of durable writes: before or after the k-th. From that line on the store refuses
everything of this process with `Crashed`, reads too, so that nothing the process does afterwards can matter. A fault is
something the contract allows: a write is in the log or it is not, whole, and an answer that comes is true.

Two ways to use it.

Exhaustively (T3), each point in turn until the program ends without reaching one:

    for crash in crash_points():
        asyncio.run(scenario(lambda store: FaultyStore(store, crash=crash)))

By chance, in a simulation (T7): `FaultyStore.of(process, store)` is the store as that process sees it. When the process
is killed its face is dead; the process dies when its face crashes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from cairn.clock import Clock, SystemClock
from cairn.errors import CairnError, StoreBusy
from cairn.runtime.storage.store import Append, Appended, Durability, Store
from cairn.testing.proxy import WAITS, WRITES, StoreProxy
from cairn.testing.simulation import Crashed, Process, sometimes

T = TypeVar("T")

When = Literal["before", "after"]

SLOW = "store.slow"
"""A call is handed over late."""
LATE_ANSWER = "store.late-answer"
"""A call is done at once and answered late."""
BUSY = "store.busy"
"""A write is refused with StoreBusy: nothing of it happens."""
LATE_NOTICE = "store.late-notice"
"""A notification is lost; the waiter learns from its next poll."""
UNKNOWN = "store.unknown"
"""A write is answered with `OutcomeUnknown`, whether it happened or not. A remote store can do this; SQLite does not."""

#: The faults any store may show.
LOCAL = frozenset({SLOW, LATE_ANSWER, BUSY, LATE_NOTICE})

#: How late a slow call may be: longer than the margin of a 15 s lease, so that a deadline passes while a write is on
#: its way.
SLOW_SECONDS_MAX = 8.0

#: The poll that stands behind every notification.
POLL_SECONDS = 5.0

#: The exit status of a process that was killed by signal 9, as a shell reports it.
KILLED = 137

#: `before:7` or `after:7`: the crash point of a process that was started to die there.
ENVIRONMENT = "CAIRN_TEST_CRASH"


class OutcomeUnknown(CairnError):
    """The connection was lost after a write was sent: it is in the log, or it is not. Ask by its id before repeating."""

    retryable = True


@dataclass
class Crash:
    """Die before or after the `at`-th durable write (from 1). `reached` says whether that happened."""

    at: int
    when: When
    leave: bool = False
    """Leave the operating-system process too, at once (`os._exit`): for real processes."""
    reached: bool = False

    def __str__(self) -> str:
        return f"{self.when}:{self.at}"


@dataclass
class Counts:
    """What the store has done for its user. A scenario asserts these, so that a commit more is a failing test."""

    facts: int = 0
    """Synced commits: admissions, claims, releases with a batch, and appends of facts."""
    deltas: int = 0
    calls: Counter[str] = field(default_factory=Counter)


class FaultyStore(StoreProxy):
    """A `Store` with faults. Without arguments it only counts."""

    def __init__(
        self,
        inner: Store,
        *,
        crash: Crash | None = None,
        faults: frozenset[str] = LOCAL,
        clock: Clock | None = None,
        dice: random.Random | None = None,
        on_crash: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(inner)
        self.counts = Counts()
        self.writes = 0
        """Durable writes asked for so far: the number of the last crash point passed."""
        self.is_crashed = False
        self._crash = crash
        self._faults = faults
        self._clock = clock or SystemClock()
        self._dice = dice or random.Random(0)
        self._on_crash = on_crash
        self._running = asyncio.Event()
        self._running.set()
        self._dead = asyncio.Event()
        self._process: Process | None = None
        self._waiting: dict[asyncio.Task[Any], None] = {}

    @classmethod
    def of(cls, process: Process, inner: Store, *, crash: Crash | None = None, faults: frozenset[str] = LOCAL) -> FaultyStore:
        """The store as one simulated process sees it: it dies with the process, and the process with it."""
        dice = process.stream("store")
        store = cls(inner, crash=crash, faults=faults, clock=process.clock, dice=dice, on_crash=process.kill)
        store._process = process
        return store

    # --- the faults that a test sets by hand

    def die(self) -> None:
        """Crash now: every call, also those that wait, ends in `Crashed`."""
        self.is_crashed = True
        self._dead.set()
        for task in self._waiting:
            task.cancel()
        if self._on_crash is not None:
            self._on_crash()

    def stop(self) -> None:
        """From now on every call waits (a database that does not answer)."""
        self._running.clear()

    def start(self) -> None:
        """Calls go on, those that waited first."""
        self._running.set()

    # --- the store

    def lease_now(self) -> float:
        """The present on the lease clock. Raises Crashed."""
        self._refuse_the_dead()
        return super().lease_now()

    async def register(self, worker: Any, lease_seconds: float, alive: Callable[[], bool]) -> None:
        """Renewed while the program is alive by its own account, and this store has not crashed."""
        # The renewal runs in the store, beyond this face: it must not outlive the process it speaks for.
        await super().register(worker, lease_seconds, lambda: not self._is_dead() and alive())

    async def through(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        """The call with its faults. Raises Crashed, from the crash point on; StoreBusy and OutcomeUnknown as faults."""
        self._refuse_the_dead()
        self.counts.calls[name] += 1
        await self._delay(SLOW)
        if not self._running.is_set():
            await self._unless_dead(self._running.wait())
        if name in WAITS:
            return await self._wait(arguments, call)
        if name not in WRITES:
            answer = await call()
            self._refuse_the_dead()
            return answer
        return await self._write(name, arguments, call)

    async def _write(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        if self._strikes(BUSY):
            raise StoreBusy("the store's write turn is held by worker 'simulated'; nothing was written, try again")
        is_unknown = self._strikes(UNKNOWN)
        if is_unknown and self._dice.random() < 0.5:
            raise OutcomeUnknown(f"{name}: the connection was lost; it may have been written")
        self.writes += 1
        point = self.writes
        self._crash_here(point, "before")
        answer = await call()
        self._count(name, arguments, answer)
        self._crash_here(point, "after")
        await self._delay(LATE_ANSWER)
        self._refuse_the_dead()
        if is_unknown:
            raise OutcomeUnknown(f"{name}: the connection was lost; it may have been written")
        return answer

    async def _wait(self, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        answer = await self._unless_dead(call())
        if self._strikes(LATE_NOTICE):
            timeout = arguments[-1]
            await self._clock.sleep(self._dice.random() * min(POLL_SECONDS, POLL_SECONDS if timeout is None else timeout))
        self._refuse_the_dead()
        return answer

    async def _unless_dead(self, awaitable: Awaitable[T]) -> T:
        """What it waits for, or `Crashed` as soon as this store is dead.

        Awaited in the caller's own task: a store may know its callers by their tasks, and a wrapper must not be seen.
        """
        task = asyncio.current_task()
        assert task is not None
        self._waiting[task] = None
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self.is_crashed:
                task.uncancel()
                self._refuse_the_dead()
            raise
        finally:
            self._waiting.pop(task, None)

    async def _delay(self, fault: str) -> None:
        if self._strikes(fault):
            await self._clock.sleep(self._dice.random() * SLOW_SECONDS_MAX)
            self._refuse_the_dead()

    def _strikes(self, fault: str) -> bool:
        return fault in self._faults and sometimes(fault)

    def _is_dead(self) -> bool:
        return self.is_crashed or (self._process is not None and not self._process.is_alive)

    def _refuse_the_dead(self) -> None:
        if self._is_dead():
            raise Crashed("this process is dead; its store answers nothing any more")

    def _crash_here(self, point: int, when: When) -> None:
        crash = self._crash
        if crash is not None and (point, when) == (crash.at, crash.when):
            crash.reached = True
            if crash.leave:
                os._exit(KILLED)
            self.die()
        self._refuse_the_dead()

    def _count(self, name: str, arguments: tuple[Any, ...], answer: Any) -> None:
        if name == "append":
            append: Append = arguments[0]
            if not (isinstance(answer, Appended) and answer.duplicate):
                self.counts.facts += append.durability is Durability.FACT
                self.counts.deltas += append.durability is Durability.DELTA
        elif name == "admit":
            self.counts.facts += not answer.duplicate
        elif name == "claim":
            self.counts.facts += answer is not None
        elif name == "merge":
            self.counts.deltas += answer
        elif name in ("fork", "delete"):
            self.counts.facts += bool(answer)
        else:
            self.counts.facts += bool(answer) and arguments[2] is not None


def crash_points(leave: bool = False) -> Iterator[Crash]:
    """Before and after the first write, the second, …, until the program ends without reaching the point it was given.

    The last one yielded is not reached: that run is the uninterrupted one.
    """
    for at in itertools.count(1):
        for when in ("before", "after"):
            crash = Crash(at, when, leave=leave)
            yield crash
            if not crash.reached:
                return


def crash_from_environment() -> Crash | None:
    """The crash point this process was started with (`CAIRN_TEST_CRASH=after:7`): there it exits as if killed. Else None."""
    text = os.environ.get(ENVIRONMENT)
    if not text:
        return None
    when, _, at = text.partition(":")
    if when not in ("before", "after") or not at.isdigit():
        raise ValueError(f"{ENVIRONMENT}={text!r} is not a crash point such as 'before:1' or 'after:7'")
    return Crash(int(at), "before" if when == "before" else "after", leave=True)


def _the_dead_are_silent(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a dead process's task raised is no news, whenever the task is collected. To write its traceback then, inside of
    whatever the collector interrupts, would parse Python within a parse of Python, which 3.11 does not survive."""
    if not isinstance(context.get("exception"), Crashed):
        loop.default_exception_handler(context)


async def until_crash(store: FaultyStore, main: Coroutine[Any, Any, None]) -> bool:
    """Run `main` until it ends or the store crashes; True for a crash. Then nothing that `main` started runs any more.

    The process object is gone: what is left of it was cancelled, and its cleanup met a store that refuses everything.
    Raises what `main` raised.
    """
    asyncio.get_running_loop().set_exception_handler(_the_dead_are_silent)
    others = asyncio.all_tasks()
    task = asyncio.ensure_future(main)
    dying = asyncio.ensure_future(store._dead.wait())
    await asyncio.wait({task, dying}, return_when=asyncio.FIRST_COMPLETED)
    if not store.is_crashed:
        dying.cancel()
        await asyncio.wait({dying})
        await task
        return False
    while left := asyncio.all_tasks() - others:
        for one in left:
            one.cancel()
        for one in (await asyncio.wait(left))[0]:
            _ = one.cancelled() or one.exception()  # looked at: what a dead process raises is no news
    return True
