"""Time, as an argument. This file and `ids.py` are the only ones that read the outside world's time or randomness.

Three clocks, because three questions: `wall` answers "when did it happen" (records, schedules), `monotonic` answers
"how long did it take here" (deadlines inside one process), `boottime` answers "is that lease over" (all processes of
one kernel share it and no one can set it).
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Everything Cairn knows of time. The simulator's clock is virtual; production's is `SystemClock`."""

    def wall(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock of this process that never goes back."""
        ...

    def boottime(self) -> float:
        """Seconds since this machine booted, suspended time included; comparable between processes of one kernel."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`. Cancelled: at once."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
