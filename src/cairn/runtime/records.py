"""The runtime's own records: the facts any instance's log may contain, whatever sits on top.

Laws. Pure: no clock, no ids, no I/O. A record is frozen and tagged; the tag is its durable name and never changes its
meaning. New fields are optional with a default; a new meaning is a new tag (S15). Times are wall-clock seconds.
A layer above adds its own vocabulary of the same shape; `decoder` builds the reader of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal, Union

import msgspec

Outcome = Literal["completed", "failed", "aborted"]

NULL = msgspec.Raw(b"null")


class Record(msgspec.Struct, frozen=True, tag_field="type", kw_only=True, omit_defaults=True):
    """One immutable fact. Subclasses set `tag` to their durable name."""


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong, as data: `kind` is a stable word for programs, `message` a sentence for people."""

    kind: str
    message: str
    status: int | None = None
    retryable: bool = False


# --- the instance's life -------------------------------------------------------------------------------------------


class InstanceCreated(Record, frozen=True, tag="instance.created"):
    """Batch 0 of every log."""

    kind: str
    id: str
    uid: str
    at: float


class InstanceForked(Record, frozen=True, tag="instance.forked"):
    """From here on this log is another instance's own; what stands before is shared with `source` up to `offset` and is that
    one's. Transcript, state and settlements are inherited; idempotency keys and work are not: the batch settles the rest."""

    kind: str
    id: str
    uid: str
    source: str
    """The uid of the instance it was forked from."""
    offset: int
    at: float


class InstanceClaimed(Record, frozen=True, tag="instance.claimed"):
    """A worker took the instance. For every fiber that was running and not released cleanly, this is a new attempt."""

    epoch: int
    worker: str
    at: float


class InstanceReleased(Record, frozen=True, tag="instance.released"):
    """A clean stop: what was running continues at the next claim without an attempt being counted."""

    at: float


# --- fibers --------------------------------------------------------------------------------------------------------


class FiberAccepted(Record, frozen=True, tag="fiber.accepted"):
    """A request: durable work was accepted (S1). A submission is a fiber whose argument is a message."""

    fiber: str
    method: str
    at: float
    arguments: msgspec.Raw = NULL
    key: str | None = None
    timeout_seconds: float | None = None
    trace: dict[str, str] = {}
    """W3C trace context (`traceparent`, `tracestate`) of whoever asked: the parent of its spans."""


class FiberStarted(Record, frozen=True, tag="fiber.started"):
    """The method is about to run for the first time, or again after a park. Durable before user code runs."""

    fiber: str
    at: float


class FiberStashed(Record, frozen=True, tag="fiber.stashed"):
    """The fiber's checkpoint is now `value`."""

    fiber: str
    value: msgspec.Raw


class StepStarted(Record, frozen=True, tag="fiber.step.started"):
    """Intent of a `keyed` or `never` step, durable before its callback runs (S8). `scope` is a tool call id or empty."""

    fiber: str
    name: str
    repeat: Literal["keyed", "never"]
    epoch: int
    scope: str = ""


class StepCompleted(Record, frozen=True, tag="fiber.step.completed"):
    """A step returned `result`, or raised for good (`error`). From now on the record answers."""

    fiber: str
    name: str
    scope: str = ""
    result: msgspec.Raw = NULL
    error: ErrorInfo | None = None


class FiberParked(Record, frozen=True, tag="fiber.parked"):
    """The fiber waits for `until` (or for ever, None) and holds no task. `name` identifies what it waits for.

    With `error` it waits for code: this version has no method of that name, or one with another signature.
    """

    fiber: str
    name: str
    at: float
    until: float | None = None
    error: ErrorInfo | None = None


class FiberSettled(Record, frozen=True, tag="fiber.settled"):
    """The terminal fact of a fiber (S7). `answered_by` names the fiber whose work settled this one, if another's did."""

    fiber: str
    outcome: Outcome
    at: float
    result: msgspec.Raw = NULL
    error: ErrorInfo | None = None
    answered_by: str | None = None


# --- requests: appended without ownership, each idempotent by its own key -------------------------------------------


class AbortRequested(Record, frozen=True, tag="abort.requested"):
    """Abort everything accepted at or before this record and unsettled; or only `fiber`, when named."""

    at: float
    fiber: str | None = None
    reason: str = ""


class SignalSent(Record, frozen=True, tag="signal.sent"):
    """A named event with a payload, for a fiber that waits."""

    name: str
    at: float
    payload: msgspec.Raw = NULL
    fiber: str | None = None


class CancelRequested(Record, frozen=True, tag="cancel.requested"):
    """Cancel one fiber or schedule by name."""

    target: str
    at: float


class AnswerGiven(Record, frozen=True, tag="answer.given"):
    """The outcome of a parked call, given from outside: bound to the call and the digest of its arguments."""

    call: str
    digest: str
    at: float
    answer: msgspec.Raw
    by: str = ""


class DestroyRequested(Record, frozen=True, tag="destroy.requested"):
    """Delete this instance."""

    at: float


# --- state ---------------------------------------------------------------------------------------------------------


class StateChanged(Record, frozen=True, tag="state.changed"):
    """Fields assigned together. `conflicts` names those that another draft had assigned since this one was copied."""

    changes: dict[str, msgspec.Raw]
    conflicts: tuple[str, ...] = ()
    scope: str = ""


#: What a process that does not own the instance may append; everything else needs the current epoch.
REQUESTS: tuple[type[Record], ...] = (
    FiberAccepted,
    AbortRequested,
    SignalSent,
    CancelRequested,
    AnswerGiven,
    DestroyRequested,
)

RUNTIME: tuple[type[Record], ...] = (
    InstanceCreated,
    InstanceForked,
    InstanceClaimed,
    InstanceReleased,
    FiberStarted,
    FiberStashed,
    StepStarted,
    StepCompleted,
    FiberParked,
    FiberSettled,
    StateChanged,
    *REQUESTS,
)


def decoder(application: Iterable[type[Record]] = ()) -> msgspec.json.Decoder[list[Record]]:
    """A strict reader of one batch: an unknown tag or a wrong type is an error, never skipped (S14)."""
    return _decoder(tuple(application))


@cache
def _decoder(application: tuple[type[Record], ...]) -> msgspec.json.Decoder[list[Record]]:
    """Made once for each vocabulary: making it costs what decoding ten batches does."""
    types = (*RUNTIME, *application)
    union: Any = Union[types]  # noqa: UP007 - built at run time
    return msgspec.json.Decoder(list[union])


_encoder = msgspec.json.Encoder()


def encode(records: Iterable[Record]) -> bytes:
    """One batch as a JSON array, readable in the database."""
    return _encoder.encode(list(records))
