"""T17: readers that come and go. Whatever a reader missed, lost or saw of, it ends where the conversation ends.

Method: a client folds what it got (`reducer.py`), loses its connection anywhere, and goes on from the last offset it was told, as
the published clients do. In the end its state is the history's, and it saw every chunk once, or was told to begin again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.http.calling import Reader, World, ask, chunks_of, history, in_world, offset_of, send, settled
from tests.http.reducer import Client

from cairn import Agent, App, Context
from cairn.framework.http import offsets
from cairn.framework.http.limits import HttpLimits
from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.projection import PROJECTION, project
from cairn.runtime import records as r
from cairn.runtime.storage.store import Address, Append, Batch, Durability, Row
from cairn.runtime.storage.watch import Watch
from cairn.testing.scripted import Call, Say, ScriptedModel

PATH = "/agents/toy/c"
MODES = ("plain", "long-poll", "sse")

Json = dict[str, Any]


def toy(pause: float = 0.03) -> Agent[None]:
    """Thinks, speaks, calls a tool that shows things, and speaks again."""
    first = [Say("I look. ", chunk=2, pause=pause, thinking="Hm."), Call("look", {"where": "Oslo\n"})]
    last = Say('It is "fine", 7 °C\nand calm.', chunk=4, pause=pause)
    agent = Agent(
        "toy", model=ScriptedModel(lambda request: last if request.messages[-1].__class__.__name__ == "ToolMessage" else first)
    )

    @agent.tool
    async def look(ctx: Context[None], where: str) -> dict[str, Any]:
        """Look."""
        ctx.show("map", {"where": where})
        ctx.progress("half way")
        await asyncio.sleep(pause * 10)
        ctx.describe(seen=True)
        return {"where": where}

    return agent


def updates(offset: str, mode: str = "plain", path: str = PATH) -> str:
    live = "" if mode == "plain" else f"&live={mode}"
    return f"{path}?view=updates&offset={offset}{live}"


async def follow(app: Any, client: Client, offset: str, mode: str, *, submissions: int) -> str:
    """Read on until so many submissions have settled; returns the offset the client is at."""
    while len(client.settlements) < submissions:
        if mode == "sse":
            reader = Reader(app, updates(offset, mode))
            await reader.until(lambda: reader.data.count(b"submission-settled") >= submissions - len(client.settlements))
            await reader.until(lambda: reader.data.endswith(b'"upToDate":true}\n\n'))
            await reader.leave()
            client.feed(chunks_of(reader.data))
            offset = offset_of(reader.data, offset)
        else:
            answer = await ask(app, "GET", updates(offset, mode))
            assert answer.status == 200, answer.body
            client.feed(answer.json())
            offset = answer.next
            await asyncio.sleep(0.01 if mode == "plain" else 0)
    return offset


def same(client: Client, state: Json) -> bool:
    return client.state == {"messages": state["messages"], "settlements": state["settlements"]} and client.dropped == []


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


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_log_longer_than_a_page_is_read_page_by_page(mode: str) -> None:
    """L5: who is not up to date is not told so, and asks again; a stream goes on by itself."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent, limits=HttpLimits(page_batches=4))
        world.work(agent)
        await send(app, PATH, "first")
        state = await settled(app, PATH)
        client, offset, answers = Client(), "-1", 0
        if mode == "sse":
            reader = Reader(app, updates("-1", "sse"))
            await reader.until(lambda: b'"upToDate":true' in reader.data)
            await reader.leave()
            client.feed(chunks_of(reader.data))
            answers = reader.data.count(b"event: control")
        else:
            while offset != state["offset"]:
                answer = await ask(app, "GET", updates(offset, mode))
                assert ("stream-up-to-date" in answer.headers) == (answer.next == state["offset"])
                client.feed(answer.json())
                offset, answers = answer.next, answers + 1
        assert same(client, state)
        assert answers > 3

    in_world(main)


# --- offsets --------------------------------------------------------------------------------------------------------


