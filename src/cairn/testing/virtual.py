"""Time and names inside a simulation: a `Clock` that reads the loop's virtual time, `Ids` that come from the seed.

A process may disagree with its neighbours about the time of day (`skew`, `jump`) and about how fast time passes
(`rate`); boot time is the kernel's, so all processes of one simulation share it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from cairn.clock import Clock
from cairn.ids import ulid

#: The wall clock when a simulation starts: 2025-06-15T15:06:40Z. A fixed day, so that records read the same every run.
EPOCH = 1_750_000_000.0

#: The boot clock when a simulation starts. Not zero, so that "no lease" (0) is never the present.
BOOT = 1_000.0


class SimulatedClock:
    """A process's clocks: `now` is true time, its wall clock is `skew` seconds ahead, it ticks `rate` times as fast."""

    def __init__(self, now: Callable[[], float], *, skew: float = 0.0, rate: float = 1.0) -> None:
        self._now = now
        self._skew = skew
        self._rate = rate

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back. Monotonic and boot time do not notice."""
        self._skew += seconds

    def wall(self) -> float:
        return EPOCH + self._skew + self._now() * self._rate

    def monotonic(self) -> float:
        return self._now() * self._rate

    def boottime(self) -> float:
        return BOOT + self._now()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / self._rate)


class SeededIds:
    """Ids and jitter that are a function of the seed and the virtual time."""

    def __init__(self, choose: random.Random, clock: Clock) -> None:
        self._choose = choose
        self._clock = clock

    def new(self, prefix: str) -> str:
        return f"{prefix}_{ulid(int(self._clock.wall() * 1000), self._choose.getrandbits(80))}"

    def random(self) -> float:
        return self._choose.random()
