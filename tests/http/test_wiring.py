"""Limits, credentials and caches hold because the parts of the server are connected: what each part's own tests cannot see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from tests.http.calling import Reader, World, ask, events_of, history, in_world, send, settled
from tests.http.following import MODES, PATH, spoken, toy, updates

from cairn import App
from cairn.errors import StoreCorrupt
from cairn.framework.http import offsets
from cairn.framework.http.auth import EVERY_GRANT
from cairn.framework.http.frames import Frames
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.snapshots import Snapshots
from cairn.framework.http.tokens import Tokens, create
from cairn.runtime.storage.store import Address, Store
from cairn.testing.proxy import StoreProxy

T = TypeVar("T")

Json = dict[str, Any]

#: A virtual second: whatever has to happen at once has happened by then.
AT_ONCE = 1.0


class Interrupted(StoreProxy):
    """A store one of whose calls is preceded by something else."""

    def __init__(self, inner: Store, name: str, before: Callable[[], Awaitable[object]]) -> None:
        super().__init__(inner)
        self._name, self._before = name, before

    async def through(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        if name == self._name:
            await self._before()
        return await call()


async def guarded(world: World, *names: str, **limits: Any) -> tuple[App, list[dict[str, str]]]:
    """An App that asks for tokens, a conversation in it, and the headers of so many callers."""
    app = await world.app(toy(), auth=Tokens(), limits=HttpLimits(**limits))
    callers = [await create(world.store, world.clock, name, tuple(EVERY_GRANT)) for name in names]
    headers = [{"authorization": f"Bearer {token}"} for token in callers]
    sent = await ask(app, "POST", PATH, {"kind": "user", "body": "Hello."}, headers[0])
    assert sent.status == 202
    return app, headers


# --- who asks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/agents", "/agents/toy", PATH, f"{PATH}/usage", "/nowhere"])
def test_every_route_asks_for_whom_and_from_where_it_is_called(path: str) -> None:
    """X6: another host's name, and another site's page, whatever they ask for; our own are answered."""

    async def main(world: World) -> None:
        app, _ = await spoken(world)
        assert (await ask(app, "GET", path, headers={"host": "rebound.example"})).status == 421
        assert (await ask(app, "GET", path, headers={"origin": "https://evil.example"})).status == 403
        assert (await ask(app, "GET", path)).status == (404 if path == "/nowhere" else 200)

    in_world(main)


def test_requests_of_one_caller_are_counted_and_refused_in_time() -> None:
    """X7: a burst, then 429 with when to come again; another caller is not concerned, and time heals."""

    async def main(world: World) -> None:
        app, (busy, calm) = await guarded(world, "busy", "calm", requests_per_second=5)
        statuses = [(await ask(app, "HEAD", PATH, headers=busy)).status for _ in range(8)]
        assert statuses == [200] * 4 + [429] * 4  # the message was the first of five
        assert (await ask(app, "HEAD", PATH, headers=calm)).status == 200
        refused = await ask(app, "GET", PATH, headers=busy)
        assert refused.json()["error"]["type"] == "too_many_requests"
        await world.clock.sleep(float(refused.headers["retry-after"]))
        assert (await ask(app, "HEAD", PATH, headers=busy)).status == 200

    in_world(main)


@pytest.mark.parametrize("mode", MODES[1:])
def test_live_readers_of_one_caller_are_counted_while_they_read(mode: str) -> None:
    """X7: one more is 429; a reader that has left makes room; what is answered at once needs none."""

    async def main(world: World) -> None:
        app, (many, few) = await guarded(world, "many", "few", readers_per_token=3)
        head = (await ask(app, "HEAD", PATH, headers=many)).next
        readers = [Reader(app, updates(head, mode), headers=many) for _ in range(3)]
        await world.clock.sleep(AT_ONCE)
        assert (await ask(app, "GET", updates(head, mode), headers=many)).status == 429
        assert (await ask(app, "GET", updates(head), headers=many)).status == 200
        other = Reader(app, updates(head, mode), headers=few)
        await readers.pop().leave()
        readers.append(Reader(app, updates(head, mode), headers=many))
        await world.clock.sleep(AT_ONCE)
        for reader in (*readers, other):
            assert not reader.task.done()
            await reader.leave()

    in_world(main)


def test_a_revoked_token_ends_its_live_streams_and_nobody_elses() -> None:
    """X11: within five seconds, although nothing happens in the conversation."""

    async def main(world: World) -> None:
        app, (revoked, valid) = await guarded(world, "revoked", "valid")
        head = (await ask(app, "HEAD", PATH, headers=revoked)).next
        theirs, ours = (Reader(app, updates(head, "sse"), headers=who) for who in (revoked, valid))
        await world.clock.sleep(60)
        assert not theirs.task.done() and not ours.task.done()
        assert await world.store.delete_token("revoked")
        await world.clock.sleep(5)
        assert theirs.ended and not ours.task.done()
        await ours.leave()

    in_world(main)


def test_a_revoked_token_ends_a_stream_that_is_never_idle() -> None:
    """X11: whenever it looks something new is there; that keeps nobody in."""

    async def main(world: World) -> None:
        app, (revoked, other) = await guarded(world, "revoked", "other", requests_per_second=1_000)

        async def talk() -> None:
            await world.clock.sleep(0.1)
            assert (await ask(app, "POST", PATH, {"kind": "user", "body": "And another."}, other)).status == 202

        busy = await world.app(toy(), auth=Tokens(), store=Interrupted(world.store, "changed", talk))
        reader = Reader(busy, updates("-1", "sse"), headers=revoked)
        await world.clock.sleep(10)
        assert not reader.task.done() and reader.data.count(b"And another.") > 50
        assert await world.store.delete_token("revoked")
        await world.clock.sleep(5)
        assert reader.ended

    in_world(main)


# --- what is said when ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_names_the_life_that_a_history_is_of(mode: str) -> None:
    """S3: the same name in every answer of one life, and another one in the next."""

    async def main(world: World) -> None:
        app, _ = await spoken(world)
        names = []
        for _ in range(2):
            reader = Reader(app, updates("-1", mode))
            await world.clock.sleep(AT_ONCE)
            await reader.leave()
            first = events_of(bytes(reader.data))[0].value[0] if mode == "sse" else reader.answer().json()[0]
            assert first == {"type": "stream-checkpoint", "incarnation": (await history(app, PATH))["incarnation"]}
            names.append(first["incarnation"])
            await ask(app, "DELETE", PATH)
            await send(app, PATH, "again")
        assert len(set(names)) == 2

    in_world(main)


def test_a_history_shows_what_was_said_since_it_was_last_asked_for() -> None:
    """S1: what is kept of it for the next reader is as old as it may be and no older."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        for number in range(1, 4):
            await send(app, PATH, f"{number}")
            for _ in range(2):
                state = await history(app, PATH)
                assert len(state["messages"]) == number
                assert state["offset"] == (await ask(app, "HEAD", PATH)).next

    in_world(main)


