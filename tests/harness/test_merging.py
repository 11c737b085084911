"""S3: the rows of a settled answer become few, and nobody who reads the conversation, from wherever, can tell by its words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.harness.playing import Scene, saying, scene

from cairn import Agent, App
from cairn.errors import ModelError, StoreBusy
from cairn.framework.http.snapshot import Snapshot
from cairn.harness import records as h
from cairn.harness.events import MessageDelta
from cairn.harness.handle import ConversationHandle
from cairn.harness.merging import MERGED_BYTES_MAX, Merger, unseen
from cairn.harness.tidying import PAGE_ROWS
from cairn.harness.usage import DELTAS
from cairn.runtime import records as r
from cairn.runtime.settings import IDLE_SECONDS, TIDY_SECONDS
from cairn.runtime.storage.store import Batch, Row
from cairn.runtime.worker import WorkerSettings
from cairn.testing import crash_points
from cairn.testing.play import settled
from cairn.testing.scripted import Fail, Say, ScriptedModel, Stall, by_turn
from cairn.testing.world import World

pytestmark = pytest.mark.slow

_decode = r.decoder(h.HARNESS).decode


def decode(row: Row) -> Any:
    return _decode(row.batch.records)


# --- what is merged -------------------------------------------------------------------------------------------------


def delta_row(
    ordinal: int, *texts: str, block: int = 0, kind: Literal["text", "thinking"] = "text", chunks: bool = True, **more: Any
) -> Row:
    records = [h.MessageDelta(message=more.get("message", "m"), block=block, kind=kind, text=text) for text in texts]
    lines = [
        msgspec.json.encode({"type": "message-delta", "messageId": "m", "kind": kind, "delta": text, "attempt": 1})
        for text in texts
    ]
    batch = Batch(r.encode(records), b"\n".join(lines) if chunks else b"", more.get("projection", 1))
    return Row(ordinal, more.get("prev", ordinal - 1), more.get("epoch", 1), batch)


def other_row(ordinal: int) -> Row:
    return Row(ordinal, ordinal - 1, 1, Batch(r.encode([r.InstanceReleased(at=0.0)])))


def merged(rows: list[Row]) -> list[Any]:
    merger = Merger(decode)
    found = [merger.feed(row) for row in rows]
    return [merge for merge in (*found, merger.end()) if merge is not None]


def spans(rows: list[Row]) -> list[tuple[int, int]]:
    return [(merge.first, merge.last) for merge in merged(rows)]


def test_rows_of_one_block_become_one_row_with_one_record_and_one_chunk() -> None:
    """S3: all of the text is in both, and how it was cut."""
    [merge] = merged([delta_row(4, "One "), delta_row(5, "two ", "and "), delta_row(6, "three.")])

    assert (merge.first, merge.last) == (4, 6)
    assert _decode(merge.batch.records) == [
        h.MessageDelta(message="m", block=0, kind="text", text="One two and three.", lengths=(4, 8, 6))
    ]
    assert msgspec.json.decode(merge.batch.chunks) == {
        "type": "message-delta", "messageId": "m", "kind": "text", "delta": "One two and three.", "attempt": 1,
    }  # fmt: skip
    assert merge.batch.projection == 1


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (delta_row(6, "b", block=1), "another block"),
        (delta_row(6, "b", kind="thinking"), "another kind"),
        (delta_row(6, "b", message="n"), "another message"),
        (delta_row(6, "b", epoch=2), "another owner"),
        (delta_row(6, "b", projection=2), "another projection"),
        (delta_row(6, "b", chunks=False), "no chunks"),
        (delta_row(7, "b", prev=5), "a gap in the ordinals"),
        (other_row(6), "no delta at all"),
        (Row(6, 5, 1, delta_row(6, "b").batch, merged_from=3), "merged already"),
        (Row(6, 5, 1, Batch(delta_row(6, "b").batch.records, b'{"type":"message-started"}')), "an unknown chunk"),
        (Row(6, 5, 1, Batch(delta_row(6, "b").batch.records, delta_row(6, "c").batch.chunks, 1)), "chunks with another text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_what_is_exactly_alike_is_merged(other: Row, why: str) -> None:
    """S3, S14: what is in doubt is left as it is."""
    rows = [delta_row(4, "a"), delta_row(5, "b"), other, other_row(other.ordinal + 1)]

    assert spans(rows) == [(4, 5)]


def test_a_merged_row_is_never_larger_than_a_reader_wants_to_be_given() -> None:
    """T17: longer runs become several rows."""
    rows = [delta_row(number, "x" * 10_000) for number in range(60)]

    found = merged(rows)

    assert len(found) > 2 and found[-1].last == 59
    assert all(len(merge.batch.records) + len(merge.batch.chunks) <= MERGED_BYTES_MAX for merge in found)
    assert sum(merge.last - merge.first + 1 for merge in found) >= 58


@given(st.lists(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=3), min_size=2, max_size=8), st.data())
@settings(max_examples=100)
def test_s3_a_reader_in_between_is_given_exactly_the_rest(rows: list[list[str]], data: st.DataObject) -> None:
    """S3: whatever the text, wherever he stands."""
    [merge] = merged([delta_row(number, *texts) for number, texts in enumerate(rows)])
    seen = data.draw(st.integers(0, len(rows)))

    rest = unseen(_decode(merge.batch.records), seen)

    assert "".join(record.text for record in rest) == "".join(text for texts in rows[seen:] for text in texts)  # type: ignore[attr-defined]


# --- when -----------------------------------------------------------------------------------------------------------

WORDS = " ".join(f"word-{number}" for number in range(40)) + "."


def resting(*messages: str) -> Callable[[ConversationHandle, World], Awaitable[None]]:
    """Says these, waits for the answers, and then as long as it takes until a conversation is tidied up."""
    talk = saying(*messages)

    async def client(conversation: ConversationHandle, world: World) -> None:
        await talk(conversation, world)
        await asyncio.sleep(TIDY_SECONDS + 1)

    return client


def answer() -> Say:
    return Say(WORDS, pause=0.1, thinking="Let me think about it for a while.")


def deltas(done: Scene) -> list[h.MessageDelta]:
    return done.of(h.MessageDelta)


def text_of(done: Scene) -> str:
    return "".join(record.text for record in deltas(done) if record.kind == "text")


def test_an_answer_at_rest_is_a_row_a_block() -> None:
    """S3: what was some fifty rows is two; the words, the chunks and the events are those of before, but for how they are
    cut."""
    talking = scene(answer())
    rested = scene(answer(), client=resting("Hello."))

    assert len(deltas(talking)) == 40 and len(deltas(rested)) == 2
    assert text_of(rested) == text_of(talking) == WORDS
    assert _merged_lines(rested) == _merged_lines(talking)
    assert _messages(rested) == _messages(talking)


def _merged_lines(done: Scene) -> list[str]:
    """The events in a line each, deltas of a block joined."""
    lines: list[str] = []
    for line in done.lines:
        tag, _, rest = line.partition(" ")
        kind, _, text = rest.partition(" ")
        if tag == "message.delta" and lines and lines[-1].startswith(f"{tag} {kind} "):
            lines[-1] += text
        else:
            lines.append(line)
    return lines


def _messages(done: Scene) -> Any:
    """The conversation as clients fold it."""
    snapshot = Snapshot()
    for row in done._log.rows:
        snapshot.feed(row.batch.chunks, row.ordinal)
    return [message["parts"] for message in msgspec.json.decode(snapshot.messages())]


def test_an_answer_that_is_not_settled_is_left_alone() -> None:
    """S3: a conversation that waits, here for its retry, is not at rest."""
    overload = ModelError("overloaded", kind="overload", retry_after=60.0)
    looked: list[int | None] = []

    async def client(conversation: ConversationHandle, world: World) -> None:
        receipt = await conversation.send("Hello.", key="0")
        await asyncio.sleep(30)
        row = await conversation._store.find(conversation.address)
        assert row is not None
        looked.extend(each.merged_from for each in await conversation._store.read(row.n, -1))
        await settled(receipt)

    done = scene([Say(WORDS, pause=0.1), Fail(overload)], "And.", client=client)

    assert done.outcomes == [f"completed: {WORDS}And."]
    assert len(looked) > 10 and set(looked) == {None}


@pytest.mark.slow
def test_t3_a_crash_anywhere_while_rows_are_merged_costs_nothing() -> None:
    """T3, S1–S3: before and after each write of the answer and of the merges; what is said in the end is the same,
    and the log is what a checker accepts (`scene` asks it)."""
    script = by_turn([answer(), "Bye."])
    whole = scene(script=script, client=resting("Hello.", "And?"))
    for crash in crash_points():
        done = scene(script=script, client=resting("Hello.", "And?"), crashes=[crash])
        assert done.outcomes == whole.outcomes, crash
        if not crash.reached:
            break
    assert len(deltas(whole)) == 3


# --- beside everything else -----------------------------------------------------------------------------------------


def app_of(model: ScriptedModel, tidy_seconds: float | None = 0.05) -> App:
    return App([Agent("toy", model=model)], store=":memory:", settings=WorkerSettings(tidy_seconds=tidy_seconds))


async def merged_by(app: App, conversation: ConversationHandle) -> None:
    """Return when the conversation's deltas have been merged."""
    row = await app.store.find(conversation.address)
    assert row is not None
    while all(each.merged_from is None for each in await app.store.read(row.n, -1)):  # noqa: ASYNC110 - no one tells
        await asyncio.sleep(0.005)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - no one tells
        await asyncio.sleep(0.005)


