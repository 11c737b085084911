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

from cairn.errors import UsageError
from cairn.runtime.files import Change
from cairn.runtime.object_records import Call as Call
from cairn.runtime.object_records import CallWhat as CallWhat
from cairn.runtime.object_records import ConnectionChanged as ConnectionChanged
from cairn.runtime.object_records import ConnectionClosed as ConnectionClosed
from cairn.runtime.object_records import ConnectionOpened as ConnectionOpened
from cairn.runtime.object_records import ObjectReached as ObjectReached
from cairn.runtime.object_records import ObjectSent as ObjectSent
from cairn.runtime.object_records import StorageChanged as StorageChanged
from cairn.runtime.object_records import SubObjectAdded as SubObjectAdded
from cairn.runtime.object_records import SubObjectRemoved as SubObjectRemoved
from cairn.runtime.record import NULL as NULL
from cairn.runtime.record import Record as Record

Outcome = Literal["completed", "failed", "aborted"]


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong, as data: `kind` is a stable word for programs, `message` a sentence for people."""

    kind: str
    message: str
    status: int | None = None
    retryable: bool = False


class Retry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often what failed is tried, and how long it waits in between: `first_seconds`, then `factor` times as long each."""

    attempts: int = 5
    """Tries in all, the first included (Cloudflare's tasks: 5)."""
    first_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 3600.0
    jitter: float = 0.1
    """At most this share is added, so that what failed together does not come back together."""

    def wait(self, failed: int, dice: float) -> float:
        """Seconds to wait after so many failures; `dice` is in [0, 1)."""
        longest = min(self.first_seconds * self.factor ** min(failed - 1, 64), self.max_seconds)
        return longest * (1.0 + self.jitter * dice)


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
    trace: dict[str, str] = {}  # noqa: RUF012 - a Struct copies it for each
    """W3C trace context (`traceparent`, `tracestate`) of whoever asked: the parent of its spans."""
    retry: Retry | None = None
    """What happens when the method raises: None, it has failed; else it is called again, later."""
    schedule: str | None = None
    """The schedule whose occurrence this is. Then it is no request: its owner appends it, with `schedule.fired`."""
    occurrence: float | None = None
    call: Call | None = None
    """It is the call of a handler."""
    beside: bool = False
    """It runs beside the others where those run one at a time: one of them waits for it."""


class FiberStarted(Record, frozen=True, tag="fiber.started"):
    """The method is about to run for the first time, or again after a park. Durable before user code runs."""

    fiber: str
    at: float


class FiberStashed(Record, frozen=True, tag="fiber.stashed"):
    """The fiber's checkpoint is now `value`."""

    fiber: str
    value: msgspec.Raw


class StepStarted(Record, frozen=True, tag="fiber.step.started"):
    """Intent of a `keyed` or `never` step, durable before its callback runs (S8). `scope` is a tool call id or empty.

    Of a `safe` step it is only news: which of them ran when the process died."""

    fiber: str
    name: str
    repeat: Literal["keyed", "never", "safe"]
    epoch: int
    scope: str = ""


class StepCompleted(Record, frozen=True, tag="fiber.step.completed"):
    """A step returned `result`, or raised for good (`error`). From now on the record answers."""

    fiber: str
    name: str
    scope: str = ""
    result: msgspec.Raw = NULL
    error: ErrorInfo | None = None


class StepTried(Record, frozen=True, tag="fiber.step.tried"):
    """A try of a step failed; `until` the next one may begin. The wait is one of the fiber's waits."""

    fiber: str
    name: str
    at: float
    until: float
    error: ErrorInfo
    scope: str = ""


class FiberRetried(Record, frozen=True, tag="fiber.retried"):
    """The method raised and is called again at `until`, with the steps it has done; until then the fiber is parked."""

    fiber: str
    at: float
    until: float
    error: ErrorInfo


WaitKind = Literal["sleep", "signal", "answer", "fiber", "retry", "accepted"]


class FiberWaiting(Record, frozen=True, tag="fiber.waiting"):
    """A wait has begun. What it waits for may be on the log already: then it is over with this record."""

    fiber: str
    name: str
    at: float
    on: WaitKind = "sleep"
    until: float | None = None
    event: str = ""
    """The signal's name, the other fiber's id, or the method of a fiber that is to be accepted."""
    digest: str = ""
    """Of what is asked, when it waits for an answer."""
    request: msgspec.Raw = NULL
    """What is asked, for whoever is to answer."""
    by: tuple[str, ...] = ()
    """Who may answer, by the name whoever lets them in gives them. Empty: whoever is let in."""
    after: int = -1
    """What it waits for counts if it was accepted after this ordinal: the last one its owner knew."""


class FiberWaited(Record, frozen=True, tag="fiber.waited"):
    """The wait's time has come while the method went on beside it. No news when something else had ended it before."""

    fiber: str
    name: str
    at: float


class FiberParked(Record, frozen=True, tag="fiber.parked"):
    """The fiber waits for `until` (or for ever, None) and holds no task. `name` identifies what it waits for.

    With `error` it waits for code: this version has no method of that name, or one with another signature.
    """

    fiber: str
    name: str
    at: float
    until: float | None = None
    error: ErrorInfo | None = None
    waits: tuple[str, ...] = ()
    """The waits that its method stands at; others are forgotten. Empty: a sleep called `name`."""


