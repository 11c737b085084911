"""What the runtime knows of one instance: the fold of its own records.

Laws. Pure; `apply` is amortised O(1) and total over the vocabulary; a transition the life of a fiber does not allow is
an error, never ignored (S14). Requests commute with owner records: whichever of two such records comes first, the
result is the same, because the owner may have decided before it saw the request.

The life of a fiber:

    accepted ──started──▶ running ──parked──▶ parked ──started──▶ running ──settled──▶ settled
                             │  claimed: one more attempt (nothing in between was progress: one nearer the budget)
                             │  released, then claimed: goes on, no attempt counted
    accepted, running and parked may settle (an abort, a spent budget, another fiber's answer)
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from cairn.errors import StoreCorrupt
from cairn.runtime import records as r
from cairn.runtime.settings import BACKOFF_BASE_SECONDS, BACKOFF_MAX_SECONDS


def backoff_seconds(interrupted: int) -> float:
    """How long to wait before the next attempt after that many interruptions in a row: 0, 1, 2, 4, … seconds.

    The first is free, because most kills are deployments; a process-killing input meets the doubling.
    """
    if interrupted <= 1:
        return 0.0
    return min(BACKOFF_BASE_SECONDS * 2.0 ** (interrupted - 2), BACKOFF_MAX_SECONDS)


class Phase(Enum):
    ACCEPTED = "accepted"
    RUNNING = "running"
    PARKED = "parked"
    SETTLED = "settled"


class StepState(msgspec.Struct, omit_defaults=True):
    """A step the log knows: started (intent only) or completed."""

    started_epoch: int | None = None
    repeat: str = "safe"
    done: bool = False
    result: msgspec.Raw = r.NULL
    error: r.ErrorInfo | None = None


class FiberState(msgspec.Struct, omit_defaults=True):
    id: str
    method: str
    accepted_at: float
    ordinal: int
    """Of its admission: fibers start in this order (S11)."""
    arguments: msgspec.Raw = r.NULL
    key: str | None = None
    timeout_seconds: float | None = None
    phase: Phase = Phase.ACCEPTED
    attempt: int = 0
    """How often it was started or taken up again after an interruption; 1 during the first try."""
    interrupted: int = 0
    """Attempts in a row that ended with their process and left no new durable fact: what the budget counts."""
    interrupted_at: float = 0.0
    """When the last of them was noticed: the wait before the next attempt begins here."""
    resumed_at: float = 0.0
    """When the present attempt began."""
    last_seen: float = 0.0
    ran_seconds: float = 0.0
    """Time under earlier attempts; parked time and downtime are not in it."""
    snapshot: msgspec.Raw = r.NULL
    """What was stashed last. Not `Raw | None`: msgspec would decode only null into that."""
    steps: dict[str, StepState] = {}
    parked_for: str | None = None
    parked_until: float | None = None
    blocked: r.ErrorInfo | None = None
    """Why it is parked for want of code; None when it is not."""
    waited: dict[str, float] = {}
    """Parks that are over, by name."""
    abort: str | None = None
    """Why it is to be aborted; None when it is not."""
    outcome: r.Outcome | None = None
    result: msgspec.Raw = r.NULL
    error: r.ErrorInfo | None = None
    answered_by: str | None = None

    @property
    def is_settled(self) -> bool:
        return self.phase is Phase.SETTLED

    def ran(self, now: float) -> float:
        """Seconds under attempts so far."""
        return self.ran_seconds + (max(0.0, now - self.resumed_at) if self.phase is Phase.RUNNING else 0.0)


def step_key(scope: str, name: str) -> str:
    return f"{scope}\x1f{name}"


class RuntimeState(msgspec.Struct, omit_defaults=True):
    """One instance, as far as the runtime is concerned."""

    kind: str = ""
    id: str = ""
    uid: str = ""
    epoch: int = 0
    claimed_at: float = 0.0
    released: bool = True
    crashed: bool = False
    """The owner before the present one ended without a release."""
    destroy: bool = False
    fibers: dict[str, FiberState] = {}
    """Unsettled ones, by admission."""
    settled: dict[str, FiberState] = {}
    """Settled ones, reduced to their outcome."""
    keys: dict[str, str] = {}

    def fiber(self, id: str) -> FiberState | None:
        return self.fibers.get(id) or self.settled.get(id)

    def unsettled(self) -> list[FiberState]:
        """In admission order."""
        return list(self.fibers.values())

    def apply(self, record: r.Record, ordinal: int) -> None:
        """Fold one record. Records of other vocabularies are somebody else's and change nothing here."""
        handler = _HANDLERS.get(type(record))
        if handler is not None:
            handler(self, record, ordinal)

    def refusal(self, record: r.Record) -> str | None:
        """Why an owner must not append this record now: the log would be one that no fold accepts (S7, S14)."""
        fiber = getattr(record, "fiber", None)
        if not isinstance(record, _OF_LIVE_FIBERS) or (fiber in self.fibers and not self._is_repeated(record)):
            return None
        known = self.settled.get(str(fiber))
        what = "did that before" if fiber in self.fibers else f"is settled as {known.outcome}" if known else "is unknown"
        return f"fiber '{fiber}' of {self.kind}/{self.id} {what}; a '{type(record).__struct_config__.tag}' cannot follow"

    def _is_repeated(self, record: r.Record) -> bool:
        if not isinstance(record, r.StepCompleted):
            return False
        step = self.fibers[record.fiber].steps.get(step_key(record.scope, record.name))
        return step is not None and step.done

    def progressed(self, fiber: str, at: float | None = None) -> None:
        """A new durable fact exists for this fiber: its budget of attempts starts again."""
        state = self.fibers.get(fiber)
        if state is not None:
            state.interrupted = 0
            if at is not None:
                state.last_seen = max(state.last_seen, at)


