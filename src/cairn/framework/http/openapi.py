"""The description of this server: an OpenAPI document, and a page that shows it."""

from __future__ import annotations

from cairn.framework.http import problems
from cairn.framework.http.request import Request
from cairn.framework.http.responses import Send
from cairn.framework.http.service import Service


async def document(service: Service, request: Request, send: Send) -> None:
    raise problems.route_not_found("openapi.json")


async def docs(service: Service, request: Request, send: Send) -> None:
    raise problems.route_not_found("docs")
