"""T17: readers that come and go. Whatever a reader missed, lost or saw of, it ends where the conversation ends.

Method: a client folds what it got (`reducer.py`), loses its connection anywhere, and goes on from the last offset it was told,
as the published clients do. In the end its state is the history's, and it saw every chunk once, or was told to begin again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.http.calling import Reader, World, ask, chunks_of, history, in_world, offset_of, send, settled
from tests.http.following import MODES, PATH, follow, same, spoken, toy, updates
from tests.http.reducer import Client

from cairn import App
from cairn.framework.http import offsets
from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.projection import PROJECTION, project
from cairn.runtime import records as r
from cairn.runtime.storage.store import Address, Append, Batch, Durability, Row, Store
from cairn.runtime.storage.watch import Watch
from cairn.testing.proxy import StoreProxy

T = TypeVar("T")

Json = dict[str, Any]


# --- disconnected anywhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_reader_that_is_cut_off_after_any_frame_of_a_live_answer_reads_on_from_there(mode: str) -> None:
    """T17, S3, L5: one reader for each frame, all at once, while the agent speaks; each goes on in `mode`."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        world.work(agent)
        await send(app, PATH, "first")
        cut = 0

        async def cut_off(frames: int) -> Client:
            nonlocal cut
            client, reader = Client(), Reader(app, updates("-1", "sse"))
            await reader.until(lambda: len(reader.writes) >= frames or b"submission-settled" in reader.data)
            cut += b"submission-settled" not in reader.data
            await reader.leave()
            client.feed(chunks_of(reader.data))
            await follow(app, client, offset_of(reader.data, "-1"), mode, submissions=1)
            return client

        clients = await asyncio.gather(*(cut_off(frames) for frames in range(1, 30)))
        state = await history(app, PATH)
        assert cut > 15
        assert all(same(client, state) for client in clients)
        assert {client.resets for client in clients} == {1}  # its birth

    in_world(main)


def test_a_stream_that_is_cut_at_any_byte_loses_and_doubles_nothing() -> None:
    """T17, S3: what a control frame did not follow is not counted, and comes again."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        world.work(agent)
        await send(app, PATH, "first")
        reader = Reader(app, updates("-1", "sse"))
        await reader.until(lambda: b"submission-settled" in reader.data)
        await reader.leave()
        state = await history(app, PATH)
        rest: dict[str, list[Json]] = {}
        for cut in range(0, len(reader.data) + 1, 3):
            seen = bytes(reader.data[:cut])
            offset = offset_of(seen, "-1")
            if offset not in rest:
                rest[offset] = (await ask(app, "GET", updates(offset))).json()
            client = Client()
            client.feed(chunks_of(seen))
            client.feed(rest[offset])
            assert same(client, state), cut
        assert len(rest) > 15

    in_world(main)


@pytest.mark.parametrize("mode", MODES)
def test_reading_on_from_every_offset_gives_exactly_what_came_after_it(mode: str) -> None:
    """T17, S3: exclusive offsets, the same chunks each time, checkpoint first."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        world.work(agent)
        await send(app, PATH, "first")
        state = await settled(app, PATH)
        everything = (await ask(app, "GET", updates("-1"))).json()
        head = int(state["offset"].rpartition("_")[2])
        for after in range(-1, head):
            if mode == "sse":
                reader = Reader(app, updates(offsets.text(after), mode))
                await reader.until(lambda: b"event: control" in reader.data)  # noqa: B023
                await reader.leave()
                found = chunks_of(reader.data)
                assert offset_of(reader.data, "") == state["offset"]
            else:
                answer = await ask(app, "GET", updates(offsets.text(after), mode))
                found = answer.json()
                assert (answer.next, answer.headers["stream-up-to-date"]) == (state["offset"], "true")
            assert found[0] == everything[0] and found[0]["type"] == "stream-checkpoint"
            assert found[1:] == [chunk for chunk in everything[1:] if chunk["position"]["batch"] > after]

    in_world(main)


