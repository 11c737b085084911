"""Waiting for one event with a limit, without a task for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

#: The least that is waited. What is left of a period is a subtraction, and 10^-16 s after the present is the present: who
#: waits that long waits again, for ever where only waiting moves the clock.
LEAST_SECONDS = 1e-6


async def nap(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or after so many seconds; at once when they are none."""
    if seconds is not None and seconds > 0:
        seconds = max(seconds, LEAST_SECONDS)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
