"""What a server offers beside the conversations themselves: lists, export, deletion, forks, cost, and its own description."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from cairn.framework.http import offsets, problems
from cairn.framework.http.request import Request
from cairn.framework.http.responses import NO_STORE, Send, send_json
from cairn.framework.http.service import Service
from cairn.runtime.storage.store import InstanceRow


async def agents(service: Service, request: Request, send: Send) -> None:
    """`GET /agents`."""
    found = [_agent(request, agent) for name, agent in service.agents.items() if request.identity.sees(name)]
    await send_json(send, 200, {"agents": found}, NO_STORE)


def _agent(request: Request, agent: Any) -> dict[str, Any]:
    model = agent.model if isinstance(agent.model, str) or agent.model is None else agent.model.spec
    return {"name": agent.name, "description": agent.description, "model": model, "url": request.url("agents", agent.name)}


async def conversations(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}?limit=&cursor=`: newest first."""
    kind = service.agent(request).name
    limit, before = _number(request, "limit", 50), _number(request, "cursor", 0)
    limit = min(limit, service.limits.conversations_page_max)
    tenant, sees = request.identity.tenant, request.identity.sees
    rows = await service.store.instances(kind=kind, tenant=tenant, limit=limit + 1, newest_first=True, before=before or None)
    more = rows[limit - 1].n if len(rows) > limit else None
    found = [_conversation(request, row) for row in rows[:limit] if sees(kind, row.address.id)]
    await send_json(send, 200, {"conversations": found, "next": str(more) if more is not None else None}, NO_STORE)


def _conversation(request: Request, row: InstanceRow) -> dict[str, Any]:
    return {
        "id": row.address.id,
        "uid": row.uid,
        "createdAt": datetime.fromtimestamp(row.created_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "offset": offsets.text(row.head),
        "url": request.url("agents", row.address.kind, quote(row.address.id, safe="")),
    }


def _number(request: Request, name: str, default: int) -> int:
    given = request.value(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdecimal() or not 0 < int(given[:20]) < 1 << 62:
        raise problems.invalid_request(f"'{name}' has to be a whole number above 0, not '{given[:40]}'.")
    return int(given[:20])


async def export(service: Service, request: Request, send: Send) -> None:
    raise problems.route_not_found("export")


async def delete(service: Service, request: Request, send: Send) -> None:
    raise problems.route_not_found("delete")


async def fork(service: Service, request: Request, send: Send) -> None:
    raise problems.route_not_found("fork")


async def usage(service: Service, request: Request, send: Send) -> None:
    raise problems.route_not_found("usage")


async def openapi(service: Service, request: Request, send: Send) -> None:
    raise problems.route_not_found("openapi.json")


async def docs(service: Service, request: Request, send: Send) -> None:
    raise problems.route_not_found("docs")
