"""A durable object: a class whose instances live in the log.

    class Counter(DurableObject[Count]):
        @callable
        async def increment(self, by: int = 1) -> int:
            self.state.value += by
            return self.state.value

        async def count_to(self, fiber: Fiber, to: int) -> int: ...

A handler (a `@callable`, `on_request`, `on_message`, …) runs alone among handlers, and what it changed is committed when it
returns. An `async` method whose first parameter is a `Fiber` is a fiber method: it runs beside them, survives its process, and
changes state inside `async with self.transaction()`.

Laws. The Python object is made at each activation and keeps nothing that lasts: its state is the fold of its log.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from cairn.errors import UsageError
from cairn.runtime import records as r
from cairn.runtime.chain import chain, handling, refuse_reentry
from cairn.runtime.client import Receipt
from cairn.runtime.connections import Connection, payload
from cairn.runtime.draft import Draft, draft_of, drafting
from cairn.runtime.fiber import Fiber, Verdict, client_of
from cairn.runtime.handlers import Leaving
from cairn.runtime.instance import Instance
from cairn.runtime.key_values import Storage
from cairn.runtime.method import Interrupted
from cairn.runtime.naming import check_id
from cairn.runtime.object_handle import method_name
from cairn.runtime.request import Request, Response
from cairn.runtime.schedule import Timing
from cairn.runtime.storage.store import Durability
from cairn.runtime.stub import Stub
from cairn.runtime.sub_objects import SubObject, parent_of, sub_id

if TYPE_CHECKING:
    from cairn.runtime.activation import Activation
    from cairn.runtime.objects import Objects
    from cairn.runtime.workspace import Workspace

State = TypeVar("State")
T = TypeVar("T")


class DurableObject(Generic[State]):
    """Subclass it with the type of its state: `class Counter(DurableObject[Count])`."""

    kind: ClassVar[str] = ""
    """What its instances are called in the store; the class's name in kebab-case when empty. A durable name."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.storage = Storage(instance, lambda: draft_of(instance))
        """Its key-value storage."""

    @property
    def id(self) -> str:
        return self._instance.address.id

    # --- what a subclass may have

    async def on_start(self) -> None:
        """Once per activation, before the first handler or fiber. A handler like any other."""

    async def on_request(self, request: Request) -> Response:
        """An HTTP request to the object."""
        return Response.text(f"{self._instance.address} answers no requests", 404)

    async def on_connect(self, connection: Connection, request: Request) -> None:
        """A client connects. When it raises, it is not connected."""

    async def on_message(self, connection: Connection, message: str | bytes) -> None:
        """A frame of a client that is none of the protocol's."""

    async def on_close(self, connection: Connection, code: int, reason: str) -> None:
        """The connection is over. 1006: it broke off, or its process died."""

    def validate_state(self, state: State, source: str) -> None:
        """Raise, and the state is not changed: for the server's code an error, for a client "State update rejected"."""

    async def on_state_changed(self, state: State, source: str) -> None:
        """The state was changed, by a client (`source` is its connection) or by the server; at least once for each commit. What
        it changes itself does not call it again."""

    def readonly(self, connection: Connection, request: Request) -> bool:
        """Whether the client may not set the state."""
        return False

    def protocol(self, connection: Connection, request: Request) -> bool:
        """Whether the client is told of the state."""
        return True

    def tags(self, connection: Connection, request: Request) -> Sequence[str]:
        """What `self.connections_tagged` finds the connection by."""
        return ()

    def opens(self, kind: str, name: str, request: Request) -> bool:
        """Whether a URL may lead from here to that sub-object, which is made if it is not there. By default to those that are.
        A handler; it is asked for each request and each connection, and only if it is overridden."""
        return any((sub.kind, sub.name) == (kind, name) for sub in self.sub_objects())

    async def on_fiber_recovered(self, fiber: Fiber) -> Verdict | None:
        """Called first when a fiber was under way as its process ended, with a deadline and beside everything else.

        None: its method is called again, with `fiber.snapshot` and `fiber.interrupted`. A Verdict: it settles so, and is
        not called. What this raises ends the fiber as if its method had raised it. Override it to look at the world first.
        """
        return None

    # --- state

    @property
    def state(self) -> State:
        """In a handler: its draft of the state, committed when it returns. Elsewhere a copy of what is committed; changing that
        changes nothing. *Raises* StoreCorrupt when a stored field does not fit its type any more."""
        draft = draft_of(self._instance)
        if draft is not None:
            return cast(State, draft.state)
        return cast(State, self._activation.application.shape.load(self._instance.state.fields))

    @state.setter
    def state(self, value: State) -> None:
        self._demand_draft("state").replace(value)

    async def commit(self) -> None:
        """What the handler has changed so far is committed, and its frames have left. *Durable*. If it raises later, only what
        came after is dropped."""
        await self._activation.commit(self._demand_draft("commit"))

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[State]:
        """For fibers: the handlers' turn, and a draft of the state; what differs at the end is committed together.

        *Durable* when the block is left. If it raises, nothing is committed. Called again after an interruption, the
        block runs again: use `change` for what must happen once. *Raises* ReentrantCall.
        """
        async with self._turn() as draft:
            with handling(self._instance.address, chain()), drafting(draft):
                yield cast(State, draft.state)
            await self._activation.commit(draft)

    async def change(self, fiber: Fiber, name: str, change: Callable[[State], T]) -> T:
        """Change the state once: a step of the fiber whose result and whose changes are one commit.

        *Durable* and *idempotent* by (fiber, name): when the step is known, the record answers and nothing changes.
        """
        async with self._turn() as draft:

            async def apply() -> T:
                return change(cast(State, draft.state))

            return await fiber.step(name, apply, also=lambda: self._activation.staged(draft))

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[Draft]:
        if draft_of(self._instance) is not None:
            raise UsageError("a handler has the turn already: change self.state, it is committed when the handler returns")
        refuse_reentry(self._instance.address)
        try:
            async with self._instance.handlers.turn():
                yield Draft(self._instance, self._activation.application.shape)
        except Leaving:
            raise Interrupted from None

    # --- connections

    @property
    def connections(self) -> list[Connection]:
        """The clients that are connected, in whatever process their sockets are. Inside a handler they can be sent to."""
        draft = draft_of(self._instance)
        if draft is None:
            draft = Draft(self._instance, self._activation.application.shape)
            draft.close()
        return draft.connections()

    def connections_tagged(self, tag: str) -> list[Connection]:
        """Those that have the tag."""
        return [connection for connection in self.connections if tag in connection.tags]

    def broadcast(self, data: str | bytes, without: Sequence[str] = ()) -> None:
        """The frame leaves for every client, but those whose ids are in `without`, when the handler has committed."""
        self._demand_draft("broadcast").send(r.ObjectSent(**payload(data), without=tuple(without)))

    async def emit(self, data: str | bytes, *, to: Sequence[str] | None = None, without: Sequence[str] = ()) -> None:
        """For fibers: the frame leaves now, without the handlers' turn, in the order of the log; for all clients, or those
        whose ids are in `to`. It survives the process, and is gone with the machine like the sockets."""
        sent = r.ObjectSent(**payload(data), to=tuple(to) if to is not None else None, without=tuple(without))
        await self._instance.append([sent], durability=Durability.DELTA)

    # --- fibers, schedules, files

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
        name = self._activation.application.demand_method(method_name(method))
        client, id = client_of(self._instance), self.id
        return await client.accept(id, name, list(arguments), key=key, timeout_seconds=timeout, retry=retry)

    async def run_fiber(
        self, method: str | Callable[..., Any], *arguments: Any, key: str | None = None, type: Any = Any
    ) -> Any:
        """What the fiber method returned, wherever it ended. *Cancelled*: the fiber goes on. *Raises* FiberFailed."""
        receipt = await self.start_fiber(method, *arguments, key=key)
        return await client_of(self._instance).result(receipt, type)

    async def schedule(
        self, timing: Timing, method: str | Callable[..., Any], *arguments: Any, key: str = "", timeout: float | None = None
    ) -> str:
        """The method, a fiber method or a plain one that is then a handler, will be called at these times; the schedule's name,
        which is `key` if there is one. As `Client.schedule`: durable, idempotent by `key`, one call for each occurrence."""
        name = self._activation.application.demand_method(method_name(method), scheduled=True)
        client = client_of(self._instance)
        return await client.schedule(self.id, timing, name, list(arguments), key=key, timeout_seconds=timeout)

    async def cancel(self, target: str) -> None:
        """The schedule of that name is no more, or the fiber of that id is to be aborted. *Durable*."""
        await client_of(self._instance).cancel(self.id, target)

    @property
    def workspace(self) -> Workspace:
        """Its files."""
        from cairn.runtime.workspace import Workspace

        return Workspace.of(self._instance)

    # --- other objects

    def stub(self, cls_or_kind: Any, id: str) -> Stub:
        """Another object of the same tenant, to call."""
        return self._objects.of(cls_or_kind, id, tenant=self._instance.address.tenant)

    def sub_object(self, cls_or_kind: Any, name: str) -> Stub:
        """An object that belongs to this one: its own log, its own alarms, destroyed with it. It is made at the first call."""
        from cairn.runtime.destroying import birth, remove_sub
        from cairn.runtime.objects import kind_of

        check_id(name)
        kind, address, instance = kind_of(cls_or_kind), self._instance.address, self._instance
        return Stub(
            self._objects,
            kind,
            sub_id(address.kind, address.id, name),
            tenant=address.tenant,
            born=lambda: birth(instance, kind, name),
            end=lambda: remove_sub(instance, kind, name),
        )

    def sub_objects(self) -> list[SubObject]:
        """Those that belong to this one, in the order they came."""
        return [sub for sub in self._instance.runtime.subs.values() if not sub.leaving]

    @property
    def parent(self) -> Stub | None:
        """The object this one belongs to; None when it stands by itself."""
        parent = parent_of(self.id)
        return self.stub(parent.kind, parent.id) if parent is not None else None

    async def destroy(self) -> None:
        """The object and its sub-objects are to be no more. In a handler: with its commit, after its reply. In a fiber: at
        once, and the fiber does not go on. *Durable*: it comes to its end, whatever process dies."""
        draft = draft_of(self._instance)
        if draft is not None:
            draft.demand_writable()
            draft.destroys = True
            return
        from cairn.runtime.destroying import ask

        await ask(self._instance.store, self._instance.n, self._instance.clock.wall())

    # --- what it stands on

    @property
    def _activation(self) -> Activation:
        activation: Activation = self._instance.activation
        return activation

    @property
    def _objects(self) -> Objects:
        if self._instance.objects is None:
            raise UsageError(f"{self._instance.address} is not run by a worker; there are no other objects here")
        objects: Objects = self._instance.objects()
        return objects

    def _demand_draft(self, what: str) -> Draft:
        draft = draft_of(self._instance)
        if draft is None:
            raise UsageError(
                f"'{what}' of {self._instance.address} is for handlers; in a fiber: `async with self.transaction():`"
                + (", or `await self.emit(…)`" if what == "broadcast" else "")
            )
        return draft


def class_kind(cls: type[DurableObject[Any]]) -> str:
    """Its kind: what it says, or its name in kebab-case as the clients on npm make it."""
    if cls.kind:
        return cls.kind
    name = cls.__name__
    if name == name.upper():
        return name.lower().replace("_", "-")
    return re.sub(r"[A-Z]", lambda letter: f"-{letter[0].lower()}", name).lstrip("-").replace("_", "-").removesuffix("-")


def is_fiber_method(method: object) -> bool:
    """A function whose first parameter after `self` is annotated as a Fiber."""
    if not inspect.isfunction(method):
        return False
    parameters = list(inspect.signature(method).parameters.values())[1:2]
    return bool(parameters) and parameters[0].annotation in (Fiber, "Fiber")
