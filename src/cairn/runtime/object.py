"""A durable object: a class whose instances live in the log.

    class Counter(DurableObject[Count]):
        async def count(self, fiber: Fiber, to: int) -> int: ...

    counter = ObjectApplication(Counter)
    receipt = await counter.handle(client, "visits").start(Counter.count, 10)

An `async` method whose first parameter is a `Fiber` is a fiber method: it is started by its name, which is recorded, and is
called again by that name after an interruption. State is a dataclass or a msgspec Struct; it changes only in a commit.

Laws. An object is made anew for each fiber and keeps nothing itself: its state is the fold of `state.changed`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, get_args

import msgspec

from cairn.errors import UsageError
from cairn.runtime import records as r
from cairn.runtime.client import Client, Receipt
from cairn.runtime.fiber import Fiber
from cairn.runtime.method import run_method
from cairn.runtime.instance import Instance
from cairn.runtime.state import FiberState

State = TypeVar("State")
T = TypeVar("T")


class _Fold:
    """The state of one object, as JSON by field, and the turn of those who change it."""

    def __init__(self) -> None:
        self.fields: dict[str, msgspec.Raw] = {}
        self.turn = asyncio.Lock()


class DurableObject(Generic[State]):
    """Subclass it with the type of its state: `class Counter(DurableObject[Count])`."""

    kind: ClassVar[str] = ""
    """What its instances are called in the store; the class's name in kebab-case when empty. A durable name."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._fold: _Fold = instance.state

    @property
    def id(self) -> str:
        return self._instance.address.id

    @property
    def state(self) -> State:
        """A copy of the committed state; changing it changes nothing."""
        type_ = state_type(type(self))
        fields = {name: msgspec.json.decode(raw) for name, raw in self._fold.fields.items()}
        return msgspec.convert(fields, type_)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[State]:
        """A draft of the state; the fields that differ at the end are committed together, alone among transactions.

        *Durable* when the block is left. If it raises, nothing is committed. Called again after an interruption, the
        block runs again: use `change` for what must happen once.
        """
        async with self._fold.turn:
            before, draft = self.state, self.state
            yield draft
            if (changed := _changed(before, draft)) is not None:
                await self._instance.append([changed])

    async def change(self, fiber: Fiber, name: str, change: Callable[[State], T]) -> T:
        """Change the state once: a step of the fiber whose result and whose changes are one commit.

        *Durable* and *idempotent* by (fiber, name): when the step is known, the record answers and nothing changes.
        """
        async with self._fold.turn:
            before, draft = self.state, self.state

            async def apply() -> T:
                return change(draft)

            def changes() -> Sequence[r.Record]:
                changed = _changed(before, draft)
                return [changed] if changed is not None else []

            return await fiber.step(name, apply, also=changes)


def _changed(before: Any, draft: Any) -> r.StateChanged | None:
    changes = {}
    for name in _fields(type(draft)):
        raw = msgspec.json.encode(getattr(draft, name))
        if raw != msgspec.json.encode(getattr(before, name)):
            changes[name] = msgspec.Raw(raw)
    return r.StateChanged(changes=changes) if changes else None


def _fields(type_: type) -> tuple[str, ...]:
    return getattr(type_, "__struct_fields__", None) or tuple(field.name for field in dataclasses.fields(type_))


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
    """The application of one class of durable objects: give it to a worker, and make handles with it."""

    records: tuple[type[r.Record], ...] = ()
    serial = False

    def __init__(self, cls: type[DurableObject[Any]]) -> None:
        state_type(cls)
        self.cls = cls
        self.kind = cls.kind or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        members = inspect.getmembers(cls, _is_fiber_method)
        self._methods = {name: method for name, method in members if not hasattr(DurableObject, name)}

    def handle(self, client: Client, id: str) -> Handle:
        return Handle(client, id)

    def initial(self) -> _Fold:
        return _Fold()

    def apply(self, state: _Fold, record: r.Record, ordinal: int) -> None:
        if isinstance(record, r.StateChanged):
            state.fields.update((name, raw.copy()) for name, raw in record.changes.items())

    def dump(self, state: _Fold) -> bytes:
        return msgspec.json.encode(state.fields)

    def load(self, data: bytes) -> _Fold:
        fold = _Fold()
        fold.fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return fold

    projection = 0

    def project(self, state: Any, records: Sequence[r.Record]) -> bytes:
        return b""

    def progress(self, record: r.Record) -> str | None:
        return None

    def refusal(self, state: Any, records: Sequence[r.Record]) -> str | None:
        return None

    def blocked(self, fiber: FiberState) -> r.ErrorInfo | None:
        method = self._methods.get(fiber.method)
        if method is None:
            known = ", ".join(sorted(self._methods)) or "none"
            text = f"'{self.kind}' has no fiber method '{fiber.method}' (it has: {known}); add it again, or abort the fiber"
            return r.ErrorInfo(kind="unknown_method", message=text)
        try:
            inspect.signature(method).bind(None, None, *_arguments(fiber))
        except TypeError as error:
            text = f"the recorded arguments of '{self.kind}.{fiber.method}' do not fit it now: {error}; accept them again"
            return r.ErrorInfo(kind="signature_mismatch", message=text)
        return None

    async def run(self, fiber: Fiber) -> None:
        method = getattr(self.cls(fiber.instance), fiber.state.method)
        arguments = _arguments(fiber.state)
        await run_method(fiber, lambda: fiber.instance.threads.call_any(partial(method, fiber, *arguments)))


def _arguments(fiber: FiberState) -> list[Any]:
    return msgspec.json.decode(fiber.arguments, type=list[Any] | None) or []


def _is_fiber_method(method: object) -> bool:
    """A function whose first parameter after `self` is annotated as a Fiber."""
    if not inspect.isfunction(method):
        return False
    parameters = list(inspect.signature(method).parameters.values())[1:2]
    return bool(parameters) and parameters[0].annotation in (Fiber, "Fiber")


class Handle:
    """One object, from outside: any process may hold one."""

    def __init__(self, client: Client, id: str) -> None:
        self.client = client
        self.id = id

    async def start(self, method: str | Callable[..., Any], *arguments: Any, key: str | None = None) -> Receipt:
        """The method will be called with these arguments until it settles. *Durable* (S1); *idempotent* by `key` (S6)."""
        name = method if isinstance(method, str) else method.__name__
        return await self.client.accept(self.id, name, list(arguments), key=key)

    async def result(self, receipt: Receipt, type: Any = Any) -> Any:
        """What it returned. *Raises* FiberFailed."""
        return await self.client.result(receipt, type)

    async def abort(self, receipt: Receipt, reason: str = "") -> None:
        await self.client.abort(self.id, receipt.fiber, reason=reason)
