"""A handler's call that came through the log: begun, watched, settled there.

Laws. It takes the handlers' turn like any other, in the order of the log. That it has begun is recorded, relaxed, before it
does: a call that kills its process is counted like a fiber. Its settlement is in the batch of what it changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from cairn.errors import Fenced, StoreError
from cairn.runtime import records as r
from cairn.runtime.activation import Activation
from cairn.runtime.call_errors import info_of, told
from cairn.runtime.fiber import Fiber
from cairn.runtime.handlers import Cut, Leaving
from cairn.runtime.handling import Invocation
from cairn.runtime.method import Interrupted, aborted, end, settle_asked, settle_raised
from cairn.runtime.settings import FIBER_ATTEMPTS_MAX
from cairn.runtime.state import Phase
from cairn.runtime.storage.store import Durability

logger = logging.getLogger("cairn.runtime")


async def run_call(fiber: Fiber, activation: Activation) -> None:
    """Call the handler until the call has settled in the log. An abort cuts it, and never waits behind it."""
    state = fiber.state
    if state.abort is not None:
        await settle_asked(fiber, state)
    elif state.interrupted >= FIBER_ATTEMPTS_MAX:
        text = f"{state.interrupted} attempts in a row ended with their process"
        await fiber.settle("failed", error=r.ErrorInfo(kind="attempts_exhausted", message=text), dead=state.call is None)
    elif state.chunks:
        text = "its process died after it had begun to yield; what came cannot be taken back"
        await fiber.settle("failed", error=r.ErrorInfo(kind="interrupted", message=text))
    else:
        await _watched(fiber, activation)


async def _watched(fiber: Fiber, activation: Activation) -> None:
    """Call it beside those who may end it."""
    work = asyncio.ensure_future(_perform(fiber, activation))
    watch = asyncio.ensure_future(aborted(fiber, float("inf")))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await end(work)
            if fiber.id in fiber.instance.runtime.fibers:
                await settle_asked(fiber, fiber.state)
        else:
            await _settle(fiber, work)
    except asyncio.CancelledError:
        await end(work)
        raise
    finally:
        watch.cancel()


async def _settle(fiber: Fiber, work: asyncio.Future[None]) -> None:
    if work.cancelled():
        raise Interrupted
    error = work.exception()
    if error is None or fiber.id not in fiber.instance.runtime.fibers:
        return
    if isinstance(error, Leaving | Cut):
        raise Interrupted
    if not isinstance(error, Exception) or isinstance(error, Fenced | StoreError):
        raise error
    if fiber.state.call is not None:
        if fiber.state.call.what == "state_changed":  # nobody waits for it who could be told
            logger.warning("on_state_changed of %s failed: %s", fiber.instance.address, error)
        await fiber.settle("failed", error=info_of(told(error)))
    else:
        await settle_raised(fiber, error)


async def _perform(fiber: Fiber, activation: Activation) -> None:
    instance, state = fiber.instance, fiber.state
    call = state.call or r.Call(what="call")

    async def begin() -> None:
        if fiber.state.phase is not Phase.RUNNING:
            started = r.FiberStarted(fiber=fiber.id, at=instance.clock.wall())
            await instance.append([started], durability=Durability.DELTA)

    def settled(result: msgspec.Raw) -> Sequence[r.Record]:
        at = instance.clock.wall()
        return [r.FiberSettled(fiber=fiber.id, outcome="completed", at=at, result=result)]

    def yielded(chunk: msgspec.Raw) -> Sequence[r.Record]:
        return [r.ObjectSent(call=fiber.id, chunk=chunk)]

    invocation = Invocation(call, state.method, state.arguments)
    await activation.invoke(
        invocation,
        begin=begin,
        settle=settled,
        tell=yielded,
        seconds=state.timeout_seconds,
        private=state.call is None,
    )
