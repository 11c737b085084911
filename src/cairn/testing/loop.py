"""A seeded event loop: one thread, virtual time, and a die that decides which ready callback runs next.

Laws. Whatever runs on this loop is a function of the seed: no selector, no thread, no clock of the machine. When
several things are ready the seed picks; when none is, time jumps to the next timer; when there is no timer either,
nothing can ever happen again and the loop says so (`Deadlock`), which makes every simulation a liveness test.

What keeps its order: a task has at most one step ready, and plain callbacks run in the order they were registered, as
asyncio documents. Only the order *between* tasks, and between tasks and callbacks, is thrown.

A `Group` is the simulator's process: everything started inside one (by contextvar) can be frozen or dropped at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import heapq
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Steps of one simulation. A livelock (two tasks that wake each other for ever) ends here; a virtual hour of five
#: workers takes ~10^5 steps.
STEPS_MAX = 5_000_000

#: Virtual seconds of one simulation: a periodic timer (a lease renewal) hides a deadlock, because there is always a
#: next timer. A day is far beyond any scenario.
SECONDS_MAX = 86_400.0

#: The least time a timer takes. A program that waits out the remainder of a subtraction, 10^-15 s, would otherwise wait
#: for ever: added to the present, that is the present. No machine's clock is finer.
TICK_SECONDS = 1e-6

#: Steps shown when a simulation fails.
TAIL_STEPS = 12


class Deadlock(AssertionError):
    """Nothing is ready and no timer is set: every task waits for another. Names the tasks and where they wait."""


class Livelock(AssertionError):
    """The simulation used up its steps or its virtual time without finishing."""


class Group:
    """What can be stopped together: the tasks, callbacks and timers that were started inside it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_paused = False
        self.is_dead = False
        self.was_killed = False
        self.held: list[asyncio.Handle] = []


