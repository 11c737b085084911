"""Every error Cairn raises. `retryable` says whether the same call can succeed later without anybody changing anything.

CairnError
├── UsageError                 the caller's mistake; says what to do instead (CLI exit code 2)
│   ├── AgentFileError         an agent's file or folder cannot be loaded; lists every problem found
│   ├── MissingExtra           a feature needs a package that is not installed; names it
│   └── Denied                 a server wants another credential, or this one does not allow that
├── StoreError
│   ├── StoreBusy        (r)   another process holds the write turn and does not let go; names it
│   ├── StoreFull        (r)   no space: nothing of the refused batch was written (HTTP 507)
│   ├── StoreCorrupt           a record fails its checksum, schema or link (S14); nothing is guessed
│   ├── StoreFormat            the file was written by a newer Cairn, or is not Cairn's
│   └── StoreUnsupported       a place that is not writable, a network file system, a SQLite that is too old
├── Fenced                     the instance has a newer owner; stop, drop the memory, do not retry (S4)
├── NotFound                   no such instance, fiber, offset
│   └── Replaced               a followed conversation is gone; another one has its name
├── Conflict                   the same idempotency key with another body (S6), or a uid condition that fails
│   └── ProducerConflict       the same (producer, epoch, seq) with other content, a gap, or a stale epoch (S5)
├── FiberError
│   ├── FiberFailed            the fiber settled as failed or aborted; carries its recorded error
│   ├── StepUnknown            a never/keyed step was started by a process that died; its outcome is unknown (S9)
│   ├── StepNameReused         one fiber used a step name twice
│   ├── StepFailed             a step's tries are spent; the message is the last error
│   ├── WaitExpired            nothing came in time; a TimeoutError too
│   └── NonRetryable           raised by user code: do not try this fiber or step again
├── WorkspaceError             a file operation that cannot be done; an OSError with its errno too
│   └── WorkspaceFull          it would go over the workspace's quota; nothing of it was done
├── ObjectError                something about one call of a durable object
│   ├── UnknownMethod          its class has no such method
│   ├── NotCallable            the method is not for callers, or not for this connection
│   ├── Refused                the object did not take it: a state that does not fit, a connection it does not want
│   ├── ReentrantCall          a chain of calls came back to an object that is in it; names the chain
│   ├── CallInterrupted  (r)   its process stopped or lost the object while the handler ran; nothing of it was committed
│   └── ObjectGone             the object was destroyed
├── ToolError                  raised by user code: the model is shown this text as the tool's error
├── ModelError                 a provider failed; carries kind, status, retry_after
├── RemoteError                a server refused or failed in a way that is none of the above; carries its words
│   └── Unreachable      (r)   no server answered, or its answer broke off
└── SandboxError               a sandbox could not run the command at all (a non-zero exit is not an error)
"""

from __future__ import annotations

from typing import Any, Literal


class CairnError(Exception):
    """The root: `except CairnError` catches whatever Cairn raises."""

    retryable: bool = False


class UsageError(CairnError):
    """The caller's mistake. The message names the thing, its state and what to do."""


class AgentFileError(UsageError):
    """An agent's file or folder cannot be loaded. `problems` holds every `path:line: text` found, not only the first."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class MissingExtra(UsageError):
    """A feature needs an optional package: `pip install 'cairn-agents[<extra>]'`."""


class Denied(UsageError):
    """A server wants another credential, or this one does not allow that."""


class StoreError(CairnError):
    """The store refused or failed. Nothing of the refused batch was written."""


class StoreBusy(StoreError):
    """Another process holds the store's write turn; the message names it (decisions: a stopped writer)."""

    retryable = True


class StoreFull(StoreError):
    """The disk or a quota is full. Nothing of the batch was written; free space and try again."""

    retryable = True


class StoreCorrupt(StoreError):
    """A stored record fails its checksum, its schema or its link. It is never skipped (S14)."""


class StoreFormat(StoreError):
    """The file was written by a newer Cairn, or it is not a Cairn store (S15)."""


class StoreUnsupported(StoreError):
    """The store cannot work here: a place that cannot be written, a network file system, or SQLite older than 3.38."""


class Fenced(CairnError):
    """A newer epoch owns the instance. A normal end for the old owner: stop, drop its memory, do not retry (S4)."""


class NotFound(CairnError):
    """No such instance, fiber, submission, blob or offset."""


class Replaced(NotFound):
    """What was followed is gone, and another conversation has its name: what was read so far does not belong to it."""


