"""Following a conversation: which offsets there are, pages, signs of life, and readers that take their time."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from urllib.parse import quote

import pytest
from tests.http.calling import Reader, World, ask, chunks_of, in_world, offset_of, send, settled
from tests.http.following import MODES, PATH, same, spoken, toy, updates
from tests.http.reducer import Client

from cairn.framework.http import offsets
from cairn.framework.http.limits import HttpLimits

#: What is no offset.
NONSENSE = (
    "", "now", "5", "_5", "0_", "0_-1", "-2", "0_1_2", " -1", "0_1 ", "0x0_1", "٠_١", "0_1e3", "9" * 33 + "_1",
    "0_" + "9" * 400,
)  # fmt: skip

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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("offset", NONSENSE)
def test_what_is_no_offset_is_refused_in_every_mode(mode: str, offset: str) -> None:
    """T19: 400 before anything else is said, also of a stream."""

    async def main(world: World) -> None:
        app, _ = await spoken(world)
        answer = await ask(app, "GET", updates(quote(offset), mode))
        assert (answer.status, answer.json()["error"]["type"]) == (400, "invalid_request")

    in_world(main)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "&offset=-1&offset=-1",
        "&offset=-1&live=websocket",
        "&offset=-1&live=",
        "&offset=-1&tail=5",
        "&offset=-1&live=sse&live=sse",
    ],
)
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
        assert all(b - a <= 7 + 1e-6 for (a, _), (b, _) in pairwise(seen))
        assert all(b - a <= 20 + 7 + 1e-6 for a, b in pairwise(controls))
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
