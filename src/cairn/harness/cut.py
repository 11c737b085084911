"""The cut: one future that every wait of a submission races, done once the submission must stop now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cairn.harness.turn import CutReason
from cairn.runtime.instance import Instance


@asynccontextmanager
async def cutting(instance: Instance, fiber: str, running_seconds: float) -> AsyncGenerator[asyncio.Future[CutReason], None]:
    """A future that resolves to `abort` or `timeout` when the fiber is asked to stop or its running time is over."""
    cut: asyncio.Future[CutReason] = asyncio.get_running_loop().create_future()
    watch = asyncio.ensure_future(_watch(instance, fiber, running_seconds, cut))
    try:
        yield cut
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        cut.cancel()


async def _watch(instance: Instance, fiber: str, running_seconds: float, cut: asyncio.Future[CutReason]) -> None:
    clock = instance.clock
    while not cut.done():
        state = instance.runtime.fibers.get(fiber)
        changed = instance.changed()
        left = running_seconds - state.ran(clock.wall()) if state is not None else 0.0
        if state is None or state.abort is not None or instance.fenced:
            changed.close()
            cut.set_result("abort")
        elif left < 0:
            changed.close()
            cut.set_result("timeout")
        else:
            # Half a millisecond past the deadline, so that the comparison above cannot come out equal for ever.
            await _either(changed, left + 0.0005)


async def _either(changed: object, seconds: float) -> None:
    waiter = asyncio.ensure_future(changed)  # type: ignore[call-overload]
    try:
        await asyncio.wait({waiter}, timeout=seconds)
    finally:
        waiter.cancel()
