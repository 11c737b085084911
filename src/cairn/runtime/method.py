"""A fiber's method, called: started, timed, parked, aborted, retried, recovered and settled in the log.

Laws. The method's task has no say in its own end: an abort, a park or the end of its time cancels it and is never waited for
beyond a grace. `Interrupted` unwinds a method whose process is stopping or whose instance was taken over, and is no error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from cairn.errors import Fenced, NonRetryable, StoreError
from cairn.runtime import records as r
from cairn.runtime.encoding import as_json
from cairn.runtime.fiber import Fiber, Verdict
from cairn.runtime.settings import CANCEL_GRACE_SECONDS, FIBER_ATTEMPTS_MAX, FIBER_TIMEOUT_SECONDS, RECOVERY_SECONDS
from cairn.runtime.state import FiberState, Phase
from cairn.runtime.step import error_info
from cairn.runtime.waiting import nap

logger = logging.getLogger("cairn.runtime")

Method = Callable[[], Awaitable[Any]]
Recover = Callable[[], Awaitable[Verdict | None]]


class Interrupted(BaseException):
    """Unwinds a method whose process is stopping or whose instance was taken over; nothing durable is owed."""


async def run_method(fiber: Fiber, method: Method, recover: Recover | None = None) -> None:
    """Run a fiber's method until it is settled or parked in the log.

    A spent budget settles it as failed (a dead letter) without calling the method again; its timeout counts time under
    attempts only. An abort cancels the method and settles it as aborted, and never waits behind it. `recover` is called
    first when the method was under way before; it may say how the fiber ends, and has a deadline.
    """
    state, clock = fiber.state, fiber.instance.clock
    if state.abort is not None:
        await settle_asked(fiber, state)
        return
    if state.interrupted >= FIBER_ATTEMPTS_MAX:
        text = f"{state.interrupted} attempts in a row ended with their process and left no new step or stash"
        await fiber.settle("failed", error=r.ErrorInfo(kind="attempts_exhausted", message=text), dead=True)
        return
    call = method
    if state.phase is not Phase.RUNNING:
        await fiber.instance.together.append([r.FiberStarted(fiber=fiber.id, at=clock.wall())])
    elif recover is not None:
        call = _recovering(fiber, method, recover)
    limit = state.timeout_seconds if state.timeout_seconds is not None else FIBER_TIMEOUT_SECONDS
    await _watched(fiber, call, limit)


async def _watched(fiber: Fiber, method: Method, limit: float) -> None:
    """Call the method beside those who may end it."""
    clock = fiber.instance.clock
    deadline = clock.monotonic() + limit - fiber.state.ran(clock.wall())
    parked = fiber.parking.parked = asyncio.get_running_loop().create_future()
    work = asyncio.ensure_future(method())
    watch = asyncio.ensure_future(aborted(fiber, deadline))
    try:
        await asyncio.wait({work, watch, parked}, return_when=asyncio.FIRST_COMPLETED)
        if parked.done():
            await end(work)
        elif work.done():
            await _settle_result(fiber, work)
        else:
            verdict = watch.result()
            await end(work)
            await _settle_cut(fiber, verdict, limit)
    except asyncio.CancelledError:
        await end(work)
        raise
    finally:
        watch.cancel()
        await fiber.parking.close()


async def aborted(fiber: Fiber, deadline: float) -> str:
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


async def end(work: asyncio.Future[Any]) -> None:
    """Cancel the method and give it a moment; one that ignores cancellation is abandoned: what it appends is refused."""
    work.add_done_callback(seen)
    if not work.done() and work.cancel() and not (await asyncio.wait({work}, timeout=CANCEL_GRACE_SECONDS))[0]:
        logger.error("a fiber's method ignores its cancellation and is left behind: %r", work)


def seen(work: asyncio.Future[Any]) -> None:
    """Look at how a task that was cut off ended: what it raised on its way out is nobody's news."""
    _ = work.cancelled() or work.exception()


def _recovering(fiber: Fiber, method: Method, recover: Recover) -> Method:
    """The hook first, for as long as it may take; then the method, unless the hook has given a verdict."""

    async def call() -> Any:
        verdict = None
        try:
            async with asyncio.timeout(RECOVERY_SECONDS) as limit:
                verdict = await recover()
        except TimeoutError:
            if not limit.expired():
                raise
            text = "on_fiber_recovered of fiber '%s' took longer than %g s; the method is called again"
            logger.warning(text, fiber.id, RECOVERY_SECONDS)
        return verdict if verdict is not None else await method()

    return call


# --- its end in the log


async def settle_asked(fiber: Fiber, state: FiberState) -> None:
    """As a person said, or as aborted."""
    given = state.resolution
    if given is not None:
        await fiber.settle(given.outcome, result=given.result, error=given.error)
    else:
        await fiber.settle("aborted", error=r.ErrorInfo(kind="aborted", message=state.abort or "aborted"))


async def _settle_result(fiber: Fiber, work: asyncio.Future[Any]) -> None:
    if work.cancelled():
        raise Interrupted
    error = work.exception()
    if fiber.instance.fenced or fiber.state.phase is not Phase.RUNNING or isinstance(error, Interrupted):
        return
    if error is None:
        await _settle_returned(fiber, work.result())
    elif isinstance(error, Exception) and not isinstance(error, Fenced | StoreError):
        await settle_raised(fiber, error)
    else:
        raise error


async def _settle_returned(fiber: Fiber, result: Any) -> None:
    if isinstance(result, Verdict):
        info = r.ErrorInfo(kind=result.outcome, message=result.error) if result.error else None
        await fiber.settle(result.outcome, result=as_json("the result of a verdict", result.result), error=info)
    else:
        await fiber.settle("completed", result=as_json(f"what method '{fiber.state.method}' returned", result))


async def settle_raised(fiber: Fiber, error: Exception) -> None:
    """Called again later, if its policy has tries left; else it has failed, and is a dead letter if there was a policy."""
    state, retry, now = fiber.state, fiber.state.retry, fiber.instance.clock.wall()
    if retry is None or isinstance(error, NonRetryable):
        await fiber.settle("failed", error=error_info(error))
    elif state.tries + 1 >= retry.attempts:
        await fiber.settle("failed", error=error_info(error), dead=True)
    else:
        until = now + retry.wait(state.tries + 1, fiber.instance.ids.random())
        await fiber.instance.together.append([r.FiberRetried(fiber=fiber.id, at=now, until=until, error=error_info(error))])


async def _settle_cut(fiber: Fiber, verdict: str, limit: float) -> None:
    if fiber.state.is_settled:
        return
    if verdict == "aborted":
        await settle_asked(fiber, fiber.state)
    else:
        text = f"ran longer than its {limit:g} s (parked time not counted)"
        await fiber.settle("failed", error=r.ErrorInfo(kind="timeout", message=text))
