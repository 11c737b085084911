"""How the server is: alive, ready, and what it is."""

from __future__ import annotations

from cairn.framework.cli.output import installed_version
from cairn.framework.http import problems
from cairn.framework.http.request import Request
from cairn.framework.http.responses import NO_STORE, Send, send_json
from cairn.framework.http.service import Service


async def health(service: Service | None, request: Request, send: Send) -> None:
    """`GET /health`: the process answers."""
    await send_json(send, 200, {"status": "ok"}, NO_STORE)


async def ready(service: Service | None, request: Request, send: Send) -> None:
    """`GET /ready`: messages are taken and worked on; 503 while it starts or stops."""
    if service is None:
        raise problems.unavailable("starting", "The application is not open yet.")
    if service.stopping.is_set():
        raise problems.unavailable("stopping", "The server is about to stop.")
    await send_json(send, 200, {"status": "ready"}, NO_STORE)


async def info(service: Service, request: Request, send: Send) -> None:
    """`GET /info`: what this server is."""
    worker = service.app.worker
    answer = {
        "name": "cairn",
        "version": installed_version() or "0",
        "agents": [name for name in service.agents if request.identity.sees(name)],
        "objects": [kind for kind in service.app.classes if request.identity.sees(kind)],
        "identity": request.identity.name,
        "grants": sorted(grant.value for grant in request.identity.grants),
        "worker": worker.id if worker is not None else None,
    }
    await send_json(send, 200, answer, NO_STORE)
