"""What the runtime knows of one instance: the fold of its own records.

Laws. Pure; `apply` is amortised O(1) and total over the vocabulary; a transition the life of a fiber does not allow is
an error, never ignored (S14). Requests commute with owner records: whichever of two such records comes first, the
result is the same, because the owner may have decided before it saw the request.

The life of a fiber:

    accepted ──started──▶ running ──parked, retried──▶ parked ──started──▶ running ──settled──▶ settled
                             │  claimed: one more attempt (nothing in between was progress: one nearer the budget)
                             │  released, then claimed: goes on, no attempt counted
    accepted, running and parked may settle (an abort, a spent budget, another fiber's answer)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cairn.errors import StoreCorrupt
from cairn.runtime import connection_state, schedule_state, sub_objects, waits
from cairn.runtime import records as r
from cairn.runtime.connection_state import ConnectionState
from cairn.runtime.fiber_state import Came as Came
from cairn.runtime.fiber_state import FiberState as FiberState
from cairn.runtime.fiber_state import Phase as Phase
from cairn.runtime.fiber_state import Resolution, retry_name
from cairn.runtime.fiber_state import StepState as StepState
from cairn.runtime.fiber_state import WaitState as WaitState
from cairn.runtime.fiber_state import backoff_seconds as backoff_seconds
from cairn.runtime.fiber_state import step_key as step_key
from cairn.runtime.schedule_state import ScheduleState
from cairn.runtime.sub_objects import SubObject
from cairn.runtime.waits import Signal


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
    signals: list[Signal] = []
    """Sent, and taken by nobody yet, in order."""
    joins: dict[str, list[str]] = {}
    """Which fibers wait for a fiber, by that one's id."""
    schedules: dict[str, ScheduleState] = {}
    connections: dict[str, ConnectionState] = {}
    """The clients that are connected, by id, in whatever process."""
    subs: dict[str, SubObject] = {}
    moves: int = 0
    """How many records changed what there is to do: who looks for work need not look after the others."""

    def fiber(self, id: str) -> FiberState | None:
        return self.fibers.get(id) or self.settled.get(id)

    def asks(self) -> bool:
        """Whether somebody is asked something and has not answered."""
        return any(wait.on == "answer" for fiber in self.fibers.values() for wait in fiber.waits.values())

    def unsettled(self) -> list[FiberState]:
        """In admission order."""
        return list(self.fibers.values())

    def apply(self, record: r.Record, ordinal: int) -> None:
        """Fold one record. Records of other vocabularies are somebody else's and change nothing here."""
        handler = _HANDLERS.get(type(record))
        if handler is not None:
            handler(self, record, ordinal)
            if type(record) not in _OF_WORK:
                self.moves += 1

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
    """Nobody owns it yet. What is unsettled is so until the same batch settles it; no request and no schedule of the source's
    reaches it."""
    state.kind, state.id, state.uid, state.keys = record.kind, record.id, record.uid, {}
    state.signals, state.schedules, state.connections, state.subs = [], {}, {}, {}
    state.released, state.crashed, state.destroy = True, False, False


def _may_have_run(fiber: FiberState, at: float) -> bool:
    """Whether its method was called before the claim at `at`: an owner that died while the fiber backed off did not try it.

    A clock that was set back says nothing; then it counts, because a method that kills its process has to be counted.
    """
    return not fiber.interrupted_at <= at < fiber.interrupted_at + backoff_seconds(fiber.interrupted, fiber.id)


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
    fiber = state.fibers[record.fiber] = FiberState(
        id=record.fiber,
        method=record.method,
        accepted_at=record.at,
        ordinal=ordinal,
        arguments=record.arguments.copy(),
        key=record.key,
        timeout_seconds=record.timeout_seconds,
        retry=record.retry,
        schedule=record.schedule,
        occurrence=record.occurrence,
        beside=record.beside,
        call=record.call,
    )
    waits.accepted(state, record)
    if record.schedule is not None:
        schedule_state.accepted(state, fiber)
    if record.key is not None:
        state.keys[record.key] = record.fiber


