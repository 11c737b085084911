"""The way of a request: who asks from where, which route, may they, the handler; and what a failure becomes.

Laws. Every request passes the same gates in the same order: host and origin, route, credential, grant, quota, body limits. What
goes wrong becomes an error envelope; an unexpected exception is logged under a reference and shows nothing of itself. A failure
after the answer has begun only ends it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cairn.errors import NotFound, StoreBusy, StoreFull, UsageError
from cairn.framework.classes import kind_named
from cairn.framework.http import problems, routes, sockets
from cairn.framework.http.auth import LOCAL, Authenticator, permit
from cairn.framework.http.body import Body, LargeBodies
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.origin import OriginRules, check, headers_of, peer_of, preflight
from cairn.framework.http.problems import Problem
from cairn.framework.http.quota import Failures, Quota
from cairn.framework.http.request import Request, query_of, segments_of
from cairn.framework.http.responses import Message, Receive, Scope, Send, encoded, send_empty, send_problem
from cairn.framework.http.service import Service

if TYPE_CHECKING:
    from cairn.framework.app import App

logger = logging.getLogger("cairn.http")

#: Characters of a request id that a client may choose.
REQUEST_ID_CHARACTERS_MAX = 128


class Http:
    """The HTTP side of one App: an ASGI application of plain callables."""

    def __init__(self, app: App, limits: HttpLimits, rules: OriginRules, *, page: bool) -> None:
        self.app = app
        self.limits = limits
        self.rules = rules
        self.page = page
        self.quota = Quota(limits, app.clock)
        self.authenticator = Authenticator(app.auth, Failures(limits, app.clock), app.clock)
        self.service: Service | None = None
        self._large = LargeBodies(limits.large_bodies_max)

    def open(self) -> None:
        """The App is open."""
        bind = getattr(self.app.auth, "bind", None)
        if bind is not None:
            bind(self.app.store, self.app.clock, self.limits)
        self.service = Service(self.app, self.limits, self.authenticator, self.quota)

    def stop(self) -> None:
        """Live readers are let go; they come back."""
        if self.service is not None:
            self.service.stopping.set()

    async def left(self) -> None:
        """Once it stops: the clients of objects have left, or had a moment to."""
        if self.service is not None:
            await self.service.sockets.left()

    def close(self) -> None:
        self.service = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
            return
        answer = _Answer(send, _request_id(scope) or self.app.ids.new("req"))
        body = Body(receive, scope["headers"], self.limits, self._large)
        try:
            await self._handle(scope, receive, answer, body)
        except Exception as error:
            problem = self._problem(error, scope)
            if answer.begun:
                raise
            await send_problem(answer, problem, head=scope["method"] == "HEAD")
        finally:
            body.close()

    async def _handle(self, scope: Scope, receive: Receive, answer: _Answer, body: Body) -> None:
        headers = headers_of(scope)
        peer = peer_of(scope, headers, self.rules)
        method: str = scope["method"] if scope["method"] != sockets.WEBSOCKET else "(WEBSOCKET)"
        granted = preflight(method, headers, self.rules)
        if granted is not None:
            await send_empty(answer, 204, granted)
            return
        segments = segments_of(scope)
        route, path = self._route(method, segments)
        answer.headers.update(check(scope, headers, peer, self.rules, is_page=route is not None and route.is_page))
        if route is None:
            self._find(method, segments)  # raises what is wrong, now that the caller may know
            return
        query = query_of(scope, self.limits)
        request = Request(method, segments, query, headers, body, peer, scope, receive, answer.id, path=path)
        await self._admit(route, request)
        await route.handler(self.service, request, answer)  # type: ignore[arg-type]

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket: the same gates in the same order; what goes wrong is how it is closed."""
        if (await receive())["type"] != "websocket.connect":
            return
        answered = sockets.Answered(send)
        try:
            route, request = await self._knock(scope, receive)
            await route.handler(self.service, request, answered)  # type: ignore[arg-type]
        except Exception as error:
            await sockets.refuse(scope, answered, self._problem(error, scope))

    async def _knock(self, scope: Scope, receive: Receive) -> tuple[routes.Route, Request]:
        headers = headers_of(scope)
        peer = peer_of(scope, headers, self.rules)
        check(scope, headers, peer, self.rules)
        scope = sockets.with_credentials(scope, in_query=self.app.takes_token_in_query)
        headers = headers_of(scope)
        segments = segments_of(scope)
        route, path = self._find(sockets.WEBSOCKET, segments)
        body = Body(receive, (), self.limits, self._large)
        id = _request_id(scope) or self.app.ids.new("req")
        request = Request("GET", segments, query_of(scope, self.limits), headers, body, peer, scope, receive, id, path=path)
        await self._admit(route, request)
        return route, request

    async def _admit(self, route: routes.Route, request: Request) -> None:
        """The application is open, the caller known and permitted. Raises Problem."""
        service, path = self.service, request.path
        if not route.is_early and (service is None or service.stopping.is_set()):
            raise self._not_open()
        if route.grant is not None:
            request.identity = await self.authenticator.identify(request.scope, request.headers, request.peer)
            self.quota.request(request.identity, request.peer)
            permit(request.identity, route.grant, path.get("kind"), path.get("id"))
        else:
            request.identity = LOCAL

    def _route(self, method: str, segments: tuple[str, ...]) -> tuple[routes.Route | None, dict[str, str]]:
        try:
            return self._find(method, segments)
        except Problem:
            return None, {}

    def _find(self, method: str, segments: tuple[str, ...]) -> tuple[routes.Route, dict[str, str]]:
        """The route; a kind of objects under its own name, whichever of them the client used."""
        classes = self.app.classes
        named = kind_named(segments[1], classes) if len(segments) > 1 and segments[0] == "agents" else None
        if named is not None:
            segments = (segments[0], named, *segments[2:])
        return routes.find(method, segments, page=self.page, objects=classes)

    def _not_open(self) -> Problem:
        if self.service is not None:
            return problems.unavailable("stopping", "The server is about to stop; try again.")
        return problems.unavailable(
            "starting",
            "The application is not open. Mounted in another one, it has to be opened with it: "
            "`Starlette(lifespan=app.lifespan)`, or `async with app:` in a lifespan of your own.",
        )

    def _problem(self, error: Exception, scope: Scope) -> Problem:
        """What the client is told."""
        if isinstance(error, Problem):
            return error
        if isinstance(error, UsageError):
            return problems.invalid_request(str(error))
        if isinstance(error, NotFound):
            return problems.stream_not_found(*_named(scope))
        if isinstance(error, StoreFull):
            return problems.insufficient_storage("The store has no room for this; nothing of it was kept.")
        if isinstance(error, StoreBusy):
            return problems.unavailable("busy", "The store is held by another process; try again.")
        ref = self.app.ids.new("err")
        logger.error("%s %s failed (%s)", scope.get("method", sockets.WEBSOCKET), scope["path"], ref, exc_info=error)
        return problems.internal(ref)


class _Answer:
    """`send`, with the headers every answer carries; knows whether the answer has begun."""

    def __init__(self, send: Send, id: str) -> None:
        self._send = send
        self.id = id
        self.begun = False
        self.headers: dict[str, str] = {"x-request-id": id}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": [*message["headers"], *encoded(self.headers)]}
        await self._send(message)


def _request_id(scope: Scope) -> str | None:
    """The client's own, if it can be one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and value.isalnum() and len(value) <= REQUEST_ID_CHARACTERS_MAX:
            return str(value.decode("ascii"))
    return None


def _named(scope: Scope) -> tuple[str, str]:
    segments = segments_of(scope)
    return (segments[1], segments[2]) if len(segments) > 2 else ("", "")