def test_a_client_that_begins_with_a_history_at_any_moment_ends_with_the_same_conversation() -> None:
    """S3, S10: also in the middle of a word; what the snapshot holds is not told again."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        world.work(agent)
        await send(app, PATH, "first")
        clients: list[tuple[Client, str]] = []
        state = await history(app, PATH)
        while not state["settlements"]:
            clients.append((Client.seeded(state), state["offset"]))
            await ask(app, "GET", updates(state["offset"], "long-poll"))
            state = await history(app, PATH)
        for client, offset in clients:
            await follow(app, client, offset, "plain", submissions=1)
            assert same(client, state)
        assert len(clients) > 10

    in_world(main)


# --- logs that change behind the offset -----------------------------------------------------------------------------


async def rows_of(world: World) -> list[Row]:
    row = await world.store.find(Address("toy", "c"))
    assert row is not None
    return await world.store.read(row.n, -1)


@pytest.mark.parametrize("mode", MODES)
def test_a_reader_inside_of_merged_rows_is_told_once_to_begin_again_and_others_notice_nothing(mode: str) -> None:
    """T17, S3: the owner merges an answer's deltas when a conversation rests."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        world.work(agent)
        await send(app, PATH, "first")
        reader = Reader(app, updates("-1", "sse"))
        await reader.until(lambda: b"submission-settled" in reader.data)
        await reader.leave()
        everything = chunks_of(reader.data)
        before = [row.ordinal for row in await rows_of(world)]
        await world.clock.sleep(60)
        rows = await rows_of(world)
        merged = [(row.merged_from, row.ordinal) for row in rows if row.merged_from is not None]
        assert merged and len(rows) < len(before)
        state = await history(app, PATH)

        other = await world.app(agent)  # who has not seen the rows before they were merged
        for after in before:
            client = Client()
            client.feed([everything[0], *(chunk for chunk in everything[1:] if chunk["position"]["batch"] <= after)])
            resets = client.resets
            if mode == "sse":
                stream = Reader(other, updates(offsets.text(after), "sse"))
                await stream.until(lambda: state["offset"] in stream.text)  # noqa: B023
                await stream.leave()
                client.feed(chunks_of(stream.data))
            else:
                answer = await ask(other, "GET", updates(offsets.text(after), mode if after < before[-1] else "plain"))
                client.feed(answer.json())
                assert answer.next == state["offset"]
            assert same(client, state), after
            is_inside = any(first <= after < last for first, last in merged)
            assert client.resets - resets == is_inside, after

    in_world(main)


async def rewind(world: World, to: int) -> None:
    """Append a rewind, as the owner would."""
    row = await world.store.find(Address("toy", "c"))
    assert row is not None
    fold, decode = Conversation(), r.decoder(h.HARNESS).decode
    for each in await rows_of(world):
        for record in decode(each.batch.records):
            fold.apply(record, each.ordinal)
    records = [h.ConversationRewound(to=to, at=world.clock.wall())]
    chunks = project(fold.shown, fold.delivery_of, fold.control.queue, records)
    batch = Batch(r.encode(records), chunks, PROJECTION)
    await world.store.append(Append(row.n, batch, row.epoch, Durability.FACT))


@pytest.mark.parametrize("mode", MODES)
def test_a_rewind_is_one_reset_for_everybody_who_follows(mode: str) -> None:
    """T17, S3: and who comes later is brought to the same place."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        worker = world.work(agent)
        await send(app, PATH, "first")
        first = await settled(app, PATH)
        await send(app, PATH, "second")
        both = await settled(app, PATH)
        worker.kill()
        both = await history(app, PATH)
        live, client = Reader(app, updates(both["offset"], "sse")), Client.seeded(both)
        await live.until(lambda: b"event: control" in live.data)
        parked = Reader(app, updates(both["offset"], "long-poll"))

        await rewind(world, int(first["offset"].rpartition("_")[2]))

        state = await history(app, PATH)
        assert [m["id"] for m in state["messages"]] == [m["id"] for m in first["messages"]]
        await parked.end()
        await live.until(lambda: state["offset"] in live.text)
        await live.leave()
        client.feed(chunks_of(live.data))
        assert same(client, state) and client.resets == 1
        assert [chunk["type"] for chunk in parked.answer().json()] == ["stream-checkpoint", "conversation-reset"]
        late = Client()
        offset = await follow(app, late, "-1", mode, submissions=2)
        late.feed((await ask(app, "GET", updates(offset))).json())
        assert late.state == client.state

    in_world(main)


@pytest.mark.parametrize("mode", MODES[1:])
def test_who_follows_a_conversation_that_is_deleted_is_let_go_and_finds_nothing(mode: str) -> None:
    """L6, S3: at once; and a new life under the same address is another one."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        parked = Reader(app, updates(state["offset"], mode))
        await world.clock.sleep(1)

        deleted = await ask(app, "DELETE", PATH)

        assert deleted.status == 200
        async with asyncio.timeout(1):
            await parked.end()
        assert parked.status == (200 if mode == "sse" else 404)
        assert (await ask(app, "GET", PATH)).status == 404
        assert (await ask(app, "GET", updates("-1"))).status == 404
        await send(app, PATH, "again")
        again = await history(app, PATH)
        assert again["incarnation"] != state["incarnation"]
        assert len(again["messages"]) == 1

    in_world(main)