async def spoken(world: World, **options: Any) -> tuple[App, Json]:
    """An App with one settled conversation, and its history; nobody is at work on it any more."""
    agent = toy()
    app = await world.app(agent, **options)
    worker = world.work(agent)
    await send(app, PATH, "first")
    state = await settled(app, PATH)
    worker.kill()
    return app, await history(app, PATH) if state else state


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "offset", ["", "now", "5", "_5", "0_", "0_-1", "-2", "0_1_2", " -1", "0_1 ", "0x0_1", "٠_١", "0_1e3", "9" * 33 + "_1", "0_" + "9" * 400]
)  # fmt: skip
def test_what_is_no_offset_is_refused_in_every_mode(mode: str, offset: str) -> None:
    """T19: 400 before anything else is said, also of a stream."""

    async def main(world: World) -> None:
        app, _ = await spoken(world)
        from urllib.parse import quote

        answer = await ask(app, "GET", updates(quote(offset), mode))
        assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request")

    in_world(main)


@pytest.mark.parametrize(
    "query", ["", "&offset=-1&offset=-1", "&offset=-1&live=websocket", "&offset=-1&live=", "&offset=-1&tail=5", "&offset=-1&live=sse&live=sse"]
)  # fmt: skip
def test_parameters_that_are_missing_repeated_or_unknown_values_are_refused(query: str) -> None:
    """T19."""

    async def main(world: World) -> None:
        app, _ = await spoken(world)
        answer = await ask(app, "GET", f"{PATH}?view=updates{query}")
        assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request")

    in_world(main)


@pytest.mark.parametrize("mode", MODES)
def test_an_offset_beyond_what_was_ever_promised_is_gone(mode: str) -> None:
    """S3: 416 with where the end is, and not one byte of a stream before it."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        for offset in ("0_999999", "0000000000000000_0000000000999999", "0_" + "9" * 30):
            answer = await ask(app, "GET", updates(offset, mode))
            assert (answer.status, answer.headers["content-type"]) == (416, "application/json")
            error = answer.json()["error"]
            assert error["type"] == "stream_offset_gone"
            assert error["meta"] == {"offset": offset, "nextOffset": state["offset"]}

    in_world(main)


def test_an_offset_needs_no_zeros() -> None:
    """S3: it is a number with a line in it."""

    async def main(world: World) -> None:
        app, _ = await spoken(world)
        padded, bare = await ask(app, "GET", updates(offsets.text(3))), await ask(app, "GET", updates("0_3"))
        assert (padded.body, padded.next) == (bare.body, bare.next)

    in_world(main)


def test_an_offset_between_the_end_and_what_is_reserved_waits() -> None:
    """S2, S3: a power cut took the end of the log that a client had read; what comes next lies beyond what it had."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        head = int(state["offset"].rpartition("_")[2])
        beyond = offsets.text(head + 5)
        plain = await ask(app, "GET", updates(beyond))
        assert (plain.status, len(plain.json()), plain.next) == (200, 1, beyond)
        began = world.clock.monotonic()
        parked = await ask(app, "GET", updates(beyond, "long-poll"))
        assert (parked.status, len(parked.json()), parked.next) == (200, 1, beyond)
        assert world.clock.monotonic() - began >= HttpLimits().long_poll_seconds
        stream = Reader(app, updates(beyond, "sse"))
        await stream.until(lambda: b"event: control" in stream.data)
        assert offset_of(stream.data, "") == beyond
        await stream.leave()

    in_world(main)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_followed_before_its_first_message(mode: str) -> None:
    """S1: 404, whatever the offset."""

    async def main(world: World) -> None:
        app, _ = await spoken(world)
        for offset in ("-1", "0_0", "0_99"):
            answer = await ask(app, "GET", updates(offset, mode, "/agents/toy/other"))
            assert (answer.status, answer.json()["error"]["type"]) == (404, "stream_not_found")

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


# --- slow, stuck, many ------------------------------------------------------------------------------------------------


