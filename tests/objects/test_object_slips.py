"""Slips of the pen in classes of objects and in calls of them: each is told where it is made, by the name of what is wrong.

Method. What compiles and would otherwise be lost without a word, wait for ever, or be told as something else. Whoever slips
finds the object as it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
from tests.objects.object_stage import Stage, play

from cairn.errors import ObjectGone, RemoteError, UsageError
from cairn.runtime import Client, DurableObject, Fiber, ObjectApplication, Objects, callable, every
from cairn.runtime.object_handle import Handle


@dataclass
class Held:
    value: int = 0
    names: list[str] = field(default_factory=list)

    @cached_property
    def double(self) -> int:
        return 2 * self.value


class Slips(DurableObject[Held]):
    @callable
    async def misspell_a_field(self) -> None:
        self.state.valeu = 3  # type: ignore[attr-defined]

    @callable
    async def misspell_a_fiber(self) -> None:
        await self.start_fiber("wrok")

    @callable
    async def start_a_callable(self) -> None:
        await self.start_fiber(Slips.read)

    @callable
    async def misspell_a_schedule(self) -> None:
        await self.schedule(every("1h"), "remnid")

    @callable
    async def start_a_number(self) -> None:
        await self.start_fiber(7)  # type: ignore[arg-type]

    @callable
    async def call_what_is_not_served(self) -> None:
        self.state.value = 9
        await self.stub("unknown", "x").call("ping")

    @callable
    async def name_a_child_badly(self) -> None:
        await self.sub_object(Slips, "").exist()

    @callable
    async def say_that_something_is_gone(self) -> None:
        raise ObjectGone("other/x is destroyed")

    @callable(read_only=True)
    async def read(self, _: int = 0) -> int:
        return self.state.value

    @callable
    async def keep_what_the_class_computes(self) -> int:
        self.state.value = 2
        return self.state.double

    async def work(self, fiber: Fiber) -> None: ...

    async def remind(self) -> None: ...


#: A slip within a handler, and words of the error that help.
HANDLERS = {
    "misspell_a_field": "the state of Slips has no field 'valeu'; Held has: value, names",
    "misspell_a_fiber": "'slips' has no fiber method 'wrok': there is no such method; its fiber methods: work",
    "start_a_callable": "its first parameter is not `fiber: Fiber`",
    "misspell_a_schedule": "no fiber method 'remnid'",
    "start_a_number": "7 is no method",
    "call_what_is_not_served": "knows no objects of kind 'unknown'; it knows: slips",
    "name_a_child_badly": "'' cannot be an instance's id",
    "say_that_something_is_gone": "other/x is destroyed",
}


@pytest.mark.parametrize("far", [False, True], ids=["here", "through the log"])
@pytest.mark.parametrize("slip", HANDLERS)
def test_a_slip_in_a_handler_is_told_and_changes_nothing(slip: str, far: bool) -> None:
    """S10 S14: a RemoteError with the words that help, wherever the handler ran, and nothing was accepted or committed. What is
    missing is what the handler asked for: nobody is told that the object itself is gone."""

    async def body(stage: Stage) -> Any:
        objects = stage.outside() if far else stage.objects
        with pytest.raises(RemoteError) as raised:
            await objects.of(Slips, "a").call(slip)
        kinds = await stage.kinds("slips", "a")
        return (
            str(raised.value),
            [kind for kind in kinds if kind not in ("FiberAccepted", "FiberStarted", "FiberSettled")],
            kinds,
        )

    text, changed, kinds = play([Slips], body)

    assert HANDLERS[slip] in text
    assert not changed and len(kinds) == (3 if far else 0)  # the call itself, which is in the log


def test_what_a_state_computes_for_itself_is_no_misspelt_field() -> None:
    """S14: only names that the class does not have are refused."""

    async def body(stage: Stage) -> Any:
        slips = stage.objects.of(Slips, "a")
        return await slips.keep_what_the_class_computes(), await slips.read()

    assert play([Slips], body) == (4, 2)


def _handle(objects: Objects, id: str) -> Handle:
    application = objects.applications["slips"]
    assert isinstance(application, ObjectApplication)
    return application.handle(Client(objects.store, application, clock=objects.clock, ids=objects.ids), id)


#: A slip of who calls, and words of the error that help.
CALLS: dict[str, tuple[Callable[[Any], Awaitable[Any]], str]] = {
    "an argument by name": (
        lambda objects: objects.of(Slips, "a").read(_=1),
        "was given _=: arguments of a call travel",
    ),
    "no JSON": (lambda objects: objects.of(Slips, "a").read(object()), "an argument of 'read' cannot be kept"),
    "a number for an id": (lambda objects: objects.of(Slips, 7).read(), "7 cannot be an instance's id: it is no text"),
    "no id": (lambda objects: objects.of(Slips, " ").read(), "needs 1 to 512 characters"),
    "a NUL in an id": (lambda objects: objects.of(Slips, "a\0b").read(), "no NUL"),
    "a long id": (lambda objects: objects.of(Slips, "x" * 513).read(), "needs 1 to 512 characters"),
    "a handle without an id": (lambda objects: _handle(objects, "").start(Slips.work), "'' cannot be an instance's id"),
    "a handle with a NUL": (lambda objects: _handle(objects, "a\0b").start(Slips.work), "no NUL"),
    "no time to run": (lambda objects: _handle(objects, "a").start(Slips.work, timeout=-3), "'work' was given -3 s to run"),
    "half a character": (lambda objects: objects.of(Slips, "\ud800").read(), "not UTF-8"),
}


@pytest.mark.parametrize("slip", CALLS)
def test_a_slip_of_a_caller_is_told_before_anything_is_made(slip: str) -> None:
    """S14: a UsageError, and no object of that name, nor of any other."""
    call, text = CALLS[slip]

    async def body(stage: Stage) -> Any:
        with pytest.raises(UsageError) as raised:
            await call(stage.objects)
        return str(raised.value), await stage.store.instances()

    said, instances = play([Slips], body)

    assert text in said and not instances


def test_a_class_that_nobody_could_call_is_refused_where_it_is_written() -> None:
    """S14: the error names the class and the method or the field."""

    @dataclass
    class Bare:
        value: int

    class NoBeginning(DurableObject[Bare]): ...

    class Taken(DurableObject[Held]):
        @callable
        async def destroy(self) -> None: ...

    class Private(DurableObject[Held]):
        @callable
        async def _secret(self) -> None: ...

    said = []
    for cls in (NoBeginning, Taken, Private):
        with pytest.raises(UsageError) as raised:
            ObjectApplication(cls)
        said.append(str(raised.value))
    with pytest.raises(UsageError) as raised:
        callable(timeout=0)(Slips.read)

    assert "NoBeginning" in said[0] and "`value`" in said[0]
    assert said[1].startswith("Taken.destroy cannot be @callable: every object has that method")
    assert said[2].startswith("Private._secret cannot be @callable: a name with an underscore is private")
    assert "timeout=0" in str(raised.value)


def test_one_type_that_is_only_for_checkers_hides_no_other() -> None:
    """An annotation that cannot be resolved is Any; the other parameters keep their types."""
    from cairn.runtime.callables import _hints

    def method(self: Any, count: int, where: Nowhere, names: list[str]) -> None: ...  # type: ignore[name-defined] # noqa: F821

    assert _hints(method) | {"self": Any} == {"self": Any, "count": int, "names": list[str], "return": type(None)}


def test_a_cron_expression_that_is_no_text_is_told_so() -> None:
    """The line that makes it, not the hour it would ring."""
    from cairn.errors import UsageError
    from cairn.runtime.schedule import cron

    with pytest.raises(UsageError, match=r"cron\(None\): a text of five fields is needed"):
        cron(None)  # type: ignore[arg-type]