class Held(StoreProxy):
    """A store whose reads wait while it is held, and may be interrupted by something that happens just before one."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.free = asyncio.Event()
        self.free.set()
        self.has_read = asyncio.Event()
        self.before_read: Callable[[], Awaitable[object]] | None = None

    async def through(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        if name != "read":
            return await call()
        if self.before_read is not None:
            await self.before_read()
        found = await call()
        self.has_read.set()
        await self.free.wait()
        return found


def test_a_read_that_found_nothing_is_not_the_answer_for_who_came_later() -> None:
    """L5: they share reads of one place; what was appended since the read began is read again and not taken for a deletion."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        store = Held(world.store)
        other = await world.app(toy(), store=store)
        store.free.clear()
        early = Reader(other, updates(state["offset"], "sse"))
        await store.has_read.wait()
        await send(app, PATH, "second")
        late = Reader(other, updates(state["offset"], "sse"))
        await asyncio.sleep(0.001)
        store.free.set()
        for reader in (early, late):
            await reader.until(lambda reader=reader: b"second" in reader.data)
            await reader.leave()

    in_world(main)


def test_a_conversation_that_is_deleted_between_the_hint_and_the_read_ends_its_readers() -> None:
    """L6: nothing to read where there has to be something means that there is nothing any more."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        store = Held(world.store)
        other = await world.app(toy(), store=store)
        reader = Reader(other, updates(state["offset"], "sse"))
        await reader.until(lambda: b"event: control" in reader.data)

        async def delete() -> None:
            await ask(app, "DELETE", PATH)

        store.before_read = delete
        await send(app, PATH, "second")
        await reader.end()
        assert b"second" not in reader.data

    in_world(main)


# --- without the notifier --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("notified", [True, False], ids=["notified", "by polling only"])
def test_readers_of_a_file_read_every_word_whoever_tells_them(
    notified: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L5, S3: a reader's bytes come from the store alone; without the hints of this process it is only later."""
    if not notified:
        monkeypatch.setattr(Watch, "committed", lambda *arguments, **options: None)

    async def main() -> None:
        async with App(agents=[toy(0.01)], store=tmp_path / "store.db") as app:
            await send(app, PATH, "first")
            clients = [(mode, Client()) for mode in MODES for _ in range(5)]
            await asyncio.gather(*(follow(app, client, "-1", mode, submissions=1) for mode, client in clients))
            state = await history(app, PATH)
            assert all(same(client, state) for _, client in clients)

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.slow
def test_readers_of_another_process_of_the_store_see_what_is_appended_here(tmp_path: Path) -> None:
    """L5: two stores on one file, as two processes have them; one runs the agents, the other only reads."""

    async def main() -> None:
        path = tmp_path / "store.db"
        async with (
            App(agents=[toy(0.01)], store=path) as works,
            App(agents=[toy()], store=path, serve=False) as reads,
        ):
            await send(works, PATH, "first")
            clients = [(mode, Client()) for mode in MODES]
            await asyncio.gather(*(follow(reads, client, "-1", mode, submissions=1) for mode, client in clients))
            state = await history(works, PATH)
            assert all(same(client, state) for _, client in clients)

    asyncio.run(asyncio.wait_for(main(), 60))
