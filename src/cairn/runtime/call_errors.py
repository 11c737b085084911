"""Errors of calls, as they travel through a log and back: whoever calls gets the same one wherever the handler ran."""

from __future__ import annotations

from cairn.errors import (
    CallInterrupted,
    Denied,
    Fenced,
    NotCallable,
    ObjectError,
    ObjectGone,
    ReentrantCall,
    Refused,
    RemoteError,
    StoreError,
    UnknownMethod,
)
from cairn.runtime.records import ErrorInfo

#: Errors of ours by the word they have in a record. Everything else was raised by the object's own code.
_KINDS: dict[str, type[Exception]] = {
    "unknown_method": UnknownMethod,
    "not_callable": NotCallable,
    "refused": Refused,
    "denied": Denied,
    "reentrant": ReentrantCall,
    "interrupted": CallInterrupted,
    "gone": ObjectGone,
    "timeout": TimeoutError,
}
_WORDS = {cls: word for word, cls in _KINDS.items()}


def told(error: Exception) -> Exception:
    """What a caller is told: errors of the machinery as they are, what user code raised as RemoteError."""
    if isinstance(error, ObjectError | Denied | RemoteError | TimeoutError | StoreError | Fenced):
        return error
    return RemoteError(str(error) or type(error).__name__, type=type(error).__name__)


def info_of(error: Exception) -> ErrorInfo:
    """The error as a record has it."""
    if isinstance(error, RemoteError):
        return ErrorInfo(kind=error.type or "error", message=str(error))
    return ErrorInfo(kind=_WORDS.get(type(error), type(error).__name__), message=str(error))


def error_of(info: ErrorInfo | None) -> Exception:
    """The error a record tells of."""
    if info is None:
        return RemoteError("it failed, and no error was recorded")
    known = _KINDS.get(info.kind)
    if info.kind in ("aborted", "attempts_exhausted"):
        known = CallInterrupted
    return known(info.message) if known is not None else RemoteError(info.message, type=info.kind)
