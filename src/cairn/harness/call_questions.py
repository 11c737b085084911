"""The calls of one message that wait for an answer: how they are asked, parked, and what follows when the waiting is over.

Laws. A question is a wait of the submission's fiber, which has the call's id for its name: who answered first, and whether it
was in time, is what the runtime's fold says (`FiberState.came`), never what this process saw. While only such calls are open
the submission is parked, and holds no task. That a wait is over by the clock, or by a message, is on the log before anything
is made of it: an answer that came a moment before has won.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.harness import program_fiber, recovery
from cairn.harness import records as h
from cairn.harness.asking import (
    FITTING,
    AnyAnswer,
    Approve,
    Failure,
    Output,
    Reject,
    digest_of_answer,
    digest_of_call,
    read_answer,
)
from cairn.harness.attempt import Attempt, View
from cairn.harness.calls import fitting
from cairn.harness.cut import LATE_SECONDS, CutReason
from cairn.harness.messages import ResultContent, Text
from cairn.harness.program_names import fiber_of
from cairn.harness.render import EXPIRED, REJECTED, WITHDRAWN
from cairn.harness.settling import outcome
from cairn.harness.submission import CallState, CallStatus, Control
from cairn.harness.tools import Tool, result_of
from cairn.runtime import records as r
from cairn.runtime.state import Came


@dataclass(frozen=True, slots=True)
class Leave:
    """That a call may run: with these arguments, on whose word."""

    arguments: msgspec.Raw
    by: str
    answer: str


class CallQuestions:
    """The waiting calls of the message an attempt is at."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    # --- where they stand

    def _came(self) -> dict[str, Came]:
        return self._attempt.fiber.state.came

    def _over(self) -> list[CallState]:
        """Those whose wait is over, which the log does not say yet."""
        attempt, control = self._attempt, self._attempt.conversation.control
        asking = [call for call in control.calls if call.status is CallStatus.AWAITING]
        if not asking:
            return []
        joinable, fiber, now = recovery.joining(control, attempt.instance.runtime), attempt.fiber.state, attempt.now()
        return [call for call in asking if recovery.wait_of(call, fiber, now, joinable) == "over"]

    def ended(self, control: Control | None = None) -> set[str]:
        """The calls whose wait the log says is over, and that nothing has followed from yet."""
        calls = (control or self._attempt.conversation.control).calls
        return {call.id for call in calls if call.status is CallStatus.AWAITING and call.id in self._came()}

    def approved(self, control: Control) -> dict[str, Leave]:
        """Those that may run now."""
        asking, found = self._attempt.conversation.asking, dict[str, Leave]()
        for id in sorted(self.ended(control)):
            came = self._came()[id]
            if isinstance(_given(asking[id], came), Approve):
                found[id] = Leave(asking[id].arguments, came.by, digest_of_answer(came.value))
        return found

    @contextmanager
    def watch(self, known: Collection[str]) -> Iterator[asyncio.Future[None]]:
        """A future that is done once a wait is over, by the log or by the clock; those of `known` are no news."""
        loop, instance = asyncio.get_running_loop(), self._attempt.instance
        news: asyncio.Future[None] = loop.create_future()

        def look() -> None:
            if not news.done() and not instance.fenced and (self._over() or self.ended() - set(known)):
                news.set_result(None)

        calls = self._attempt.conversation.control.calls
        times = [call.until for call in calls if call.status is CallStatus.AWAITING and call.until is not None]
        forget = instance.observe(look)
        left = max(0.0, min(times) - self._attempt.now()) + LATE_SECONDS if times else None
        timer = loop.call_later(left, look) if left is not None else None
        try:
            look()
            yield news
        finally:
            forget()
            if timer is not None:
                timer.cancel()

    # --- records

    def ask(self, control: Control, call: CallState, tool: Tool, arguments: msgspec.Raw) -> list[r.Record]:
        """The question of this call and the wait for its answer; nothing when its rule says that it need not ask."""
        asks, attempt = tool.asks, self._attempt
        reason = asks.reason(msgspec.json.decode(arguments)) if asks is not None else None
        if asks is None or reason is None:
            return []
        now, digest = attempt.now(), digest_of_call(call.name, arguments)
        until = None if asks.expires_seconds is None else now + asks.expires_seconds
        schema = r.NULL if asks.output is None else msgspec.Raw(msgspec.json.encode(dict(asks.output)))
        awaiting = h.ToolAwaiting(
            submission=control.submission or "",
            turn=control.turn,
            call=call.id,
            name=call.name,
            arguments=arguments,
            digest=digest,
            kind=asks.kind,
            at=now,
            until=until,
            reason=reason,
            by=asks.by,
            on_message=asks.on_message,
            output=schema,
        )
        if asks.kind == "program":
            code, fiber = msgspec.json.decode(arguments)["code"], fiber_of(awaiting.submission, call.id)
            begun = program_fiber.accepted(awaiting.submission, call.id, code, now, attempt.rendered().snippets)
            return [awaiting, begun, r.FiberWaiting(fiber=attempt.fiber.id, name=call.id, at=now, on="fiber", event=fiber)]
        request = msgspec.Raw(msgspec.json.encode({"kind": asks.kind, "tool": call.name}))
        waiting = r.FiberWaiting(
            fiber=attempt.fiber.id, name=call.id, at=now, on="answer", until=until, digest=digest, request=request, by=asks.by
        )
        return [awaiting, waiting]

    def take(self, control: Control) -> list[r.Record]:
        """The outcomes of those that will not be run here: rejected, answered, expired, withdrawn."""
        made: list[r.Record] = []
        for call in control.calls:
            if call.id in self.ended(control):
                found = self._outcome(control, call, self._attempt.conversation.asking[call.id], self._came()[call.id])
                made += [found] if found is not None else []
        return made

    def _outcome(self, control: Control, call: CallState, asking: h.ToolAwaiting, came: Came) -> r.Record | None:
        now = self._attempt.now()
        if came.timed_out:
            is_late = asking.until is not None and came.at >= asking.until
            kind: h.CallOutcome = "expired" if is_late or asking.on_message == "queue" else "withdrawn"
            return outcome(control, call, kind, (EXPIRED if kind == "expired" else WITHDRAWN)[asking.kind], now)
        if asking.kind == "program":
            return self._of_program(control, call, asking)
        given = _given(asking, came)
        if isinstance(given, Approve):
            return None
        base = outcome(control, call, "error", "", now)
        content, is_value, kind = _content(call.name, given)
        answer = digest_of_answer(came.value)
        return msgspec.structs.replace(base, outcome=kind, content=content, is_value=is_value, by=came.by, answer=answer)

    def _of_program(self, control: Control, call: CallState, asking: h.ToolAwaiting) -> r.Record:
        """What came of the program, which has settled."""
        fiber = self._attempt.instance.runtime.fiber(fiber_of(asking.submission, call.id))
        ended = fiber.outcome if fiber is not None else None
        text, is_error = program_fiber.told(ended or "aborted", *((fiber.result, fiber.error) if fiber else (b"", None)))
        base = outcome(control, call, "error", "", self._attempt.now())
        return msgspec.structs.replace(base, outcome="error" if is_error else "ok", content=fitting((Text(text=text),)))

    def park(self, view: View) -> list[r.Record]:
        """The submission waits for the answers and nothing else, or for a message that takes their place."""
        attempt = self._attempt
        asking = [call for call in view.control.calls if call.status is CallStatus.AWAITING]
        names, records = [call.id for call in asking], list[r.Record]()
        if any(call.on_message == "withdraw" for call in asking):
            names.append(f"message:{view.control.turn}")
            # One that was accepted since the last fold is none that was seen: it ends the wait with its first breath.
            records.append(
                r.FiberWaiting(
                    fiber=attempt.fiber.id,
                    name=names[-1],
                    at=attempt.now(),
                    on="accepted",
                    event=h.SUBMISSION,
                    after=attempt.instance.head,
                )
            )
        soonest = min(asking, key=lambda call: (call.until is None, call.until or 0.0))
        parked = r.FiberParked(
            fiber=attempt.fiber.id, name=soonest.id, at=attempt.now(), until=soonest.until, waits=tuple(names)
        )
        return [*records, parked]

    # --- work

    async def end_waits(self, cut: asyncio.Future[CutReason]) -> list[r.Record]:
        """What is over by the clock, or by a message, is over on the log; unless an answer was faster."""
        attempt, now = self._attempt, self._attempt.now()
        waited: list[r.Record] = [r.FiberWaited(fiber=attempt.fiber.id, name=call.id, at=now) for call in self._over()]
        if waited:
            await attempt.commit(waited)
        return []


def _given(asking: h.ToolAwaiting, came: Came) -> AnyAnswer | None:
    """The answer, if one came and is one to this question."""
    if came.timed_out:
        return None
    try:
        answer = read_answer(came.value)
    except msgspec.MsgspecError:
        return Failure(error="What was answered could not be read.")
    if not isinstance(answer, FITTING[asking.kind]):
        return Failure(error="What was answered does not answer this call.")
    return answer


def _content(tool: str, given: Any) -> tuple[tuple[ResultContent, ...], bool, h.CallOutcome]:
    """What the model reads of an answer that is the outcome."""
    if isinstance(given, Reject):
        return fitting(f"{REJECTED} Reason: {given.reason}" if given.reason else REJECTED), False, "rejected"
    if isinstance(given, Output):
        result = result_of(tool, msgspec.json.decode(given.output))
        content = fitting(result.content)
        return content, result.is_value and content == result.content, "ok"
    said = given.error if isinstance(given, Failure) and given.error else "It failed, and no reason was given."
    return fitting((Text(text=said),)), False, "error"