class Conflict(CairnError):
    """One idempotency key, two different bodies (S6): `fiber` is what the first one was accepted as. Or a condition on the
    instance's uid that does not hold: `uid` is the one it has."""

    def __init__(self, message: str, *, fiber: str | None = None, uid: str | None = None) -> None:
        super().__init__(message)
        self.fiber = fiber
        self.uid = uid


class ProducerConflict(Conflict):
    """The producer rule refused an append: stale epoch, bad start, gap, or other content under a known seq (S5)."""

    def __init__(self, message: str, verdict: str) -> None:
        super().__init__(message)
        self.verdict = verdict


class FiberError(CairnError):
    """Something about one fiber."""


class FiberFailed(FiberError):
    """The fiber settled as failed or aborted. `outcome` says which, the message is its recorded error."""

    def __init__(self, message: str, outcome: str = "failed") -> None:
        super().__init__(message)
        self.outcome = outcome


class StepUnknown(FiberError):
    """A `never` or `keyed` step was started by a process that died; whether it happened is unknown (S9)."""


class StepNameReused(FiberError):
    """One fiber used one step name twice; give each its own, such as `name=f"charge:{order.id}"`."""


class StepFailed(FiberError):
    """A step with a retry policy failed as often as it may. Recorded: a later attempt is told the same without a try."""


class WaitExpired(FiberError, TimeoutError):
    """What a fiber waited for (a signal, an answer, another fiber) did not come in time."""


class NonRetryable(FiberError):
    """Raised by user code: trying again cannot help; settle as failed now."""


class WorkspaceError(CairnError, OSError):
    """What a file system would say: `errno`, `strerror`, `filename`. Nothing was changed."""


class WorkspaceFull(WorkspaceError):
    """The workspace's quota of bytes or files (EDQUOT). Nothing of the change was done; remove something, or raise the
    quota."""


class ObjectError(CairnError):
    """Something about one call of a durable object."""


class UnknownMethod(ObjectError):
    """The class has no method of that name, or nobody here knows the class."""


class NotCallable(ObjectError):
    """The method is there and is not `@callable`."""


class Refused(ObjectError):
    """The object did not take what a client sent: a state that does not fit its type or its rules, a connection."""


class ReentrantCall(ObjectError):
    """A chain of calls came back to an object whose handler waits for it. `chain` names the objects, the first caller first."""

    def __init__(self, message: str, chain: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.chain = chain


class CallInterrupted(ObjectError):
    """The process that ran the handler stopped, or lost the object to another one. Nothing of the handler was committed; what
    it did to the world outside it did."""

    retryable = True


class ObjectGone(ObjectError, NotFound):
    """The object was destroyed before, or while, it was called."""


class ToolError(CairnError):
    """Raised by a tool: the model is shown this text as the call's error, without a traceback."""


ModelErrorKind = Literal[
    "rate_limit",
    "overload",
    "server",
    "timeout",
    "network",
    "overflow",
    "auth",
    "quota",
    "refusal",
    "invalid_request",
    "unknown",
]

#: Kinds for which the same request may succeed later. `quota` (money, plan) never comes back by waiting.
RETRYABLE_MODEL_ERRORS: frozenset[str] = frozenset({"rate_limit", "overload", "server", "timeout", "network"})


class ModelError(CairnError):
    """A provider failed. `kind` is what to do, `status` the HTTP status if there was one, `retry_after` in seconds."""

    def __init__(
        self,
        message: str,
        *,
        kind: ModelErrorKind = "unknown",
        status: int | None = None,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: ModelErrorKind = kind
        self.status = status
        self.retry_after = retry_after
        self.details = details or {}

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        return self.kind in RETRYABLE_MODEL_ERRORS


class SandboxError(CairnError):
    """The sandbox could not run the command at all. A command that ran and failed is a result, not this."""


#: Statuses after which the same request may succeed by itself: too slow, too early, too many, restarting, overloaded.
RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class RemoteError(CairnError):
    """A server could not do what was asked. `type` is its word for that, `status` the HTTP status if there was one,
    `retry_after` the seconds it asks to wait, `ref` finds it in its log."""

    def __init__(
        self,
        message: str,
        *,
        type: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        ref: str | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.status = status
        self.retry_after = retry_after
        self.ref = ref

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        return self.status in RETRYABLE_STATUSES


class Unreachable(RemoteError):
    """No server answered, or its answer broke off. `was_sent`: it may have done what was asked; a message sent with a key can
    be sent again to find out."""

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message, type="unreachable")
        self.was_sent = was_sent

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        return True
