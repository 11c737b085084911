"""The records that end things: calls that will not run, and the submission itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from cairn.harness import records as h
from cairn.harness.messages import Text
from cairn.harness.recovery import Verb, verb
from cairn.harness.render import CUT_CALL, NOT_RUN_ABORTED, STOPPED_ABORTED, UNANSWERED_ABORTED, UNKNOWN_OUTCOME
from cairn.harness.sizes import shortened
from cairn.harness.submission import CallState, CallStatus, Control
from cairn.runtime import records as r

#: Bytes of a reply in its settlement. A longer one is whole in the conversation, part by part.
REPLY_BYTES_MAX = 900_000


class Reply(msgspec.Struct, frozen=True):
    """What a completed submission settled with."""

    text: str
    message: str


def outcome(
    control: Control, call: CallState, kind: h.CallOutcome, text: str, at: float, *, terminate: bool = False
) -> h.ToolOutcome:
    return h.ToolOutcome(
        submission=control.submission or "",
        turn=control.turn,
        call=call.id,
        name=call.name,
        outcome=kind,
        content=(Text(text=text),),
        at=at,
        terminate=terminate,
    )


def refuse_cut(control: Control, at: float) -> list[r.Record]:
    """Calls of a message that stopped at the length limit: none runs (P9)."""
    return [outcome(control, call, "error", CUT_CALL, at) for call in control.calls if call.status is not CallStatus.DONE]


def close_calls(control: Control, epoch: int, halted: bool, at: float) -> list[r.Record]:
    """When halted, every open call gets its outcome; else only those whose process is gone and that may not be repeated."""
    records: list[r.Record] = []
    for call in control.calls:
        if call.status is CallStatus.DONE:
            continue
        if call.status is CallStatus.CALLED and call.epoch != epoch and verb(call, epoch) is Verb.LOSE:
            records.append(outcome(control, call, "unknown", UNKNOWN_OUTCOME, at))
        elif halted:
            records.append(outcome(control, call, "aborted", _stopped_text(call), at))
    return records


def _stopped_text(call: CallState) -> str:
    if call.status is CallStatus.CALLED:
        return STOPPED_ABORTED
    return UNANSWERED_ABORTED if call.asks == "client_tool" else NOT_RUN_ABORTED


def reply_of(text: str, message: str) -> msgspec.Raw:
    """A `Reply` as it is recorded."""
    return msgspec.Raw(msgspec.json.encode(Reply(text=shortened(text, REPLY_BYTES_MAX), message=message)))


def settle(
    submissions: Sequence[str],
    kind: r.Outcome,
    error: r.ErrorInfo | None,
    at: float,
    *,
    result: msgspec.Raw = r.NULL,
    then: bool,
) -> list[r.Record]:
    """These have their one outcome (S7), which the first of them brought about. `then`: an `on_settled` fiber follows
    each."""
    host = submissions[0]
    records: list[r.Record] = [
        r.FiberSettled(fiber=id, outcome=kind, at=at, result=result, error=error, answered_by=None if id == host else host)
        for id in submissions
    ]
    return [*records, *_afterwards(submissions if then else (), at)]


def _afterwards(submissions: Iterable[str], at: float) -> list[r.Record]:
    return [
        r.FiberAccepted(
            fiber=f"after_{id}",
            method=h.SETTLED_HOOK,
            key=f"settled:{id}",
            at=at,
            arguments=msgspec.Raw(msgspec.json.encode(id)),
        )
        for id in submissions
    ]
