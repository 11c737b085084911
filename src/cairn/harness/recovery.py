"""Given where the submission stands, what happens next? One table, asked before every step, in health as after a crash.

Laws. Pure. The table is total and unambiguous: every situation has exactly one row, and a test enumerates them all. There
is no other place that decides; `loop.py` carries out what is returned here. A call is *ours* when it was recorded under the
present epoch: the process that recorded it is this one, and is about to run it; otherwise that process is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from cairn.harness.limits import Limits
from cairn.harness.submission import CallState, CallStatus, Control, Stage
from cairn.runtime.records import ErrorInfo
from cairn.runtime.state import FiberState, RuntimeState


class Action(Enum):
    HEAR = "run on_message"
    TURN = "start a turn"
    REQUEST = "ask the model"
    CLOSE_PARTIAL = "close the half-written message, keep its text"
    DROP_PARTIAL = "close the half-written message, leave it out"
    PLAN_CALLS = "record the intent of calls"
    REFUSE_CALLS = "answer the calls without running them"
    RUN_CALLS = "run the calls"
    CLOSE_CALLS = "give every open call its outcome without running it"
    ASK_STOP = "run on_stop"
    WAIT = "wait until the retry is due"
    END_WAITS = "record that the waits for answers are over that have none"
    PARK = "wait for answers"
    COMPLETE = "settle as completed"
    FAIL = "settle as failed"
    ABORT = "settle as aborted"
    END = "nothing: it is settled"


#: Actions that only add records: the loop stages them and asks again before it commits.
PURE = frozenset(
    {
        Action.TURN,
        Action.CLOSE_PARTIAL,
        Action.DROP_PARTIAL,
        Action.PLAN_CALLS,
        Action.REFUSE_CALLS,
        Action.CLOSE_CALLS,
        Action.COMPLETE,
        Action.FAIL,
        Action.ABORT,
    }
)


class Halt(Enum):
    """Why the run must not go on, if it must not."""

    NO = "no"
    ABORT = "abort"
    """An abort was requested."""
    FAIL = "fail"
    """Its running time, its attempts or one of its limits is spent."""


class Calls(Enum):
    """The open calls of the message, as a whole; the first that applies."""

    NONE = "none"
    CUT = "cut"
    """The message stopped at the length limit: its calls may be incomplete."""
    GO = "go"
    """Some are called and can be run: ours, or repeatable by their class."""
    LOST = "lost"
    """Some were called by a process that is gone, and may not be repeated."""
    OVER = "over"
    """Some wait for an answer, and their time is over or a message takes their place; the log does not say so yet."""
    PLANNED = "planned"
    """None is called; some are waiting to be, or have their answer."""
    WAITING = "waiting"
    """Those that are open wait for their answers."""


class Retry(Enum):
    NEVER = "never"
    LATER = "later"
    DUE = "due"


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything the table looks at."""

    stage: Stage
    halt: Halt = Halt.NO
    calls: Calls = Calls.NONE
    retry: Retry = Retry.DUE
    waiting: bool = False
    """Other messages were admitted and the model has not seen them."""
    unheard: bool = False
    """`on_message` has to run for a message the next turn would include."""
    asked: bool = True
    """`on_stop` has nothing to say (any more)."""
    lengths_left: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    stage: Stage
    action: Action
    when: Mapping[str, Any]
    """Fields that must have this value, or one of these; the others do not matter."""

    def matches(self, situation: Situation) -> bool:
        return self.stage is situation.stage and all(
            getattr(situation, name) in wanted if isinstance(wanted, tuple) else getattr(situation, name) is wanted
            for name, wanted in self.when.items()
        )


def _row(stage: Stage, action: Action, **when: Any) -> Row:
    return Row(stage, action, when)


GOING = Halt.NO
HALTED = (Halt.ABORT, Halt.FAIL)

