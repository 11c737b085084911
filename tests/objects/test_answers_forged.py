"""X10: answers that are none: forged, replayed, for other arguments, too late, by another, twice. Each is refused with a clear
text, and nothing has changed: not a record more in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests.harness.playing import Scene, scene
from tests.objects.answer_scenarios import WHERE
from tests.objects.answering import asked
from tests.objects.test_answers import paying

from cairn.errors import CairnError, Conflict, Denied, NotFound, UsageError
from cairn.harness import records as h
from cairn.harness.answers import PendingCall
from cairn.harness.asking import ANSWER_BYTES_MAX, Approve, approval, write_answer
from cairn.harness.handle import ConversationHandle
from cairn.runtime import records as r
from cairn.testing.play import settled
from cairn.testing.scripted import Call
from cairn.testing.world import World

#: Tries something with a question that waits.
Try = Callable[[ConversationHandle, PendingCall], Awaitable[Any]]


async def head(conversation: ConversationHandle) -> int:
    row = await conversation._store.find(conversation.address)
    assert row is not None
    return row.head


def tried(
    attempt: Try, *, asks: Any = True, tools: Any = (), call: Any = None, then: Try | None = None
) -> tuple[Scene, list[Any]]:
    """A scene in which `attempt` is made on the question; then it is approved (or `then`). With what came of the attempt."""
    came: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("first")
        (question,) = await asked(conversation, first)
        before = await head(conversation)
        try:
            came.append(await attempt(conversation, question))
        except CairnError as error:
            came.append(error)
            assert await head(conversation) == before, "a refused answer is in the log"
            assert await conversation.questions() == [question], "a refused answer has ended the question"
        await (then or approving)(conversation, question)
        await settled(first)

    return scene([call or Call("pay")], "Done.", define=paying(asks), tools=tools, client=client), came


async def approving(conversation: ConversationHandle, question: PendingCall) -> Any:
    return await conversation.approve(question.call, digest=question.digest, by="ann")


async def rejecting(conversation: ConversationHandle, question: PendingCall) -> Any:
    return await conversation.reject(question.call, "no", digest=question.digest, by="bob")


# --- what is refused while it waits -----------------------------------------------------------------------------------------

_GOOD = {"city": "Oslo"}

REFUSED: dict[str, tuple[Try, type[CairnError], str, dict[str, Any]]] = {
    "for other arguments": (
        lambda c, q: c.approve(q.call, digest="sha256:" + "0" * 64, by="ann"), Conflict, "other arguments", {},
    ),
    "without a digest": (lambda c, q: c.approve(q.call, digest="", by="ann"), Conflict, "other arguments", {}),
    "of a call there is not": (
        lambda c, q: c.approve("call_9_9", digest=q.digest, by="ann"), NotFound, "no call 'call_9_9'", {},
    ),
    "by another user": (
        lambda c, q: c.approve(q.call, digest=q.digest, by="mallory"), Denied, "mallory may not answer it; ann may",
        {"asks": approval(by="ann")},
    ),
    "by nobody": (
        lambda c, q: c.reject(q.call, digest=q.digest), Denied, "nobody in particular may not", {"asks": approval(by=["ann"])},
    ),
    "by another user with another digest": (
        lambda c, q: c.approve(q.call, digest="", by="mallory"), Denied, "may not", {"asks": approval(by=["ann"])},
    ),
    "an outcome for a call that only asks for leave": (
        lambda c, q: c.answer(q.call, "paid", digest=q.digest, by="ann"), UsageError, "waits for approve or reject", {},
    ),
    "leave for a call that asks for its outcome": (
        lambda c, q: c.approve(q.call, digest=q.digest), UsageError, "waits for an output",
        {"tools": [WHERE], "call": Call("where"), "then": lambda c, q: c.answer(q.call, _GOOD, digest=q.digest)},
    ),
    "an output that does not fit its schema": (
        lambda c, q: c.answer(q.call, {"town": "Oslo"}, digest=q.digest), UsageError, "output.city: required",
        {"tools": [WHERE], "call": Call("where"), "then": lambda c, q: c.answer(q.call, _GOOD, digest=q.digest)},
    ),
    "an output of another type": (
        lambda c, q: c.answer(q.call, '{"city": "Oslo"}', digest=q.digest), UsageError, "does not fit",
        {"tools": [WHERE], "call": Call("where"), "then": lambda c, q: c.answer(q.call, _GOOD, digest=q.digest)},
    ),
    "an output no log would take": (
        lambda c, q: c.answer(q.call, "x" * (ANSWER_BYTES_MAX + 1), digest=q.digest), UsageError, "at most",
        {"tools": [WHERE], "call": Call("where"), "then": lambda c, q: c.answer(q.call, _GOOD, digest=q.digest)},
    ),
    "an output that is no JSON": (
        lambda c, q: c.answer(q.call, object(), digest=q.digest), UsageError, "no JSON",
        {"tools": [WHERE], "call": Call("where"), "then": lambda c, q: c.answer(q.call, _GOOD, digest=q.digest)},
    ),
    "a reason that is a book": (
        lambda c, q: c.reject(q.call, "no " * 5_000, digest=q.digest), UsageError, "a reason has at most", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_answer_that_is_none_is_refused_and_changes_nothing(name: str) -> None:
    """X10: the error says what is wrong; the log is as long as before; the question still waits, and is answered then."""
    attempt, error, text, options = REFUSED[name]

    done, (came,) = tried(attempt, **options)

    assert type(came) is error and text in str(came), came
    assert done.outcomes == ["completed: Done."]


# --- after it ------------------------------------------------------------------------------------------------------------


def after(first: Try, *others: Try, wait: float = 0.0, asks: Any = True) -> list[Any]:
    """What came of the others after the first answer: at once, or when the submission has settled (`wait`)."""
    came: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("first")
        (question,) = await asked(conversation, receipt)
        await first(conversation, question)
        if wait:
            await settled(receipt)
        for other in others:
            before = await head(conversation)
            try:
                came.append(await other(conversation, question))
            except CairnError as error:
                came.append(error)
            if wait:
                assert await head(conversation) == before, "an answer that is too late is in the log"
        await settled(receipt)

    done = scene([Call("pay")], "Done.", define=paying(asks), client=client)
    assert len(done.of(r.AnswerGiven)) == 1 and len(done.of(h.ToolOutcome)) == 1
    return came


@pytest.mark.parametrize("wait", [0.0, 1.0], ids=["at once", "when all is settled"])
def test_the_same_answer_again_is_the_first_one_s_receipt(wait: float) -> None:
    """X10: a double click, and a client that lost the answer: nothing happens twice."""
    came = after(approving, approving, approving, wait=wait)

    assert [receipt.duplicate for receipt in came] == [True, True]


@pytest.mark.parametrize("wait", [0.0, 1.0], ids=["at once", "when all is settled"])
@pytest.mark.parametrize(("first", "second"), [(approving, rejecting), (rejecting, approving)])
def test_another_answer_after_the_first_is_a_conflict_that_names_who_answered(first: Try, second: Try, wait: float) -> None:
    """X10: replayed with another word: the first stands."""
    (came,) = after(first, second, wait=wait)

    assert isinstance(came, Conflict)
    assert "answered otherwise by " + ("ann" if first is approving else "bob") in str(came)


@pytest.mark.parametrize("wait", [0.0, 1.0], ids=["at once", "when all is settled"])
def test_the_same_answer_to_other_arguments_is_a_conflict_after_the_first_too(wait: float) -> None:
    """X10: replayed with another digest: it is not the answer that was given."""

    async def stale(conversation: ConversationHandle, question: PendingCall) -> Any:
        return await conversation.approve(question.call, digest="sha256:0", by="ann")

    (came,) = after(approving, stale, wait=wait)

    assert isinstance(came, Conflict) and "other arguments" in str(came)


def test_who_may_not_answer_may_not_repeat_an_answer_either() -> None:
    """X10: mallory learns nothing from repeating what ann said."""

    async def mallory(conversation: ConversationHandle, question: PendingCall) -> Any:
        return await conversation.approve(question.call, digest=question.digest, by="mallory")

    (came,) = after(approving, mallory, asks=approval(by="ann"))

    assert isinstance(came, Denied)


def test_an_answer_after_its_time_is_a_conflict() -> None:
    """X10: the call has expired; the model was told; the answer comes too late."""
    came: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("first")
        (question,) = await asked(conversation, receipt)
        await settled(receipt)
        before = await head(conversation)
        with pytest.raises(Conflict, match="it has its outcome: expired") as caught:
            await approving(conversation, question)
        came.append(caught.value)
        assert await head(conversation) == before

    done = scene([Call("pay")], "Nobody.", define=paying(approval(expires=5)), client=client)

    assert came and done.outcomes == ["completed: Nobody."]


def test_an_answer_to_a_call_that_never_asked_is_a_conflict() -> None:
    """X10: there is such a call, and it waits for nothing."""
    came: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("first")
        await settled(receipt)
        (entry,) = [entry for entry in await conversation.history() if entry.calls]
        with pytest.raises(Conflict, match="waits for no answer; it has its outcome: ok") as caught:
            await conversation.approve(entry.calls[0].id, digest="sha256:0")
        came.append(caught.value)

    scene([Call("look")], "Seen.", define=paying(), client=client)

    assert came


def test_an_answer_to_what_is_being_aborted_is_a_conflict() -> None:
    """X10, F2: the abort came first."""
    came: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("first")
        (question,) = await asked(conversation, receipt)
        await conversation.abort()
        with pytest.raises(Conflict, match=r"its submission was stopped|it has its outcome: aborted") as caught:
            await approving(conversation, question)
        came.append(caught.value)
        await settled(receipt)

    scene([Call("pay")], "Never.", define=paying(), client=client)

    assert came


def test_there_is_nothing_to_answer_in_a_conversation_that_is_not_there() -> None:
    """X10: no instance comes of it."""
    came: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        with pytest.raises(NotFound) as caught:
            await conversation.approve("call_0_0", digest="sha256:0")
        came.append(caught.value)
        assert await conversation.questions() == [] and not await conversation.exists()
        await settled(await conversation.send("first"))

    scene("Hello.", client=client)

    assert "does not exist" in str(came[0])


@pytest.mark.parametrize("same", [True, False], ids=["two clicks", "yes and no"])
@pytest.mark.parametrize("seconds", [0, 60], ids=["settled meanwhile", "still at work"])
def test_of_two_answers_at_once_one_is_the_answer(same: bool, seconds: int) -> None:
    """X10, S5: both have looked before either is written: the first on the log is the answer; the same is a duplicate, another
    a Conflict; the call runs once, or not at all."""
    came: list[Any] = []
    ran: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("first")
        (question,) = await asked(conversation, receipt)
        slow = ConversationHandle(
            conversation._application, conversation._store, conversation._clock, conversation._ids, conversation.address
        )
        slow._answers._client = Delayed(slow._client)  # type: ignore[assignment]
        first = approving if same else rejecting
        overtaken = asyncio.ensure_future(approving(slow, question))
        await asyncio.sleep(0.5)
        came.append(await first(conversation, question))
        came.append((await asyncio.gather(overtaken, return_exceptions=True))[0])
        await settled(receipt)

    scene([Call("pay"), Call("look", {"seconds": seconds})], "Done.", define=paying(True, ran), client=client)

    assert came[0].duplicate is False
    assert came[1].duplicate if same else isinstance(came[1], Conflict) and "answered otherwise" in str(came[1])
    assert len(ran) == same


class Delayed:
    """A client whose requests take a second to leave."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def request(self, *arguments: Any) -> int:
        await asyncio.sleep(1)
        ordinal: int = await self._client.request(*arguments)
        return ordinal


