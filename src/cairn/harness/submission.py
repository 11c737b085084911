"""Where the work on a submission stands: the small fold that decides everything.

Laws. Pure. `Control` holds no content, only what `recovery.py` asks about; it is cheap to copy, so that the loop can see
where staged records would lead before it commits them. Transitions the life of a submission does not allow are errors (S14).

A turn:   OPEN ── deltas ──▶ PARTIAL ──▶ completed: CALLS ─▶ ANSWERED | SAID     (or interrupted / failed: BROKEN)
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from cairn.errors import StoreCorrupt
from cairn.harness import records as h
from cairn.harness.messages import Text, ToolCall
from cairn.harness.sandbox.protocol import ProcessInfo
from cairn.runtime import records as r


class CallStatus(Enum):
    PLANNED = "planned"
    AWAITING = "awaiting"
    """An answer decides it: leave to run, or its outcome."""
    CALLED = "called"
    DONE = "done"


class Stage(Enum):
    """Where the current submission stands."""

    NEW = "new"
    """Accepted; no turn has begun."""
    OPEN = "open"
    """A turn has begun; the model has said nothing yet."""
    PARTIAL = "partial"
    """The model has said something and the message is not finished."""
    CALLS = "calls"
    """The message has calls without an outcome."""
    ANSWERED = "answered"
    """Every call has its outcome."""
    SAID = "said"
    """The message has no calls, or every call asked to end the run."""
    CUT = "cut"
    """The message stopped at the length limit, without calls."""
    REFUSED = "refused"
    """The provider refused to answer."""
    BROKEN = "broken"
    """The turn ended without a message; it may be tried again at `retry_at`."""
    INTERRUPTED = "interrupted"
    """The message was cut off; its text was kept, or there was nothing to keep."""
    SETTLED = "settled"


class CallState(msgspec.Struct, omit_defaults=True):
    id: str
    name: str
    status: CallStatus = CallStatus.PLANNED
    repeat: str = "never"
    epoch: int = 0
    terminate: bool = False
    process: ProcessInfo | None = None
    until: float | None = None
    """When the wait for its answer is over, wall seconds."""
    on_message: str = "queue"
    asks: str = ""
    """What it waited or waits for: `approval`, `client_tool`, or nothing."""


class Control(msgspec.Struct, omit_defaults=True):
    """The submission being worked on, and who waits behind it."""

    submission: str | None = None
    stage: Stage = Stage.SETTLED
    included: list[str] = []
    """Submissions the model has seen since this one began, this one first; they settle together."""
    queue: list[str] = []
    """Admitted, unsettled and not included, in admission order."""
    turn: str = ""
    message: str = ""
    turn_epoch: int = 0
    kept_text: bool = False
    """The open message holds text worth keeping (not only reasoning)."""
    half_said: bool = False
    """Text of an answer was kept and the model has been, or will be, asked to continue it; it has not finished it yet."""
    calls: list[CallState] = []
    stop: str = ""
    failures: int = 0
    """Failed requests in a row."""
    retry_at: float | None = None
    error: r.ErrorInfo | None = None
    turns: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost: float = 0.0
    lengths: int = 0
    continues: int = 0
    last_call: str = ""
    same_calls: int = 0
    heard: dict[str, str | None] = {}
    """Submissions whose `on_message` has run and that are not settled, each with what it said."""
    notes: list[h.Note] = []
    """What the next turn has to tell the model."""
    stop_decided: bool = False
    """`on_stop` has run for the present stop, and found no reason to go on."""

    def copy(self) -> Control:
        """An independent copy; lists are copied one level, calls are copied too."""
        twin = msgspec.structs.replace(self)
        twin.included, twin.queue, twin.notes = self.included[:], self.queue[:], self.notes[:]
        twin.heard = dict(self.heard)
        twin.calls = [msgspec.structs.replace(call) for call in self.calls]
        return twin

    def call(self, id: str) -> CallState:
        for call in self.calls:
            if call.id == id:
                return call
        raise StoreCorrupt(f"call '{id}' is not one of the open turn '{self.turn}' (S14)")

    def apply(self, record: r.Record) -> None:
        handler = _HANDLERS.get(type(record))
        if handler is not None:
            handler(self, record)


def _expect(control: Control, record: Any, *stages: Stage) -> None:
    if control.stage not in stages:
        wanted = " or ".join(stage.value for stage in stages)
        raise StoreCorrupt(f"{type(record).__name__} while the submission is '{control.stage.value}', not {wanted} (S14)")
    if getattr(record, "submission", control.submission) != control.submission:
        raise StoreCorrupt(f"{type(record).__name__} of '{record.submission}' while '{control.submission}' is at work (S11)")


def _accepted(control: Control, record: r.FiberAccepted) -> None:
    if record.method == h.SUBMISSION:
        control.queue.append(record.fiber)


def _fiber_started(control: Control, record: r.FiberStarted) -> None:
    if record.fiber not in control.queue or control.submission is not None:
        return
    waiting, heard = control.queue, control.heard
    begin = Control(submission=record.fiber, stage=Stage.NEW, queue=waiting, heard=heard)
    for name in begin.__struct_fields__:
        setattr(control, name, getattr(begin, name))


_BETWEEN = (Stage.NEW, Stage.ANSWERED, Stage.SAID, Stage.CUT, Stage.BROKEN, Stage.INTERRUPTED)


def _turn_started(control: Control, record: h.TurnStarted) -> None:
    _expect(control, record, *_BETWEEN)
    for id in record.includes:
        if id not in control.queue:
            raise StoreCorrupt(f"turn '{record.turn}' includes '{id}', which does not wait to be included (S6)")
        control.queue.remove(id)
        control.included.append(id)
    control.stage, control.turn, control.message = Stage.OPEN, record.turn, record.message
    control.turn_epoch, control.kept_text, control.calls, control.stop = record.epoch, False, [], ""
    control.retry_at, control.notes, control.stop_decided = None, [], False
    control.turns += 1


def _delta(control: Control, record: h.MessageDelta) -> None:
    if record.message != control.message or control.stage not in (Stage.OPEN, Stage.PARTIAL):
        raise StoreCorrupt(f"a delta for message '{record.message}', which is not open (S14)")
    control.stage = Stage.PARTIAL
    control.kept_text = control.kept_text or (record.kind == "text" and bool(record.text.strip()))


def _completed(control: Control, record: h.MessageCompleted) -> None:
    _expect(control, record, Stage.OPEN, Stage.PARTIAL)
    control.failures, control.error, control.stop, control.half_said = 0, None, record.stop, False
    usage = record.usage
    control.tokens += usage.input + usage.cache_read + usage.cache_write + usage.output
    control.cost += record.usage.cost or 0.0
    control.calls = [CallState(id=block.id, name=block.name) for block in record.content if isinstance(block, ToolCall)]
    for block in record.content:
        if isinstance(block, ToolCall):
            _count_call(control, block)
    if control.calls:
        control.stage = Stage.CALLS
    elif record.stop == "length":
        control.stage = Stage.CUT
        control.lengths += 1
    elif record.stop == "refusal":
        control.stage = Stage.REFUSED
        said = "".join(block.text for block in record.content if isinstance(block, Text))
        control.error = r.ErrorInfo(kind="refusal", message=said or "the provider refused to answer")
    else:
        control.stage = Stage.SAID


def _count_call(control: Control, block: ToolCall) -> None:
    identity = f"{block.name} {msgspec.json.encode(block.arguments, order='sorted').decode()}"
    control.same_calls = control.same_calls + 1 if identity == control.last_call else 1
    control.last_call = identity
    control.tool_calls += 1


def _interrupted(control: Control, record: h.MessageInterrupted) -> None:
    _expect(control, record, Stage.OPEN, Stage.PARTIAL)
    control.stage = Stage.INTERRUPTED
    control.kept_text = record.keep
    control.half_said = control.half_said or record.keep


def _failed(control: Control, record: h.TurnFailed) -> None:
    _expect(control, record, Stage.OPEN, Stage.INTERRUPTED)
    control.stage = Stage.BROKEN
    control.failures += 1
    control.retry_at, control.error = record.retry_at, record.error


def _awaiting(control: Control, record: h.ToolAwaiting) -> None:
    _expect(control, record, Stage.CALLS)
    call = control.call(record.call)
    if call.status is not CallStatus.PLANNED:
        raise StoreCorrupt(f"call '{record.call}' asks while it is {call.status.value} (S14)")
    call.status, call.asks = CallStatus.AWAITING, record.kind
    call.until, call.on_message = record.until, record.on_message


def _called(control: Control, record: h.ToolCalled) -> None:
    _expect(control, record, Stage.CALLS)
    call = control.call(record.call)
    if call.status not in (CallStatus.PLANNED, CallStatus.AWAITING):
        raise StoreCorrupt(f"call '{record.call}' was called while it is {call.status.value} (S9)")
    call.status, call.repeat, call.epoch = CallStatus.CALLED, record.repeat, record.epoch


def _process(control: Control, record: h.ToolProcess) -> None:
    control.call(record.call).process = record.process


def _outcome(control: Control, record: h.ToolOutcome) -> None:
    _expect(control, record, Stage.CALLS)
    call = control.call(record.call)
    if call.status is CallStatus.DONE:
        raise StoreCorrupt(f"call '{record.call}' has two outcomes (S5)")
    call.status, call.terminate = CallStatus.DONE, record.terminate
    if all(each.status is CallStatus.DONE for each in control.calls):
        ends = all(each.terminate for each in control.calls)
        control.stage = Stage.SAID if ends else Stage.ANSWERED
        control.stop_decided = ends


def _hook(control: Control, record: h.HookCompleted) -> None:
    if record.hook == "on_message":
        control.heard[record.of] = record.text
    elif record.text is None:
        control.stop_decided = True
    else:
        control.continues += 1
        control.stage = Stage.ANSWERED
        control.notes.append(h.Note(kind="hook", text=record.text))


def _settled(control: Control, record: r.FiberSettled) -> None:
    if record.fiber == control.submission:
        # What joined it and has no outcome of its own (its abort is on the way, or this one failed where no loop could
        # tell) waits again, as if it had not: nothing that was accepted is lost (S1).
        control.queue[:0] = [id for id in control.included if id != record.fiber]
        control.submission, control.stage = None, Stage.SETTLED
        control.calls, control.included = [], []
    for waiting in (control.queue, control.included):
        if record.fiber in waiting:
            waiting.remove(record.fiber)
    control.heard.pop(record.fiber, None)


_HANDLERS: dict[type[r.Record], Callable[[Control, Any], None]] = {
    r.FiberAccepted: _accepted,
    r.FiberStarted: _fiber_started,
    r.FiberSettled: _settled,
    h.TurnStarted: _turn_started,
    h.MessageDelta: _delta,
    h.MessageCompleted: _completed,
    h.MessageInterrupted: _interrupted,
    h.TurnFailed: _failed,
    h.ToolAwaiting: _awaiting,
    h.ToolCalled: _called,
    h.ToolProcess: _process,
    h.ToolOutcome: _outcome,
    h.HookCompleted: _hook,
}