#: The group of the code that runs. Copied into every task and timer it starts, as contextvars are.
GROUP: contextvars.ContextVar[Group | None] = contextvars.ContextVar("cairn_simulated_process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop whose schedule and time depend on `choose` alone.

    Uses `_ready`, `_scheduled` and `_run_once` of `asyncio.BaseEventLoop`, unchanged from Python 3.11 to 3.13.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, choose: random.Random, *, steps_max: int = STEPS_MAX, seconds_max: float = SECONDS_MAX) -> None:
        super().__init__()
        self.set_debug(False)  # PYTHONASYNCIODEBUG measures the machine's time
        self.steps = 0
        self.tail: deque[str] = deque(maxlen=TAIL_STEPS)
        self._choose = choose
        self._steps_max = steps_max
        self._seconds_max = seconds_max
        self._now = 0.0
        self._task_steps: list[asyncio.Handle] = []
        self._callbacks: deque[asyncio.Handle] = deque()
        self._task_count = 0
        self._born: weakref.WeakKeyDictionary[asyncio.Task[Any], tuple[int, Group | None]] = weakref.WeakKeyDictionary()
        self._hash = hashlib.blake2b(digest_size=16)
        self._thread = threading.get_ident()

    # --- what a program sees

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        # The default names come from a counter of the interpreter; the trace must not depend on earlier runs.
        self._task_count += 1
        if options.get("name") is None:
            options["name"] = f"{getattr(coro, '__qualname__', 'task')}#{self._task_count}"
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        context = options.get("context")
        self._born[task] = self._task_count, GROUP.get() if context is None else context.get(GROUP)
        return task

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Ring at `when`, or a tick from now if that is later."""
        return super().call_at(max(when, self._now + TICK_SECONDS), callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        raise RuntimeError(
            f"{getattr(func, '__qualname__', func)} asks for a thread, which a simulation has not: "
            "give the simulated program the inline form of what it uses"
        )

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if threading.get_ident() != self._thread:
            raise RuntimeError("a thread calls into a simulation: its result would depend on the machine")
        return self.call_soon(callback, *args, context=context)

    # --- what the simulator uses

    def note(self, *parts: object) -> None:
        """Make `parts` part of the trace, so that two runs which differ in them have different hashes."""
        line = " ".join(map(str, parts))
        self.tail.append(line)
        self._hash.update(line.encode())
        self._hash.update(b"\n")

    def forgotten(self) -> list[BaseException]:
        """What tasks raised that nobody has looked at. Asked for: a reference cycle can keep them from saying so.

        A process that was killed had no time to look, so its tasks are not asked.
        """
        unseen = [task for task in self._born if task.done() and task._log_traceback and not self.was_killed(task)]
        errors = (task.exception() for task in sorted(unseen, key=self._age))
        return [error for error in errors if error is not None]

    def was_killed(self, task: Any) -> bool:
        """Whether the task belongs to a process that was killed."""
        _, group = self._born.get(task, (0, None)) if task is not None else (0, None)
        return group is not None and group.was_killed

    def _age(self, task: asyncio.Task[Any] | None) -> int:
        return self._born[task][0] if task is not None and task in self._born else 0

    def trace_hash(self) -> str:
        """Sixteen bytes that are equal when, and only when, the same steps ran in the same order at the same times."""
        return self._hash.hexdigest()

    def pause(self, group: Group) -> None:
        """Freeze the group where it stands: nothing of it runs, its timers ring unheard until `resume`."""
        group.is_paused = True
        self._take_in()
        ready = [*self._task_steps, *self._callbacks]
        group.held.extend(handle for handle in ready if _group(handle) is group)
        self._task_steps = [handle for handle in self._task_steps if _group(handle) is not group]
        self._callbacks = deque(handle for handle in self._callbacks if _group(handle) is not group)

    def resume(self, group: Group) -> None:
        """Let the group run again; what became ready meanwhile is ready now."""
        group.is_paused = False
        self._ready.extend(group.held)
        group.held.clear()

    # --- the loop

    def _run_once(self) -> None:
        while True:
            self._take_in()
            if self._task_steps or self._callbacks:
                break
            self._advance()
        handle = self._pick()
        if _is_dropped(handle):
            self._ready.append(handle)
        else:
            self._count(handle)
            handle._run()

    def _take_in(self) -> None:
        """Sort what has become ready: held for a paused group, forgotten for a dead one, else up for the choice."""
        while self._scheduled and self._scheduled[0].when() <= self._now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(timer)
        steps: list[asyncio.Handle] = []
        while self._ready:
            handle = self._ready.popleft()
            group = _group(handle)
            if group is not None and group.is_dead:
                # Kept, so that its task is closed with the others in the end, not by the next reference count.
                group.held.append(handle)
            elif handle.cancelled():
                pass
            elif group is not None and group.is_paused:
                group.held.append(handle)
            elif _task(handle) is not None:
                steps.append(handle)
            else:
                self._callbacks.append(handle)
        # By age, for what one step made ready may come in the order of a set (asyncio.TaskGroup keeps its tasks in
        # one), which is an order of addresses.
        steps.sort(key=lambda handle: self._age(_task(handle)))
        self._task_steps += steps

    def _pick(self) -> asyncio.Handle:
        candidates = len(self._task_steps) + bool(self._callbacks)
        index = self._choose.randrange(candidates) if candidates > 1 else 0
        if index == len(self._task_steps):
            handle = self._callbacks.popleft()
        else:
            steps = self._task_steps
            steps[index], steps[-1] = steps[-1], steps[index]
            handle = steps.pop()
        return handle

    def _advance(self) -> None:
        """Jump to the next timer that somebody alive has set."""
        while self._scheduled and _is_dropped(self._scheduled[0]):
            heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]
        if not self._scheduled:
            raise Deadlock(f"at {self._now:.3f} s nothing is ready and no timer is set:\n{self._waiting()}")
        self._now = max(self._now, self._scheduled[0].when())
        if self._now > self._seconds_max:
            raise Livelock(f"not finished after {self._seconds_max:.0f} virtual seconds:\n{self._waiting()}")

    def _count(self, handle: asyncio.Handle) -> None:
        self.steps += 1
        if self.steps > self._steps_max:
            raise Livelock(f"not finished after {self._steps_max} steps, at {self._now:.3f} s:\n{self._waiting()}")
        group = _group(handle)
        self.note(repr(self._now), group.name if group else "-", _label(handle))

    def _waiting(self) -> str:
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            frames = task.get_stack()
            where = f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "not started"
            lines.append(f"  {task.get_name()} at {where}")
        return "\n".join(lines) or "  no task is left"

    def _write_to_self(self) -> None:
        """A loop without a selector has nobody to wake."""

    def _process_events(self, event_list: Any) -> None:
        """A loop without a selector has no events."""


def _group(handle: asyncio.Handle) -> Group | None:
    return handle._context.get(GROUP)  # type: ignore[attr-defined,no-any-return]


def _is_dropped(handle: asyncio.Handle) -> bool:
    group = _group(handle)
    return handle._cancelled or (group is not None and group.is_dead)


def _task(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return owner if isinstance(owner, asyncio.Task) else None


def _label(handle: asyncio.Handle) -> str:
    task = _task(handle)
    if task is not None:
        return task.get_name()
    callback = handle._callback  # type: ignore[attr-defined]
    return str(getattr(callback, "__qualname__", type(callback).__name__))
