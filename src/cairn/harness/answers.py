"""Answering from outside: what a conversation asks, and the one answer each question gets.

Laws. Nothing here owns an instance: an answer is a request, and whether it was the one is read from the log at its own ordinal.
It is refused here, with nothing written, unless it fits what is asked: the call, the digest of what would be run, the name of
who answers, the form, the time. What a race lets through all the same has no effect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.errors import Conflict, Denied, NotFound, UsageError
from cairn.harness import records as h
from cairn.harness.asking import AnyAnswer, AskKind, digest_of_answer, misfit, write_answer
from cairn.harness.conversation import Conversation
from cairn.harness.entries import Entry
from cairn.harness.program_names import is_of
from cairn.harness.shown_questions import of_program
from cairn.runtime import answering
from cairn.runtime import records as r
from cairn.runtime.client import Client
from cairn.runtime.instance import Fold
from cairn.runtime.state import Came, FiberState, WaitState

#: Loads the conversation's fold, at the head or at an ordinal; None: nothing was ever sent to it.
Load = Callable[[int | None], Awaitable[Fold | None]]


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call that waits for an answer. `digest` says which arguments were seen: an answer has to name it."""

    call: str
    tool: str
    arguments: dict[str, Any]
    digest: str
    kind: AskKind
    submission: str
    asked_at: float
    """Wall seconds, as …"""
    expires_at: float | None
    """… this; None: never."""
    reason: str = ""
    by: tuple[str, ...] = ()
    """Who may answer. Empty: whoever may write to the conversation."""


@dataclass(frozen=True, slots=True)
class AnswerReceipt:
    """Proof that the answer is durable and was the one."""

    call: str
    offset: int
    """Its ordinal; of a duplicate, the head that was read."""
    duplicate: bool = False
    """The same answer had been given before: this one changed nothing."""


def pending(fold: Fold) -> list[PendingCall]:
    """What is asked and not answered, the oldest first."""
    return [_pending(asking) for asking in open_questions(fold)]


def open_questions(fold: Fold) -> list[h.ToolAwaiting]:
    state: Conversation = fold.state
    found = []
    for asking in state.asking.values():
        fiber = fold.runtime.fibers.get(asking.submission)
        if fiber is not None and asking.call in fiber.waits and fiber.abort is None and asking.kind != "program":
            found.append(asking)
    for fiber in fold.runtime.fibers.values():
        if fiber.method == h.PROGRAM and fiber.abort is None:
            found += [asked for wait in fiber.waits.values() if (asked := _of_program(fiber, wait)) is not None]
    return sorted(found, key=lambda asking: asking.at)


def _of_program(fiber: FiberState, wait: WaitState) -> h.ToolAwaiting | None:
    """What a program asks before a call of its own."""
    return of_program(
        r.FiberWaiting(
            fiber=fiber.id,
            name=wait.name,
            at=wait.since,
            on=wait.on,
            until=wait.until,
            digest=wait.digest,
            request=wait.request,
            by=wait.by,
        )
    )


def digest_asked(fold: Fold, call: str) -> str | None:
    """The digest of what a call asks, or asked; None when it never did."""
    state: Conversation = fold.state
    if call in state.asking:
        return state.asking[call].digest
    if (open := next((each for each in open_questions(fold) if each.call == call), None)) is not None:
        return open.digest
    entry = _entry_of(state, call)
    answered = entry.answers.get(call) if entry is not None else None
    return answered.digest if answered is not None else None


def _pending(asking: h.ToolAwaiting) -> PendingCall:
    return PendingCall(
        call=asking.call,
        tool=asking.name,
        arguments=msgspec.json.decode(asking.arguments),
        digest=asking.digest,
        kind=asking.kind,
        submission=asking.submission,
        asked_at=asking.at,
        expires_at=asking.until,
        reason=asking.reason,
        by=asking.by,
    )