class FiberSettled(Record, frozen=True, tag="fiber.settled"):
    """The terminal fact of a fiber (S7). `answered_by` names the fiber whose work settled this one, if another's did."""

    fiber: str
    outcome: Outcome
    at: float
    result: msgspec.Raw = NULL
    error: ErrorInfo | None = None
    answered_by: str | None = None
    dead: bool = False
    """A dead letter: it failed because its tries were spent. Kept until somebody looks at it."""


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
    id: str = ""


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
    fiber: str | None = None
    """For a fiber that asked: `call` is the name it asked under."""


class ResolveRequested(Record, frozen=True, tag="resolve.requested"):
    """A person gives a fiber its outcome. To one that is settled already it is a note: this dead letter was seen to."""

    fiber: str
    outcome: Outcome
    at: float
    result: msgspec.Raw = NULL
    error: ErrorInfo | None = None
    by: str = ""


class ForgetRequested(Record, frozen=True, tag="forget.requested"):
    """The fiber's outcome need not be remembered: the fold drops it, now or as soon as it has settled."""

    fiber: str
    at: float


class DestroyRequested(Record, frozen=True, tag="destroy.requested"):
    """Delete this instance, and its sub-objects before it. Whoever owns it from now on does nothing else."""

    at: float


# --- schedules -----------------------------------------------------------------------------------------------------


class When(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When something is to happen: once at `at`, every `seconds` from there on, or as `cron` says in the zone `tz`."""

    at: float | None = None
    seconds: float | None = None
    cron: str = ""
    tz: str = ""
    jitter: float = 0.0
    """Seconds by which it may be dealt with later: a part of them that is the schedule's own, the same every time."""


Missed = Literal["once", "each", "skip"]


class ScheduleRequested(Record, frozen=True, tag="schedule.requested"):
    """A request: from now on `method` is called at these times. Replaces what had that name; the same again is no news."""

    name: str
    method: str
    when: When
    at: float
    first: float
    """The first occurrence, in wall seconds."""
    arguments: msgspec.Raw = NULL
    missed: Missed = "once"
    overlap: bool = False
    retry: Retry | None = None
    timeout_seconds: float | None = None
    declared: bool = False
    """By the code that defines the kind of instance, which takes it back when it is not defined any more."""


class ScheduleFired(Record, frozen=True, tag="schedule.fired"):
    """The occurrence at `occurrence` is due: its fiber is accepted in this batch, or it was missed for good (`fiber` None)."""

    name: str
    at: float
    of: int
    """The ordinal of the request that made the schedule."""
    occurrence: float
    fiber: str | None
    next: float | None = None
    """The occurrence after it; None: there is none, and the schedule has ended."""


# --- state ---------------------------------------------------------------------------------------------------------


class StateChanged(Record, frozen=True, tag="state.changed"):
    """Fields assigned together. `conflicts` names those that another draft had assigned since this one was copied."""

    changes: dict[str, msgspec.Raw]
    conflicts: tuple[str, ...] = ()
    scope: str = ""
    source: str = "server"
    """The connection whose client set it, or the server: a client is not told of what it set itself."""


# --- files ---------------------------------------------------------------------------------------------------------


class FilesChanged(Record, frozen=True, tag="files.changed"):
    """The files are different now, all of it at once: the changes here, after those staged under `staged`."""

    at: float
    base: int
    """How many such records came before: it was made knowing them all."""
    changes: tuple[Change, ...] = ()
    staged: str = ""


class FilesStaged(Record, frozen=True, tag="files.staged"):
    """A part of a change too large for one record. It has no effect unless a `files.changed` names its transaction, and none
    from the next one on that does not."""

    transaction: str
    changes: tuple[Change, ...]


#: What a process that does not own the instance may append; everything else needs the current epoch.
REQUESTS: tuple[type[Record], ...] = (
    FiberAccepted,
    AbortRequested,
    SignalSent,
    CancelRequested,
    AnswerGiven,
    ResolveRequested,
    ForgetRequested,
    ScheduleRequested,
    DestroyRequested,
    ObjectReached,
)

RUNTIME: tuple[type[Record], ...] = (
    InstanceCreated,
    InstanceForked,
    InstanceClaimed,
    InstanceReleased,
    FiberStarted,
    FiberStashed,
    StepStarted,
    StepTried,
    StepCompleted,
    FiberRetried,
    FiberWaiting,
    FiberWaited,
    FiberParked,
    FiberSettled,
    ScheduleFired,
    StateChanged,
    FilesChanged,
    FilesStaged,
    StorageChanged,
    ConnectionOpened,
    ConnectionChanged,
    ConnectionClosed,
    ObjectSent,
    SubObjectAdded,
    SubObjectRemoved,
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


def readable(records: Iterable[Record], decoder: msgspec.json.Decoder[list[Record]]) -> bytes:
    """`encode`, of what a reader takes back: a record that user code has filled with other types would be a log that no fold
    accepts (S14), and writing does not look at types. A microsecond a record. *Raises* UsageError."""
    encoded = encode(records)
    try:
        decoder.decode(encoded)
    except msgspec.ValidationError as error:
        raise UsageError(f"this cannot be recorded, nobody could read it: {error} (of {encoded[:200].decode()} …)") from None
    return encoded
