"""Clients that stay: their registry, the state they follow, the frames they get, in whatever process their sockets are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from tests.objects.object_stage import Stage, play

from cairn.errors import Denied, Refused, RemoteError
from cairn.runtime import records as r
from cairn.runtime.attachment import GONE, TOO_SLOW
from cairn.runtime.connections import Connection
from cairn.runtime.fiber import Fiber
from cairn.runtime.frames import Closed
from cairn.runtime.object import DurableObject, callable
from cairn.runtime.request import Request
from cairn.runtime.settings import ATTACHMENT_FRAMES_MAX, CONNECTIONS_RECHECK_SECONDS_MAX


@dataclass
class Chat:
    topic: str = ""
    seen: list[str] = field(default_factory=list)
    closed: list[list[Any]] = field(default_factory=list)
    told: list[list[str]] = field(default_factory=list)


class Room(DurableObject[Chat]):
    async def on_connect(self, connection: Connection, request: Request) -> None:
        if request.argument("refuse"):
            raise PermissionError("not today")
        connection.set_state({"joined": len(self.connections)})
        connection.send(f"hello {connection.id}")
        self.broadcast(f"{connection.id} is here", without=[connection.id])

    async def on_message(self, connection: Connection, message: str | bytes) -> None:
        if message == "raise":
            raise ValueError("no such word")
        if message == "who":
            connection.send(",".join(each.id for each in self.connections))
            return
        if message == "echo":
            connection.send(message)
            return
        if message == "leave":
            connection.close(4001, "bye")
            return
        self.state.seen.append(message if isinstance(message, str) else message.hex())
        self.broadcast(message)

    async def on_close(self, connection: Connection, code: int, reason: str) -> None:
        self.state.closed.append([connection.id, code, reason])
        if reason == "raise":
            raise ValueError("cannot say goodbye")

    def validate_state(self, state: Chat, source: str) -> None:
        if state.topic == "forbidden":
            raise ValueError("not that")

    async def on_state_changed(self, state: Chat, source: str) -> None:
        self.state.told = [*self.state.told, [source, state.topic]]

    def readonly(self, connection: Connection, request: Request) -> bool:
        return bool(request.argument("readonly"))

    def protocol(self, connection: Connection, request: Request) -> bool:
        return not request.argument("quiet")

    def tags(self, connection: Connection, request: Request) -> list[str]:
        return [request.argument("tag")] if request.argument("tag") else []

    @callable
    async def topic(self, topic: str) -> None:
        self.state.topic = topic

    @callable(read_only=True)
    async def look(self) -> Chat:
        return self.state

    @callable(read_only=True)
    async def present(self) -> list[list[Any]]:
        return [[each.id, each.state, list(each.tags), each.readonly] for each in self.connections]

    @callable(read_only=True)
    async def tagged(self, tag: str) -> list[str]:
        return [each.id for each in self.connections_tagged(tag)]

    @callable
    async def flood(self, count: int) -> None:
        for number in range(count):
            self.broadcast(str(number))

    async def speak(self, fiber: Fiber, words: list[str]) -> None:
        for word in words:
            await self.emit(word)


class Hasty(DurableObject[Chat]):
    async def on_connect(self, connection: Connection, request: Request) -> None:
        await self.commit()
        raise PermissionError("not after all")

    async def on_close(self, connection: Connection, code: int, reason: str) -> None:
        self.state.closed.append([connection.id, code, reason])

    @callable(read_only=True)
    async def look(self) -> list[Any]:
        return [self.state.closed, [each.id for each in self.connections]]


class Plain(DurableObject[Chat]):
    @callable
    async def topic(self, topic: str) -> None:
        self.state.topic = topic

    async def on_message(self, connection: Connection, message: str | bytes) -> None:
        connection.send(message)


def topic(text: str, **more: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({"topic": text, **more}))


def words(listener: Any) -> list[Any]:
    """The frames that are no state."""
    return [each for each in listener.data if not isinstance(each, dict)]


async def room(stage: Stage, *names: str) -> list[Any]:
    return [await stage.connect(stage.objects, "room", "a", name) for name in names]


def test_a_client_gets_what_was_sent_to_it_and_to_all() -> None:
    """S10: in order, after the commit; not what was sent to all but it."""

    async def body(stage: Stage) -> Any:
        ann, bob = await room(stage, "ann", "bob")
        await bob.attachment.message("hi")
        await bob.attachment.message(b"\x01")
        await stage.sleep(1)
        return words(ann), words(bob)

    assert play([Room], body) == (["hello ann", "bob is here", "hi", b"\x01"], ["hello bob", "hi", b"\x01"])


def test_the_registry_is_true_in_every_process() -> None:
    """S2: folded from the log: ids, state, tags, in order."""

    async def body(stage: Stage) -> Any:
        await room(stage, "ann")
        second = await stage.process()
        bob = Connection("bob", "ws://x")
        attached = await second.connect("room", "a", bob, Request(query=(("tag", "vip"), ("readonly", "1"))))
        there = await second.of(Room, "a").present()
        tagged = await stage.objects.of(Room, "a").tagged("vip")
        await attached.close(1000, "")
        return there, tagged, await second.of(Room, "a").present()

    there, tagged, later = play([Room], body)

    assert there == [["ann", {"joined": 1}, [], False], ["bob", {"joined": 2}, ["vip"], True]]
    assert tagged == ["bob"] and [each[0] for each in later] == ["ann"]


def test_sockets_of_another_process_hear_everything_in_order() -> None:
    """S3 S10: the log carries the frames; who owns the object makes no difference."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        second = await stage.process()
        await stage.sleep(2)
        bob = await stage.connect(second, "room", "a", "bob")
        for number in range(5):
            await ann.attachment.message(f"a{number}")
            await bob.attachment.message(f"b{number}")
        await bob.attachment.message("echo")
        await stage.sleep(5)
        return words(ann), words(bob)

    ann, bob = play([Room], body)

    talk = [f"{who}{number}" for number in range(5) for who in "ab"]
    assert ann == ["hello ann", "bob is here", *talk] and bob == ["hello bob", *talk, "echo"]


