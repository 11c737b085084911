"""Everything this server answers: one table. A route names its method, its path, what a caller needs for it, and its handler.

Laws. A route without a grant does not exist: `OPEN` is written down like any other. `{name}` stands for one segment of the
path, decoded; `{name…}` for all that is left. Ids may be any text: under an agent no id is reserved, only last segments are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterator
from dataclasses import dataclass
from functools import cache

from cairn.framework.http import (
    answers,
    attending,
    chat,
    conversation,
    inbox,
    manage,
    objects,
    openapi,
    page,
    problems,
    rewinding,
    status,
    streams,
)
from cairn.framework.http.auth import OPEN, Grant
from cairn.framework.http.request import Request
from cairn.framework.http.responses import Send
from cairn.framework.http.service import Service
from cairn.framework.http.sockets import WEBSOCKET

Handler = Callable[[Service, Request, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked."""

    method: str
    path: str
    grant: Grant | None
    handler: Handler
    is_page: bool = False
    """A page for people: a link on somebody's site may lead to it. Only there when the App shows its page."""
    is_early: bool = False
    """Answered before the App is open, and while it stops."""
    is_object: bool = False
    """Of durable objects: below their kinds it stands in the place of the routes of conversations …"""
    is_both: bool = False
    """… but for those that both have."""

    @property
    def pattern(self) -> tuple[str, ...]:
        return _pattern(self.path)

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """What the placeholders stand for; None when this is another path."""
        pattern = self.pattern
        if pattern[-1].endswith("…}"):
            if len(segments) < len(pattern) - 1:
                return None
            pattern, rest = pattern[:-1], segments[len(pattern) - 1 :]
            segments = segments[: len(pattern)]
        else:
            rest = ()
        if len(segments) != len(pattern):
            return None
        found = {"…": "/".join(rest)}
        for expected, given in zip(pattern, segments, strict=True):
            if expected.startswith("{"):
                found[expected[1:-1]] = given
            elif expected != given:
                return None
        return found


@cache
def _pattern(path: str) -> tuple[str, ...]:
    return tuple(path[1:].split("/"))


async def _read(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}/{id}`: one address, two views of it."""
    view = request.value("view") or "history"
    if view == "history":
        await conversation.history(service, request, send)
    elif view == "updates":
        await streams.updates(service, request, send)
    else:
        raise problems.invalid_request(f"view='{view[:40]}' is none of history, updates.")


async def _page(service: Service, request: Request, send: Send) -> None:
    """The chat page and its files."""
    await page.send_page(request.segments, send, root_path=request.root, method=request.method)


#: An object, what is below it, and its sub-objects.
OBJECT = "/agents/{kind}/{id}/{rest…}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/health", OPEN, status.health, is_early=True),
    Route("GET", "/ready", OPEN, status.ready, is_early=True),
    Route("GET", "/info", Grant.READ, status.info),
    Route("GET", "/openapi.json", OPEN, openapi.document),
    Route("GET", "/docs", OPEN, openapi.docs),
    Route("GET", "/agents", Grant.READ, manage.agents),
    Route("GET", "/agents/{kind}", Grant.READ, manage.conversations),
    Route("POST", "/agents/{kind}/{id}", Grant.SEND, conversation.send_message),
    Route("GET", "/agents/{kind}/{id}", Grant.READ, _read),
    Route("HEAD", "/agents/{kind}/{id}", Grant.READ, conversation.head),
    Route("DELETE", "/agents/{kind}/{id}", Grant.MANAGE, manage.delete),
    Route("POST", "/agents/{kind}/{id}/abort", Grant.ABORT, conversation.abort),
    Route("GET", "/questions", Grant.READ, inbox.waiting),
    Route("GET", "/agents/{kind}/{id}/questions", Grant.READ, answers.questions, is_both=True),
    Route("POST", "/agents/{kind}/{id}/answers", Grant.SEND, answers.answer, is_both=True),
    Route("POST", "/agents/{kind}/{id}/rewind", Grant.SEND, rewinding.rewind),
    Route("POST", "/agents/{kind}/{id}/regenerate", Grant.SEND, rewinding.regenerate),
    Route("GET", "/agents/{kind}/{id}/attachments/{attachment}", Grant.READ, conversation.attachment),
    Route("GET", "/agents/{kind}/{id}/export", Grant.MANAGE, manage.export),
    Route("POST", "/agents/{kind}/{id}/fork", Grant.MANAGE, manage.fork),
    Route("GET", "/agents/{kind}/{id}/usage", Grant.READ, manage.usage),
    Route("GET", "/agents/{kind}/{id}/get-messages", Grant.READ, chat.get_messages),
    Route("GET", OBJECT, Grant.READ, objects.answer, is_object=True),
    Route("HEAD", OBJECT, Grant.READ, objects.answer, is_object=True),
    Route("POST", OBJECT, Grant.SEND, objects.answer, is_object=True),
    Route("PUT", OBJECT, Grant.SEND, objects.answer, is_object=True),
    Route("PATCH", OBJECT, Grant.SEND, objects.answer, is_object=True),
    Route("DELETE", OBJECT, Grant.SEND, objects.answer, is_object=True),
    Route(WEBSOCKET, OBJECT, Grant.READ, attending.attend),
    Route("GET", "/", OPEN, _page, is_page=True),
    Route("GET", "/chat", OPEN, _page, is_page=True),
    Route("GET", "/chat/{rest…}", OPEN, _page, is_page=True),
    Route("GET", "/assets/{rest…}", OPEN, _page, is_page=True),
)


def find(method: str, segments: tuple[str, ...], *, page: bool, objects: Container[str] = ()) -> tuple[Route, dict[str, str]]:
    """The route, and what its placeholders stand for; `objects` are the kinds that are no agents. Raises Problem 404, or 405
    with what is possible."""
    there = list(_at(segments, page, objects))
    for route, path in there:
        if route.method == method:
            return route, path
    allowed = sorted({route.method for route, _ in there} - {WEBSOCKET})
    if not allowed or method == WEBSOCKET:
        raise problems.route_not_found("/" + "/".join(segments))
    raise problems.method_not_allowed(method, ", ".join(allowed))


def _at(segments: tuple[str, ...], page: bool, objects: Container[str]) -> Iterator[tuple[Route, dict[str, str]]]:
    for route in ROUTES:
        if route.is_page and not page:
            continue
        path = route.match(segments)
        if path is None:
            continue
        is_of_instance = "id" in path and route.method != WEBSOCKET and not route.is_both
        if is_of_instance and route.is_object != (path["kind"] in objects):
            continue
        yield route, path
