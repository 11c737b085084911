"""A whole system in one thread, from one seed: processes that die, freeze and disagree about the time.

    async def main(simulation: Simulation) -> None:
        worker = simulation.process("w1", lambda process: work(store, process.clock))
        await simulation.clock.sleep(20)
        worker.pause(30)          # SIGSTOP and, thirty virtual seconds later, SIGCONT
        worker.kill()             # SIGKILL: not one more line of it runs

    simulate(main, seed=7)

Laws. Everything random asks the seed; every difference between two runs shows in the trace hash (T8). A process that
was killed runs nothing, not even `finally`; what it left behind is what its store has. Objects shared by two simulated
processes are shared by accident only: give each its own store face (`cairn.testing.faults`), clock and ids.

Why a fault is drawn by name (`sometimes`): each seed switches a random half of the names on, so that some runs
have slow stores and no lost messages, and others the reverse. Faults that always come together hide one another.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import os
import random
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cairn.testing.loop import GROUP, SECONDS_MAX, STEPS_MAX, Group, SimulatedLoop
from cairn.testing.virtual import SeededIds, SimulatedClock

T = TypeVar("T")

#: How often a fault that is switched on strikes when its place is passed: rare enough that work gets done between two.
SOMETIMES = 0.05

#: How often a coroutine of a dead process is closed before it is left to the collector: one for each `finally` that awaits.
_CLOSES_MAX = 100


class Crashed(BaseException):
    """This process is dead. A BaseException, so that no `except Exception` of the program survives its own death."""


class Process(Group):
    """A simulated operating-system process: its own clock and ids, and a life that others can end."""

    def __init__(self, simulation: Simulation, name: str, *, skew: float, rate: float) -> None:
        super().__init__(name)
        self._simulation = simulation
        self._number = len(simulation.processes)
        self.clock = SimulatedClock(simulation.now, skew=skew, rate=rate)
        self.ids = SeededIds(self.stream("ids"), self.clock)
        self.error: BaseException | None = None
        self._ended: asyncio.Future[None] = simulation.loop.create_future()
        self._resume: asyncio.TimerHandle | None = None

    @property
    def is_alive(self) -> bool:
        """Neither killed nor finished; a paused process is alive (its kernel locks are held)."""
        return not self.is_dead

    def stream(self, purpose: str) -> random.Random:
        """Dice of this process for one purpose; another life under the same name throws other dice."""
        return self._simulation.stream(f"{purpose} of process {self._number}")

    def kill(self) -> None:
        """SIGKILL. From the next await on, nothing of it runs. Idempotent."""
        if self.is_alive:
            self._simulation.loop.note("killed", self.name)
            self.was_killed = True
            self._end()

    def pause(self, seconds: float | None = None) -> None:
        """SIGSTOP: nothing of it runs for `seconds`, or until `resume`. Its timers ring when it runs again."""
        if self.is_alive and not self.is_paused:
            loop = self._simulation.loop
            loop.note("paused", self.name, seconds)
            loop.pause(self)
            if seconds is not None:
                self._resume = loop.call_later(seconds, self.resume, context=self._simulation.context)

    def resume(self) -> None:
        """SIGCONT. Nothing when it was not paused."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self.is_paused:
            self._simulation.loop.note("resumed", self.name)
            self._simulation.loop.resume(self)

    async def wait(self) -> None:
        """Return when the process has finished or was killed. Raises what its main function raised, but for `Crashed`.

        Cancelled: the process goes on.
        """
        await asyncio.shield(self._ended)
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _end(self) -> None:
        self.is_dead = True
        if not self._ended.done():
            self._ended.set_result(None)

    def _finished(self, task: asyncio.Task[None]) -> None:
        if self.is_alive:
            error = None if task.cancelled() else task.exception()
            if not isinstance(error, Crashed):
                self.error = error
            self._simulation.loop.note("finished", self.name, type(error).__name__)
            self._end()


class Simulation:
    """The world of one run, as its director sees it: the true clock, the dice, and the processes."""

    def __init__(self, seed: int, loop: SimulatedLoop, *, faults: bool) -> None:
        self.seed = seed
        self.loop = loop
        self.processes: list[Process] = []
        self.clock = SimulatedClock(loop.time)
        self.ids = SeededIds(self.stream("ids"), self.clock)
        self.random = self.stream("scenario")
        self.context = contextvars.copy_context()
        self.errors: list[BaseException] = []
        self._chance = self.stream("faults")
        self._faults_on = faults
        self._enabled: dict[str, bool] = {}

    def now(self) -> float:
        """True virtual seconds since the start."""
        return self.loop.time()

    def stream(self, purpose: str) -> random.Random:
        """Dice of their own for one purpose, so that one more throw there changes nothing elsewhere."""
        return random.Random(f"{self.seed}:{purpose}")

    def process(
        self,
        name: str,
        main: Callable[[Process], Coroutine[Any, Any, None]],
        *,
        skew: float = 0.0,
        rate: float = 1.0,
    ) -> Process:
        """Start a process. What it starts belongs to it; when `main` returns or raises, the process is over."""
        process = Process(self, name, skew=skew, rate=rate)
        self.processes.append(process)
        context = self.context.copy()
        context.run(GROUP.set, process)
        self.note("started", name)
        task = self.loop.create_task(main(process), name=name, context=context)
        task.add_done_callback(process._finished, context=self.context)
        return process

    def note(self, *parts: object) -> None:
        """Put something into the trace: it is part of the hash, and is shown when the run fails."""
        self.loop.note(*parts)

    def sometimes(self, name: str, probability: float = SOMETIMES) -> bool:
        """Whether the fault `name` strikes here and now. Never after `heal`, nor in half of the seeds."""
        if not self._faults_on:
            return False
        if name not in self._enabled:
            self._enabled[name] = self.stream(f"fault {name}").random() < 0.5
        if not self._enabled[name] or self._chance.random() >= probability:
            return False
        self.note("fault", name)
        return True

    def heal(self) -> None:
        """End of the bad weather: no further fault, and paused processes go on. From here liveness is promised."""
        self.note("healed")
        self._faults_on = False
        for process in self.processes:
            process.resume()

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Crashed) or self.loop.was_killed(context.get("future", context.get("task"))):
            return
        self.errors.append(error if error is not None else RuntimeError(context["message"]))


