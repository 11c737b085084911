"""What happens in a conversation, as paired events: the live view of its log for programs and people.

Laws. Pure: an event stream is a function of the records, so following a log in another process, later, gives the same
events as listening in the one that runs. `…Started` and `…Completed` come in pairs; `SubmissionSettled` is always last.

    SubmissionAccepted
    SubmissionStarted
      TurnStarted
        MessageStarted  MessageDelta…  MessageCompleted | MessageInterrupted
        CallAsked  ToolStarted  ToolProgress…  ToolCompleted
      TurnCompleted
    SubmissionSettled
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from cairn.harness import records as h
from cairn.harness.asking import AskKind
from cairn.harness.messages import Content, ResultContent, StopReason, Text, ToolCall, Usage
from cairn.harness.submission import CallStatus, Control, Stage
from cairn.runtime import records as r


class Event(msgspec.Struct, frozen=True, tag_field="event", kw_only=True, omit_defaults=True):
    """`offset` is where to read on after this event's batch."""

    offset: int
    submission: str = ""


class SubmissionAccepted(Event, frozen=True, tag="submission.accepted"):
    """A message is durable."""

    text: str
    kind: str = "user"


class SubmissionStarted(Event, frozen=True, tag="submission.started"):
    """Work on it begins, or goes on after a park."""


class AttemptStarted(Event, frozen=True, tag="attempt.started"):
    """A worker took the instance; what was running goes on from the log."""

    epoch: int


class TurnStarted(Event, frozen=True, tag="turn.started"):
    turn: str
    attempt: int
    includes: tuple[str, ...] = ()


class MessageStarted(Event, frozen=True, tag="message.started"):
    message: str
    model: str


class MessageDelta(Event, frozen=True, tag="message.delta"):
    message: str
    kind: str
    text: str
    block: int = 0


class MessageCompleted(Event, frozen=True, tag="message.completed"):
    message: str
    content: tuple[Content, ...]
    stop: StopReason
    usage: Usage = Usage()
    model: str = ""
    duration_ms: int = 0

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.content if isinstance(block, Text))

    @property
    def calls(self) -> list[ToolCall]:
        return [block for block in self.content if isinstance(block, ToolCall)]


class MessageInterrupted(Event, frozen=True, tag="message.interrupted"):
    message: str
    reason: str
    kept: bool = False


class CallAsked(Event, frozen=True, tag="call.asked"):
    """A call waits for an answer. `ToolStarted` follows if it is approved, `ToolCompleted` in any case."""

    call: str
    name: str
    arguments: dict[str, Any]
    digest: str
    kind: AskKind
    expires_at: float | None = None
    reason: str = ""
    by: tuple[str, ...] = ()


class ToolStarted(Event, frozen=True, tag="tool.started"):
    call: str
    name: str
    arguments: dict[str, Any]
    repeat: str = "never"
    by: str = ""
    """Who approved it."""


class ToolProgress(Event, frozen=True, tag="tool.progress"):
    call: str
    text: str


class ToolCompleted(Event, frozen=True, tag="tool.completed"):
    """Also for calls that never ran (an unknown tool, bad arguments)."""

    call: str
    name: str
    outcome: h.CallOutcome
    content: tuple[ResultContent, ...]
    duration_ms: int = 0
    by: str = ""
    """Who gave the outcome, if somebody did."""

    @property
    def text(self) -> str:
        return "\n".join(block.text for block in self.content if isinstance(block, Text))


class TurnCompleted(Event, frozen=True, tag="turn.completed"):
    """The message and all its calls have their outcome."""

    turn: str


class TurnFailed(Event, frozen=True, tag="turn.failed"):
    turn: str
    error: r.ErrorInfo
    retry_at: float | None = None


class StateChanged(Event, frozen=True, tag="state.changed"):
    changes: dict[str, Any]
    conflicts: tuple[str, ...] = ()


class SubmissionSettled(Event, frozen=True, tag="submission.settled"):
    outcome: r.Outcome
    text: str = ""
    error: r.ErrorInfo | None = None
    answered_by: str | None = None


class EventStream:
    """Turns batches into events, in order. Keeps only what is open."""

    def __init__(self, control: Control | None = None) -> None:
        """`control`: where the submission stood before the first batch; by default nothing had been said."""
        control = control or Control()
        is_open = control.stage in (Stage.OPEN, Stage.PARTIAL, Stage.CALLS)
        self._submission = control.submission or ""
        self._turn = control.turn if is_open else ""
        self._open_calls = {call.id for call in control.calls if call.status is not CallStatus.DONE}

    def feed(self, records: Sequence[r.Record], offset: int) -> Iterator[Event]:
        """The events of one batch."""
        for record in records:
            handler = _EVENTS.get(type(record))
            if handler is not None:
                yield from handler(self, record, offset)

    def _end_turn(self, offset: int) -> Iterator[Event]:
        if self._turn and not self._open_calls:
            turn, self._turn = self._turn, ""
            yield TurnCompleted(offset=offset, submission=self._submission, turn=turn)


#: Fibers that are nobody's message: hooks after one, rewinds, and the programs of calls.
_BESIDE = ("after_", "rew_", "program:")


