"""Waiting for one event with a limit, without a task for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def nap(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or after so many seconds; at once when they are none."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
