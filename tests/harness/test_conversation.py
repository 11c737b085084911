"""The fold of a conversation: the same from a checkpoint as from the log, at every point of long histories; nothing is
looked at twice; what was restored stays encoded until somebody looks."""

from __future__ import annotations

import asyncio
import random
from functools import cache
from typing import Any

import msgspec
import pytest
from tests.harness.playing import scene

from cairn import Agent, Context, Limits, ToolError
from cairn.errors import ModelError, StoreCorrupt
from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.entries import Entries, Entry
from cairn.harness.handle import ConversationHandle
from cairn.harness.messages import Text
from cairn.harness.submission import Control
from cairn.runtime import records as r
from cairn.testing.play import settled
from cairn.testing.scripted import Call, Fail, Reply, Say
from cairn.testing.world import World

encode = msgspec.json.encode

Batches = list[tuple[int, list[r.Record]]]


def reply_of(dice: random.Random) -> Reply:
    """Anything a model may do."""
    kind = dice.randrange(9)
    if kind == 0:
        return Fail(ModelError("busy", kind="overload"), after=dice.choice(["", "So far. "]))
    if kind == 1:
        return Say("On and on. ", stop="length", chunk=4, pause=0.03)
    if kind <= 5:
        calls = [Call(dice.choice(["look", "count", "fail", "gone"])) for _ in range(dice.randrange(1, 4))]
        return [Say("I look. ", thinking="Hm."), *calls] if kind == 2 else calls
    return Say("That is it.", chunk=5, pause=0.03, thinking=dice.choice(["", "Done?"]))


def busy(agent: Agent[Any], world: World) -> None:
    @agent.tool(repeat="safe")
    async def look() -> str:
        """Look."""
        await asyncio.sleep(0.2)
        return "a tree"

    @agent.tool
    async def count(ctx: Context) -> str:
        """Count."""
        ctx.progress("counting")
        await asyncio.sleep(0.1)
        return "three"

    @agent.tool
    async def fail() -> str:
        """Fail."""
        raise ToolError("no")


@cache
def history(seed: int, messages: int = 16) -> Batches:
    """A log of a talk in which everything happens by chance."""
    dice = random.Random(seed)

    async def client(conversation: ConversationHandle, world: World) -> None:
        for number in range(messages):
            sent = await conversation.send(f"message {number}", key=f"{number}")
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random())
                await conversation.abort(sent.submission)
            if dice.random() < 0.6:
                await settled(sent)
        for fiber in await conversation.unsettled():
            try:
                await conversation.reply(fiber.id)
            except Exception:
                pass

    done = scene(script=lambda request: reply_of(dice), define=busy, client=client, limits=Limits(turns=8), seed=seed)
    return [(row.ordinal, batch) for row, batch in zip(done.run.logs[0].rows, done.batches, strict=True)]


def fold(batches: Batches, into: Conversation | None = None) -> Conversation:
    conversation = into or Conversation()
    for ordinal, records in batches:
        for record in records:
            conversation.apply(record, ordinal)
    return conversation


def views(conversation: Conversation) -> tuple[bytes, bytes, bytes]:
    return encode(conversation.history()), encode(list(conversation.context())), encode(conversation.control)


@pytest.mark.parametrize("seed", range(4))
def test_a_checkpoint_at_any_point_of_a_long_history_changes_nothing(seed: int) -> None:
    """S3, S15: saved, restored, folded on: the same history, context and control; and the same bytes when saved again."""
    batches = history(seed)
    whole = views(fold(batches))
    assert len(batches) > 60

    conversation = Conversation()
    for place, (ordinal, records) in enumerate(batches):
        for record in records:
            conversation.apply(record, ordinal)
        saved = conversation.dump()
        restored = Conversation.load(saved)
        assert restored.dump() == saved
        if place % 5 == seed:
            assert views(fold(batches[place + 1 :], restored)) == whole


def test_everything_that_can_happen_happens_in_these_histories() -> None:
    """The histories above would prove nothing if they were dull."""
    records = [record for seed in range(4) for _, batch in history(seed) for record in batch]
    hard = {h.MessageInterrupted, h.TurnFailed, h.ToolOutcome, h.ToolProgress, h.MessageDelta, r.AbortRequested, r.FiberParked}

    assert hard <= {type(record) for record in records}
    outcomes = {record.outcome for record in records if isinstance(record, r.FiberSettled)}
    assert outcomes >= {"completed", "aborted"}