def test_nothing_is_accepted_before_the_store_has_it() -> None:
    """S1: not a byte of a 202 while the message may still be lost."""

    async def main(world: World) -> None:
        held = asyncio.Event()
        app = await world.app(toy(), store=Interrupted(world.store, "admit", held.wait))
        body = b'{"kind":"user","body":"Hello."}'
        sending = Reader(app, PATH, method="POST", body=body, headers={"content-type": "application/json"})
        await world.clock.sleep(60)
        assert sending.status == 0 and not sending.data
        assert (await ask(app, "GET", PATH)).status == 404
        held.set()
        await sending.end()
        assert sending.status == 202
        assert len((await history(app, PATH))["messages"]) == 1

    in_world(main)


def test_what_is_settled_does_not_count_among_what_waits() -> None:
    """X7: a conversation takes messages for ever, as long as they are answered."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent, limits=HttpLimits(queued_submissions_max=2))
        world.work(agent)
        for number in range(5):
            await send(app, PATH, f"{number}")
            await settled(app, PATH)

    in_world(main)


# --- the end of an answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES[1:])
def test_who_leaves_is_not_waited_for(mode: str) -> None:
    """L6, X7: a closed connection ends its request at once, and not when it would have had something to say."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        reader = Reader(app, updates(state["offset"], mode))
        await world.clock.sleep(AT_ONCE)
        began = world.clock.monotonic()
        await reader.leave()
        assert world.clock.monotonic() - began < AT_ONCE

    in_world(main)


def test_a_stream_that_finds_nothing_where_something_has_to_be_ends() -> None:
    """L6: it was deleted; the store is not asked again and again."""

    async def main(world: World) -> None:
        app, state = await spoken(world)
        reads = 0

        async def delete() -> None:
            nonlocal reads
            reads += 1
            await ask(app, "DELETE", PATH)
            if reads > 20:
                raise StoreCorrupt("it asks and asks")

        other = await world.app(toy(), store=Interrupted(world.store, "read", delete))
        behind = offsets.text(int(state["offset"].rpartition("_")[2]) - 1)
        reader = Reader(other, updates(behind, "sse"))
        await reader.end()
        assert reader.ended and reads == 1

    in_world(main)


def test_a_failure_after_the_answer_has_begun_only_ends_it() -> None:
    """X8, S14: nothing is said of it to the client, whose stream breaks off; the server below it is told."""

    async def main(world: World) -> None:
        await spoken(world)

        async def fail() -> None:
            raise StoreCorrupt("the password is swordfish")

        other = await world.app(toy(), store=Interrupted(world.store, "read", fail))
        reader = Reader(other, updates("-1", "sse"))
        with pytest.raises(StoreCorrupt):
            await reader.end()
        assert (reader.status, reader.ended) == (200, False)
        assert [event.kind for event in events_of(bytes(reader.data))] == ["data"] and b"swordfish" not in reader.data

    in_world(main)


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limits", "most"), [({"frames_max": 3}, 3), ({"frames_bytes": 2_500}, 2), ({"frames_bytes": 1}, 1)])
def test_frames_that_are_kept_for_other_readers_are_bounded_in_number_and_weight(limits: Json, most: int) -> None:
    """X7, L6: the longest unread is forgotten first; what was forgotten is read again and says the same."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        for number in range(6):
            await send(app, f"/agents/toy/{number}", f"{number}" + "x" * 700)
        bounds = HttpLimits(**limits)
        frames = Frames(world.store, Snapshots(world.store, bounds), bounds)
        rows = [await world.store.find(Address("toy", f"{number}")) for number in range(6)]
        for _ in range(2):
            for number, row in enumerate(rows):
                assert row is not None
                frame = await frames.after(row, -1, row.head)
                assert f'"text":"{number}x'.encode() in frame.chunks
                assert len(frames._kept) <= most
                assert frames._bytes == sum(len(kept.chunks) for kept in frames._kept.values())

    in_world(main)
