"""Whether the event loop still turns: what decides if a worker's lease is renewed.

The store renews leases from its own thread, so that a busy loop does not lose every instance of its process. A loop
that has not turned for a minute is stuck, though (a blocking call in user code): its stack is logged once, and its lease
runs out, so that others can take its work.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback

from cairn.clock import Clock
from cairn.runtime.settings import LOOP_STALL_SECONDS, LOOP_TICK_SECONDS

logger = logging.getLogger("cairn.runtime")


class Heartbeat:
    """Ticks on the event loop; `is_beating` may be asked from any thread."""

    def __init__(self, clock: Clock, *, stall_seconds: float = LOOP_STALL_SECONDS) -> None:
        self._clock = clock
        self._stall_seconds = stall_seconds
        self._last = clock.monotonic()
        self._thread = threading.get_ident()
        self._reported = False

    async def run(self) -> None:
        """Tick until cancelled."""
        self._thread = threading.get_ident()
        while True:
            self._last = self._clock.monotonic()
            self._reported = False
            await self._clock.sleep(LOOP_TICK_SECONDS)

    def is_beating(self) -> bool:
        """Whether the loop turned within the limit. The first time that it did not, its stack is logged."""
        stalled = self._clock.monotonic() - self._last
        if stalled < self._stall_seconds:
            return True
        if not self._reported:
            self._reported = True
            logger.error(
                "the event loop has not turned for %.0f s; the lease is not renewed any more and others will take this "
                "worker's instances. Move what blocks into a plain (not async) function. It is here:\n%s",
                stalled,
                self._stack(),
            )
        return False

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread)
        return "".join(traceback.format_stack(frame)) if frame is not None else "(the loop's thread is gone)"
