"""A world outside the program, which no crash undoes: what tools did, what the model was asked, what became durable.

    world = World()
    Agent("shop", model=Provider(world, ScriptedModel(by_turn([…]))))     requests are noted
    world.effect("pay", ctx.call)                                         in a tool: the outside has changed
    Witness(store, world)                                                 commits are noted, below every fault

Laws. The world is one list in the order in which things happened, so that "the intent was durable before the effect" is a
question about two places in it. What is in it stays in it, whatever dies. With a path it is a file (opened to append, one
line an event), for processes that are killed in earnest. It decides nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal, TypeVar

import msgspec

from cairn.harness.messages import AssistantMessage
from cairn.harness.models.protocol import ModelEvent, ModelRequest
from cairn.runtime.storage.store import Append, Durability, Store
from cairn.testing.history import History, made_by
from cairn.testing.proxy import WRITES, StoreProxy
from cairn.testing.scripted import ScriptedModel

T = TypeVar("T")


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened outside the program's memory."""

    kind: Literal["effect", "request", "commit", "cue"]
    name: str
    """Of an effect or a cue, its name; of a request, how many finished responses it contained; of a commit, its durability."""
    call: str = ""
    key: str = ""
    records: tuple[dict[str, Any], ...] = ()
    """What was committed."""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the committed records."""
        return tuple(record["type"] for record in self.records)


class World:
    """Everything that happened, in order. `path`: in a file too, where another process finds it."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.events: list[Event] = []
        self._cues: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with open(path, "rb") as file:
                # A line that was cut off by a death is not an event: its write never returned.
                lines = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
            for line in lines:
                self.events.append(msgspec.json.decode(line, type=Event))

    def effect(self, name: str, call: str = "", key: str = "") -> int:
        """The outside was changed; returns how often it was by this name and call."""
        self.note(Event("effect", name, call, key))
        return sum(event.call == call for event in self.effects(name))

    def cue(self, name: str) -> None:
        """Let a client of this life that waits for `name`, or will, go on."""
        self.note(Event("cue", name))
        self._cues[name].set()

    async def cued(self, name: str) -> None:
        """Return once `name` was cued in this life."""
        await self._cues[name].wait()

    def begin_life(self) -> None:
        """Cues of the life before are over. A program that is a process of its own begins one with each World."""
        self._cues.clear()

    def note(self, event: Event) -> None:
        """Add an event; it survives from here on."""
        if self._file is not None:
            os.write(self._file, msgspec.json.encode(event) + b"\n")
        self.events.append(event)

    def effects(self, name: str | None = None) -> list[Event]:
        """The effects so far, of one name or of all."""
        return [event for event in self.events if event.kind == "effect" and name in (None, event.name)]

    def requests(self) -> list[int]:
        """For each model request, how many finished responses it already contained."""
        return [int(event.name) for event in self.events if event.kind == "request"]

    def commits(self, durability: Literal["fact", "delta"] = "fact") -> list[Event]:
        """The batches that became durable, admissions and claims included."""
        return [event for event in self.events if event.kind == "commit" and event.name == durability]


class Provider:
    """A model that stands in the world: every request it gets is an event there, whoever asked and died."""

    def __init__(self, world: World, model: ScriptedModel) -> None:
        self.world = world
        self.model = model

    @property
    def spec(self) -> str:
        return self.model.spec

    @property
    def context_window(self) -> int | None:
        return self.model.context_window

    async def warm(self) -> None:
        await self.model.warm()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        self.world.note(Event("request", str(finished(request))))
        inner = self.model.stream(request)
        try:
            async for event in inner:
                yield event
        finally:
            await inner.aclose()


def finished(request: ModelRequest) -> int:
    """How many whole responses of the model a request contains."""
    return sum(isinstance(message, AssistantMessage) and not message.interrupted for message in request.messages)


class Witness(StoreProxy):
    """A store that notes in the world what has become durable, at the moment it has."""

    def __init__(self, inner: Store, world: World) -> None:
        super().__init__(inner)
        self._world = world

    async def claim(self, n: int, worker: str, *, expected_epoch: int, make: Callable[[int], Any]) -> Any:
        """As the store says; the batch that `make` returned is what became durable."""
        made: list[Any] = []

        def keep(epoch: int) -> Any:
            made.append(make(epoch))
            return made[-1]

        answer = await super().claim(n, worker, expected_epoch=expected_epoch, make=keep)
        if answer is not None:
            self._note("fact", made[-1])
        return answer

    async def through(self, name: str, arguments: tuple[Any, ...], call: Callable[[], Awaitable[T]]) -> T:
        """The call; a write that happened is noted before anybody learns of it."""
        answer = await call()
        if name in WRITES and name != "claim" and not getattr(answer, "duplicate", False) and answer is not False:
            append = arguments[0] if name == "append" else None
            is_delta = isinstance(append, Append) and append.durability is Durability.DELTA
            batch = made_by(History().invoke("", name, *arguments))
            if batch is not None:
                self._note("delta" if is_delta else "fact", batch)
        return answer

    def _note(self, durability: Literal["fact", "delta"], batch: Any) -> None:
        records = tuple(msgspec.json.decode(batch.records, type=list[dict[str, Any]]))
        self._world.note(Event("commit", durability, records=records))