def test_s3_a_follower_who_was_held_up_in_the_middle_reads_each_word_once() -> None:
    """S3: the rows are merged under him while he handles an event; he goes on with the very next character."""

    async def main() -> None:
        async with app_of(ScriptedModel(lambda request: Say(WORDS[:80], pause=0.03))) as app:
            conversation = app.conversation("toy", "c")
            receipt = await conversation.send("Hello.")
            heard: list[str] = []
            async for event in receipt.follow():
                if isinstance(event, MessageDelta):
                    heard.append(event.text)
                    if len(heard) == 3:
                        await receipt.reply()
                        await merged_by(app, conversation)

            assert "".join(heard) == WORDS[:80] and len(heard) == 4

    asyncio.run(asyncio.wait_for(main(), 20))


def test_s3_a_follower_who_comes_back_to_an_offset_in_the_middle_is_given_the_rest() -> None:
    """S3: from each offset that once was one."""

    async def main() -> None:
        async with app_of(ScriptedModel(lambda request: Say(WORDS[:80], pause=0.03))) as app:
            conversation = app.conversation("toy", "c")
            receipt = await conversation.send("Hello.")
            places: list[tuple[int, str]] = []
            async for event in receipt.follow():
                if isinstance(event, MessageDelta):
                    places.append((event.offset, (places[-1][1] if places else "") + event.text))
            await merged_by(app, conversation)
            for offset, said in places:
                rest = ""
                async for event in conversation.follow(offset):
                    rest += event.text if isinstance(event, MessageDelta) else ""
                    if type(event).__name__ == "SubmissionSettled":
                        break
                assert said + rest == WORDS[:80], offset

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_message_does_not_wait_for_merges() -> None:
    """L1: the store holds the merge back; what is sent meanwhile is answered."""

    async def main() -> None:
        async with app_of(ScriptedModel(by_turn([Say(WORDS[:80], pause=0.03), "Bye."]))) as app:
            begun, may_go_on = asyncio.Event(), asyncio.Event()
            merge = app.store.merge

            async def held(*arguments: Any) -> bool:
                begun.set()
                await may_go_on.wait()
                return await merge(*arguments)

            app.store.merge = held  # type: ignore[method-assign]
            conversation = app.conversation("toy", "c")
            await (await conversation.send("Hello.")).reply()
            await begun.wait()
            assert (await (await conversation.send("And?")).reply()).text == "Bye."
            may_go_on.set()
            await merged_by(app, conversation)
            assert await app.store.check() == []

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_store_that_refuses_to_merge_is_not_asked_again_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """L7: it is said once; the conversation goes on."""

    async def main() -> None:
        async with app_of(ScriptedModel(by_turn([Say(WORDS[:80], pause=0.03), "Bye."])), tidy_seconds=0.02) as app:
            asked: list[int] = []

            async def refuse(n: int, first: int, last: int, batch: Batch) -> bool:
                asked.append(first)
                raise StoreBusy("the store is held by another process")

            app.store.merge = refuse  # type: ignore[method-assign]
            conversation = app.conversation("toy", "c")
            await (await conversation.send("Hello.")).reply()
            await until(lambda: bool(asked))
            assert (await (await conversation.send("And?")).reply()).text == "Bye."

    asyncio.run(asyncio.wait_for(main(), 20))
    assert "'tidying' of toy/c failed" in caplog.text and "held by another process" in caplog.text


