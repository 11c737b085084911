"""Which fibers of an instance may run, and when: computed from the fold, remembered by nobody.

Laws. Pure. The same answer decides what a runner starts, when a hibernating instance wakes, and whether claiming it is
worth a record at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from cairn.runtime.application import Application
from cairn.runtime.state import FiberState, Phase, RuntimeState, backoff_seconds

#: The wake time of something that can run at once.
NOW = 0.0


def candidates(runtime: RuntimeState, *, serial: bool) -> Iterator[FiberState]:
    """Those whose turn it is: all, or the oldest (S11). One that is to be aborted never waits for its turn."""
    for place, fiber in enumerate(runtime.unsettled()):
        if not serial or place == 0 or fiber.abort is not None:
            yield fiber


def ready_at(fiber: FiberState) -> float | None:
    """When a fiber may run, in wall seconds; `NOW`, or None: not before something else happens."""
    if fiber.abort is not None or fiber.phase is Phase.ACCEPTED:
        return NOW
    if fiber.phase is Phase.RUNNING:
        wait = backoff_seconds(fiber.interrupted)
        return fiber.interrupted_at + wait if wait else NOW
    if fiber.blocked is not None:
        return NOW
    return fiber.parked_until


def next_wake(runtime: RuntimeState, *, serial: bool, after: float) -> float | None:
    """When the next fiber, of those that cannot run yet, may run; None: when somebody sends something."""
    times = [ready_at(fiber) for fiber in candidates(runtime, serial=serial)]
    return min((at for at in times if at is not None and at > after), default=None)


def waits_for_code(runtime: RuntimeState, application: Application) -> bool:
    """Whether all there is to do has been parked for want of code, and this code has not got it either."""
    fibers = [fiber for fiber in candidates(runtime, serial=application.serial) if ready_at(fiber) == NOW]
    return bool(fibers) and all(
        fiber.blocked is not None and fiber.abort is None and application.blocked(fiber) is not None for fiber in fibers
    )