def test_a_frame_to_one_socket_here_leaves_no_record() -> None:
    """S2: when nothing changed; and it keeps its place among those that have one."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        before = len(await stage.records("room", "a"))
        await ann.attachment.message("echo")
        await ann.attachment.message("echo")
        same = len(await stage.records("room", "a")) == before
        await ann.attachment.message("x")
        await ann.attachment.message("echo")
        await stage.sleep(1)
        return same, words(ann)

    assert play([Room], body) == (True, ["hello ann", "echo", "echo", "x", "echo"])


def test_a_frame_without_a_record_waits_for_the_rows_before_it() -> None:
    """S3: its owner has folded a row that the reader of the log has not read yet."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        row = await stage.store.find(ann.attachment.address)
        assert row is not None
        handed = stage.objects.deliver(ann.attachment.address, row.head + 1, [r.ObjectSent(text="second", to=("ann",))])
        await stage.sleep(1)
        before = words(ann)
        await ann.attachment.message("first")
        await stage.sleep(1)
        return handed, before, words(ann)

    assert play([Room], body) == (True, ["hello ann"], ["hello ann", "first", "second"])


def test_the_state_follows_to_every_client_but_the_one_that_set_it() -> None:
    """S3: whole, with its source; those without the protocol are not told."""

    async def body(stage: Stage) -> Any:
        objects = stage.objects
        ann = await stage.connect(objects, "plain", "a", "ann")
        bob = await stage.connect(objects, "plain", "a", "bob")
        cat = await stage.connect(objects, "plain", "a", "cat", protocol=False)
        first = msgspec.json.decode(ann.attachment.state)["topic"]
        await ann.attachment.set_state(topic("tea"))
        await objects.of(Plain, "a").topic("milk")
        await stage.sleep(1)
        found = [[(msgspec.json.decode(f.state)["topic"], f.source) for f in each.frames] for each in (ann, bob, cat)]
        late = await stage.connect(objects, "plain", "a", "dan")
        return first, found, msgspec.json.decode(late.attachment.state)["topic"]

    first, found, late = play([Plain], body)

    assert first == "" and late == "milk"
    assert found == [[("milk", "server")], [("tea", "ann"), ("milk", "server")], []]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b'{"topic":"forbidden"}', "State update rejected"),
        (b'{"topic":7}', "State update rejected"),
        (b"[1]", "State update rejected"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(sent: bytes, said: str) -> None:
    """X2 S14: decoded against its type, shown to `validate_state`; nothing changes and nobody is told."""

    async def body(stage: Stage) -> Any:
        ann, bob = await room(stage, "ann", "bob")
        with pytest.raises(Refused, match=f"^{said}$"):
            await ann.attachment.set_state(sent)
        await stage.sleep(1)
        return (await stage.objects.of(Room, "a").look())["topic"], [each for each in bob.data if isinstance(each, dict)]

    assert play([Room], body) == ("", [])


def test_a_readonly_client_sets_no_state_by_no_way() -> None:
    """X5: nor by a method it calls; it may call the others."""

    async def body(stage: Stage) -> Any:
        connection = Connection("ann", "ws://x")
        attached = await stage.objects.connect("room", "a", connection, Request(query=(("readonly", "1"),)))
        for attempt in (attached.set_state(topic("x")), attached.call("topic", ["x"])):
            with pytest.raises(Denied, match="Connection is readonly"):
                await attempt
        return msgspec.json.decode(await attached.call("look", []))["topic"]

    assert play([Room], body) == ""


def test_the_server_is_bound_by_its_own_rules() -> None:
    """S14: a handler whose change `validate_state` refuses fails."""

    async def body(stage: Stage) -> Any:
        with pytest.raises(RemoteError, match="not that"):
            await stage.objects.of(Room, "a").topic("forbidden")

    play([Room], body)


def test_on_state_changed_is_told_of_each_change_and_of_its_source() -> None:
    """S1: a call in the batch of the change; what it changes itself calls it no more."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        await ann.attachment.set_state(topic("tea"))
        await stage.objects.of(Room, "a").topic("milk")
        await stage.sleep(5)
        return (await stage.objects.of(Room, "a").look())["told"]

    assert play([Room], body) == [["ann", "tea"], ["server", "milk"]]


def test_a_client_that_is_refused_is_not_connected() -> None:
    """X5: `on_connect` raised: told so, in no registry, and nobody heard of it."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        with pytest.raises(RemoteError, match="not today"):
            await stage.objects.connect("room", "a", Connection("bob"), Request(query=(("refuse", "1"),)))
        await stage.sleep(1)
        return words(ann), [each[0] for each in await stage.objects.of(Room, "a").present()]

    assert play([Room], body) == (["hello ann"], ["ann"])


def test_a_client_that_was_registered_and_then_refused_is_taken_off_again() -> None:
    """S7: a commit of its own in the middle leaves nobody connected who is not."""

    async def body(stage: Stage) -> Any:
        with pytest.raises(RemoteError, match="not after all"):
            await stage.objects.connect("hasty", "a", Connection("bob"), Request())
        await stage.sleep(1)
        return await stage.objects.of(Hasty, "a").look()

    assert play([Hasty], body) == [[["bob", 1006, "it was not accepted"]], []]


def test_a_closed_socket_calls_on_close_once() -> None:
    """S7: with its code; closing again is no news, also when `on_close` raises."""

    async def body(stage: Stage) -> Any:
        ann, bob = await room(stage, "ann", "bob")
        await ann.attachment.close(1001, "tab closed")
        await ann.attachment.close(1001, "again")
        await bob.attachment.close(1000, "raise")
        look = await stage.objects.of(Room, "a").look()
        return look["closed"], await stage.objects.of(Room, "a").present(), words(ann)[-1]

    assert play([Room], body) == ([["ann", 1001, "tab closed"]], [], 1001)


def test_the_object_closes_a_socket_and_hears_of_its_end() -> None:
    """S10: after what was sent before."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        await ann.attachment.message("leave")
        await stage.sleep(1)
        ended = ann.frames[-1]
        await ann.attachment.close(ended.code, ended.reason)
        return ended, (await stage.objects.of(Room, "a").look())["closed"]

    assert play([Room], body) == (Closed(4001, "bye"), [["ann", 4001, "bye"]])


def test_what_on_message_raises_goes_to_its_socket() -> None:
    """L7: the next message is heard."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        with pytest.raises(RemoteError, match="no such word"):
            await ann.attachment.message("raise")
        await ann.attachment.message("fine")
        return (await stage.objects.of(Room, "a").look())["seen"]

    assert play([Room], body) == ["fine"]


def test_messages_of_one_socket_are_heard_in_order() -> None:
    """S11: also when they come faster than they are heard, from another process."""

    async def body(stage: Stage) -> Any:
        await room(stage, "ann")
        second = await stage.process()
        await stage.sleep(2)
        bob = await stage.connect(second, "room", "a", "bob")
        tasks = []
        for number in range(10):
            tasks.append(asyncio.ensure_future(bob.attachment.message(str(number))))
            await stage.sleep(0.001)
        await asyncio.gather(*tasks)
        return (await second.of(Room, "a").look())["seen"]

    assert play([Room], body) == [str(number) for number in range(10)]


def test_connections_survive_hibernation_and_their_messages_wake_the_object() -> None:
    """L1: the object is rows, its sockets stay."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        await stage.sleep(30)
        running = stage.workers[0].running
        await ann.attachment.message("who")
        await stage.sleep(1)
        return running, words(ann)

    assert play([Room], body) == ([], ["hello ann", "ann"])


@pytest.mark.parametrize("asleep", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_connections_of_a_dead_process_are_closed_by_the_owner(asleep: bool) -> None:
    """L2: `on_close` with 1006, whoever owns the object by then, also when it was hibernating."""

    async def body(stage: Stage) -> Any:
        await room(stage, "ann")
        second = await stage.process()
        await stage.sleep(2)
        await stage.connect(second, "room", "a", "bob")
        if asleep:
            await stage.sleep(30)
        await stage.kill(stage.workers[1])
        await stage.sleep(2 * CONNECTIONS_RECHECK_SECONDS_MAX if asleep else 5)
        look = await stage.objects.of(Room, "a").look()
        return look["closed"], [each[0] for each in await stage.objects.of(Room, "a").present()]

    assert play([Room], body) == ([["bob", 1006, "its process is dead"]], ["ann"])


def test_an_owners_death_leaves_other_sockets_connected() -> None:
    """L2: they hear of what the next owner does."""

    async def body(stage: Stage) -> Any:
        await room(stage, "ann")
        second = await stage.process()
        await stage.sleep(2)
        bob = await stage.connect(second, "room", "a", "bob")
        await stage.kill(stage.workers[0])
        await stage.sleep(5)
        await bob.attachment.message("still here")
        await stage.sleep(1)
        present = await second.of(Room, "a").present()
        return words(bob), [each[0] for each in present], (await second.of(Room, "a").look())["closed"]

    found = play([Room], body)

    assert found == (["hello bob", "still here"], ["bob"], [["ann", 1006, "its process is dead"]])


def test_a_client_that_comes_back_replaces_its_old_socket() -> None:
    """S7: the old opening ends first; its own late end is no news of the new one."""

    async def body(stage: Stage) -> Any:
        [old] = await room(stage, "ann")
        second = await stage.process()
        await stage.sleep(2)
        new = await stage.connect(second, "room", "a", "ann")
        await stage.sleep(1)
        await old.attachment.close(1006, "late")
        await new.attachment.message("who")
        await stage.sleep(1)
        return words(old)[-1], words(new), (await second.of(Room, "a").look())["closed"]

    ended, came, closed = play([Room], body)

    assert ended == 1012 and came == ["hello ann", "ann"]
    assert closed == [["ann", 1012, "replaced by a new connection"]]


def test_a_reader_that_is_too_slow_is_closed_and_the_others_are_not() -> None:
    """L7 X3: what is kept for one socket is bounded."""

    async def body(stage: Stage) -> Any:
        [swift] = await room(stage, "swift")
        slow = await stage.objects.connect("room", "a", Connection("slow"), Request())
        for _ in range(4):
            await stage.objects.of(Room, "a").flood(ATTACHMENT_FRAMES_MAX // 3)
            await stage.sleep(1)
        last = [frame async for frame in slow.frames()]
        return last, len(words(swift))

    last, heard = play([Room], body)

    assert last == [Closed(TOO_SLOW, "frames were not taken in time")]
    assert heard == 2 + 4 * (ATTACHMENT_FRAMES_MAX // 3)


def test_a_fiber_speaks_to_the_sockets_without_the_turn() -> None:
    """S3: frames leave at once, in order."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        handle = stage.applications["room"].handle(stage.client(Room), "a")
        await handle.result(await handle.start("speak", ["a", "b", "c"]))
        await stage.sleep(1)
        return words(ann)

    assert play([Room], body) == ["hello ann", "a", "b", "c"]


def test_sockets_of_an_object_that_is_destroyed_are_closed_for_good() -> None:
    """L7: with a code after which clients do not come back."""

    async def body(stage: Stage) -> Any:
        [ann] = await room(stage, "ann")
        await stage.objects.destroy("room", "a")
        await stage.sleep(1)
        return words(ann)[-1]

    assert play([Room], body) == GONE


def test_openings_and_frames_alone_are_not_synced() -> None:
    """S2: what is about sockets is lost with the machine that has them."""

    async def body(stage: Stage) -> Any:
        from cairn.testing import FaultyStore

        counted = FaultyStore(stage.store, faults=frozenset())
        instance_facts = []
        await stage.connect(stage.objects, "plain", "a", "ann")
        [resident] = stage.workers[0]._residents._by_instance.values()
        assert resident.runner is not None
        resident.runner.instance.store = counted
        await stage.connect(stage.objects, "plain", "a", "bob")
        instance_facts.append((counted.counts.facts, counted.counts.deltas))
        await stage.objects.of(Plain, "a").topic("x")
        instance_facts.append((counted.counts.facts, counted.counts.deltas))
        return instance_facts

    assert play([Plain], body) == [(0, 1), (1, 1)]


def test_a_forgotten_client_is_no_longer_in_a_fork_or_a_checkpoint() -> None:
    """S15: the registry is part of the fold, and of what a checkpoint keeps."""
    from cairn.runtime.state import RuntimeState

    state = RuntimeState()
    state.apply(r.ConnectionOpened(connection="ann", token="t", worker="w", at=1.0, tags=("x",)), 1)
    again = msgspec.json.decode(msgspec.json.encode(state), type=RuntimeState)
    again.apply(r.ConnectionClosed(connection="ann", token="another", at=2.0), 2)

    assert again.connections["ann"].tags == ("x",)

    again.apply(r.ConnectionClosed(connection="ann", token="t", at=2.0), 3)

    assert again.connections == {}