def test_a_slow_reader_gets_one_larger_frame_and_never_a_queue() -> None:
    """L5: while it takes nothing nothing is kept for it; then all of it comes at once."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        world.work(agent)
        await send(app, PATH, "first")
        slow, quick = Reader(app, updates("-1", "sse")), Reader(app, updates("-1", "sse"))
        await slow.until(lambda: len(slow.writes) >= 3)
        slow.stick()
        await quick.until(lambda: b"submission-settled" in quick.data)
        slow.unstick()
        await slow.until(lambda: b"submission-settled" in slow.data)
        await slow.leave()
        await quick.leave()
        assert len(quick.writes) > 15
        assert len(slow.writes) <= 5
        assert chunks_of(slow.data) == chunks_of(quick.data)

    in_world(main)


def test_a_stuck_reader_is_let_go() -> None:
    """L6: after the time a write may take, whatever the server below does about it."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent, limits=HttpLimits(write_stall_seconds=20))
        world.work(agent)
        await send(app, PATH, "first")
        stuck = Reader(app, updates("-1", "sse"))
        await stuck.until(lambda: len(stuck.writes) >= 2)
        stuck.stick()
        await settled(app, PATH)
        began = world.clock.monotonic()
        await stuck.end()
        assert world.clock.monotonic() - began < 25
        assert len(stuck.writes) == 2

    in_world(main)


def test_a_quiet_stream_shows_signs_of_life() -> None:
    """L5: a comment whenever nothing was said for so long, a control frame at least as often as clients need one."""

    async def main(world: World) -> None:
        limits = HttpLimits(heartbeat_seconds=7, control_seconds=20)
        app, state = await spoken(world, limits=limits)
        reader = Reader(app, updates(state["offset"], "sse"))
        seen: list[tuple[float, str]] = []
        began = world.clock.monotonic()
        while world.clock.monotonic() - began < 100:
            before = len(reader.writes)
            await reader.until(lambda: len(reader.writes) > before)  # noqa: B023
            seen += [(world.clock.monotonic() - began, write.decode()) for write in reader.writes[before:]]
        await reader.leave()
        controls = [at for at, frame in seen if "event: control" in frame]
        assert all(b - a <= 7 + 1e-6 for (a, _), (b, _) in zip(seen, seen[1:], strict=False))
        assert all(b - a <= 20 + 7 + 1e-6 for a, b in zip(controls, controls[1:], strict=False))
        assert all(f'"{state["offset"]}"' in frame for _, frame in seen if "control" in frame)

    in_world(main)


def test_a_long_poll_that_nothing_happens_to_ends_in_time_with_the_checkpoint_alone() -> None:
    """L5: with the offset it came with."""

    async def main(world: World) -> None:
        app, state = await spoken(world, limits=HttpLimits(long_poll_seconds=12))
        began = world.clock.monotonic()
        answer = await ask(app, "GET", updates(state["offset"], "long-poll"))
        assert 12 <= world.clock.monotonic() - began < 12.1
        assert [chunk["type"] for chunk in answer.json()] == ["stream-checkpoint"]
        assert (answer.next, answer.headers["stream-up-to-date"]) == (state["offset"], "true")

    in_world(main)


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_reader_that_leaves_leaves_nothing_behind(mode: str) -> None:
    """L6: no task and no waiter, however often."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        await world.clock.sleep(60)
        before = len(asyncio.all_tasks())
        for _ in range(20):
            reader = Reader(app, updates(state["offset"], mode))
            await world.clock.sleep(0.5)
            await reader.leave()
        await world.clock.sleep(1)
        assert len(asyncio.all_tasks()) <= before

    in_world(main)


def test_the_end_of_the_server_lets_every_reader_go_with_what_it_has() -> None:
    """L6: streams end in order, long-polls answer; both come back to the next process."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        stream, parked = Reader(app, updates(state["offset"], "sse")), Reader(app, updates(state["offset"], "long-poll"))
        await world.clock.sleep(1)
        app.http.stop()
        await stream.end()
        await parked.end()
        assert stream.ended and offset_of(stream.data, "") == state["offset"]
        assert (parked.status, parked.answer().next) == (200, state["offset"])
        refused = await ask(app, "GET", updates(state["offset"]))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")

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
