"""Durable execution: a fiber is work that survives its process.

A fiber's method may be called again from its first line after an interruption; everything between steps may run again,
so effects belong in steps. A step is identified by its explicit name (there is no counter, so parallel steps cannot
diverge): once its result is recorded, the record answers.

Laws. The fiber asks the fold where it is; nothing here remembers across an await what the log does not say. `Parked` and
`Interrupted` unwind the method and are not errors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from cairn.errors import Fenced, FiberFailed, NonRetryable, StepNameReused, StepUnknown, StoreError
from cairn.runtime import records as r
from cairn.runtime.instance import Instance
from cairn.runtime.settings import (
    CANCEL_GRACE_SECONDS,
    FIBER_ATTEMPTS_MAX,
    FIBER_TIMEOUT_SECONDS,
)
from cairn.runtime.state import FiberState, Phase, StepState, step_key
from cairn.runtime.waiting import nap

logger = logging.getLogger("cairn.runtime")

T = TypeVar("T")
StepRepeat = Literal["safe", "keyed", "never"]


class Parked(BaseException):
    """Unwinds a method that waits: its park is recorded, its task ends. Not an error, and not for user code to catch."""


class Interrupted(BaseException):
    """Unwinds a method whose process is stopping or whose instance was taken over; nothing durable is owed."""


def error_info(error: BaseException) -> r.ErrorInfo:
    kind = type(error).__name__
    return r.ErrorInfo(kind=kind, message=str(error) or kind, retryable=bool(getattr(error, "retryable", False)))


class Fiber:
    """A handle on one running fiber: what its method is given."""

    def __init__(self, instance: Instance, id: str) -> None:
        self.instance = instance
        self.id = id
        self._names: set[tuple[str, str]] = set()

    @property
    def state(self) -> FiberState:
        """Its fold. Raises FiberFailed when it is settled already (aborted from outside, say)."""
        found = self.instance.runtime.fiber(self.id)
        if found is None:
            raise FiberFailed(f"fiber '{self.id}' is not in the log of {self.instance.address}")
        return found

    @property
    def attempt(self) -> int:
        """1 at the first try, one more after each interruption."""
        return self.state.attempt

    @property
    def snapshot(self) -> Any:
        """What `stash` kept last, or None."""
        return msgspec.json.decode(self.state.snapshot)

    def arguments(self, type: Any = Any) -> Any:
        return msgspec.json.decode(self.state.arguments, type=type)

    async def stash(self, value: Any) -> None:
        """The fiber's checkpoint is `value` (JSON). *Durable* when it returns."""
        await self.instance.append([r.FiberStashed(fiber=self.id, value=msgspec.Raw(msgspec.json.encode(value)))])

    async def step(
        self,
        name: str,
        callback: Callable[[], Awaitable[T] | T],
        *,
        repeat: StepRepeat = "safe",
        scope: str = "",
        type: Any = Any,
        also: Callable[[], Sequence[r.Record]] = tuple,
    ) -> T:
        """Run `callback` once and record its result; when the step is known, the record answers instead.

        *Durable* when it returns. *Idempotent* by (fiber, scope, name). A `safe` step that was running when its process
        died runs again; a `keyed` or `never` one was preceded by an intent record (S8), and what is known of it then is
        nothing: `keyed` runs again with the same `key`, `never` raises StepUnknown. `also` gives records that become facts
        together with the result. *Cancelled*: nothing is recorded.
        *Raises* what the callback raised (recorded only when it is NonRetryable), StepNameReused, StepUnknown, Fenced.
        """
        identity = step_key(scope, name)
        if ("step", identity) in self._names:
            raise StepNameReused(
                f"step '{name}' was used twice in fiber '{self.id}'; name them apart: name=f\"{name}:{{item.id}}\""
            )
        self._names.add(("step", identity))
        known = self.state.steps.get(identity)
        if known is not None and known.done:
            return _recorded(name, known, type)  # type: ignore[no-any-return]
        if repeat != "safe":
            await self._intend(name, known, repeat, scope)
        try:
            result = await self.instance.threads.call_any(callback)
        except NonRetryable as error:
            await self.instance.append([r.StepCompleted(fiber=self.id, name=name, scope=scope, error=error_info(error))])
            raise
        encoded = msgspec.json.encode(result)
        completed = r.StepCompleted(fiber=self.id, name=name, scope=scope, result=msgspec.Raw(encoded))
        await self.instance.append([completed, *also()])
        return msgspec.json.decode(encoded, type=type)  # type: ignore[no-any-return]

    async def _intend(self, name: str, known: StepState | None, repeat: Literal["keyed", "never"], scope: str) -> None:
        if known is not None and known.started_epoch is not None and repeat == "never":
            raise StepUnknown(
                f"step '{name}' of fiber '{self.id}' was started by a process that died; whether it happened is unknown. "
                f"Find out, then settle it in code, or declare the step repeat='keyed' or 'safe'"
            )
        await self.instance.append(
            [r.StepStarted(fiber=self.id, name=name, scope=scope, repeat=repeat, epoch=self.instance.epoch)]
        )

    def key(self, name: str, scope: str = "") -> str:
        """The idempotency key of a keyed step: the same at every repeat, different for every other step anywhere."""
        return f"{self.instance.uid}:{self.id}:{scope}:{name}" if scope else f"{self.instance.uid}:{self.id}:{name}"

    async def sleep(self, name: str, seconds: float) -> None:
        """Return once `seconds` have passed since this sleep was first reached, in whatever process.

        *Durable*: it parks — the method is unwound, no task and no memory is held — and is called again when the time has
        come. *Idempotent* by name.
        """
        if ("sleep", name) in self._names:
            raise StepNameReused(f"sleep '{name}' was used twice in fiber '{self.id}'; give each its own name")
        self._names.add(("sleep", name))
        if name in self.state.waited:
            return
        now = self.instance.clock.wall()
        until = now + seconds
        parked = r.FiberParked(fiber=self.id, name=name, at=now, until=until)
        await self.instance.append([parked])
        raise Parked

    async def settle(
        self,
        outcome: r.Outcome,
        *,
        result: msgspec.Raw = r.NULL,
        error: r.ErrorInfo | None = None,
    ) -> None:
        """The fiber has its one outcome (S7)."""
        record = r.FiberSettled(fiber=self.id, outcome=outcome, at=self.instance.clock.wall(), result=result, error=error)
        await self.instance.append([record])