def _live(state: RuntimeState, fiber: str, record: r.Record) -> FiberState:
    found = state.fibers.get(fiber)
    if found is None:
        known = state.settled.get(fiber)
        what = f"settled as {known.outcome}" if known else "unknown"
        raise StoreCorrupt(f"{type(record).__name__} for fiber '{fiber}' of {state.kind}/{state.id}, which is {what} (S7)")
    return found


def _created(state: RuntimeState, record: r.InstanceCreated, ordinal: int) -> None:
    state.kind, state.id, state.uid = record.kind, record.id, record.uid


def _forked(state: RuntimeState, record: r.InstanceForked, ordinal: int) -> None:
    """Nobody owns it yet. What is unsettled is so until the same batch settles it; no request of the source's reaches it."""
    state.kind, state.id, state.uid, state.keys = record.kind, record.id, record.uid, {}
    state.released, state.crashed, state.destroy = True, False, False


def _may_have_run(fiber: FiberState, at: float) -> bool:
    """Whether its method was called before the claim at `at`: an owner that died while the fiber backed off did not try it.

    A clock that was set back says nothing; then it counts, because a method that kills its process has to be counted.
    """
    return not fiber.interrupted_at <= at < fiber.interrupted_at + backoff_seconds(fiber.interrupted)


def _claimed(state: RuntimeState, record: r.InstanceClaimed, ordinal: int) -> None:
    if record.epoch <= state.epoch:
        raise StoreCorrupt(f"{state.kind}/{state.id}: epoch {record.epoch} claimed after {state.epoch} (S4)")
    for fiber in state.fibers.values():
        if fiber.phase is not Phase.RUNNING:
            continue
        if not state.released and _may_have_run(fiber, record.at):
            fiber.attempt += 1
            fiber.interrupted += 1
            fiber.interrupted_at = record.at
            fiber.ran_seconds += max(0.0, fiber.last_seen - fiber.resumed_at)
        fiber.resumed_at = fiber.last_seen = record.at
    state.crashed = not state.released
    state.epoch, state.claimed_at, state.released = record.epoch, record.at, False


def _released(state: RuntimeState, record: r.InstanceReleased, ordinal: int) -> None:
    for fiber in state.fibers.values():
        if fiber.phase is Phase.RUNNING:
            fiber.ran_seconds += max(0.0, record.at - fiber.resumed_at)
            fiber.resumed_at = fiber.last_seen = record.at
    state.released = True


