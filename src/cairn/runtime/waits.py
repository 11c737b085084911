"""How waits begin and end: which signal goes to whom, which answer fits, what time ends.

Laws. Pure. A signal is kept until somebody waits for it, goes to the oldest fiber that does, and is gone then: each is taken
once, and which record took it is a function of the log alone. Whatever ends a wait first has ended it; what comes later has
no effect on it, and a signal that comes later is kept for the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cairn.runtime import records as r
from cairn.runtime.fiber_state import Came, FiberState, Phase, WaitState
from cairn.runtime.settings import SIGNALS_KEPT_MAX

if TYPE_CHECKING:
    from cairn.runtime.state import RuntimeState


class Signal(msgspec.Struct, frozen=True, omit_defaults=True):
    """One that nobody has taken yet."""

    name: str
    at: float
    payload: msgspec.Raw = r.NULL
    fiber: str | None = None
    id: str = ""


def begin(state: RuntimeState, fiber: FiberState, wait: WaitState) -> None:
    """The fiber waits, unless it does so already; what it waits for may have come before."""
    if wait.name in fiber.waits:
        return
    fiber.waits[wait.name] = wait
    if wait.on == "signal":
        for place, signal in enumerate(state.signals):
            if _is_for(signal.name, signal.fiber, fiber, wait):
                del state.signals[place]
                end(fiber, wait, Came(at=wait.since, value=signal.payload))
                return
    elif wait.on == "fiber":
        if wait.event in state.fibers:
            state.joins.setdefault(wait.event, []).append(fiber.id)
        else:
            end(fiber, wait, Came(at=wait.since))
    elif wait.on == "accepted" and any(
        other.method == wait.event and other.ordinal > wait.after for other in state.fibers.values()
    ):
        end(fiber, wait, Came(at=wait.since))


def end(fiber: FiberState, wait: WaitState, came: Came) -> None:
    """The wait is over; a parked fiber has something to go on with."""
    del fiber.waits[wait.name]
    fiber.waited[wait.name] = came.at
    if wait.on not in ("sleep", "retry"):
        fiber.came[wait.name] = came
    if fiber.phase is Phase.PARKED:
        fiber.woken = True


def due(fiber: FiberState, at: float) -> None:
    """Those of its waits are over whose time has come."""
    for wait in [wait for wait in fiber.waits.values() if wait.until is not None and wait.until <= at]:
        end(fiber, wait, Came(at=at, timed_out=True))


def signal_sent(state: RuntimeState, record: r.SignalSent) -> None:
    """To the oldest fiber that waits for it; else it is kept. One for a fiber that has settled is gone."""
    payload = record.payload.copy()
    for fiber in state.fibers.values():
        for wait in fiber.waits.values():
            if wait.on == "signal" and _is_for(record.name, record.fiber, fiber, wait):
                end(fiber, wait, Came(at=record.at, value=payload))
                return
    if record.fiber is not None and record.fiber not in state.fibers:
        return
    state.signals.append(Signal(record.name, record.at, payload, record.fiber, record.id))
    if len(state.signals) > SIGNALS_KEPT_MAX:
        del state.signals[0]


def answer_given(state: RuntimeState, record: r.AnswerGiven, ordinal: int) -> None:
    """To the fiber that asked, if it is what it asked, in time, and the first. An answer to a tool call is the harness's."""
    fiber = state.fibers.get(record.fiber or "")
    wait = fiber.waits.get(record.call) if fiber is not None else None
    if fiber is not None and wait is not None and unfit(wait, record.digest, record.at, record.by) is None:
        end(fiber, wait, Came(at=record.at, value=record.answer.copy(), by=record.by, ordinal=ordinal))


def accepted(state: RuntimeState, record: r.FiberAccepted) -> None:
    """Whoever waits for more work of this kind has waited for this; nothing is taken, so all of them have."""
    for fiber in state.fibers.values():
        for wait in [wait for wait in fiber.waits.values() if wait.on == "accepted" and wait.event == record.method]:
            end(fiber, wait, Came(at=record.at))


def unfit(wait: WaitState, digest: str, at: float, by: str = "") -> str | None:
    """Why an answer is none to what was asked; None when it is one."""
    if wait.on != "answer":
        return f"'{wait.name}' waits for a {wait.on}, not for an answer"
    if wait.by and by not in wait.by:
        return f"{by or 'nobody in particular'} may not answer it; {', '.join(wait.by)} may"
    if wait.digest != digest:
        return f"it answers another question: the digest of what '{wait.name}' asks is {wait.digest}"
    if wait.until is not None and at > wait.until:
        return f"'{wait.name}' waited for an answer until {wait.until:.0f}, which is over"
    return None


def settled(state: RuntimeState, fiber: FiberState, at: float) -> None:
    """Who waits for this fiber need not any more; what was sent to it is nobody's."""
    for id in state.joins.pop(fiber.id, ()):
        other = state.fibers.get(id)
        for wait in list(other.waits.values()) if other is not None else ():
            if other is not None and wait.on == "fiber" and wait.event == fiber.id:
                end(other, wait, Came(at=at))
    if any(signal.fiber == fiber.id for signal in state.signals):
        state.signals[:] = [signal for signal in state.signals if signal.fiber != fiber.id]


def _is_for(name: str, addressee: str | None, fiber: FiberState, wait: WaitState) -> bool:
    return name == wait.event and addressee in (None, fiber.id)