@dataclass(frozen=True, slots=True)
class Simulated(Generic[T]):
    """What a run gave, and what it did: equal `trace_hash`, equal run (T8)."""

    value: T
    seed: int
    trace_hash: str
    steps: int
    seconds: float


#: The simulation that runs, for code that is not handed one.
CURRENT: contextvars.ContextVar[Simulation | None] = contextvars.ContextVar("cairn_simulation", default=None)


def sometimes(name: str, probability: float = SOMETIMES) -> bool:
    """Whether a fault strikes here: in a simulation as its seed says, elsewhere never."""
    simulation = CURRENT.get()
    return simulation is not None and simulation.sometimes(name, probability)


def simulate(
    main: Callable[[Simulation], Awaitable[T]],
    *,
    seed: int,
    faults: bool = True,
    seconds_max: float = SECONDS_MAX,
    steps_max: int = STEPS_MAX,
) -> Simulated[T]:
    """Run `main` to its end in a world made from `seed`. Processes that still live then are killed.

    Raises what `main` raised; else what a process or a forgotten task raised; `Deadlock` and `Livelock`. Each carries
    the seed, a command that repeats it, and the last steps.
    """
    loop = SimulatedLoop(random.Random(f"{seed}:schedule"), steps_max=steps_max, seconds_max=seconds_max)
    simulation = Simulation(seed, loop, faults=faults)
    simulation.context.run(CURRENT.set, simulation)
    loop.set_exception_handler(simulation._on_error)
    try:
        with _without_collector():
            try:
                value = simulation.context.copy().run(loop.run_until_complete, _main(main, simulation))
            finally:
                _discard(simulation)
    except BaseException as error:
        error.add_note(f"seed {seed}; repeat with: {repeat_command(seed)}")
        error.add_note("last steps:\n  " + "\n  ".join(loop.tail))
        raise
    return Simulated(value, seed, loop.trace_hash(), loop.steps, loop.time())


async def _main(main: Callable[[Simulation], Awaitable[T]], simulation: Simulation) -> T:
    value = await main(simulation)
    unseen = [process.error for process in simulation.processes if process.error is not None]
    forgotten = [error for error in simulation.loop.forgotten() if not isinstance(error, Crashed)]
    for error in (*unseen, *simulation.errors, *forgotten):
        raise error
    return value


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Finalizers would otherwise run when the collector happens to, which depends on what ran before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _discard(simulation: Simulation) -> None:
    """Close what is left without running it: every process is dead, so that a `finally` cannot reach a store."""
    for process in simulation.processes:
        process.is_dead = True
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # what a dead process would say about its own end
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "was never awaited": nor will it be
            for task in sorted(asyncio.all_tasks(simulation.loop), key=lambda task: task.get_name()):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
    finally:
        logging.disable(disabled)
    simulation.loop.close()


def _close(coroutine: Any) -> None:
    """Close it for good, innermost first: a `finally` that awaits survives a `close`, and the collector would try the next
    one, aloud."""
    for _ in range(_CLOSES_MAX):
        inner = getattr(coroutine, "cr_await", None)
        if inspect.iscoroutine(inner):
            _close(inner)
        # A `finally` that awaits, or asks for the loop, fails here; the process it belongs to died long ago.
        with contextlib.suppress(Exception, Crashed, asyncio.CancelledError):
            coroutine.close()
        if not inspect.iscoroutine(coroutine) or inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
            return


def seeds(count: int) -> Sequence[int]:
    """The seeds a test runs: 0 to `count` - 1. `CAIRN_TEST_SEED=17` runs that one, `CAIRN_TEST_SEEDS=20000` that many,
    `CAIRN_TEST_SEEDS=5000-6000` those.
    """
    if one := os.environ.get("CAIRN_TEST_SEED"):
        return [int(one)]
    many = os.environ.get("CAIRN_TEST_SEEDS", "")
    if "-" in many:
        first, last = many.split("-")
        return range(int(first), int(last))
    return range(int(many) if many else count)


def repeat_command(seed: int) -> str:
    """One line that runs the present test again with this seed only."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
    return f"CAIRN_TEST_SEED={seed} python -m pytest '{test}'" if test else f"simulate(main, seed={seed})"
