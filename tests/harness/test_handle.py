"""A conversation from outside: what is accepted is in the log, keys name one message, and whoever asks gets the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.harness.playing import Scene, scene, told

from cairn import Agent, Context, Image
from cairn.errors import Conflict, FiberFailed, NotFound, UsageError
from cairn.harness import records as h
from cairn.harness.events import SubmissionAccepted, SubmissionSettled
from cairn.harness.handle import ConversationHandle, Receipt, check_id
from cairn.harness.messages import UserMessage
from cairn.runtime import records as r
from cairn.testing import crash_points
from cairn.testing.play import settled
from cairn.testing.scripted import Call, ScriptedModel, by_turn
from cairn.testing.world import World

Talk = Callable[[ConversationHandle], Awaitable[None]]


def talking(talk: Talk, *replies: Any, **options: Any) -> Scene:
    """A scene whose client does `talk`, once."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        await talk(conversation)

    return scene(*replies, client=client, **options)


def test_s1_what_was_accepted_is_in_the_log_whatever_dies() -> None:
    """S1: at every crash point: each receipt that was given names an admission in the log, and is answered in the end."""
    given: list[str] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        for number in range(2):
            receipt = await conversation.send(f"{number}", key=f"{number}")
            given.append(receipt.submission)
            await settled(receipt)

    for crash in crash_points():
        given.clear()
        done = scene(script=by_turn(["One.", "Two."]), client=client, crashes=[crash])
        accepted = [record.fiber for record in done.of(r.FiberAccepted)]
        assert set(given) == set(accepted) and len(accepted) == 2
        assert done.outcomes == ["completed: One.", "completed: Two."]


def test_s6_one_key_is_one_message() -> None:
    """S6: at any time, also when it was answered long ago; the receipts are those of one submission."""

    async def talk(conversation: ConversationHandle) -> None:
        first = await conversation.send("Hello.", key="k")
        second = await conversation.send("Hello.", key="k")
        assert (await first.reply()) == (await second.reply())
        third = await conversation.send("Hello.", key="k")
        assert first.submission == second.submission == third.submission
        assert [receipt.deduplicated for receipt in (first, second, third)] == [False, True, True]
        with pytest.raises(Conflict):
            await conversation.send("Something else.", key="k")

    done = talking(talk, "Hi.")

    assert len(done.of(r.FiberAccepted)) == 1 and len(done.requests) == 1


def test_s6_a_key_belongs_to_its_conversation_and_no_key_to_no_other() -> None:
    """S6: two messages without a key are two, whatever they say."""

    async def talk(conversation: ConversationHandle) -> None:
        first, second = await conversation.send("Hello."), await conversation.send("Hello.")
        assert first.submission != second.submission
        await settled(first)
        await settled(second)

    assert len(talking(talk, "Hi.", "Hi again.").of(r.FiberAccepted)) == 2


def test_s6_an_attachment_is_part_of_what_was_sent() -> None:
    """S6: the same words with another image are another message."""

    async def talk(conversation: ConversationHandle) -> None:
        one, two = (Image(mime_type="image/png", data=data) for data in (b"one", b"two"))
        first = await conversation.send("Look.", key="k", attachments=[one])
        again = await conversation.send("Look.", key="k", attachments=[one])
        assert again.deduplicated
        with pytest.raises(Conflict):
            await conversation.send("Look.", key="k", attachments=[two])
        await settled(first)

    talking(talk, "I see.")


@pytest.mark.parametrize("key", ["", "x" * 257, "\ud800"])
def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    """S6: before anything is written."""

    async def talk(conversation: ConversationHandle) -> None:
        with pytest.raises(UsageError, match="idempotency key"):
            await conversation.send("Hello.", key=key)
        assert not await conversation.exists()
        await settled(await conversation.send("Hello.", key="x" * 256))

    talking(talk, "Hi.")