TABLE: tuple[Row, ...] = (
    # accepted, nothing else
    _row(Stage.NEW, Action.ABORT, halt=Halt.ABORT),
    _row(Stage.NEW, Action.FAIL, halt=Halt.FAIL),
    _row(Stage.NEW, Action.HEAR, halt=GOING, unheard=True),
    _row(Stage.NEW, Action.TURN, halt=GOING, unheard=False),
    # turn.started, no message: ask (again, when its process is gone: the attempt was counted by the claim)
    _row(Stage.OPEN, Action.DROP_PARTIAL, halt=HALTED),
    _row(Stage.OPEN, Action.REQUEST, halt=GOING),
    # deltas, no message.completed: keep what was said, ask to go on after it
    _row(Stage.PARTIAL, Action.DROP_PARTIAL, halt=HALTED),
    _row(Stage.PARTIAL, Action.CLOSE_PARTIAL, halt=GOING),
    # a message with calls
    _row(Stage.CALLS, Action.CLOSE_CALLS, halt=HALTED),
    _row(Stage.CALLS, Action.REFUSE_CALLS, halt=GOING, calls=Calls.CUT),
    _row(Stage.CALLS, Action.CLOSE_CALLS, halt=GOING, calls=Calls.LOST),
    _row(Stage.CALLS, Action.RUN_CALLS, halt=GOING, calls=Calls.GO),
    _row(Stage.CALLS, Action.END_WAITS, halt=GOING, calls=Calls.OVER),
    _row(Stage.CALLS, Action.PLAN_CALLS, halt=GOING, calls=(Calls.PLANNED, Calls.NONE)),
    _row(Stage.CALLS, Action.PARK, halt=GOING, calls=Calls.WAITING),
    # every call has its outcome
    _row(Stage.ANSWERED, Action.ABORT, halt=Halt.ABORT),
    _row(Stage.ANSWERED, Action.FAIL, halt=Halt.FAIL),
    _row(Stage.ANSWERED, Action.HEAR, halt=GOING, unheard=True),
    _row(Stage.ANSWERED, Action.TURN, halt=GOING, unheard=False),
    # the answer is there: it is kept whatever was asked meanwhile; others may still join
    _row(Stage.SAID, Action.COMPLETE, halt=HALTED),
    _row(Stage.SAID, Action.HEAR, halt=GOING, waiting=True, unheard=True),
    _row(Stage.SAID, Action.TURN, halt=GOING, waiting=True, unheard=False),
    _row(Stage.SAID, Action.ASK_STOP, halt=GOING, waiting=False, asked=False),
    _row(Stage.SAID, Action.COMPLETE, halt=GOING, waiting=False, asked=True),
    # stopped at the length limit
    _row(Stage.CUT, Action.COMPLETE, halt=HALTED),
    _row(Stage.CUT, Action.FAIL, halt=GOING, lengths_left=False),
    _row(Stage.CUT, Action.HEAR, halt=GOING, lengths_left=True, unheard=True),
    _row(Stage.CUT, Action.TURN, halt=GOING, lengths_left=True, unheard=False),
    _row(Stage.REFUSED, Action.FAIL),
    # a request that failed
    _row(Stage.BROKEN, Action.ABORT, halt=Halt.ABORT),
    _row(Stage.BROKEN, Action.FAIL, halt=Halt.FAIL),
    _row(Stage.BROKEN, Action.FAIL, halt=GOING, retry=Retry.NEVER),
    _row(Stage.BROKEN, Action.WAIT, halt=GOING, retry=Retry.LATER),
    _row(Stage.BROKEN, Action.HEAR, halt=GOING, retry=Retry.DUE, unheard=True),
    _row(Stage.BROKEN, Action.TURN, halt=GOING, retry=Retry.DUE, unheard=False),
    # a message that was closed half-written
    _row(Stage.INTERRUPTED, Action.ABORT, halt=Halt.ABORT),
    _row(Stage.INTERRUPTED, Action.FAIL, halt=Halt.FAIL),
    _row(Stage.INTERRUPTED, Action.HEAR, halt=GOING, unheard=True),
    _row(Stage.INTERRUPTED, Action.TURN, halt=GOING, unheard=False),
    _row(Stage.SETTLED, Action.END),
)


_BY_STAGE = {stage: tuple(row for row in TABLE if row.stage is stage) for stage in Stage}


def decide(situation: Situation) -> Action:
    """The one row that fits."""
    for row in _BY_STAGE[situation.stage]:
        if row.matches(situation):
            return row.action
    raise AssertionError(f"no row for {situation}")


@dataclass(frozen=True, slots=True)
class Given:
    """What the table needs to know beside the submission's own fold."""

    now: float
    """Wall clock, seconds."""
    epoch: int
    limits: Limits
    hears: bool = False
    """The agent has `on_message` hooks."""
    stops: bool = False
    """The agent has `on_stop` hooks."""


def situate(control: Control, runtime: RuntimeState, given: Given) -> Situation:
    """Reduce everything known to what the table looks at."""
    fiber = runtime.fibers.get(control.submission or "")
    joinable = joining(control, runtime)
    heard = set(control.heard)
    next_in = [control.submission, *joinable] if control.stage is Stage.NEW else joinable
    return Situation(
        stage=control.stage,
        halt=halt(control, fiber, given)[0] if fiber is not None else Halt.NO,
        calls=calls(control, fiber, given, joinable),
        retry=_retry(control, given.now),
        waiting=bool(joinable),
        unheard=given.hears and any(id not in heard for id in next_in),
        asked=not given.stops or control.stop_decided or control.continues >= given.limits.stop_continues,
        lengths_left=control.lengths <= given.limits.length_continues,
    )


def is_aside(control: Control, submission: str) -> bool:
    """Another submission is at work: this one was started only to be aborted, and has no part in that work."""
    return control.submission not in (None, submission)


def joining(control: Control, runtime: RuntimeState) -> list[str]:
    """The messages the next turn would take in beside its own: the queue, up to the first that is to be aborted.

    None while an answer is half said: the model is asked to go on after its last character, and not to read on first.
    """
    if control.half_said:
        return []
    found: list[str] = []
    for id in control.queue:
        fiber = runtime.fibers.get(id)
        if id == control.submission:
            continue
        if fiber is None or fiber.abort is not None:
            break
        found.append(id)
    return found


