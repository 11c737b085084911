"""One WebSocket: who opened it, what it may, and the two ways through it; until one of its ends closes it.

Laws. It passes the same gates as a request: host and origin, route, credential, grant, quota. An origin that is not allowed
never gets a socket; every other refusal is said in it, as the code it is closed with, because the published clients read
nothing else: 1008 for what stays wrong, so that they stop, 1011, 1012 and 1013 for what may be right the next time. One
message is written at a time, and nothing queues behind a client that takes none. A credential that was revoked ends it as it
ends a stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.framework.http import problems
from cairn.framework.http.auth import Grant, Identity
from cairn.framework.http.problems import Problem
from cairn.framework.http.responses import JSON, Message, Receive, Scope, Send, encoded
from cairn.runtime.storage.store import Address

if TYPE_CHECKING:
    from cairn.framework.http.request import Request
    from cairn.framework.http.service import Service

logger = logging.getLogger("cairn.http")

#: The method of a route that is opened as a WebSocket.
WEBSOCKET = "WEBSOCKET"

#: What a browser offers instead of a header it cannot set: `["cairn", "cairn.token.<token>"]`. The first is what it is given.
SUBPROTOCOL = "cairn"
TOKEN_SUBPROTOCOL = "cairn.token."
#: The query parameter that a token may be in, when the App allows it.
TOKEN_PARAMETER = "token"
#: The client's name for its connection, the same when it comes back.
CONNECTION_PARAMETER = "_pk"

NORMAL = 1000
POLICY = 1008
TOO_LARGE = 1009
FAILED = 1011
RESTART = 1012
TRY_LATER = 1013

#: Bytes of a reason; a control frame has 125, two of them for the code (RFC 6455, 5.5).
REASON_BYTES_MAX = 123
#: Seconds a client that is let go has to take the code that says why.
GOODBYE_SECONDS = 1.0

Frame = Mapping[str, Any] | str | bytes

_encode = msgspec.json.Encoder().encode


class Socket:
    """One WebSocket that was let in. Made by `opened`; nobody else closes it."""

    def __init__(self, service: Service, request: Request, receive: Receive, send: Send, id: str) -> None:
        self.service = service
        self.request = request
        self.id = id
        """What the client calls its connection, the same when it comes back."""
        self._receive = receive
        self._send = send
        self._turn = asyncio.Lock()
        self._end: tuple[int, str] | None = None
        self._is_gone = False
        self._ended = asyncio.get_running_loop().create_future()
        self._arriving: asyncio.Future[Message] | None = None

    @property
    def kind(self) -> str:
        return self.request.kind

    @property
    def name(self) -> str:
        """The id of the instance, decoded."""
        return self.request.conversation

    @property
    def identity(self) -> Identity:
        return self.request.identity

    @property
    def query(self) -> list[tuple[str, str]]:
        return self.request.query

    def may(self, grant: Grant) -> bool:
        """Whether its caller may do that here."""
        return self.identity.may(grant, self.kind, self.name)

    @property
    def end(self) -> tuple[int, str] | None:
        """Code and reason, once it is over."""
        return self._end

    async def accept(self) -> None:
        """The handshake is answered, if the client is still there."""
        scope, id = self.request.scope, self.request.id
        headers = encoded({"x-request-id": id})
        try:
            await self._send({"type": "websocket.accept", "subprotocol": chosen(scope), "headers": headers})
        except OSError:
            self._gone(1006)

    async def send(self, frame: Frame) -> None:
        """The frame is on its way, after those before it; a mapping goes as JSON. Waits for a slow client, and closes a stuck
        one with 1013. Nothing happens once it is over."""
        data = frame if isinstance(frame, str | bytes) else _encode(frame).decode()
        message = {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}
        async with self._turn:
            if self._end is not None:
                return
            try:
                async with asyncio.timeout(self.service.limits.socket_stall_seconds):
                    await self._send(message)
            except TimeoutError:
                self.finish(TRY_LATER, "the client takes nothing")
            except OSError:
                self._gone(1006)

    async def receive(self) -> str | bytes | None:
        """The next message; None when it is over, whoever closed it."""
        while self._end is None:
            if self._arriving is None:
                self._arriving = asyncio.ensure_future(self._receive())
            await asyncio.wait((self._arriving, self._ended), return_when=asyncio.FIRST_COMPLETED)
            if not self._arriving.done():
                continue
            message, self._arriving = self._arriving.result(), None
            if message["type"] == "websocket.disconnect":
                self._gone(message.get("code") or 1005, message.get("reason") or "")
            elif self._end is None:
                text = message.get("text")
                found: str | bytes | None = text if text is not None else message.get("bytes")
                if found is not None:
                    await self._slow_down()
                    return found
        return None

    async def _slow_down(self) -> None:
        """Who says more than a caller may ask for is listened to more slowly."""
        while wait := self.service.quota.wait(self.identity, self.request.peer):
            await self.service.app.clock.sleep(wait)

    async def close(self, code: int, reason: str) -> None:
        """It is over; the client is told by `opened`. *Idempotent*: the first code counts."""
        self.finish(code, reason)

    def finish(self, code: int, reason: str) -> None:
        """As `close`, from where nothing can be awaited."""
        if self._end is None:
            self._end = (code, reason)
            self._ended.set_result(None)

    def _gone(self, code: int, reason: str = "") -> None:
        self._is_gone = True
        self.finish(code, reason)

    def let_go(self) -> None:
        """Nothing is heard any more."""
        if self._arriving is not None:
            self._arriving.cancel()

    async def say_goodbye(self) -> None:
        """The client is told why, if it is there and takes it."""
        self.finish(NORMAL, "")
        assert self._end is not None
        if not self._is_gone:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(GOODBYE_SECONDS), self._turn:
                    await self._send(closing(*self._end))


class Sockets:
    """The sockets of this process, by what they are about and what their clients call them."""

    def __init__(self) -> None:
        self._held: dict[tuple[Address, str], Socket] = {}
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._held)

    @contextmanager
    def only(self, address: Address, socket: Socket) -> Iterator[None]:
        """Inside the block it is the only one of its caller's with that id; one before it, perhaps half open, is closed."""
        key = (address, socket.id)
        before = self._held.get(key)
        if before is not None and before.identity.name == socket.identity.name:
            before.finish(POLICY, "the same connection was opened again")
        self._held[key] = socket
        self._none.clear()
        try:
            yield
        finally:
            if self._held.get(key) is socket:
                del self._held[key]
            if not self._held:
                self._none.set()

    async def left(self) -> None:
        """All have left, or had a moment to: while their objects still run here, those hear it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._none.wait()


@asynccontextmanager
async def opened(service: Service, request: Request, receive: Receive, send: Send) -> AsyncIterator[Socket]:
    """The socket is open inside of the block while its credential holds and the server goes on; then it is closed. When the
    block raises, whoever knows what that means closes it. *Raises* Problem 429, 400."""
    id = _connection_id(service, request)
    with service.quota.reader(request.identity, request.peer):
        socket = Socket(service, request, receive, send, id)
        await socket.accept()
        watch = asyncio.ensure_future(_watch(service, socket)) if service.app.auth is not None else None

        def stop() -> None:
            socket.finish(RESTART, "the server stops")

        try:
            with service.stopping.tells(stop):
                yield socket
        finally:
            if watch is not None:
                watch.cancel()
            socket.let_go()
        await socket.say_goodbye()


async def _watch(service: Service, socket: Socket) -> None:
    """A credential that does not hold any more ends it, soon."""
    clock, every = service.app.clock, service.limits.identity_recheck_seconds
    while socket.end is None:
        await clock.sleep(every)
        try:
            if not await service.authenticator.still_valid(socket.identity):
                socket.finish(POLICY, "unauthorized: the credential does not hold any more")
        except Exception as error:
            logger.warning("the credential of a socket could not be looked at, so it is closed: %s", error)
            socket.finish(TRY_LATER, "the credential could not be looked at")


def _connection_id(service: Service, request: Request) -> str:
    given = request.value(CONNECTION_PARAMETER)
    if not given:
        return service.app.ids.new("con")
    most = service.limits.connection_id_characters_max
    if len(given) > most or not given.isprintable():
        raise problems.invalid_request(f"'{CONNECTION_PARAMETER}' is 1 to {most} printable characters.")
    return given


# --- credentials a browser can send ---------------------------------------------------------------------------------


def with_credentials(scope: Scope, *, in_query: bool) -> Scope:
    """The scope with the token where any other request has it: in `Authorization`. A browser cannot set that header on a
    WebSocket; it offers the token as a subprotocol, which stays out of URLs. Pure. *Raises* Problem 400 for two of them."""
    tokens = [
        each.removeprefix(TOKEN_SUBPROTOCOL) for each in scope.get("subprotocols", ()) if each.startswith(TOKEN_SUBPROTOCOL)
    ]
    query: bytes = scope.get("query_string", b"")
    if in_query and query:
        query, found = _without_token(query)
        tokens += found
    if not tokens:
        return scope
    if len(tokens) > 1 or any(name.lower() == b"authorization" for name, _ in scope["headers"]):
        raise problems.invalid_request("More than one credential; send one.")
    bearer = (b"authorization", b"Bearer " + tokens[0].encode("latin-1", "replace"))
    return {**scope, "headers": [*scope["headers"], bearer], "query_string": query}


def _without_token(query: bytes) -> tuple[bytes, list[str]]:
    """The query without its tokens, and these."""
    from urllib.parse import unquote_plus

    name = TOKEN_PARAMETER.encode() + b"="
    parts = query.split(b"&")
    tokens = [unquote_plus(part.removeprefix(name).decode("latin-1")) for part in parts if part.startswith(name)]
    return b"&".join(part for part in parts if not part.startswith(name)), tokens


def chosen(scope: MutableMapping[str, Any]) -> str | None:
    """Which of the subprotocols that were offered it is: ours; else, as a browser that offered any wants one of them, the
    first that holds no token; and only if there is no other the one that does. Pure."""
    offered = list(scope.get("subprotocols", ()))
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    harmless = [each for each in offered if not each.startswith(TOKEN_SUBPROTOCOL)]
    return next(iter([*harmless, *offered]), None)


# --- refusing -------------------------------------------------------------------------------------------------------


def closing(code: int, reason: str) -> Message:
    """The last message of a socket. A reason is cut to what fits into a frame."""
    if code in (1005, 1006):
        code = NORMAL  # these are never sent: they say that nothing was
    return {"type": "websocket.close", "code": code, "reason": reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")}


def code_of(problem: Problem) -> int:
    """How a socket ends that was refused for that. Pure."""
    if problem.status in (408, 429, 503, 507):
        return RESTART if (problem.meta or {}).get("state") == "stopping" else TRY_LATER
    return FAILED if problem.status >= 500 else POLICY


def reason_of(problem: Problem) -> str:
    """Why, in the words of the envelope. Pure."""
    return f"{problem.type}: {problem.details or problem.message}"


class Answered:
    """`send`, that knows whether the handshake was answered."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_open = False

    async def __call__(self, message: Message) -> None:
        await self._send(message)
        self.is_open = self.is_open or message["type"] == "websocket.accept"


async def refuse(scope: Scope, send: Answered, problem: Problem) -> None:
    """The client gets no socket, or one that is closed at once and says why; one that is open already is closed so too."""
    if send.is_open:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await send(closing(code_of(problem), reason_of(problem)))
        return
    if problem.type in ("origin_not_allowed", "host_not_allowed"):
        await _refuse_handshake(scope, send, problem)
        return
    with suppress(OSError):
        await send({"type": "websocket.accept", "subprotocol": chosen(scope)})
        await send(closing(code_of(problem), reason_of(problem)))


async def _refuse_handshake(scope: Scope, send: Send, problem: Problem) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY, "reason": problem.type})
        return
    headers = encoded({"content-type": JSON, **problem.headers})
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem.body()})