def _recorded(name: str, step: StepState, type: Any) -> Any:
    if step.error is not None:
        raise NonRetryable(step.error.message)
    return msgspec.json.decode(step.result, type=type)


async def run_method(fiber: Fiber, method: Callable[[], Awaitable[Any]]) -> None:
    """Run a fiber's method to its end: started, timed, aborted, settled in the log.

    A spent budget settles it as failed (a dead letter) without calling the method again; its timeout counts time under
    attempts only. An abort cancels the method and settles it as aborted, and never waits behind it.
    """
    state, clock = fiber.state, fiber.instance.clock
    if state.abort is not None:
        await fiber.settle("aborted", error=r.ErrorInfo(kind="aborted", message=state.abort))
        return
    if state.interrupted >= FIBER_ATTEMPTS_MAX:
        text = f"{state.interrupted} attempts in a row ended with their process and left no new step or stash"
        await fiber.settle("failed", error=r.ErrorInfo(kind="attempts_exhausted", message=text))
        return
    if state.phase is not Phase.RUNNING:
        await fiber.instance.append([r.FiberStarted(fiber=fiber.id, at=clock.wall())])
    limit = state.timeout_seconds if state.timeout_seconds is not None else FIBER_TIMEOUT_SECONDS
    deadline = clock.monotonic() + limit - fiber.state.ran(clock.wall())
    work = asyncio.ensure_future(method())
    watch = asyncio.ensure_future(_aborted(fiber, deadline))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await _settle_result(fiber, work)
        else:
            verdict = watch.result()
            await _end(work)
            await _settle_cut(fiber, verdict, limit)
    except asyncio.CancelledError:
        await _end(work)
        raise
    finally:
        watch.cancel()


async def _aborted(fiber: Fiber, deadline: float) -> str:
    """Return why the method has to end now: `aborted` or `timeout`."""
    instance, bell = fiber.instance, asyncio.Event()

    def look() -> None:
        # Called at every fold: a task that woke for each would cost more than the fold.
        state = instance.runtime.fibers.get(fiber.id)
        if state is not None and state.abort is not None:
            bell.set()

    forget = instance.observe(look)
    try:
        look()
        while not bell.is_set():
            left = deadline - instance.clock.monotonic()
            if left <= 0:
                return "timeout"
            await nap(bell, left)
        return "aborted"
    finally:
        forget()


async def _end(work: asyncio.Future[Any]) -> None:
    """Cancel the method and give it a moment; one that ignores cancellation is abandoned: what it appends is refused."""
    work.add_done_callback(seen)
    if not work.done() and work.cancel() and not (await asyncio.wait({work}, timeout=CANCEL_GRACE_SECONDS))[0]:
        logger.error("a fiber's method ignores its cancellation and is left behind: %r", work)


def seen(work: asyncio.Future[Any]) -> None:
    """Look at how a task that was cut off ended: what it raised on its way out is nobody's news."""
    _ = work.cancelled() or work.exception()


async def _settle_result(fiber: Fiber, work: asyncio.Future[Any]) -> None:
    if work.cancelled():
        raise Interrupted
    error = work.exception()
    if fiber.instance.fenced or fiber.state.is_settled or isinstance(error, Parked | Interrupted):
        return
    if error is None:
        encoded = msgspec.json.encode(work.result())
        await fiber.settle("completed", result=msgspec.Raw(encoded))
    elif isinstance(error, Exception) and not isinstance(error, Fenced | StoreError):
        await fiber.settle("failed", error=error_info(error))
    else:
        raise error


async def _settle_cut(fiber: Fiber, verdict: str, limit: float) -> None:
    if fiber.state.is_settled:
        return
    if verdict == "aborted":
        await fiber.settle("aborted", error=r.ErrorInfo(kind="aborted", message=fiber.state.abort or "aborted"))
    else:
        text = f"ran longer than its {limit:g} s (parked time not counted)"
        await fiber.settle("failed", error=r.ErrorInfo(kind="timeout", message=text))