def _started(state: RuntimeState, record: r.FiberStarted, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    if fiber.phase is Phase.PARKED:
        waits.due(fiber, record.at)
        ended = fiber.waits.get(fiber.parked_for or "") if not fiber.woken else None
        if ended is not None:  # nothing is over: a clock was set back after somebody saw that its time had come
            waits.end(fiber, ended, Came(at=record.at, timed_out=True))
    if fiber.phase is Phase.ACCEPTED:
        fiber.attempt = 1
    fiber.phase, fiber.parked_for, fiber.parked_until, fiber.blocked = Phase.RUNNING, None, None, None
    fiber.woken = False
    fiber.resumed_at = fiber.last_seen = record.at


def _stashed(state: RuntimeState, record: r.FiberStashed, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    fiber.snapshot = record.value.copy()
    fiber.interrupted = 0


def _step_started(state: RuntimeState, record: r.StepStarted, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    step = fiber.steps.setdefault(step_key(record.scope, record.name), StepState())
    step.started_epoch, step.repeat = record.epoch, record.repeat


def _step_tried(state: RuntimeState, record: r.StepTried, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    step = fiber.steps.setdefault(step_key(record.scope, record.name), StepState())
    step.tries, step.error, step.started_epoch = step.tries + 1, record.error, None
    waits.begin(state, fiber, WaitState(retry_name(record.scope, record.name), "retry", record.until, since=record.at))
    fiber.interrupted = 0


def _step_completed(state: RuntimeState, record: r.StepCompleted, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    step = fiber.steps.setdefault(step_key(record.scope, record.name), StepState())
    if step.done:
        raise StoreCorrupt(f"step '{record.name}' of fiber '{record.fiber}' completed twice (S5)")
    step.done, step.result, step.error = True, record.result.copy(), record.error
    fiber.interrupted = 0


def _waiting(state: RuntimeState, record: r.FiberWaiting, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    request = record.request.copy()
    wait = WaitState(
        record.name,
        record.on,
        record.until,
        record.event,
        record.digest,
        request,
        record.at,
        record.by,
        record.after,
    )
    waits.begin(state, fiber, wait)
    fiber.interrupted = 0


def _waited(state: RuntimeState, record: r.FiberWaited, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    if record.name in fiber.waits:
        waits.end(fiber, fiber.waits[record.name], Came(at=record.at, timed_out=True))
    fiber.interrupted = 0


def _parked(state: RuntimeState, record: r.FiberParked, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    fiber.ran_seconds = fiber.ran(record.at)
    fiber.interrupted = 0
    fiber.blocked = record.error
    if record.error is not None:
        if fiber.phase is Phase.PARKED:
            return  # what it waited for is over or not as before: the method, once it is back, goes on behind that wait
    elif record.waits:
        fiber.waits = {name: fiber.waits[name] for name in record.waits if name in fiber.waits}
        fiber.woken = len(fiber.waits) < len(record.waits)
    else:
        fiber.waits = {record.name: WaitState(record.name, until=record.until, since=record.at)}
    fiber.phase, fiber.parked_for, fiber.parked_until = Phase.PARKED, record.name, record.until


def _retried(state: RuntimeState, record: r.FiberRetried, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    fiber.ran_seconds = fiber.ran(record.at)
    fiber.interrupted = 0
    fiber.tries, fiber.error = fiber.tries + 1, record.error
    fiber.waits = {"retry": WaitState("retry", "retry", record.until, since=record.at)}
    fiber.phase, fiber.parked_for, fiber.parked_until = Phase.PARKED, "retry", record.until


def _settled(state: RuntimeState, record: r.FiberSettled, ordinal: int) -> None:
    fiber = _live(state, record.fiber, record)
    del state.fibers[record.fiber]
    done = FiberState(
        id=fiber.id,
        method=fiber.method,
        accepted_at=fiber.accepted_at,
        ordinal=fiber.ordinal,
        key=fiber.key,
        schedule=fiber.schedule,
        occurrence=fiber.occurrence,
        phase=Phase.SETTLED,
        attempt=fiber.attempt,
        tries=fiber.tries,
        outcome=record.outcome,
        result=record.result.copy(),
        error=record.error,
        answered_by=record.answered_by,
        settled_at=record.at,
        dead=record.dead,
        resolved_by=fiber.resolution.by if fiber.resolution is not None else None,
    )
    if not fiber.forget and fiber.call is None:
        state.settled[record.fiber] = done
    waits.settled(state, fiber, record.at)
    if fiber.schedule is not None:
        schedule_state.settled(state, done)


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
    state.schedules.pop(record.target, None)


def _signal(state: RuntimeState, record: r.SignalSent, ordinal: int) -> None:
    waits.signal_sent(state, record)


def _resolve(state: RuntimeState, record: r.ResolveRequested, ordinal: int) -> None:
    """The first word counts: one that is to be aborted is, and one that has settled keeps its outcome (S7)."""
    fiber, known = state.fibers.get(record.fiber), state.settled.get(record.fiber)
    if fiber is not None and fiber.abort is None:
        fiber.resolution = Resolution(record.outcome, record.result.copy(), record.error, record.by)
        fiber.abort = f"resolved as {record.outcome} by {record.by or 'somebody'}"
    elif known is not None and known.dead:
        known.dead, known.resolved_by = False, record.by


def _forget(state: RuntimeState, record: r.ForgetRequested, ordinal: int) -> None:
    state.settled.pop(record.fiber, None)
    if record.fiber in state.fibers:
        state.fibers[record.fiber].forget = True


def _destroy(state: RuntimeState, record: r.DestroyRequested, ordinal: int) -> None:
    state.destroy = True


_OF_LIVE_FIBERS = (
    r.FiberStarted,
    r.FiberStashed,
    r.StepStarted,
    r.StepTried,
    r.StepCompleted,
    r.FiberRetried,
    r.FiberWaiting,
    r.FiberWaited,
    r.FiberParked,
    r.FiberSettled,
)

#: What a running method records on its way: it changes nothing of who may run.
_OF_WORK = frozenset(
    {r.FiberStashed, r.StepStarted, r.StepCompleted, r.FiberWaiting, r.FiberWaited}
    | connection_state.HANDLERS.keys()
    | sub_objects.HANDLERS.keys()
)

_HANDLERS: dict[type[r.Record], Callable[[RuntimeState, Any, int], None]] = {
    r.InstanceCreated: _created,
    r.InstanceForked: _forked,
    r.InstanceClaimed: _claimed,
    r.InstanceReleased: _released,
    r.FiberAccepted: _accepted,
    r.FiberStarted: _started,
    r.FiberStashed: _stashed,
    r.StepStarted: _step_started,
    r.StepTried: _step_tried,
    r.StepCompleted: _step_completed,
    r.FiberRetried: _retried,
    r.FiberWaiting: _waiting,
    r.FiberWaited: _waited,
    r.FiberParked: _parked,
    r.FiberSettled: _settled,
    r.AbortRequested: _abort,
    r.CancelRequested: _cancel,
    r.SignalSent: _signal,
    r.AnswerGiven: waits.answer_given,
    r.ResolveRequested: _resolve,
    r.ForgetRequested: _forget,
    r.ScheduleRequested: schedule_state.requested,
    r.ScheduleFired: schedule_state.fired,
    r.DestroyRequested: _destroy,
    **connection_state.HANDLERS,
    **sub_objects.HANDLERS,
}
