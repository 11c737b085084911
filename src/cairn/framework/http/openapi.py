"""The description of this server, made from the table of routes: an OpenAPI 3.1 document, and a page that shows it.

Laws. What is described is `ROUTES` and nothing else. The document is open to everybody, so it says nothing about this server
but what it can do: no agent, no conversation, no name. The page runs no script and loads nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.framework.cli.output import installed_version
from cairn.framework.http import docs_page
from cairn.framework.http.auth import OPEN
from cairn.framework.http.operations import (
    ALWAYS,
    ERRORS,
    GRANTED,
    HEADERS,
    OPERATIONS,
    PATH,
    Operation,
    Parameter,
    Response,
)
from cairn.framework.http.request import Request
from cairn.framework.http.responses import JSON, NO_STORE, Send, send_bytes
from cairn.framework.http.schemas import ANSWERS, REQUESTS, Schema, ref
from cairn.framework.http.service import Service
from cairn.framework.http.sockets import WEBSOCKET

if TYPE_CHECKING:
    from cairn.framework.http.routes import Route

_ABOUT = """Agents that can be talked to. Send a message, then follow the conversation until it is settled: every answer here is
durable before it is shown, and a client that comes back with its last offset misses nothing."""

_TAGS = [
    {"name": "conversations", "description": "Talking, reading, and what can be done with a conversation."},
    {"name": "objects", "description": "Durable objects: what they answer is theirs."},
    {"name": "server", "description": "What this server is and has."},
    {"name": "page", "description": "The chat page."},
]


async def document(service: Service, request: Request, send: Send) -> None:
    """`GET /openapi.json`."""
    await send_bytes(send, 200, msgspec.json.encode(_document(service, request)), JSON, NO_STORE)


async def docs(service: Service, request: Request, send: Send) -> None:
    """`GET /docs`."""
    page = docs_page.render(_document(service, request))
    await send_bytes(send, 200, page, "text/html; charset=utf-8", {**NO_STORE, **docs_page.GUARDS})


def _document(service: Service, request: Request) -> dict[str, Any]:
    from cairn.framework.http.routes import ROUTES  # the table names the handlers of this file

    shown = [route for route in ROUTES if service.app.http.page or not route.is_page]
    return describe(shown, mount=request.root, has_auth=service.app.auth is not None)


def describe(routes: Iterable[Route], *, mount: str = "", has_auth: bool = True) -> dict[str, Any]:
    """The document. Pure."""
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        if route.method == WEBSOCKET:
            continue  # OpenAPI has no word for it; docs/websockets.md does
        operation = OPERATIONS[route.method, route.path]
        paths[route.path.replace("…", "")][route.method.lower()] = _operation(route, operation, has_auth)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cairn", "version": installed_version() or "0", "description": _ABOUT},
        "servers": [{"url": mount or "/"}],
        "tags": _TAGS,
        "paths": dict(paths),
        "components": {
            "schemas": {**REQUESTS, **ANSWERS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token: `cairn token create`, or your own."}
            },
        },
    }


def _operation(route: Route, operation: Operation, has_auth: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary, "tags": [operation.tag]}
    grant = "" if route.grant is OPEN else f"Needs the grant `{route.grant.value}`."
    if text := " ".join(part for part in (operation.description, grant) if part):
        made["description"] = text
    path = [_parameter(PATH[name], "path") for name in _names(route)]
    if parameters := [*path, *(_parameter(each, "query") for each in operation.query)]:
        made["parameters"] = parameters
    if operation.body is not None:
        content = {"schema": operation.body, "example": operation.example}
        made["requestBody"] = {"required": operation.body_is_required, "content": {JSON: content}}
    good = {str(status): _response(response) for status, response in operation.responses.items()}
    made["responses"] = {**good, **_errors(route, operation)}
    made["security"] = [{"bearer": []}] if has_auth and route.grant is not OPEN else []
    return made


def _names(route: Route) -> list[str]:
    return [segment[1:-1].rstrip("…") for segment in route.pattern if segment.startswith("{")]


def _parameter(parameter: Parameter, place: str) -> dict[str, Any]:
    described = {"name": parameter.name, "in": place, "description": parameter.what, "schema": parameter.schema}
    return {**described, "required": True} if place == "path" or parameter.is_required else described


def _response(response: Response) -> dict[str, Any]:
    made: dict[str, Any] = {"description": response.what}
    if response.headers:
        made["headers"] = {name: {"schema": HEADERS[name]} for name in response.headers}
    if response.content:
        made["content"] = {type: {"schema": schema} for type, schema in response.content.items()}
    return made


def _errors(route: Route, operation: Operation) -> dict[str, Any]:
    """Every refusal of the route, by status."""
    types = (*ALWAYS, *(GRANTED if route.grant is not OPEN else ()), *operation.errors)
    by_status: dict[int, list[str]] = defaultdict(list)
    for type in dict.fromkeys(types):
        by_status[ERRORS[type][0]].append(type)
    return {str(status): _error(route, by_status[status]) for status in sorted(by_status)}


def _error(route: Route, types: list[str]) -> dict[str, Any]:
    described = {"description": " ".join(f"`{type}`: {ERRORS[type][1]}" for type in types)}
    if route.method == "HEAD":
        return described
    typed: Schema = {"type": "object", "properties": {"type": {"enum": types}}}
    body = {"type": "object", "required": ["error"], "properties": {"error": {"allOf": [ref("ErrorBody"), typed]}}}
    return {**described, "content": {JSON: {"schema": body}}}
