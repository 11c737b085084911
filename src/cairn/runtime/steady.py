"""The wall clock of one reign over an instance: set when no fiber is under way, then moved by the monotonic clock only.

A machine's clock may be set while a fiber runs. What the fiber's owner writes down must not jump with it, or an hour that
never passed would count as time under an attempt and end the fiber (L3).
"""

from __future__ import annotations

from cairn.clock import Clock


class SteadyClock:
    """A `Clock` whose wall time does not jump."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.set()

    @property
    def machine(self) -> Clock:
        """The clock underneath, which may jump: schedules are about the time people see."""
        return self._clock

    def set(self) -> None:
        """Agree with the machine's wall clock again."""
        self._offset = self._clock.wall() - self._clock.monotonic()

    def wall(self) -> float:
        return self._offset + self._clock.monotonic()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def boottime(self) -> float:
        return self._clock.boottime()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