def _accepted(self: EventStream, record: r.FiberAccepted, offset: int) -> Iterator[Event]:
    if record.method == h.SUBMISSION:
        delivery = msgspec.json.decode(record.arguments, type=h.Delivery)
        yield SubmissionAccepted(offset=offset, submission=record.fiber, text=delivery.body, kind=delivery.kind)


def _claimed(self: EventStream, record: r.InstanceClaimed, offset: int) -> Iterator[Event]:
    yield AttemptStarted(offset=offset, epoch=record.epoch)


def _started(self: EventStream, record: r.FiberStarted, offset: int) -> Iterator[Event]:
    if not record.fiber.startswith(_BESIDE):
        yield SubmissionStarted(offset=offset, submission=record.fiber)


def _turn_started(self: EventStream, record: h.TurnStarted, offset: int) -> Iterator[Event]:
    self._turn, self._submission, self._open_calls = record.turn, record.submission, set()
    yield TurnStarted(
        offset=offset,
        submission=record.submission,
        turn=record.turn,
        attempt=record.attempt,
        includes=record.includes,
    )
    yield MessageStarted(offset=offset, submission=record.submission, message=record.message, model=record.model)


def _delta(self: EventStream, record: h.MessageDelta, offset: int) -> Iterator[Event]:
    yield MessageDelta(
        offset=offset,
        submission=self._submission,
        message=record.message,
        kind=record.kind,
        text=record.text,
        block=record.block,
    )


def _completed(self: EventStream, record: h.MessageCompleted, offset: int) -> Iterator[Event]:
    self._open_calls = {block.id for block in record.content if isinstance(block, ToolCall)}
    yield MessageCompleted(
        offset=offset,
        submission=record.submission,
        message=record.message,
        content=record.content,
        stop=record.stop,
        usage=record.usage,
        model=record.model,
        duration_ms=record.duration_ms,
    )
    yield from self._end_turn(offset)


def _interrupted(self: EventStream, record: h.MessageInterrupted, offset: int) -> Iterator[Event]:
    yield MessageInterrupted(
        offset=offset, submission=record.submission, message=record.message, reason=record.reason, kept=record.keep
    )
    yield from self._end_turn(offset)


def _failed(self: EventStream, record: h.TurnFailed, offset: int) -> Iterator[Event]:
    yield TurnFailed(
        offset=offset, submission=record.submission, turn=record.turn, error=record.error, retry_at=record.retry_at
    )
    yield from self._end_turn(offset)


def _awaiting(self: EventStream, record: h.ToolAwaiting, offset: int) -> Iterator[Event]:
    if record.kind == "program":  # nobody is asked: it runs
        return
    yield CallAsked(
        offset=offset,
        submission=record.submission,
        call=record.call,
        name=record.name,
        arguments=msgspec.json.decode(record.arguments),
        digest=record.digest,
        kind=record.kind,
        expires_at=record.until,
        reason=record.reason,
        by=record.by,
    )


def _called(self: EventStream, record: h.ToolCalled, offset: int) -> Iterator[Event]:
    yield ToolStarted(
        offset=offset,
        submission=record.submission,
        call=record.call,
        name=record.name,
        arguments=msgspec.json.decode(record.arguments),
        repeat=record.repeat,
        by=record.by,
    )


def _progress(self: EventStream, record: h.ToolProgress, offset: int) -> Iterator[Event]:
    yield ToolProgress(offset=offset, submission=self._submission, call=record.call, text=record.text)


def _outcome(self: EventStream, record: h.ToolOutcome, offset: int) -> Iterator[Event]:
    yield ToolCompleted(
        offset=offset,
        submission=record.submission,
        call=record.call,
        name=record.name,
        outcome=record.outcome,
        content=record.content,
        duration_ms=record.duration_ms,
        by=record.by,
    )
    self._open_calls.discard(record.call)
    if not self._open_calls:
        yield from self._end_turn(offset)


def _state(self: EventStream, record: r.StateChanged, offset: int) -> Iterator[Event]:
    changes = {name: msgspec.json.decode(value) for name, value in record.changes.items()}
    yield StateChanged(offset=offset, submission=self._submission, changes=changes, conflicts=record.conflicts)


def _settled(self: EventStream, record: r.FiberSettled, offset: int) -> Iterator[Event]:
    if record.fiber.startswith(_BESIDE):
        return
    result = msgspec.json.decode(record.result)
    yield SubmissionSettled(
        offset=offset,
        submission=record.fiber,
        outcome=record.outcome,
        text=str(result.get("text", "")) if isinstance(result, dict) else "",
        error=record.error,
        answered_by=record.answered_by,
    )


_EVENTS: dict[type[r.Record], Callable[[EventStream, Any, int], Iterator[Event]]] = {
    r.FiberAccepted: _accepted,
    r.InstanceClaimed: _claimed,
    r.FiberStarted: _started,
    r.FiberSettled: _settled,
    r.StateChanged: _state,
    h.TurnStarted: _turn_started,
    h.MessageDelta: _delta,
    h.MessageCompleted: _completed,
    h.MessageInterrupted: _interrupted,
    h.TurnFailed: _failed,
    h.ToolAwaiting: _awaiting,
    h.ToolCalled: _called,
    h.ToolProgress: _progress,
    h.ToolOutcome: _outcome,
}
