"""The application of one class of durable objects: its fold, its fibers and its handlers, as the runtime asks for them.

Give it to a worker, and make handles with it:

    counter = ObjectApplication(Counter)
    receipt = await counter.handle(client, "visits").start(Counter.count_to, 10)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import msgspec

from cairn.errors import UsageError
from cairn.runtime import records as r
from cairn.runtime.activation import Activation
from cairn.runtime.callables import Methods
from cairn.runtime.callables import callable as callable
from cairn.runtime.calls import run_call
from cairn.runtime.client import Client
from cairn.runtime.connections import Connection
from cairn.runtime.durable import DurableObject as DurableObject
from cairn.runtime.durable import class_kind, is_fiber_method
from cairn.runtime.fiber import Fiber
from cairn.runtime.handling import Emit, Invocation
from cairn.runtime.instance import Instance
from cairn.runtime.method import run_method
from cairn.runtime.object_handle import Handle as Handle
from cairn.runtime.object_state import ObjectFold, StateShape
from cairn.runtime.settings import CONNECTION_TAG_CHARACTERS_MAX, CONNECTION_TAGS_MAX
from cairn.runtime.state import FiberState
from cairn.runtime.sub_objects import checked_id


def state_type(cls: type[DurableObject[Any]]) -> type:
    """What stands in the brackets of `DurableObject[…]`. Raises UsageError when it is no dataclass and no Struct."""
    for base in (base for parent in cls.__mro__ for base in getattr(parent, "__orig_bases__", ())):
        arguments = get_args(base)
        if arguments and inspect.isclass(arguments[0]):
            if dataclasses.is_dataclass(arguments[0]) or issubclass(arguments[0], msgspec.Struct):
                return arguments[0]
            raise UsageError(f"the state of {cls.__name__} is {arguments[0].__name__}; make it a dataclass or a msgspec Struct")
    raise UsageError(f"{cls.__name__} has no type of state; write `class {cls.__name__}(DurableObject[ItsState])`")


class ObjectApplication:
    """One class. See `Application`, and for what it offers beyond fibers `Handling` and `Shown`."""

    base = DurableObject
    records: tuple[type[r.Record], ...] = ()
    serial = False
    projection = 0

    def __init__(self, cls: type[DurableObject[Any]]) -> None:
        self.cls = cls
        self.kind = class_kind(cls)
        self.shape: StateShape[Any] = StateShape(state_type(cls), cls.__name__)
        self.shape.demand_defaults()
        members = inspect.getmembers(cls, is_fiber_method)
        self._fibers = {name: method for name, method in members if not hasattr(DurableObject, name)}
        self.methods = Methods(cls, DurableObject, is_fiber_method)

    def handle(self, client: Client, id: str) -> Handle:
        """The object of that id, from outside. Nothing happens before the first call. *Raises* UsageError for what is no id."""
        return Handle(client, checked_id(id))

    def demand_method(self, name: str, *, scheduled: bool = False) -> str:
        """The name, if a fiber can run it; a schedule may call a plain method too. *Raises* UsageError: what is misspelt is
        told before anything is accepted that would wait for it for ever."""
        if name not in self._fibers and not (scheduled and self.methods.get(name) is not None):
            known = ", ".join(sorted(self._fibers)) or "none"
            what = "its first parameter is not `fiber: Fiber`" if hasattr(self.cls, name) else "there is no such method"
            raise UsageError(f"'{self.kind}' has no fiber method '{name}': {what}; its fiber methods: {known}")
        return name

    # --- its fold

    def initial(self) -> ObjectFold:
        return ObjectFold()

    def apply(self, state: ObjectFold, record: r.Record, ordinal: int) -> None:
        state.apply(record)

    def dump(self, state: ObjectFold) -> bytes:
        return state.dump()

    def load(self, data: bytes) -> ObjectFold:
        return ObjectFold.load(data)

    def project(self, state: Any, records: Sequence[r.Record]) -> bytes:
        return b""

    def progress(self, record: r.Record) -> str | None:
        return None

    def refusal(self, state: Any, records: Sequence[r.Record]) -> str | None:
        return None

    def shown(self, state: ObjectFold) -> msgspec.Raw | None:
        """The state as clients see it, defaults and all."""
        return self.shape.whole(state.fields)

    # --- its fibers

    def declares(self, schedule: str) -> bool:
        return False

    async def tidy(self, instance: Instance) -> None:
        return None

    def blocked(self, fiber: FiberState) -> r.ErrorInfo | None:
        if fiber.call is not None:
            return None  # a call is answered, also when the answer is that there is no such method
        method, plain = self._fibers.get(fiber.method), self.methods.get(fiber.method)
        if method is None and (plain is None or fiber.schedule is None):
            known = ", ".join(sorted(self._fibers)) or "none"
            what = (
                "it is not one: its first parameter is to be `fiber: Fiber`"
                if hasattr(self.cls, fiber.method)
                else "add it again"
            )
            text = f"'{self.kind}' has no fiber method '{fiber.method}' (it has: {known}); {what}, or abort the fiber"
            return r.ErrorInfo(kind="unknown_method", message=text)
        arguments = _arguments(fiber)
        if method is not None:
            misfit = _misfit(method, arguments)
        else:
            misfit = plain.misfit(len(arguments)) if plain is not None else None
        if misfit is not None:
            text = f"the recorded arguments of '{self.kind}.{fiber.method}' do not fit it now: {misfit}; accept them again"
            return r.ErrorInfo(kind="signature_mismatch", message=text)
        return None

    async def run(self, fiber: Fiber) -> None:
        activation = self.activation(fiber.instance)
        if fiber.state.method not in self._fibers or fiber.state.call is not None:
            await run_call(fiber, activation)
            return
        object, threads = activation.object, fiber.instance.threads
        call = partial(getattr(object, fiber.state.method), fiber, *_arguments(fiber.state))
        recover = None
        if self.cls.on_fiber_recovered is not DurableObject.on_fiber_recovered:
            recover = partial(threads.call_any, partial(object.on_fiber_recovered, fiber))

        async def method() -> Any:
            await activation.begun()
            return await threads.call_any(call)

        await run_method(fiber, method, recover)

    # --- its handlers

    def activation(self, instance: Instance) -> Activation:
        """The instance's object in memory."""
        if instance.activation is None:
            instance.activation = Activation(self, instance)
        activation: Activation = instance.activation
        return activation

    def streams(self, method: str) -> bool:
        return self.methods.callable(method).is_stream

    def seconds(self, method: str) -> float:
        return self.methods.callable(method).timeout

    async def invoke(self, instance: Instance, invocation: Invocation, emit: Emit | None = None) -> msgspec.Raw:
        return await self.activation(instance).invoke(invocation, emit)

    async def lost(self, instance: Instance) -> None:
        """Connections of workers that are no more are over."""
        workers = {row.id for row in await instance.store.workers()}
        known = instance.runtime.connections.values()
        dead = [(each.id, each.token) for each in known if each.worker and each.worker not in workers]
        if dead:
            await self.activation(instance).lost(dead)

    def tags(self, connection: Connection, more: Sequence[str]) -> tuple[str, ...]:
        """A connection's tags. *Raises* UsageError for too many, or one that is too long."""
        tags = tuple(dict.fromkeys((*connection.tags, *more)))
        if len(tags) > CONNECTION_TAGS_MAX or any(len(tag) > CONNECTION_TAG_CHARACTERS_MAX for tag in tags):
            raise UsageError(
                f"connection '{connection.id}' has tags {tags!r}; at most {CONNECTION_TAGS_MAX} of "
                f"{CONNECTION_TAG_CHARACTERS_MAX} characters"
            )
        return tags


def _arguments(fiber: FiberState) -> list[Any]:
    return msgspec.json.decode(fiber.arguments, type=list[Any] | None) or []


def _misfit(method: Any, arguments: list[Any]) -> str | None:
    try:
        inspect.signature(method).bind(None, None, *arguments)
    except TypeError as error:
        return str(error)
    return None
