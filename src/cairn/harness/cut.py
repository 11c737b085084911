"""The cut: one future that every wait of a submission races, done once the submission must stop now.

No task watches for it: it is looked for at each fold, which is when an abort or a fence becomes known, and by one timer.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from cairn.runtime.instance import Instance

CutReason = Literal["abort", "timeout"]

#: Seconds past the deadline at which it is looked for, so that the comparison cannot come out equal for ever.
LATE_SECONDS = 0.0005


class Cut:
    """Resolves `future` to `abort` or `timeout` when the fiber is asked to stop or its running time is over.

    A context manager; outside it, nothing is watched.
    """

    def __init__(self, instance: Instance, fiber: str, running_seconds: float) -> None:
        self.future: asyncio.Future[CutReason] = asyncio.get_running_loop().create_future()
        self._instance = instance
        self._fiber = fiber
        self._running_seconds = running_seconds
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> asyncio.Future[CutReason]:
        self._stop = self._instance.observe(self._look)
        self._look()
        return self.future

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._timer is not None:
            self._timer.cancel()
        self.future.cancel()

    def _look(self) -> None:
        if self.future.done():
            return
        state = self._instance.runtime.fibers.get(self._fiber)
        if state is None or state.abort is not None or self._instance.fenced:
            self.future.set_result("abort")
            return
        left = self._running_seconds - state.ran(self._instance.clock.wall())
        if left < 0:
            self.future.set_result("timeout")
        elif self._timer is None or self._timer.cancelled():
            self._timer = asyncio.get_running_loop().call_later(left + LATE_SECONDS, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._look()
