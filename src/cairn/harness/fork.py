"""What a fork's log says first: whose it is now, and how everything ends that was under way where it parts.

Laws. Pure. The records fold on the shared prefix they were made for, settle every fiber that is unsettled there, and leave
nothing open: the next message finds a conversation at rest. The source goes on as if nothing had happened; so what was called
there may still take effect there, and here its outcome is unknown (S9).
"""

from __future__ import annotations

from collections.abc import Iterator

from cairn.harness import records as h
from cairn.harness.settling import outcome, settle
from cairn.harness.submission import CallStatus, Control, Stage
from cairn.runtime import records as r
from cairn.runtime.state import RuntimeState

#: Why a submission that was unsettled at the fork has ended in it.
FORKED = r.ErrorInfo(kind="forked", message="the conversation was forked before this was answered")

#: What the model is told of a call that was under way where the conversation was forked.
UNKNOWN_IN_FORK = (
    "The outcome of this call is unknown here: this conversation is a copy of another, made while the call was running there. "
    "It may or may not have taken effect. Find out before you call it again."
)
NOT_RUN_IN_FORK = "This call was not run: this conversation is a copy of another, made before the call."


def first_batch(forked: r.InstanceForked, control: Control, runtime: RuntimeState) -> list[r.Record]:
    """The records of a fork's own first batch; `control` and `runtime` are the fold of what it shares."""
    return [
        forked,
        *_close_message(control, forked.at),
        *_close_calls(control, forked.at),
        *_settle(control, runtime, forked.at),
    ]


def _close_message(control: Control, at: float) -> Iterator[r.Record]:
    """The open message ends. Its words stay: whoever forks there has read them."""
    if control.stage in (Stage.OPEN, Stage.PARTIAL):
        yield h.MessageInterrupted(
            submission=control.submission or "",
            turn=control.turn,
            message=control.message,
            reason="fork",
            keep=control.kept_text,
            at=at,
        )


def _close_calls(control: Control, at: float) -> Iterator[r.Record]:
    for call in control.calls:
        if call.status is CallStatus.CALLED or (call.status is CallStatus.AWAITING and call.asks == "client_tool"):
            yield outcome(control, call, "unknown", UNKNOWN_IN_FORK, at)
        elif call.status in (CallStatus.PLANNED, CallStatus.AWAITING):
            yield outcome(control, call, "aborted", NOT_RUN_IN_FORK, at)


def _settle(control: Control, runtime: RuntimeState, at: float) -> Iterator[r.Record]:
    """Those the model has read together as one, every other fiber for itself; nothing runs after them."""
    together = [id for id in control.included if id in runtime.fibers]
    if together:
        yield from settle(together, "aborted", FORKED, at, then=False)
    for fiber in runtime.unsettled():
        if fiber.id not in together:
            yield from settle([fiber.id], "aborted", FORKED, at, then=False)
