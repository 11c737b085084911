"""The records that end things: calls that will not run, and the submission itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cairn.harness import records as h
from cairn.harness.messages import Text
from cairn.harness.recovery import Verb, verb
from cairn.harness.render import CUT_CALL, NOT_RUN_ABORTED, STOPPED_ABORTED, UNKNOWN_OUTCOME
from cairn.harness.submission import CallState, CallStatus, Control
from cairn.runtime import records as r


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
            text = NOT_RUN_ABORTED if call.status is CallStatus.PLANNED else STOPPED_ABORTED
            records.append(outcome(control, call, "aborted", text, at))
    return records


def settle(
    control: Control,
    text: str,
    kind: r.Outcome,
    error: r.ErrorInfo | None,
    at: float,
    *,
    then: bool,
) -> list[r.Record]:
    """The submission and all that joined it have their one outcome (S7). `text`: the answer, when completed. `then`: an
    `on_settled` fiber follows each."""
    host = control.submission or ""
    result = r.NULL
    if kind == "completed":
        result = msgspec.Raw(msgspec.json.encode(Reply(text=text, message=control.message)))
    records: list[r.Record] = []
    for id in dict.fromkeys((host, *control.included)):
        answered_by = host if id != host else None
        records.append(r.FiberSettled(fiber=id, outcome=kind, at=at, result=result, error=error, answered_by=answered_by))
    return [*records, *_afterwards([host, *control.included] if then else (), at)]


def _afterwards(submissions: Iterable[str], at: float) -> list[r.Record]:
    return [
        r.FiberAccepted(
            fiber=f"after_{id}",
            method=h.SETTLED_HOOK,
            key=f"settled:{id}",
            at=at,
            arguments=msgspec.Raw(msgspec.json.encode(id)),
        )
        for id in dict.fromkeys(submissions)
    ]
