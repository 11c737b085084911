"""The way to objects, wherever they run: one `Objects` in each process.

    objects = Objects(store, worker, {"counter": ObjectApplication(Counter)}, clock=clock, ids=ids)
    await objects.of(Counter, "visits").increment(2)

Laws. The object runs here when this process's worker owns it, or may at once: then a call is its handler, and no record. When
another live process owns it, the call is a request in its log, and the answer is read from there. Nobody is asked directly, so
there are no sticky sessions, and the caller cannot tell the difference but by the time it takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.clock import Clock
from cairn.errors import NotCallable, NotFound, ObjectGone, UnknownMethod, UsageError
from cairn.ids import Ids
from cairn.runtime import records as r
from cairn.runtime.application import Application
from cairn.runtime.attachment import Attachment
from cairn.runtime.chain import chain, refuse_reentry
from cairn.runtime.connections import Connection
from cairn.runtime.following import Following
from cairn.runtime.forwarding import forward
from cairn.runtime.handlers import Leaving
from cairn.runtime.handling import Emit, Handling, Invocation, Shown
from cairn.runtime.request import Request, Response
from cairn.runtime.settings import CALL_SECONDS, HANDLER_SECONDS, STREAM_CHUNKS_MAX
from cairn.runtime.storage.store import Address, Append, Batch, Creation, InstanceRow, Store
from cairn.runtime.stub import Stub
from cairn.runtime.sub_objects import checked_id, parent_of, sub_id

if TYPE_CHECKING:
    from cairn.runtime.worker import Worker

logger = logging.getLogger("cairn.runtime")


class Objects:
    """What a process calls objects through. `worker` may be None: then every call goes through the log."""

    def __init__(
        self,
        store: Store,
        worker: Worker | None,
        applications: Mapping[str, Application],
        *,
        clock: Clock,
        ids: Ids,
        tenant: str = "default",
    ) -> None:
        self.store = store
        self.worker = worker
        self.applications = applications
        self.clock = clock
        self.ids = ids
        self.tenant = tenant
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: dict[Address, Following] = {}
        if worker is not None:
            worker.objects = self

    def of(self, cls_or_kind: Any, id: str, *, tenant: str | None = None) -> Stub:
        """The object of that class, or kind, and id, to call. Nothing happens before the first call."""
        return Stub(self, kind_of(cls_or_kind), checked_id(id), tenant=tenant)

    # --- calling

    async def call(
        self,
        kind: str,
        id: str,
        method: str,
        arguments: Sequence[Any],
        *,
        by: str = "",
        connection: str | None = None,
        key: str | None = None,
        timeout: float | None = None,
        tenant: str | None = None,
    ) -> msgspec.Raw:
        """What the callable method returned, as JSON; what it changed is committed. The object is made if there is none.

        *Idempotent* by `key`: then the call is in the log, and the same key has the same answer. *Raises* UnknownMethod,
        NotCallable, ReentrantCall, RemoteError (what the method raised), TimeoutError (nothing of it is committed, or its
        commit was on its way), CallInterrupted, ObjectGone.
        """
        call = r.Call(what="call", by=by, connection=connection or "", chain=chain())
        invocation = Invocation(call, method, _encoded(arguments))
        return await self.perform(self.address(kind, id, tenant), invocation, key=key, timeout=timeout)

    async def stream(
        self,
        kind: str,
        id: str,
        method: str,
        arguments: Sequence[Any],
        *,
        by: str = "",
        connection: str | None = None,
        key: str | None = None,
        timeout: float | None = None,
        tenant: str | None = None,
    ) -> AsyncGenerator[msgspec.Raw]:
        """What the streaming method yields, as it does; what it had changed is committed before. `timeout` is for all of it.

        *Cancelled*: the method is. *Raises* as `call`; CallInterrupted too when its process died after the first chunk.
        """
        call = r.Call(what="stream", by=by, connection=connection or "", chain=chain())
        invocation = Invocation(call, method, _encoded(arguments))
        address = self.address(kind, id, tenant)
        chunks: asyncio.Queue[msgspec.Raw] = asyncio.Queue(STREAM_CHUNKS_MAX)
        work = asyncio.ensure_future(self.perform(address, invocation, key=key, timeout=timeout, emit=chunks.put))
        try:
            while not (work.done() and chunks.empty()):
                taking = asyncio.ensure_future(chunks.get())
                await asyncio.wait({work, taking}, return_when=asyncio.FIRST_COMPLETED)
                if taking.done():
                    yield taking.result()
                else:
                    taking.cancel()
            work.result()
        finally:
            work.cancel()
            await asyncio.wait({work})
            _ = work.cancelled() or work.exception()  # looked at: who left in the middle does not want to know

    async def request(self, kind: str, id: str, request: Request, *, tenant: str | None = None) -> Response:
        """What `on_request` answers. *Raises* as `call`."""
        call = r.Call(what="request", by=request.by, chain=chain())
        invocation = Invocation(call, "on_request", _encoded(request))
        return msgspec.json.decode(await self.perform(self.address(kind, id, tenant), invocation), type=Response)

    async def opens(self, kind: str, id: str, sub_kind: str, name: str, request: Request, *, tenant: str | None = None) -> bool:
        """Whether a URL may lead from the object to that sub-object of its, which is there then. *Raises* as `call`."""
        address = self.address(kind, id, tenant)
        if not self._asks(kind):
            return await self.store.find(self.address(sub_kind, sub_id(kind, id, name), tenant)) is not None
        call = r.Call(what="open", by=request.by, chain=chain())
        return bool(
            msgspec.json.decode(await self.perform(address, Invocation(call, "opens", _encoded([sub_kind, name, request]))))
        )

    def _asks(self, kind: str) -> bool:
        """Whether the class says itself which of its sub-objects a URL may lead to."""
        from cairn.runtime.durable import DurableObject

        cls = getattr(self._application(kind), "cls", None)
        return cls is not None and cls.opens is not DurableObject.opens

    def streams(self, kind: str, method: str) -> bool:
        """Whether the callable method is a stream. *Raises* UnknownMethod, NotCallable."""
        return self._handling(kind, method).streams(method)

    async def destroy(self, kind: str, id: str, *, tenant: str | None = None) -> None:
        """The object and its sub-objects are gone. *Durable*: once it is asked for, it comes to its end without the caller.
        *Idempotent*: nothing happens when there is none."""
        row = await self.store.find(self.address(kind, id, tenant))
        if row is None:
            return
        from cairn.runtime.destroying import ask, until_gone

        await ask(self.store, row.n, self.clock.wall())
        await until_gone(self.store, row.n)

    # --- clients that stay

    async def connect(
        self, kind: str, id: str, connection: Connection, request: Request, *, tenant: str | None = None
    ) -> Attachment:
        """The client is connected: `on_connect` has ended, and what is sent to it from then on is in `frames`.

        *Raises* RemoteError, Refused: `on_connect` raised, it is not connected. NotFound: nobody here knows the kind.
        """
        address = self.address(kind, id, tenant)
        application = self._application(kind)
        registered = isinstance(application, Handling)
        if registered:
            await self._row(address)
        connection.token = self.ids.new("con")
        connection.worker = self.worker.id if self.worker is not None else ""
        attachment = Attachment(self, address, connection, registered=registered)
        following = await self._follow(address, application)
        following.add(attachment)
        try:
            if registered:
                opening = r.ConnectionOpened(
                    connection=connection.id,
                    token=connection.token,
                    worker=connection.worker,
                    at=self.clock.wall(),
                    uri=connection.uri,
                    tags=connection.tags,
                    state=connection.raw_state,
                    readonly=connection.readonly,
                    protocol=connection.protocol,
                    by=connection.by,
                )
                await self.invoke_for(attachment, "connect", msgspec.json.encode([opening, request]))
                await attachment.opened.wait()
        except BaseException:
            self.detach(attachment)
            if registered:  # it may have been opened: a commit of its own, a cancellation that came too late
                self._beside(self.invoke_for(attachment, "close", msgspec.json.encode([1006, "it was not accepted"])))
            raise
        return attachment

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it without the caller, until `close`; what it raises is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._is_done)

    def _is_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a connection that was not accepted could not be closed: %s", error)

    async def invoke_for(self, attachment: Attachment, what: r.CallWhat, arguments: bytes) -> None:
        """A handler of the attachment's object, called for its connection."""
        connection = attachment.connection
        if not isinstance(self._application(attachment.address.kind), Handling):
            raise NotCallable(f"{attachment.address.kind} takes no messages of its own")
        call = r.Call(what=what, by=connection.by, connection=connection.id, token=connection.token, worker=connection.worker)
        await self.perform(attachment.address, Invocation(call, f"on_{what}", msgspec.Raw(arguments)))

    def detach(self, attachment: Attachment) -> bool:
        """Nothing is put into the attachment any more; False when nothing was."""
        following = self._following.get(attachment.address)
        return following is not None and following.remove(attachment)

    async def caught_up(self, address: Address) -> None:
        """The sockets of this process have been handed what the object's log said at the call."""
        following = self._following.get(address)
        if following is not None:
            await following.caught_up()

    def deliver(self, address: Address, after: int, sent: Sequence[r.ObjectSent]) -> bool:
        """Hand frames without a record to the sockets they are for, behind the row `after`; False: not all of them are here."""
        following = self._following.get(address)
        return following is not None and following.deliver(after, sent)

    async def close(self) -> None:
        """Nothing is followed any more; what is attached gets no more frames. *Idempotent*."""
        following, self._following = list(self._following.values()), {}
        for each in following:
            await each.close()
        for task in (tasks := set(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, address: Address, application: Application) -> Following:
        following = self._following.get(address)
        if following is None:
            following = self._following[address] = Following(self.store, self.clock, application, address, self._forget)
        await following.ready()
        return following

    def _forget(self, address: Address) -> None:
        self._following.pop(address, None)

    # --- the way there

    def address(self, kind: str, id: str, tenant: str | None = None) -> Address:
        return Address(kind, id, tenant if tenant is not None else self.tenant)

    async def perform(
        self,
        address: Address,
        invocation: Invocation,
        *,
        key: str | None = None,
        timeout: float | None = None,
        emit: Emit | None = None,
        born: Callable[[], Awaitable[None]] | None = None,
    ) -> msgspec.Raw:
        """One call, however it gets there. `born` is awaited before the object is made."""
        refuse_reentry(address)
        patience = CALL_SECONDS
        if invocation.call.what in ("call", "stream"):
            self._refuse(address.kind, invocation)
            # A method that says it may take longer is waited for as much longer.
            patience += max(0.0, self._handling(address.kind, invocation.method).seconds(invocation.method) - HANDLER_SECONDS)
        limit = timeout if timeout is not None else patience
        try:
            async with asyncio.timeout(limit):
                return await self._perform(address, invocation, key, emit, born)
        except TimeoutError as error:
            if error.args:
                raise
            served = any(address.kind in worker.kinds for worker in await self.store.workers())
            why = "" if served else f"; no worker serves the kind '{address.kind}'"
            raise TimeoutError(f"{address} did not answer '{invocation.method}' within {limit:g} s{why}") from None

    async def _perform(
        self,
        address: Address,
        invocation: Invocation,
        key: str | None,
        emit: Emit | None,
        born: Callable[[], Awaitable[None]] | None,
    ) -> msgspec.Raw:
        self._handling(address.kind, invocation.method)
        while True:
            worker = self.worker if key is None else None
            runner = worker.present(address) if worker is not None else None
            row = await self._row(address, born) if runner is None else None
            if worker is not None and row is not None:
                runner = await worker.reach(row, nested=bool(invocation.call.chain))
            try:
                if runner is not None:
                    # By the code it was activated with: what was exchanged since serves it from its next activation on.
                    serving = runner.instance.application
                    assert isinstance(serving, Handling)
                    return await serving.invoke(runner.instance, invocation, emit)
                assert row is not None
                return await forward(self, row, invocation, key=key, emit=emit)
            except Leaving:
                continue
            except NotFound as error:
                if isinstance(error, ObjectGone):
                    raise
                raise ObjectGone(f"{address} was destroyed while '{invocation.method}' was called") from None

    def _refuse(self, kind: str, invocation: Invocation) -> None:
        """What can be said at once, without waking anybody. *Raises* UnknownMethod, NotCallable."""
        method = invocation.method
        if self.streams(kind, method) and invocation.call.what == "call":
            raise NotCallable(f"Method {method} is a stream: iterate over it")
        if not self.streams(kind, method) and invocation.call.what == "stream":
            raise NotCallable(f"Method {method} is no stream: await it")

    def _application(self, kind: str) -> Application:
        application = self.applications.get(kind)
        if application is None:
            known = ", ".join(sorted(self.applications)) or "none"
            raise NotFound(f"this process knows no objects of kind '{kind}'; it knows: {known}")
        return application

    def _handling(self, kind: str, method: str) -> Handling:
        application = self._application(kind)
        if not isinstance(application, Handling):
            raise UnknownMethod(f"Method {method} does not exist")
        return application

    async def _row(self, address: Address, born: Callable[[], Awaitable[None]] | None = None) -> InstanceRow:
        """The object's row; it is made if there is none. A sub-object is made by its parent alone. Raises NotFound."""
        if (row := await self.store.find(address)) is not None:
            return row
        parent = parent_of(address.id)
        if born is not None:
            await born()
        elif parent is not None and isinstance(self.applications.get(parent.kind), Handling):
            raise NotFound(f"{parent.kind}/{parent.id} has no sub-object {address.kind} '{parent.name}'")
        await self._make(address)
        row = await self.store.find(address)
        if row is None:
            raise ObjectGone(f"{address} was destroyed as it was made")
        return row

    async def _make(self, address: Address) -> None:
        now, application = self.clock.wall(), self._application(address.kind)
        uid = self.ids.new("inst")

        def batch(record: r.Record) -> Batch:
            return Batch(r.encode([record]), application.project(None, [record]), application.projection)

        created = r.InstanceCreated(kind=address.kind, id=address.id, uid=uid, at=now)
        creation = Creation(uid, self.ids.new("inc"), batch(created), now)
        await self.store.admit(address, creation, Append(0, batch(r.ObjectReached(at=now))))

    async def made(self, address: Address, born: Callable[[], Awaitable[None]]) -> None:
        """The object is there; `born` was awaited before it was made."""
        await self._row(address, born)

    def shown(self, kind: str, state: Any) -> msgspec.Raw | None:
        application = self._application(kind)
        return application.shown(state) if isinstance(application, Shown) else None


def kind_of(cls_or_kind: Any) -> str:
    """The kind a class of objects has."""
    if isinstance(cls_or_kind, str):
        return cls_or_kind
    from cairn.runtime.durable import DurableObject, class_kind

    if isinstance(cls_or_kind, type) and issubclass(cls_or_kind, DurableObject):
        return class_kind(cls_or_kind)
    raise UsageError(f"{cls_or_kind!r} is no class of durable objects and no kind")


def _encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