def halt(control: Control, fiber: FiberState, given: Given) -> tuple[Halt, ErrorInfo | None]:
    """Whether the run must not go on, and why in words."""
    limits = given.limits
    if fiber.abort is not None:
        return Halt.ABORT, ErrorInfo(kind="aborted", message=fiber.abort)
    if fiber.interrupted >= limits.attempts:
        text = f"{fiber.interrupted} attempts in a row ended with their process and left nothing new in the log"
        return Halt.FAIL, ErrorInfo(kind="attempts_exhausted", message=text)
    if fiber.ran(given.now) > limits.running_seconds:
        text = f"ran longer than {limits.running_seconds:g} s (parked time not counted)"
        return Halt.FAIL, ErrorInfo(kind="timeout", message=text)
    if control.stage in (Stage.OPEN, Stage.PARTIAL, Stage.CALLS):
        return Halt.NO, None
    spent = (
        ("turns", control.turns, limits.turns),
        ("tool_calls", control.tool_calls, limits.tool_calls),
        ("identical_calls", control.same_calls, limits.identical_calls),
        ("tokens", control.tokens, limits.tokens),
        ("cost_usd", control.cost, limits.cost_usd),
    )
    for name, used, limit in spent:
        if limit is not None and used >= limit:
            return Halt.FAIL, ErrorInfo(
                kind=f"limit_{name}", message=f"stopped at its limit of {limit:g} {name} (used {used:g})"
            )
    return Halt.NO, None


def _retry(control: Control, now: float) -> Retry:
    if control.stage is not Stage.BROKEN:
        return Retry.DUE
    if control.retry_at is None:
        return Retry.NEVER
    return Retry.LATER if control.retry_at > now else Retry.DUE


class Verb(Enum):
    """What happens to one call of the message."""

    PLAN = "record its intent"
    WAIT = "wait for its answer"
    END = "record that the wait for its answer is over"
    TAKE = "record what follows from its answer, or from there being none"
    RUN = "run it"
    LOSE = "record that its outcome is unknown"
    NOTHING = "it has its outcome"


#: (status, ours, repeat class) → verb. Whose it is and its class matter only while it is called; else they are None. Of one
#: that waits for an answer the third says how that stands.
CALL_TABLE: Mapping[tuple[CallStatus, bool | None, str | None], Verb] = {
    (CallStatus.PLANNED, None, None): Verb.PLAN,
    (CallStatus.AWAITING, None, "open"): Verb.WAIT,
    (CallStatus.AWAITING, None, "over"): Verb.END,
    (CallStatus.AWAITING, None, "ended"): Verb.TAKE,
    (CallStatus.CALLED, True, "never"): Verb.RUN,
    (CallStatus.CALLED, True, "keyed"): Verb.RUN,
    (CallStatus.CALLED, True, "safe"): Verb.RUN,
    (CallStatus.CALLED, True, "resume"): Verb.RUN,
    (CallStatus.CALLED, False, "never"): Verb.LOSE,
    (CallStatus.CALLED, False, "keyed"): Verb.RUN,
    (CallStatus.CALLED, False, "safe"): Verb.RUN,
    (CallStatus.CALLED, False, "resume"): Verb.RUN,
    (CallStatus.DONE, None, None): Verb.NOTHING,
}


Wait = Literal["open", "over", "ended"]


def wait_of(call: CallState, fiber: FiberState | None, now: float, joinable: Sequence[str]) -> Wait:
    """How it stands with the answer a call waits for. `ended`: the log says how, and `FiberState.came` with what."""
    if fiber is None or call.id in fiber.came:
        return "ended"
    is_replaced = call.on_message == "withdraw" and bool(joinable)
    return "over" if is_replaced or (call.until is not None and call.until <= now) else "open"


def verb(call: CallState, epoch: int, wait: Wait = "open") -> Verb:
    return CALL_TABLE[call_key(call, epoch, wait)]


def call_key(call: CallState, epoch: int, wait: Wait = "open") -> tuple[CallStatus, bool | None, str | None]:
    """Where a call stands in the table."""
    if call.status is CallStatus.AWAITING:
        return call.status, None, wait
    if call.status is not CallStatus.CALLED:
        return call.status, None, None
    return call.status, call.epoch == epoch, call.repeat


def calls(control: Control, fiber: FiberState | None, given: Given, joinable: Sequence[str]) -> Calls:
    """The open calls as a whole."""
    if control.stage is not Stage.CALLS:
        return Calls.NONE
    verbs = {verb(call, given.epoch, wait_of(call, fiber, given.now, joinable)) for call in control.calls}
    if Verb.LOSE in verbs:
        return Calls.LOST
    if Verb.RUN in verbs:
        return Calls.GO
    if Verb.END in verbs:
        return Calls.OVER
    if Verb.PLAN not in verbs and Verb.TAKE not in verbs:
        return Calls.WAITING
    return Calls.CUT if control.stop == "length" else Calls.PLANNED