class Answers:
    """Gives answers to the questions of one conversation."""

    def __init__(self, client: Client, id: str, load: Load) -> None:
        self._client = client
        self._id = id
        self._load = load

    @property
    def _where(self) -> str:
        return f"conversation {self._client.address(self._id)}"

    async def give(self, call: str, answer: AnyAnswer, *, digest: str, by: str) -> AnswerReceipt:
        """The call has this answer. *Durable*. *Idempotent*: the same answer again is the first one's receipt.

        *Raises* NotFound: no such call; Conflict: it asks something else, waits no more, or was answered otherwise; Denied:
        `by` may not answer it; UsageError: this is no answer to it. Then nothing has changed.
        """
        raw = write_answer(answer)
        fold = await self._load(None)
        if fold is None:
            raise NotFound(f"{self._where} does not exist, so it asks nothing")
        asking = next((each for each in open_questions(fold) if each.call == call), None)
        if asking is None:
            return await self._late(fold, call, raw, digest, by)
        self._check(asking, answer, digest, by)
        at = self._client.clock.wall()
        given = r.AnswerGiven(call=call, digest=digest, at=at, answer=raw, by=by, fiber=asking.submission)
        ordinal = await self._client.request(self._id, given)
        return await self._judged(await self._load(ordinal), asking, given, ordinal)

    def _check(self, asking: h.ToolAwaiting, answer: AnyAnswer, digest: str, by: str) -> None:
        named = f"{self._where}: call '{asking.call}' of {asking.name}"
        if asking.by and by not in asking.by:
            raise Denied(f"{named}: {by or 'nobody in particular'} may not answer it; {', '.join(asking.by)} may")
        if digest != asking.digest:
            raise Conflict(f"{named}: the answer is to other arguments; the digest of those that wait is {asking.digest}")
        if asking.until is not None and self._client.clock.wall() > asking.until:
            raise Conflict(f"{named}: its time is over; it was not answered")
        schema = msgspec.json.decode(asking.output)
        if (wrong := misfit(asking.kind, answer, schema)) is not None:
            raise UsageError(f"{named}: {wrong}")

    async def _judged(self, fold: Fold | None, asking: h.ToolAwaiting, given: r.AnswerGiven, ordinal: int) -> AnswerReceipt:
        """Whether the answer at that ordinal was the one: another may have been written since the look before it."""
        if fold is None:
            raise NotFound(f"{self._where} was deleted meanwhile")
        fiber: FiberState | None = fold.runtime.fibers.get(asking.submission)
        came: Came | None = fiber.came.get(asking.call) if fiber is not None else None
        if came is not None and came.ordinal == ordinal:
            return AnswerReceipt(asking.call, ordinal)
        return await self._late(fold, asking.call, given.answer, given.digest, given.by)

    async def _late(self, fold: Fold, call: str, raw: msgspec.Raw, digest: str, by: str) -> AnswerReceipt:
        """What is said to an answer to what waits for none: a call of a message, or one that a program made."""
        if call in fold.state.asking or _entry_of(fold.state, call) is not None:
            return self._too_late(fold, call, raw, digest, by)
        found = await answering.past(self._client, self._id, call)
        if not found:
            raise NotFound(f"{self._where} has no call '{call}'; its questions say what it asks")
        given = answering.judged(f"{self._where}: ", found, call, digest, raw, by)
        return AnswerReceipt(call, fold.head, duplicate=given.duplicate)

    def _too_late(self, fold: Fold, call: str, raw: msgspec.Raw, digest: str, by: str) -> AnswerReceipt:
        """What is said to an answer to something that waits for none: the first one's receipt if it is the same."""
        state: Conversation = fold.state
        if (program := _program_of(fold, call)) is not None:
            return self._late_to_program(fold, program, call, raw)
        asking, entry = state.asking.get(call), _entry_of(state, call)
        if entry is None:
            raise NotFound(f"{self._where} has no call '{call}'; its questions say what it asks")
        answered = entry.answers.get(call)
        question = (asking.by, asking.digest) if asking is not None else None
        may, bound = question or ((answered.may, answered.digest) if answered is not None else ((), digest))
        if may and by not in may:
            raise Denied(f"{self._where}: call '{call}': {by or 'nobody in particular'} may not answer it")
        if digest != bound:
            raise Conflict(f"{self._where}: call '{call}': the answer is to other arguments than those that were asked about")
        if answered is not None:
            return self._again(fold, call, answered.by, answered.answer == digest_of_answer(raw))
        if asking is None:
            result = entry.results.get(call)
            how = f"it has its outcome: {result.outcome}" if result is not None else "it asks nothing"
            raise Conflict(f"{self._where}: call '{call}' waits for no answer; {how}")
        fiber = fold.runtime.fibers.get(asking.submission)
        came = fiber.came.get(call) if fiber is not None else None
        if came is None or came.timed_out:
            raise Conflict(f"{self._where}: call '{call}' waits no more: {_why(fiber, came)}")
        return self._again(fold, call, came.by, bytes(came.value) == bytes(raw))

    def _late_to_program(self, fold: Fold, program: FiberState, call: str, raw: msgspec.Raw) -> AnswerReceipt:
        """To what a program asked: what counts is what it was told, while it runs."""
        came = program.came.get(call)
        if came is None or came.timed_out:
            raise Conflict(f"{self._where}: call '{call}' waits no more: {_why(program, came)}")
        return self._again(fold, call, came.by, bytes(came.value) == bytes(raw))

    def _again(self, fold: Fold, call: str, by: str, same: bool) -> AnswerReceipt:
        if not same:
            raise Conflict(f"{self._where}: call '{call}' was answered otherwise by {by or 'somebody'}; that stands")
        return AnswerReceipt(call, fold.head, duplicate=True)


def _why(fiber: FiberState | None, came: Came | None) -> str:
    if fiber is None or fiber.abort is not None:
        return "its submission was stopped"
    return "its time is over, or a message took its place" if came is not None else "it has ended"


def _program_of(fold: Fold, call: str) -> FiberState | None:
    """The program that asks, or asked, this: its calls are named after it."""
    fibers = (*fold.runtime.fibers.values(), *fold.runtime.settled.values())
    return next((each for each in fibers if each.method == h.PROGRAM and is_of(each.id, call)), None)


def _entry_of(state: Conversation, call: str) -> Entry | None:
    """The newest message with a call of that id."""
    for index in range(len(state.entries) - 1, -1, -1):
        entry: Entry = state.entries[index]
        if entry.kind == "assistant" and any(each.id == call for each in entry.calls):
            return entry
    return None