def test_merging_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    """`WorkerSettings(tidy_seconds=None)`: what was written stays as it was written; the instance goes to sleep as always."""

    async def main() -> list[int | None]:
        settings = WorkerSettings(tidy_seconds=None, idle_seconds=0.1)
        model = ScriptedModel([Say(WORDS[:80], pause=0.03)])
        async with App([Agent("toy", model=model)], store=":memory:", settings=settings) as app:
            conversation = app.conversation("toy", "c")
            await (await conversation.send("Hello.")).reply()
            assert app.worker is not None
            await until(lambda: not app.worker.running)
            row = await app.store.find(conversation.address)
            assert row is not None
            rows = await app.store.read(row.n, -1)
            assert decode(rows[-1])[0] == r.InstanceReleased(at=decode(rows[-1])[0].at)
            return [each.merged_from for each in rows]

    assert set(asyncio.run(asyncio.wait_for(main(), 20))) == {None}
    assert caplog.records == []


def test_what_is_being_said_meanwhile_is_left_alone_and_what_was_looked_at_is_not_read_again() -> None:
    """S3: rows that came after the conversation was found at rest may be of an answer that is not settled."""
    second = [Say(WORDS[:80], pause=0.03), Stall()]
    model = ScriptedModel(lambda request: Say(WORDS[:80], pause=0.03) if len(request.messages) == 1 else second)

    async def main() -> None:
        async with app_of(model) as app:
            conversation, read, asked_after = app.conversation("toy", "c"), app.store.read, list[int]()

            async def held(n: int, after: int, **options: Any) -> list[Row]:
                if options.get("limit") == PAGE_ROWS:  # it was found at rest, and now looks
                    asked_after.append(after)
                    if len(asked_after) == 1:
                        receipt = await conversation.send("And?")
                        said = 0
                        async for event in receipt.follow():
                            said += len(event.text) if isinstance(event, MessageDelta) else 0
                            if said == 80:
                                break
                return await read(n, after, **options)

            app.store.read = held  # type: ignore[method-assign]
            await (await conversation.send("Hello.")).reply()
            await merged_by(app, conversation)
            row = await app.store.find(conversation.address)
            assert row is not None
            await asyncio.sleep(0)
            spans = [each.merged_from for each in await read(row.n, -1) if each.batch.records.startswith(DELTAS)]
            assert spans[0] is not None and len(spans) > 5 and set(spans[1:]) == {None}
            await conversation.abort()
            await until(lambda: len(asked_after) > 1)
            assert asked_after[1] > asked_after[0] + 5

    asyncio.run(asyncio.wait_for(main(), 20))


def test_rows_are_merged_before_an_instance_goes_to_sleep() -> None:
    """The numbers belong together: an idle instance is in memory long enough to be tidied up."""
    assert TIDY_SECONDS < IDLE_SECONDS / 2
