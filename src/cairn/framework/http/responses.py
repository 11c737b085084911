"""Answers, as plain ASGI messages: what handlers end with. No state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from cairn.framework.http.limits import WRITE_BYTES
from cairn.framework.http.problems import Problem

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = "application/json"

#: On everything a browser could be made to read: it is what it says it is, and a page of another origin that was given the
#: address may embed it.
HARDENING = {"x-content-type-options": "nosniff", "cross-origin-resource-policy": "cross-origin"}
NO_STORE = {"cache-control": "no-store", **HARDENING}


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]


async def send_bytes(send: Send, status: int, body: bytes, type: str, headers: Mapping[str, str] | None = None) -> None:
    """The whole answer. A large one is handed over in pieces, as the client takes them."""
    lines = {"content-type": type, "content-length": str(len(body)), **(headers or {})}
    await send({"type": "http.response.start", "status": status, "headers": encoded(lines)})
    last = max(0, len(body) - 1) // WRITE_BYTES * WRITE_BYTES
    for start in range(0, last, WRITE_BYTES):
        await send({"type": "http.response.body", "body": body[start : start + WRITE_BYTES], "more_body": True})
    await send({"type": "http.response.body", "body": body[last:] if last else body})


async def send_json(send: Send, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
    await send_bytes(send, status, msgspec.json.encode(value), JSON, headers)


async def send_empty(send: Send, status: int, headers: Mapping[str, str] | None = None) -> None:
    """Headers without a body, such as HEAD's."""
    await send({"type": "http.response.start", "status": status, "headers": encoded(headers or {})})
    await send({"type": "http.response.body", "body": b""})


async def send_problem(send: Send, problem: Problem, *, head: bool = False) -> None:
    """The error envelope; HEAD gets its status and headers only."""
    headers = {**HARDENING, **problem.headers}
    if head:
        await send_empty(send, problem.status, {"content-type": JSON, **headers})
    else:
        await send_bytes(send, problem.status, problem.body(), JSON, headers)
