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
from cairn.runtime.client import Client, FiberStatus, Question, Receipt
from cairn.runtime.fiber import Fiber, Verdict, client_of
from cairn.runtime.instance import Instance
from cairn.runtime.method import run_method
from cairn.runtime.schedule import Timing
from cairn.runtime.schedule_state import ScheduleState
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

    # --- fibers of this object

    async def start_fiber(
        self,
        method: str | Callable[..., Any],
        *arguments: Any,
        key: str | None = None,
        timeout: float | None = None,
        retry: r.Retry | None = None,
    ) -> Receipt:
        """The fiber method will be called with these until it settles. *Durable* (S1); returns at once. *Idempotent* by `key`:
        whoever may be called again gives one (S6). Inside a fiber, `fiber.start` makes the key."""
        name = _method_name(method)
        client, id = client_of(self._instance), self.id
        return await client.accept(id, name, list(arguments), key=key, timeout_seconds=timeout, retry=retry)

    async def run_fiber(
        self, method: str | Callable[..., Any], *arguments: Any, key: str | None = None, type: Any = Any
    ) -> Any:
        """What the fiber method returned, wherever it ended. *Cancelled*: the fiber goes on. *Raises* FiberFailed."""
        receipt = await self.start_fiber(method, *arguments, key=key)
        return await client_of(self._instance).result(receipt, type)

    async def on_fiber_recovered(self, fiber: Fiber) -> Verdict | None:
        """Called first when a fiber was under way as its process ended, with a deadline and beside everything else.

        None: its method is called again, with `fiber.snapshot` and `fiber.interrupted`. A Verdict: it settles so, and is
        not called. What this raises ends the fiber as if its method had raised it. Override it to look at the world first.
        """
        return None

    async def schedule(
        self, timing: Timing, method: str | Callable[..., Any], *arguments: Any, key: str = "", timeout: float | None = None
    ) -> str:
        """The fiber method will be called at these times; the schedule's name, which is `key` if there is one. As
        `Client.schedule`: durable, idempotent by `key`, one fiber for each occurrence."""
        name, client = _method_name(method), client_of(self._instance)
        return await client.schedule(self.id, timing, name, list(arguments), key=key, timeout_seconds=timeout)

    async def cancel(self, target: str) -> None:
        """The schedule of that name is no more, or the fiber of that id is to be aborted. *Durable*."""
        await client_of(self._instance).cancel(self.id, target)

    # --- state

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

    def declares(self, schedule: str) -> bool:
        return False

    def refusal(self, state: Any, records: Sequence[r.Record]) -> str | None:
        return None

    async def tidy(self, instance: Instance) -> None:
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
        object, threads = self.cls(fiber.instance), fiber.instance.threads
        call = partial(getattr(object, fiber.state.method), fiber, *_arguments(fiber.state))
        recover = None
        if self.cls.on_fiber_recovered is not DurableObject.on_fiber_recovered:
            recover = partial(threads.call_any, partial(object.on_fiber_recovered, fiber))
        await run_method(fiber, lambda: threads.call_any(call), recover)


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

    async def start(
        self,
        method: str | Callable[..., Any],
        *arguments: Any,
        key: str | None = None,
        timeout: float | None = None,
        retry: r.Retry | None = None,
    ) -> Receipt:
        """The method will be called with these arguments until it settles. *Durable* (S1); *idempotent* by `key` (S6)."""
        name = _method_name(method)
        return await self.client.accept(self.id, name, list(arguments), key=key, timeout_seconds=timeout, retry=retry)

    async def result(self, receipt: Receipt, type: Any = Any) -> Any:
        """What it returned. *Raises* FiberFailed."""
        return await self.client.result(receipt, type)

    async def abort(self, receipt: Receipt, reason: str = "") -> None:
        await self.client.abort(self.id, receipt.fiber, reason=reason)

    async def signal(self, name: str, payload: Any = None, *, fiber: str | None = None, key: str | None = None) -> None:
        """Whoever waits for the signal, now or later, takes it, once. *Durable*; *idempotent* by `key`. *Raises* NotFound."""
        await self.client.signal(self.id, name, payload, fiber=fiber, key=key)

    async def questions(self) -> list[Question]:
        """What its fibers ask and nobody has answered."""
        return await self.client.questions(self.id)

    async def answer(self, question: Question, answer: Any, *, by: str = "") -> None:
        """Answer what was read. *Durable*. *Raises* NotFound, Conflict: it is not asked any more, or somebody was faster."""
        await self.client.answer(self.id, question.fiber, question.name, question.digest, answer, by=by)

    async def schedule(
        self, timing: Timing, method: str | Callable[..., Any], *arguments: Any, key: str = "", timeout: float | None = None
    ) -> str:
        """The method will be called at these times; the schedule's name. See `Client.schedule`."""
        name = _method_name(method)
        return await self.client.schedule(self.id, timing, name, list(arguments), key=key, timeout_seconds=timeout)

    async def schedules(self) -> list[ScheduleState]:
        """What is scheduled, the next first."""
        return await self.client.schedules(self.id)

    async def fibers(self, *, status: FiberStatus | None = None, limit: int = 100) -> list[FiberState]:
        """Its fibers, oldest first: all, or those of one status; `dead` are those whose tries were spent."""
        return await self.client.fibers(self.id, status=status, limit=limit)

    async def inspect(self, fiber: str) -> FiberState | None:
        """How a fiber stands; None when it was never accepted, or is forgotten."""
        return await self.client.inspect(self.id, fiber)

    async def cancel(self, target: str) -> None:
        """The fiber of that id is to be aborted, the schedule of that name is no more. *Raises* NotFound."""
        await self.client.cancel(self.id, target)

    async def resolve(self, fiber: str, outcome: r.Outcome = "completed", **how: Any) -> None:
        """Give a fiber its outcome by hand; see `Client.resolve`."""
        await self.client.resolve(self.id, fiber, outcome, **how)

    async def delete(self, fiber: str) -> None:
        """The fiber's outcome is not remembered any more, or will not be once it has settled; its key stays used."""
        await self.client.forget(self.id, fiber)


def _method_name(method: str | Callable[..., Any]) -> str:
    return method if isinstance(method, str) else method.__name__
