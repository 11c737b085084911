"""Conversations folded for readers: what is kept, saved and forgotten changes how long it takes, and never what it says."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from tests.http.calling import World, ask, history, in_world, send, settled
from tests.http.following import PATH, toy
from tests.http.reducer import Client

from cairn import App
from cairn.framework.http.limits import KB, HttpLimits
from cairn.framework.http.snapshot import SNAPSHOT, Snapshot
from cairn.framework.http.snapshots import SAVE_ROWS_MIN
from cairn.runtime.storage.store import Address, Store
from cairn.testing.proxy import StoreProxy

T = TypeVar("T")


class Counting(StoreProxy):
    """A store that counts what it is asked."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.read_after: list[int] = []

    async def through(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        self.calls[name] += 1
        if name == "read":
            self.read_after.append(arguments[1])
            await asyncio.sleep(0.001)  # a read takes a moment, in which others ask too
        return await call()


async def counted(world: World, **limits: Any) -> tuple[App, Counting]:
    """An App of another process, whose reads are counted."""
    store = Counting(world.store)
    return await world.app(toy(), store=store, limits=HttpLimits(**limits)), store


async def talked(world: World, messages: int = 1) -> dict[str, Any]:
    """A conversation of so many settled messages on which nobody works any more; its history, folded by a client's rules."""
    agent = toy()
    app = await world.app(agent)
    worker = world.work(agent)
    for number in range(messages):
        await send(app, PATH, f"message {number}")
        await settled(app, PATH)
    worker.kill()
    client, offset = Client(), "-1"
    while True:
        answer = await ask(app, "GET", f"{PATH}?view=updates&offset={offset}")
        client.feed(answer.json())
        offset = answer.next
        if "stream-up-to-date" in answer.headers:
            return {"messages": client.messages, "settlements": client.settlements, "offset": offset}


def agrees(state: dict[str, Any], expected: dict[str, Any]) -> bool:
    return {name: state[name] for name in expected} == expected


def test_a_history_is_at_the_head_however_large_its_rows_are() -> None:
    """S3: a page of the log ends at a number of bytes too."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        for number in range(9):
            await send(app, PATH, f"{number} " + "x" * 900_000)
        state = await history(app, PATH)
        assert [message["parts"][0]["text"][0] for message in state["messages"]] == list("012345678")
        assert state["offset"] == (await ask(app, "HEAD", PATH)).next

    in_world(main)


def test_a_conversation_that_did_not_move_is_not_read_again() -> None:
    """L5: a history at the same head costs one look at where the head is."""

    async def main(world: World) -> None:
        expected = await talked(world)
        app, store = await counted(world)
        assert agrees(await history(app, PATH), expected)
        reads = store.calls["read"]
        for _ in range(5):
            assert agrees(await history(app, PATH), expected)
        assert store.calls["read"] == reads

    in_world(main)


def test_many_who_ask_at_once_cause_one_fold() -> None:
    """L5, X7: a page of a popular conversation is opened by everybody after a restart."""

    async def main(world: World) -> None:
        expected = await talked(world)
        app, store = await counted(world)
        states = await asyncio.gather(*(history(app, PATH) for _ in range(30)))
        assert all(agrees(state, expected) for state in states)
        assert store.calls["read"] <= 2

    in_world(main)


def test_readers_of_one_place_share_one_read_and_one_frame() -> None:
    """L5: fifty streams from the same offset cost the store what one costs."""

    async def main(world: World) -> None:
        expected = await talked(world)
        app, store = await counted(world)
        answers = await asyncio.gather(*(ask(app, "GET", f"{PATH}?view=updates&offset=-1") for _ in range(50)))
        assert len({answer.body for answer in answers}) == 1
        assert answers[0].next == expected["offset"]
        assert store.calls["read"] == 1

    in_world(main)


@pytest.mark.slow
def test_the_next_process_goes_on_from_what_was_saved() -> None:
    """L5: a cold history of a long conversation is not a fold of all of it."""

    async def main(world: World) -> None:
        expected = await talked(world, messages=SAVE_ROWS_MIN // 8)
        first, _ = await counted(world)
        assert agrees(await history(first, PATH), expected)
        second, store = await counted(world)
        assert agrees(await history(second, PATH), expected)
        assert all(after > SAVE_ROWS_MIN // 2 for after in store.read_after)

    in_world(main)


@pytest.mark.parametrize("saved", [b"", b"null", b"{}", b"\xff\xfe", b'{"ordinal":5}', b"[" * 100_000])
def test_what_was_saved_and_cannot_be_read_is_folded_again(saved: bytes) -> None:
    """S14, S15: it is a cache; nobody is told."""

    async def main(world: World) -> None:
        expected = await talked(world)
        row = await world.store.find(Address("toy", "c"))
        assert row is not None
        await world.store.save_snapshot(row.n, row.head, SNAPSHOT, saved)
        app, _ = await counted(world)
        assert agrees(await history(app, PATH), expected)

    in_world(main)


def test_what_does_not_fit_into_memory_is_folded_again() -> None:
    """L6: what is kept is bounded; the longest unread goes first."""

    async def main(world: World) -> None:
        app, store = await counted(world, snapshot_bytes=40 * KB)
        for number in range(12):
            await send(app, f"/agents/toy/{number}", f"{number} " + "x" * 6_000)
        for _ in range(2):
            for number in range(12):
                state = await history(app, f"/agents/toy/{number}")
                assert state["messages"][0]["parts"][0]["text"].startswith(f"{number} ")
        assert store.calls["read"] == 24
        for number in (10, 11):
            await history(app, f"/agents/toy/{number}")
        assert store.calls["read"] == 24

    in_world(main)


def test_a_fold_that_ends_inside_of_rows_that_were_merged_begins_again() -> None:
    """S3: somebody looked at each moment of an answer, and looks again when it has been tidied up."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        world.work(agent)
        await send(app, PATH, "first")
        looked = []
        while not (await history(app, PATH))["settlements"]:
            looked.append(await world.app(agent))
            await history(looked[-1], PATH)
            await asyncio.sleep(0.03)
        await world.clock.sleep(60)
        assert len(looked) > 10
        client = Client()
        client.feed((await ask(app, "GET", f"{PATH}?view=updates&offset=-1")).json())
        for each in (app, *looked):
            state = await history(each, PATH)
            assert client.state == {"messages": state["messages"], "settlements": state["settlements"]}

    in_world(main)


def test_a_rewind_takes_what_came_after_and_leaves_what_nobody_has_read() -> None:
    """S3: in the place it has among what is left."""
    snapshot = Snapshot()
    for ordinal, id in enumerate(("a", "b", "c", "d")):
        message = {"id": f"msg_{id}", "role": "user", "purpose": "user", "display": "visible", "submissionId": id, "parts": []}
        snapshot.feed(json.dumps({"type": "message-appended", "message": message}).encode(), ordinal)

    snapshot.feed(b'{"type":"conversation-reset","to":1,"keep":["msg_d"]}', 4)

    assert [message["id"] for message in json.loads(snapshot.messages())] == ["msg_a", "msg_b", "msg_d"]
    assert snapshot.message("msg_c") is None and snapshot.message("msg_d") is not None


def test_only_what_a_batch_touches_is_decoded() -> None:
    """L5: a batch costs what it touches, never the length of the conversation."""
    snapshot = Snapshot()
    for number in range(50):
        message = {"id": f"m{number}", "role": "user", "purpose": "user", "display": "visible", "submissionId": f"s{number}"}
        chunk = {"type": "message-appended", "message": {**message, "parts": []}}
        snapshot.feed(json.dumps(chunk).encode(), number)
    snapshot = Snapshot.load(snapshot.dump())

    snapshot.feed(b'{"type":"message-delta","messageId":"m7","kind":"text","delta":"x"}', 50)

    assert len(snapshot) == 50
    assert [entry.id for entry in snapshot._entries if entry.message is not None] == ["m7"]
    assert snapshot.message("m7") == {**json.loads(snapshot.messages())[7]}
    assert snapshot.message("m50") is None
    assert json.loads(snapshot.messages())[7]["parts"] == [{"type": "text", "text": "x", "state": "streaming"}]
