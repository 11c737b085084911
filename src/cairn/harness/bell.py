"""Waiting for one of several things without a task for each: whoever knows something rings, one waiter listens."""

from __future__ import annotations

import asyncio


class Bell:
    """One waiter at a time. A ring while nobody waits is not kept: look before you wait, on the same loop."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def hear(self, _: object) -> None:
        """`ring`, as a future's callback."""
        self.ring()

    async def wait(self, seconds: float | None = None) -> None:
        """Return at the next ring, or after `seconds`."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(max(0.0, seconds), self.ring)
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()
