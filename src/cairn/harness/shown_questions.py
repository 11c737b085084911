"""What people are shown of a call that waits for somebody: the question, and what became of it.

Laws. Pure. A question is a call's of the model, or one that a program makes: they look the same. `asked` is what is shown of
those that are open, by name. An answer is a request, and is shown with what its owner makes of it: the question of a program
ends with the step that the answer, or the end of the waiting, allows or refuses.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cairn.harness import records as h
from cairn.harness.times import iso
from cairn.runtime import records as r

Chunk = dict[str, Any]
Step = r.StepStarted | r.StepCompleted

_PROGRAM = f"{h.PROGRAM}:"


def question(record: h.ToolAwaiting) -> Chunk:
    """What people are shown of a call that waits for an answer."""
    shown: Chunk = {
        "state": "waiting",
        "toolCallId": record.call,
        "toolName": record.name,
        "kind": record.kind,
        "input": msgspec.json.decode(record.arguments),
        "digest": record.digest,
        "askedAt": iso(record.at),
    }
    if record.until is not None:
        shown["expiresAt"] = iso(record.until)
    if record.reason:
        shown["reason"] = record.reason
    if record.by:
        shown["by"] = list(record.by)
    return shown


def resolved(asked: Chunk, record: h.ToolCalled | h.ToolOutcome) -> Chunk:
    """The same once it has been answered, or needs no answer any more."""
    shown = {**asked, "state": _STATES.get(record.outcome, "answered") if isinstance(record, h.ToolOutcome) else "approved"}
    if record.answer:
        shown["answeredAt"] = iso(record.at)
    if record.by:
        shown["answeredBy"] = record.by
    return shown


#: How a question ended, by the outcome of a call that was not approved. An output or an error was given as an answer.
_STATES = {"rejected": "rejected", "expired": "expired", "withdrawn": "withdrawn", "aborted": "aborted", "unknown": "aborted"}


# --- what programs ask ------------------------------------------------------------------------------------------------


def of_program(record: r.FiberWaiting) -> h.ToolAwaiting | None:
    """What a program asks before a call of its own: the same question as a call's, of another fiber."""
    if record.on != "answer" or not record.fiber.startswith(_PROGRAM):
        return None
    asked = msgspec.json.decode(record.request)
    return h.ToolAwaiting(
        submission=record.fiber,
        turn="",
        call=record.name,
        name=asked["function"],
        arguments=msgspec.Raw(msgspec.json.encode(asked["arguments"])),
        digest=record.digest,
        kind=asked.get("kind", "approval"),
        at=record.at,
        until=record.until,
        reason=asked["reason"],
        by=record.by,
    )


def begun(record: r.FiberWaiting) -> Chunk | None:
    """What is shown of it; None when it is no question of a program."""
    asked = of_program(record)
    return None if asked is None else {**question(asked), "program": record.fiber}


def decided(asked: dict[str, Chunk], record: Step) -> Chunk | None:
    """The question of the call whose step this is, as it ended: by the answer, or without one. None: it asked nothing."""
    found = asked.get(_name(asked, record)) if record.fiber.startswith(_PROGRAM) else None
    return {**found, "state": "expired"} if found is not None and found["state"] == "waiting" else found


def of_fiber(asked: dict[str, Chunk], fiber: str) -> list[str]:
    """The open questions of a program, or of all programs of a submission."""
    programs = {name: str(each.get("program", "")) for name, each in asked.items()}
    return [name for name, by in programs.items() if by == fiber or by.startswith(f"{_PROGRAM}{fiber}:")]


def _name(asked: dict[str, Chunk], record: Step) -> str:
    """What the question of a step is called: `approve` and its name, or its name alone."""
    name = f"{record.scope} {record.name}"
    return f"approve {name}" if f"approve {name}" in asked else name


def remember(asked: dict[str, Chunk], record: r.FiberWaiting) -> None:
    if (chunk := begun(record)) is not None:
        asked[record.name] = chunk


def remember_answer(asked: dict[str, Chunk], record: r.AnswerGiven) -> None:
    """The first that fits counts."""
    known = asked.get(record.call)
    if known is None or known.get("program") != record.fiber or known["state"] != "waiting":
        return
    late = "expiresAt" in known and iso(record.at) > known["expiresAt"]
    if late or known["digest"] != record.digest or ("by" in known and record.by not in known["by"]):
        return
    given = msgspec.json.decode(record.answer)
    said = given.get("answer") if isinstance(given, dict) else None
    state = {"approve": "approved", "reject": "rejected"}.get(str(said), "answered")
    asked[record.call] = {**known, "state": state, "answeredAt": iso(record.at)}
    if record.by:
        asked[record.call]["answeredBy"] = record.by


def forget(asked: dict[str, Chunk], record: Step) -> None:
    if asked and record.fiber.startswith(_PROGRAM):
        asked.pop(_name(asked, record), None)