@pytest.mark.parametrize(
    ("message", "what"),
    [("", "empty"), (" \n", "empty"), ("a \udc00", "not UTF-8"), ("x" * 1_100_000, "at most")],
    ids=["empty", "blank", "half a character", "too long"],
)
def test_a_message_nobody_could_read_is_refused(message: str, what: str) -> None:
    """S14: with a sentence, before anything is written."""

    async def talk(conversation: ConversationHandle) -> None:
        with pytest.raises(UsageError, match=what):
            await conversation.send(message)
        assert not await conversation.exists()
        await settled(await conversation.send("Hello."))

    talking(talk, "Hi.")


def test_an_image_alone_is_a_message() -> None:
    """S1, S12: its bytes are a blob; the model reads them."""

    async def talk(conversation: ConversationHandle) -> None:
        await settled(await conversation.send("", attachments=[Image(mime_type="image/png", data=b"png")]))

    done = talking(talk, "A picture.")

    (message,) = done.requests[0].messages
    assert isinstance(message, UserMessage) and message.content[1].data == b"png"  # type: ignore[union-attr]
    delivery = done.run.entries[0].delivery
    assert delivery is not None and delivery.attachments[0].data is None and delivery.attachments[0].blob


def test_a_signal_is_read_as_one() -> None:
    """S11: it has its place among the messages."""

    async def talk(conversation: ConversationHandle) -> None:
        first = await conversation.send("Hello.")
        await settled(first)
        await settled(await conversation.send(h.Delivery(kind="signal", type="timer", body="wake up")))

    done = talking(talk, "Hi.", "Awake.")

    assert told(done.requests[1].messages)[-1] == 'user: <signal type="timer">\nwake up\n</signal>'
    kinds = [event.kind for event in done.events if isinstance(event, SubmissionAccepted)]
    assert kinds == ["user", "signal"]


@dataclass
class Case:
    name: str = "nobody"
    count: int = 0


def naming(agent: Agent[Any], world: World) -> None:
    @agent.tool
    async def name(ctx: Context[Case]) -> str:
        """Name."""
        return f"{ctx.state.name} {ctx.state.count}"


def test_a_new_conversation_begins_with_the_state_it_is_given() -> None:
    """S1: in the transaction that makes it; an existing one ignores it."""

    async def talk(conversation: ConversationHandle) -> None:
        await settled(await conversation.send("Hello.", data={"name": b'"Ann"'}))
        await settled(await conversation.send("Again.", data={"name": b'"Bob"'}))

    done = talking(talk, Call("name"), "Ann.", Call("name"), "Ann.", define=naming, state=Case)

    assert "tool name: Ann 0" in told(done.requests[1].messages) and "tool name: Ann 0" in told(done.requests[3].messages)[-1]
    assert len(done.of(r.StateChanged)) == 1


@pytest.mark.parametrize("data", [{"nme": b'"Ann"'}, {"name": b"3"}, {"name": b"{"}])
def test_a_state_that_cannot_be_is_refused(data: dict[str, bytes]) -> None:
    """S14: a field there is not, a value of another type, and what is no JSON at all."""

    async def talk(conversation: ConversationHandle) -> None:
        with pytest.raises(UsageError):
            await conversation.send("Hello.", data=data)
        assert not await conversation.exists()
        await settled(await conversation.send("Hello."))

    talking(talk, "Hi.", define=naming, state=Case)


def test_a_conversation_nobody_wrote_to_is_empty_and_cannot_be_followed() -> None:
    """S14: asking makes nothing."""

    async def talk(conversation: ConversationHandle) -> None:
        assert not await conversation.exists()
        assert await conversation.history() == [] and await conversation.unsettled() == []
        assert await conversation.abort() is False
        with pytest.raises(NotFound, match="toy/c"):
            await anext(conversation.follow())
        with pytest.raises(NotFound, match="toy/c"):
            await conversation.reply("sub_x")
        await settled(await conversation.send("Hello."))
        with pytest.raises(NotFound, match="sub_x"):
            await conversation.reply("sub_x")

    talking(talk, "Hi.")


