"""Objects that belong to others, and the end of both."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.objects.object_stage import Stage, play

from cairn.errors import NotFound, ObjectGone, RemoteError
from cairn.runtime.fiber import Fiber
from cairn.runtime.object import DurableObject, callable
from cairn.runtime.schedule import every
from cairn.runtime.sub_objects import Parent, parent_of, sub_id


@dataclass
class Tree:
    names: list[str] = field(default_factory=list)
    rang: int = 0


class Branch(DurableObject[Tree]):
    @callable
    async def grow(self, name: str) -> list[str]:
        self.state.names.append(name)
        await self.sub_object(Branch, name).note("born")
        return [sub.name for sub in self.sub_objects()]

    @callable
    async def note(self, text: str) -> int:
        self.state.names.append(text)
        return len(self.state.names)

    @callable
    async def grow_and_fail(self, name: str) -> None:
        await self.sub_object(Branch, name).note("born")
        raise ValueError("after it was born")

    @callable
    async def cut(self, name: str) -> None:
        await self.sub_object(Branch, name).destroy()

    @callable(read_only=True)
    async def look(self) -> list[str]:
        return self.state.names

    @callable(read_only=True)
    async def subs(self) -> list[str]:
        return [sub.name for sub in self.sub_objects()]

    @callable
    async def tell_parent(self, text: str) -> int:
        parent = self.parent
        assert parent is not None
        return int(await parent.note(text))

    @callable
    async def relay(self, name: str, text: str) -> int:
        return int(await self.sub_object(Branch, name).tell_parent(text))

    @callable
    async def ring_later(self) -> None:
        await self.schedule(every("30s"), "ring", key="beat")

    async def ring(self) -> None:
        self.state.rang += 1

    @callable(read_only=True)
    async def rang(self) -> int:
        return self.state.rang

    @callable
    async def end(self) -> str:
        self.state.names.append("the end")
        await self.destroy()
        return "bye"

    @callable
    async def end_and_fail(self) -> None:
        await self.destroy()
        raise ValueError("not after all")

    @callable
    async def slow(self) -> None:
        await self._instance.clock.sleep(25)

    async def works(self, fiber: Fiber) -> None:
        await fiber.sleep("long", 10_000)

    async def ends_itself(self, fiber: Fiber) -> None:
        await self.destroy()
        await fiber.instance.clock.sleep(1000)


def branch(stage: Stage, *path: str) -> tuple[str, str]:
    """The address of a branch, from its root."""
    id = path[0]
    for name in path[1:]:
        id = sub_id("branch", id, name)
    return "branch", id


@pytest.mark.parametrize("name", ["x", "a/b", "a%2Fb", "ø y", "..", "x?#"])
@pytest.mark.parametrize("parent", ["p", "p/q/r"])
def test_the_id_of_a_sub_object_says_whose_it_is(parent: str, name: str) -> None:
    """S12: reversibly, at any depth, whatever the name."""
    assert parent_of(sub_id("room", parent, name)) == Parent("room", parent, name)


def test_ids_that_say_nothing_of_a_parent() -> None:
    """S12: a plain id, with a slash or without."""
    assert parent_of("a") is None and parent_of("a/b") is None and parent_of("//") is None


def test_a_sub_object_has_its_own_log_and_is_listed_by_its_parent() -> None:
    """S2 S11: it is made at its first call; its parent may be in a handler."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        listed = await root.grow("one"), await root.grow("two")
        own = await stage.objects.of(*branch(stage, "r", "one")).look()
        return listed, own, await stage.kinds(*branch(stage, "r", "one"))

    assert play([Branch], body) == ((["one"], ["one", "two"]), ["born"], ["StateChanged"])


def test_nobody_but_the_parent_makes_a_sub_object() -> None:
    """X5: an address from outside makes none."""

    async def body(stage: Stage) -> Any:
        await stage.objects.of("branch", "r").note("x")
        with pytest.raises(NotFound, match="branch/r has no sub-object branch 'one'"):
            await stage.objects.of(*branch(stage, "r", "one")).look()
        return await stage.is_gone(*branch(stage, "r", "one"))

    assert play([Branch], body)


def test_a_parent_knows_of_it_before_it_exists() -> None:
    """S1: also when the handler that made it fails: it can always be found to be destroyed."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        with pytest.raises(RemoteError, match="after it was born"):
            await root.grow_and_fail("one")
        return await root.subs(), await root.look()

    assert play([Branch], body) == (["one"], [])


def test_a_sub_object_that_calls_its_waiting_parent_is_refused() -> None:
    """L7: the chain names both; called from outside it reaches its parent."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        await root.grow("one")
        with pytest.raises(Exception, match="branch/r → branch/branch/r/one → branch/r"):
            await root.relay("one", "hi")
        return await stage.objects.of(*branch(stage, "r", "one")).tell_parent("hi")

    assert play([Branch], body) == 2