@pytest.mark.parametrize("seed", range(2))
def test_the_context_only_grows_and_no_part_is_made_twice(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """P26: asked after every record, each message of the context is made once: amortised O(1)."""
    batches = history(seed)  # played before the counting begins
    made = 0
    real = Conversation._message

    def counted(self: Conversation, ref: Any) -> Any:
        nonlocal made
        made += 1
        return real(self, ref)

    monkeypatch.setattr(Conversation, "_message", counted)
    conversation, before = Conversation(), list[Any]()
    for ordinal, records in batches:
        for record in records:
            conversation.apply(record, ordinal)
            now = list(conversation.context())
            assert len(now) >= len(before) and all(a is b for a, b in zip(before, now, strict=False))
            before = now

    assert made == len(before) > 30


class Talk:
    """A conversation of many plain turns."""

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.ordinal = 0
        self.turns = 0

    def apply(self, record: r.Record) -> None:
        self.conversation.apply(record, self.ordinal)
        self.ordinal += 1

    def turn(self) -> None:
        self.turns += 1
        id, message = f"s{self.turns}", f"m{self.turns}"
        delivery = msgspec.Raw(encode(h.Delivery(body="hi")))
        self.apply(r.FiberAccepted(fiber=id, method=h.SUBMISSION, at=0, arguments=delivery))
        self.apply(r.FiberStarted(fiber=id, at=0))
        self.apply(h.TurnStarted(submission=id, turn=id, message=message, epoch=1, at=0, model="m:x", includes=(id,)))
        self.apply(h.MessageDelta(message=message, block=0, kind="text", text="ho"))
        self.apply(
            h.MessageCompleted(
                submission=id, turn=id, message=message, content=(Text(text="ho"),), stop="stop", at=0, model="m:x"
            )
        )
        self.apply(r.FiberSettled(fiber=id, outcome="completed", at=0))


def test_what_was_restored_stays_encoded_until_somebody_looks() -> None:
    """P26: a turn after an activation decodes what it is about, not the history; asking for the history decodes it once."""
    talk = Talk()
    for _ in range(200):
        talk.turn()
    talk.conversation = Conversation.load(talk.conversation.dump())
    entries = talk.conversation.entries
    assert entries.still_encoded == len(entries) == 400

    for _ in range(3):
        talk.turn()
    assert entries.still_encoded == 400
    again = Conversation.load(talk.conversation.dump())
    again.said_before("m203")
    assert again.entries.still_encoded >= len(again.entries) - 4

    first = again.history()
    assert again.entries.still_encoded == 0 and [a is b for a, b in zip(first, again.history(), strict=True)] == [True] * len(
        first
    )


def test_saving_again_does_not_decode_what_was_restored() -> None:
    """S3: a checkpoint of a restored conversation costs its bytes, no decoding."""
    talk = Talk()
    for _ in range(50):
        talk.turn()
    saved = talk.conversation.dump()
    restored = Conversation.load(saved)

    assert restored.dump() == saved and restored.entries.still_encoded == 100


def test_work_per_turn_does_not_grow_with_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """L1: entries looked at by turn 400 are as many as by turn 10."""
    looked = 0
    real = Entries.__getitem__

    def counted(self: Entries, index: Any) -> Any:
        nonlocal looked
        looked += 1
        return real(self, index)

    monkeypatch.setattr(Entries, "__getitem__", counted)
    talk, costs = Talk(), list[int]()
    for _ in range(400):
        looked = 0
        talk.turn()
        talk.conversation.context()
        talk.conversation.said_before(f"m{talk.turns}")
        costs.append(looked)

    assert costs[399] == costs[9] < 20


def test_people_see_what_was_sent_at_once_and_the_model_when_a_turn_includes_it() -> None:
    """S1: two orders of the same entries."""
    talk = Talk()
    talk.turn()
    talk.apply(r.FiberAccepted(fiber="x", method=h.SUBMISSION, at=0, arguments=msgspec.Raw(encode(h.Delivery(body="new")))))

    assert [entry.text for entry in talk.conversation.history()] == ["hi", "ho", "new"]
    assert len(talk.conversation.context()) == 2


def test_an_open_message_is_seen_as_far_as_it_is_known() -> None:
    """S10: by people; not by the model."""
    talk = Talk()
    talk.turn()
    talk.apply(r.FiberAccepted(fiber="x", method=h.SUBMISSION, at=0, arguments=msgspec.Raw(encode(h.Delivery(body="new")))))
    talk.apply(r.FiberStarted(fiber="x", at=0))
    talk.apply(h.TurnStarted(submission="x", turn="t", message="m", epoch=1, at=0, model="m:x", includes=("x",)))
    talk.apply(h.MessageDelta(message="m", block=0, kind="text", text="so "))
    talk.apply(h.MessageDelta(message="m", block=0, kind="text", text="far"))

    shown = talk.conversation.history()[-1]
    assert (shown.state, shown.text) == ("open", "so far")
    assert Conversation.load(talk.conversation.dump()).history()[-1] == shown
    assert len(talk.conversation.context()) == 3


def test_a_record_of_a_message_there_is_not_is_refused() -> None:
    """S14: the fold says so and is not used."""
    with pytest.raises(StoreCorrupt, match="names the message 'msg_x'"):
        Talk().conversation.entry("msg_x")
    talk = Talk()
    talk.conversation.control = Control(submission="s", turn="t", calls=[])
    with pytest.raises(StoreCorrupt):
        talk.apply(h.ToolOutcome(submission="s", turn="t", call="c", name="n", outcome="ok", content=(), at=0))


def test_entries_are_a_sequence() -> None:
    """S3: decoded at first use, sliced, cut."""
    entry = Entry(kind="note", id="n", ordinal=1, at=0)
    entries = Entries([msgspec.Raw(encode(entry)), entry])

    assert entries[0] == entries[-1] == entry and entries[0:2] == [entry, entry] and list(entries) == [entry] * 2
    entries.truncate(1)
    assert len(entries) == 1
