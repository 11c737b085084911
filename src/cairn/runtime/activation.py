"""One object in memory: its Python object, and what becomes of a call of one of its handlers.

Laws. A handler's changes are one batch, with the settlement of its call if that came through the log; a handler that raises has
changed nothing. What it sends leaves after the batch (S10). The Python object is made anew at each activation, and `on_start`
has ended before the first handler begins.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import CairnError, Denied, Fenced, NotFound, ObjectGone, Refused, RemoteError, StoreError, UsageError
from cairn.runtime import records as r
from cairn.runtime.call_errors import told
from cairn.runtime.callables import Method
from cairn.runtime.chain import handling
from cairn.runtime.draft import Draft, drafting, only_frames
from cairn.runtime.handlers import Cut
from cairn.runtime.handling import Emit, Invocation
from cairn.runtime.instance import Instance, wake_now
from cairn.runtime.request import Request, Response
from cairn.runtime.settings import HANDLER_SECONDS
from cairn.runtime.storage.store import Durability

if TYPE_CHECKING:
    from cairn.runtime.object import ObjectApplication

logger = logging.getLogger("cairn.runtime")

#: Close codes: a client that came back as another socket, and one whose process is dead (RFC 6455: no close frame was seen).
REPLACED = 1012
LOST = 1006

#: Makes the records that go into the batch with what a handler changed: the settlement of its call.
Settle = Callable[[msgspec.Raw], Sequence[r.Record]]
Begin = Callable[[], Awaitable[None]]


class Activation:
    """Of one instance, for as long as it is in memory."""

    def __init__(self, application: ObjectApplication, instance: Instance) -> None:
        self.application = application
        self.instance = instance
        self.object = application.cls(instance)
        self._is_started = False

    # --- calls

    async def invoke(
        self,
        invocation: Invocation,
        emit: Emit | None = None,
        *,
        begin: Begin | None = None,
        settle: Settle | None = None,
        tell: Settle | None = None,
        seconds: float | None = None,
        private: bool = False,
    ) -> msgspec.Raw:
        """The handler has run in its turn and what it changed is committed; what it returned. See `Handling.invoke`.

        `begin` is awaited when it has the turn, before it runs; `settle` makes records for the batch of its changes, `tell`
        those of a chunk it yields. `private`: it is the object's own, and need not be callable.
        """
        call, method = invocation.call, self._method(invocation, private)
        read_only = method is not None and method.read_only
        if seconds is None:
            seconds = method.timeout if method is not None else HANDLER_SECONDS
        if read_only and not self._is_started:
            await self.begun()
        async with self.instance.handlers.turn(beside=read_only):
            await self.started()
            if read_only:
                await self.instance.caught_up()
            if begin is not None:
                await begin()
            if call.what == "connect":
                await self._replace(call)
            draft = Draft(self.instance, self.application.shape, call, read_only=read_only, source=_source(call))
            run = partial(self._run, draft, invocation, method, emit, tell)
            try:
                result = await self._limited(run, draft, call.chain, seconds, invocation.method)
                await self.commit(draft, settle(result) if settle is not None else ())
            except Fenced:
                text = f"{self.instance.address} was taken over by another process while '{invocation.method}' ran"
                raise Cut(f"{text}; nothing of it is committed") from None
            except UsageError as error:
                raise told(error) from error
            return result

    async def _limited(
        self, run: Callable[[], Awaitable[Any]], draft: Draft, chain: tuple[str, ...], seconds: float, what: str
    ) -> msgspec.Raw:
        async def work() -> msgspec.Raw:
            with handling(self.instance.address, chain), drafting(draft):
                try:
                    return _encoded(await run())
                except NotFound as error:
                    # What was not there is something the handler asked for. The object itself is: its handler runs.
                    raise RemoteError(str(error), type=type(error).__name__) from error

        try:
            return await self.instance.handlers.limited(work, seconds, what)
        except (CairnError, TimeoutError) as error:
            if draft.closing is None or isinstance(error, Cut | ObjectGone | Fenced | StoreError):
                raise
            failure: Exception = error
        except Exception as error:
            if draft.closing is None:
                raise told(error) from error
            failure = error
        finally:
            draft.close()
        # A connection that is over is over, whatever its handler thinks of it.
        draft.forget()
        logger.warning("on_close of %s failed: %s", self.instance.address, failure)
        return r.NULL

    async def _run(
        self,
        draft: Draft,
        invocation: Invocation,
        method: Method | None = None,
        emit: Emit | None = None,
        tell: Settle | None = None,
    ) -> Any:
        if method is not None:
            return await self._call(draft, invocation, method, emit, tell)
        match invocation.call.what:
            case "request":
                request = msgspec.json.decode(invocation.arguments, type=Request)
                answer = await self._user(self.object.on_request, request)
                if not isinstance(answer, Response):
                    raise UsageError(f"on_request returns a Response, not a {type(answer).__name__}")
                return answer
            case "connect":
                await self._connect(draft, invocation)
            case "message":
                sent = msgspec.json.decode(invocation.arguments, type=r.ObjectSent)
                data = sent.text if sent.text is not None else sent.binary
                await self._user(self.object.on_message, self._connection(draft), data)
            case "close":
                await self._close(draft, invocation)
            case "open":
                return await self._open(invocation)
            case "set_state":
                await self._set_state(draft, invocation)
            case "state_changed":
                state, source = msgspec.json.decode(invocation.arguments, type=tuple[msgspec.Raw, str])
                await self._user(self.object.on_state_changed, self.application.shape.read(bytes(state)), source)
        return None

    async def _call(self, draft: Draft, invocation: Invocation, method: Method, emit: Emit | None, tell: Settle | None) -> Any:
        arguments = method.arguments(invocation.arguments)
        bound = partial(method.function, self.object, *arguments)
        if not method.is_stream:
            return await self.instance.threads.call_any(bound)
        async for chunk in bound():
            raw = _encoded(chunk)
            # What a chunk tells of is committed before it leaves (S10).
            await self.commit(draft, tell(raw) if tell is not None else ())
            if emit is not None:
                await emit(raw)
        return None

    async def _user(self, hook: Callable[..., Any], *arguments: Any) -> Any:
        return await self.instance.threads.call_any(partial(hook, *arguments))

    def _method(self, invocation: Invocation, private: bool) -> Method | None:
        """The method of a call. *Raises* UnknownMethod, NotCallable."""
        if invocation.call.what not in ("call", "stream"):
            return None
        known = self.application.methods.get(invocation.method)
        return known if private and known is not None else self.application.methods.callable(invocation.method)

    # --- connections

    async def _replace(self, call: r.Call) -> None:
        """A client that came back before its old socket was known to be gone: that one is over first. *Raises* Refused: the
        id is another caller's."""
        known = self.instance.runtime.connections.get(call.connection)
        if known is not None and known.token != call.token:
            if known.by != call.by:
                # Frames are addressed by the id, which its client chose: nobody takes another one's.
                raise Refused(f"connection '{known.id}' of {self.instance.address} is somebody else's")
            await self._over(known.id, known.token, REPLACED, "replaced by a new connection")

    async def lost(self, dead: Sequence[tuple[str, str]]) -> None:
        """These connections (id, token) have lost their process."""
        for id, token in dead:
            async with self.instance.handlers.turn():
                await self.started()
                await self._over(id, token, LOST, "its process is dead")

    async def _over(self, id: str, token: str, code: int, reason: str) -> None:
        """With the turn: `on_close` has been called."""
        call = r.Call(what="close", connection=id, token=token)
        invocation = Invocation(call, "on_close", _encoded([code, reason]))
        draft = Draft(self.instance, self.application.shape, call)
        run = partial(self._run, draft, invocation)
        await self._limited(run, draft, (), HANDLER_SECONDS, "on_close")
        await self.commit(draft)

    async def _connect(self, draft: Draft, invocation: Invocation) -> None:
        opening, request = msgspec.json.decode(invocation.arguments, type=tuple[r.ConnectionOpened, Request])
        connection = draft.open(opening)
        connection.readonly = connection.readonly or bool(self.object.readonly(connection, request))
        connection.protocol = connection.protocol and bool(self.object.protocol(connection, request))
        connection.tags = self.application.tags(connection, self.object.tags(connection, request))
        await self._user(self.object.on_connect, connection, request)

    async def _close(self, draft: Draft, invocation: Invocation) -> None:
        assert draft.call is not None
        id, token = draft.call.connection, draft.call.token
        known = self.instance.runtime.connections.get(id)
        if known is None or known.token != token:
            return
        code, reason = msgspec.json.decode(invocation.arguments, type=tuple[int, str])
        now = self.instance.clock.wall()
        draft.closing = r.ConnectionClosed(connection=id, token=token, at=now, code=code, reason=reason)
        await self._user(self.object.on_close, draft.connection(known), code, reason)

    async def _open(self, invocation: Invocation) -> bool:
        kind, name, request = msgspec.json.decode(invocation.arguments, type=tuple[str, str, Request])
        if not await self._user(self.object.opens, kind, name, request):
            return False
        await self.object.sub_object(kind, name).exist()
        return True

    def _connection(self, draft: Draft) -> Any:
        """The connection a handler is called for. *Raises* Refused when it is over."""
        assert draft.call is not None
        known = self.instance.runtime.connections.get(draft.call.connection)
        if known is None or known.token != draft.call.token:
            raise Refused(f"connection '{draft.call.connection}' of {self.instance.address} is not open")
        return draft.connection(known)

    async def _set_state(self, draft: Draft, invocation: Invocation) -> None:
        if self._connection(draft).readonly:
            raise Denied("Connection is readonly")
        try:
            draft.replace(self.application.shape.read(bytes(invocation.arguments)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("State update rejected") from error

    # --- commits

    async def started(self) -> None:
        """With the turn: `on_start` has ended. *Raises* what it raised; the next call tries again."""
        if self._is_started:
            return
        if type(self.object).on_start is not self.application.base.on_start:
            draft = Draft(self.instance, self.application.shape)
            await self._limited(partial(self._user, self.object.on_start), draft, (), HANDLER_SECONDS, "on_start")
            await self.commit(draft)
        self._is_started = True

    async def begun(self) -> None:
        """For fibers: `on_start` has ended; waits for the turn if it has to begin."""
        if not self._is_started:
            async with self.instance.handlers.turn():
                await self.started()

    def staged(self, draft: Draft) -> Sequence[r.Record]:
        """What the draft comes to, for whoever commits it with records of its own."""
        records = draft.records(partial(self._validate, draft))
        return [*records, *self._news(draft, records)]

    async def commit(self, draft: Draft, also: Sequence[r.Record] = ()) -> None:
        """What is staged in the draft, and `also`, are one batch; frames have left. Nothing is appended for nothing.

        *Cancelled*: nothing is committed, or all of it is. *Raises* as `Draft.records`, and StoreError, Fenced."""
        records = [*self.staged(draft)]
        if not also and self._deliver(records):
            draft.committed()
            return
        records += also
        if not records:
            return
        durability = Durability.DELTA if only_frames(records) else Durability.FACT
        due = (wake_now(self.instance.clock.wall()),) if any(isinstance(each, _WAKING) for each in records) else ()
        await self.instance.append(records, durability=durability, due=due)
        draft.committed()

    def _validate(self, draft: Draft, state: Any, source: str) -> None:
        try:
            self.object.validate_state(state, source)
        except Exception as error:
            if draft.call is not None and draft.call.what == "set_state":
                raise Refused("State update rejected") from error
            raise RemoteError(str(error) or type(error).__name__, type=type(error).__name__) from error

    def _news(self, draft: Draft, records: Sequence[r.Record]) -> list[r.Record]:
        """The call of `on_state_changed` that a change of the state leads to; what that one changes leads to none."""
        hook = type(self.object).on_state_changed is not self.application.base.on_state_changed
        quiet = draft.call is not None and draft.call.what == "state_changed"
        if not hook or quiet or not any(isinstance(record, r.StateChanged) for record in records):
            return []
        state = msgspec.json.encode([msgspec.Raw(msgspec.json.encode(draft.state)), draft.source])
        return [
            r.FiberAccepted(
                fiber=self.instance.ids.new("call"),
                method="on_state_changed",
                at=self.instance.clock.wall(),
                arguments=msgspec.Raw(state),
                call=r.Call(what="state_changed"),
            )
        ]

    def _deliver(self, records: Sequence[r.Record]) -> bool:
        """Frames of a handler that changed nothing go straight to sockets of this process, if all of them are here."""
        sent = [record for record in records if isinstance(record, r.ObjectSent)]
        if not sent or len(sent) < len(records) or self.instance.objects is None:
            return False
        done: bool = self.instance.objects().deliver(self.instance.address, self.instance.head, sent)
        return done


#: Somebody has to own the object while these are open: work, clients, a destruction that was asked for.
_WAKING = (r.FiberAccepted, r.ConnectionOpened, r.DestroyRequested)


def _source(call: r.Call) -> str:
    return call.connection if call.what == "set_state" else "server"


def _encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