def test_a_sub_object_has_its_own_alarms() -> None:
    """L4: it rings while its parent sleeps, and after that is silent with it."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        await root.grow("one")
        one = stage.objects.of(*branch(stage, "r", "one"))
        await one.ring_later()
        await stage.sleep(100)
        return await one.rang()

    assert play([Branch], body) == 3


def test_a_parent_destroys_one_of_its_sub_objects() -> None:
    """S7: with all that is below it; and may make it anew, empty."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        await root.grow("one")
        await root.grow("two")
        await stage.objects.of(*branch(stage, "r", "one")).grow("leaf")
        await root.cut("one")
        gone = [await stage.is_gone(*branch(stage, *path)) for path in (["r", "one"], ["r", "one", "leaf"], ["r", "two"])]
        listed = await root.subs()
        await root.grow("one")
        return gone, listed, await stage.objects.of(*branch(stage, "r", "one")).look()

    assert play([Branch], body) == ([True, True, False], ["two"], ["born"])


def test_destroying_a_parent_destroys_everything_below_it() -> None:
    """S7: from outside, from any process; nothing is left but tombstones, and the address is free."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        for name in ("one", "two"):
            await root.grow(name)
            await stage.objects.of(*branch(stage, "r", name)).grow("leaf")
        await stage.outside().destroy("branch", "r")
        left = await stage.store.instances()
        return left, await root.note("a new life")

    assert play([Branch], body) == ([], 1)


def test_sub_objects_of_another_process_are_destroyed_too() -> None:
    """S7: by whoever has them."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        await root.grow("one")
        await stage.sleep(30)
        second = await stage.process()
        await stage.sleep(2)
        await second.of(*branch(stage, "r", "one")).note("mine now")
        await root.note("mine")
        await stage.objects.destroy("branch", "r")
        return await stage.store.instances()

    assert play([Branch], body) == []


def test_more_sub_objects_than_there_is_room_for_are_destroyed() -> None:
    """L7: the parent makes room for them and comes back."""
    from dataclasses import replace

    from tests.objects.object_stage import SETTINGS

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        for number in range(4):
            await root.grow(str(number))
        await stage.sleep(60)
        await stage.objects.destroy("branch", "r")
        return await stage.store.instances()

    assert play([Branch], body, settings=replace(SETTINGS, instances_max=1)) == []


def test_an_object_destroys_itself_after_its_reply() -> None:
    """S10: with the commit of its handler; a handler that raises has not."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        await root.grow("one")
        with pytest.raises(RemoteError):
            await root.end_and_fail()
        kept = await root.subs()
        said = await root.end()
        await stage.sleep(5)
        return kept, said, await stage.store.instances()

    assert play([Branch], body) == (["one"], "bye", [])


def test_a_fiber_destroys_its_object() -> None:
    """S7: at once, and does not go on."""

    async def body(stage: Stage) -> Any:
        handle = stage.applications["branch"].handle(stage.client(Branch), "r")
        await handle.start("ends_itself")
        await stage.sleep(20)
        return await stage.store.instances()

    assert play([Branch], body) == []


def test_destroying_waits_for_nothing_that_runs() -> None:
    """L7: a handler in the middle of it, those that wait, and fibers are cut; callers are told that it is gone."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        handle = stage.applications["branch"].handle(stage.client(Branch), "r")
        await handle.start("works")
        calls = [asyncio.ensure_future(root.slow()._stub.call("slow")), asyncio.ensure_future(root.call("note", "x"))]
        second = await stage.process()
        await stage.sleep(2)
        calls.append(asyncio.ensure_future(second.of("branch", "r").call("note", "y")))
        await stage.sleep(1)
        began = stage.simulation.clock.monotonic()
        await second.destroy("branch", "r")
        took = stage.simulation.clock.monotonic() - began
        ended = await asyncio.gather(*calls, return_exceptions=True)
        return took < 2, [isinstance(each, ObjectGone) for each in ended], await stage.store.instances()

    assert play([Branch], body) == (True, [True, True, True], [])


def test_destroying_what_is_not_there_is_no_news() -> None:
    """S6."""

    async def body(stage: Stage) -> Any:
        await stage.objects.destroy("branch", "r")
        await stage.objects.of("branch", "r").note("x")
        await asyncio.gather(*(stage.objects.destroy("branch", "r") for _ in range(3)))
        return await stage.store.instances()

    assert play([Branch], body) == []


def test_a_marked_object_is_destroyed_by_whoever_comes_next() -> None:
    """S7 L2: its process died between the marker and the end."""

    async def body(stage: Stage) -> Any:
        root = stage.objects.of("branch", "r")
        await root.grow("one")
        await stage.sleep(30)
        await stage.kill(stage.workers[0])
        outside = stage.outside()
        waiting = asyncio.ensure_future(outside.destroy("branch", "r"))
        await stage.sleep(30)
        there = len(await stage.store.instances())
        await stage.process()
        await waiting
        return there, await stage.store.instances()

    assert play([Branch], body) == (2, [])