def _accepted(state: RuntimeState, record: r.FiberAccepted, ordinal: int) -> None:
    if state.fiber(record.fiber) is not None:
        raise StoreCorrupt(f"fiber '{record.fiber}' of {state.kind}/{state.id} was accepted twice (S6)")
    state.fibers[record.fiber] = FiberState(
        id=record.fiber,
        method=record.method,
        accepted_at=record.at,
        ordinal=ordinal,
        arguments=record.arguments.copy(),
        key=record.key,
        timeout_seconds=record.timeout_seconds,
    )
    if record.key is not None:
        state.keys[record.key] = record.fiber


def _started(state: RuntimeState, record: r.FiberStarted, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    if fiber.phase is Phase.PARKED and fiber.parked_for is not None:
        fiber.waited[fiber.parked_for] = record.at
    if fiber.phase is Phase.ACCEPTED:
        fiber.attempt = 1
    fiber.phase, fiber.parked_for, fiber.parked_until, fiber.blocked = Phase.RUNNING, None, None, None
    fiber.resumed_at = fiber.last_seen = record.at


def _stashed(state: RuntimeState, record: r.FiberStashed, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    fiber.snapshot = record.value.copy()
    fiber.interrupted = 0


def _step_started(state: RuntimeState, record: r.StepStarted, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    fiber.steps[step_key(record.scope, record.name)] = StepState(started_epoch=record.epoch, repeat=record.repeat)


def _step_completed(state: RuntimeState, record: r.StepCompleted, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    step = fiber.steps.setdefault(step_key(record.scope, record.name), StepState())
    if step.done:
        raise StoreCorrupt(f"step '{record.name}' of fiber '{record.fiber}' completed twice (S5)")
    step.done, step.result, step.error = True, record.result.copy(), record.error
    fiber.interrupted = 0


def _parked(state: RuntimeState, record: r.FiberParked, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    fiber.ran_seconds = fiber.ran(record.at)
    fiber.interrupted = 0
    fiber.blocked = record.error
    if record.error is not None and fiber.phase is Phase.PARKED:
        return  # what it waited for is over or not as before: the method, once it is back, goes on behind that wait
    fiber.phase, fiber.parked_for, fiber.parked_until = Phase.PARKED, record.name, record.until


def _settled(state: RuntimeState, record: r.FiberSettled, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    del state.fibers[record.fiber]
    state.settled[record.fiber] = FiberState(
        id=fiber.id,
        method=fiber.method,
        accepted_at=fiber.accepted_at,
        ordinal=fiber.ordinal,
        key=fiber.key,
        phase=Phase.SETTLED,
        attempt=fiber.attempt,
        outcome=record.outcome,
        result=record.result.copy(),
        error=record.error,
        answered_by=record.answered_by,
    )


def _abort(state: RuntimeState, record: r.AbortRequested, ordinal: int) -> None:
    targets = [record.fiber] if record.fiber is not None else list(state.fibers)
    for id in targets:
        fiber = state.fibers.get(id)
        if fiber is not None and fiber.abort is None:
            fiber.abort = record.reason or "abort requested"


def _cancel(state: RuntimeState, record: r.CancelRequested, ordinal: int) -> None:
    fiber = state.fibers.get(record.target)
    if fiber is not None and fiber.abort is None:
        fiber.abort = "cancelled"


def _destroy(state: RuntimeState, record: r.DestroyRequested, ordinal: int) -> None:
    state.destroy = True


_OF_LIVE_FIBERS = (r.FiberStarted, r.FiberStashed, r.StepStarted, r.StepCompleted, r.FiberParked, r.FiberSettled)

_HANDLERS: dict[type[r.Record], Callable[[RuntimeState, Any, int], None]] = {
    r.InstanceCreated: _created,
    r.InstanceForked: _forked,
    r.InstanceClaimed: _claimed,
    r.InstanceReleased: _released,
    r.FiberAccepted: _accepted,
    r.FiberStarted: _started,
    r.FiberStashed: _stashed,
    r.StepStarted: _step_started,
    r.StepCompleted: _step_completed,
    r.FiberParked: _parked,
    r.FiberSettled: _settled,
    r.AbortRequested: _abort,
    r.CancelRequested: _cancel,
    r.DestroyRequested: _destroy,
}