def test_a_reply_can_be_asked_for_before_and_after_and_by_many() -> None:
    """S7: it is the same for all."""

    async def talk(conversation: ConversationHandle) -> None:
        receipt = await conversation.send("Hello.")
        early = [asyncio.ensure_future(receipt.reply()) for _ in range(3)]
        replies = [await each for each in early]
        replies += [await receipt.reply(), await conversation.reply(receipt.submission)]
        assert {reply.text for reply in replies} == {"Hi."} and len({reply.message for reply in replies}) == 1

    talking(talk, "Hi.")


def test_why_there_is_no_reply_is_said() -> None:
    """S7: failed and aborted are told apart, each with its reason."""
    from cairn.errors import ModelError
    from cairn.testing.scripted import Fail, Stall

    async def talk(conversation: ConversationHandle) -> None:
        with pytest.raises(FiberFailed, match="failed: no key") as failed:
            await (await conversation.send("Hello.")).reply()
        assert failed.value.outcome == "failed"
        receipt = await conversation.send("Hello.")
        await asyncio.sleep(1)
        assert [fiber.id for fiber in await conversation.unsettled()] == [receipt.submission]
        assert await conversation.abort(reason="enough") is True
        with pytest.raises(FiberFailed, match="aborted: enough") as aborted:
            await receipt.reply()
        assert aborted.value.outcome == "aborted"
        assert await conversation.unsettled() == []

    talking(talk, Fail(ModelError("no key", kind="auth")), Stall())


def test_following_a_receipt_ends_with_its_settlement() -> None:
    """S3: from its own admission on, also of a receipt that was given before; others' events in between are told too."""

    async def talk(conversation: ConversationHandle) -> None:
        first = await conversation.send("one", key="1")
        await settled(first)
        second = await conversation.send("two", key="2")
        for receipt in (second, await conversation.send("two", key="2")):
            events = [event async for event in receipt.follow()]
            assert isinstance(events[0], SubmissionAccepted) and events[0].text == "two"
            assert isinstance(events[-1], SubmissionSettled) and events[-1].text == "Second."

    talking(talk, "First.", "Second.")


def test_a_follower_that_goes_away_leaves_nothing_behind() -> None:
    """L7: and does not hold the run up."""

    async def talk(conversation: ConversationHandle) -> None:
        receipt = await conversation.send("Hello.")
        async for _ in receipt.follow():
            break
        follower = conversation.follow()
        await anext(follower)
        await follower.aclose()
        await settled(receipt)

    assert talking(talk, "Hi.").outcomes == ["completed: Hi."]


def test_a_key_gives_the_same_id_wherever_it_is_sent() -> None:
    """S6: a client that lost the answer can send again and know what to ask for."""
    ids: list[str] = []

    async def talk(conversation: ConversationHandle) -> None:
        receipt: Receipt = await conversation.send("Hello.", key="k")
        ids.append(receipt.submission)
        await settled(receipt)

    talking(talk, "Hi.")
    talking(talk, "Hi.", seed=5)

    assert ids[0] == ids[1] and ids[0].startswith("sub_ik_")


@pytest.mark.parametrize("id", ["", " ", "x" * 513, "a\0b", "\ud800"])
def test_an_id_that_cannot_be_one_is_refused(id: str) -> None:
    """S12: it is a path segment and a durable key."""
    with pytest.raises(UsageError):
        check_id(id)


def test_the_model_is_one_object_for_many_conversations() -> None:
    """S12: nothing of one shows in another; see also the worlds of the crash tests."""
    shared = ScriptedModel(lambda request: f"{len(request.messages)}")

    async def talk(conversation: ConversationHandle) -> None:
        await settled(await conversation.send("Hello."))

    for _ in range(2):
        assert talking(talk, model=lambda model: shared).outcomes == ["completed: 1"]