def test_an_answer_that_was_forged_into_the_log_has_no_effect_unless_it_is_one() -> None:
    """X10, S14: whoever can append requests still has to name the digest, be who may, and be in time: the fold looks too."""
    forged = write_answer(Approve())
    ran: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("first")
        (question,) = await asked(conversation, receipt)
        at = conversation._clock.wall()
        for given in (
            r.AnswerGiven(call=question.call, digest="sha256:0", at=at, answer=forged, by="ann", fiber=receipt.submission),
            r.AnswerGiven(call=question.call, digest=question.digest, at=at, answer=forged, by="eve", fiber=receipt.submission),
            r.AnswerGiven(call=question.call, digest=question.digest, at=at, answer=forged, by="ann", fiber="sub_other"),
            r.AnswerGiven(call=question.call, digest=question.digest, at=at, answer=forged, by="ann"),
            r.AnswerGiven(
                call=question.call, digest=question.digest, at=at + 1e9, answer=forged, by="ann", fiber=receipt.submission
            ),
        ):
            await conversation._client.request(conversation.id, given)
        await asyncio.sleep(30)
        assert await conversation.questions() == [question] and ran == []
        await rejecting_as_ann(conversation, question)
        await settled(receipt)

    async def rejecting_as_ann(conversation: ConversationHandle, question: PendingCall) -> None:
        await conversation.reject(question.call, digest=question.digest, by="ann")

    scene([Call("pay")], "No.", define=paying(approval(by="ann"), ran), client=client)

    assert ran == []


@pytest.mark.parametrize("raw", [b'{"answer":"maybe"}', b"7", b'{"answer":"output","output":1}', b"null"])
def test_nonsense_that_was_forged_into_the_log_is_an_error_the_model_reads(raw: bytes) -> None:
    """S14, X10: it ends the question, runs nothing, and stops nobody."""
    ran: list[Any] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("first")
        (question,) = await asked(conversation, receipt)
        await conversation._client.request(
            conversation.id,
            r.AnswerGiven(
                call=question.call,
                digest=question.digest,
                at=conversation._clock.wall(),
                answer=msgspec.Raw(raw),
                fiber=receipt.submission,
            ),
        )
        await settled(receipt)

    done = scene([Call("pay")], "Odd.", define=paying(ran=ran), client=client)

    assert ran == [] and [record.outcome for record in done.of(h.ToolOutcome)] == ["error"]
    assert done.outcomes == ["completed: Odd."]
