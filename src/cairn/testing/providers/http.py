"""Just enough HTTP/1.1 for a provider: read a request with a body, write an answer or a chunked event stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came: header names in lower case, every line kept."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


async def read_request(reader: asyncio.StreamReader) -> Incoming | None:
    """The next request of a connection; None when the client has left."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    length = next((int(value) for name, value in headers if name == "content-length"), None)
    if length is not None:
        body = await reader.readexactly(length)
    elif any(name == "transfer-encoding" for name, _ in headers):
        body = await _read_chunks(reader)
    else:
        body = b""
    return Incoming(method, path, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return bytes(body)


def answer(status: int, body: Any, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A whole JSON response."""
    data = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}",
        "content-type: application/json",
        f"content-length: {len(data)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def stream_head(request_id: str) -> bytes:
    """The head of an event stream whose body comes in chunks."""
    return (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
        f"request-id: {request_id}\r\nx-request-id: {request_id}\r\ntransfer-encoding: chunked\r\n\r\n"
    ).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; of nothing, its end."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
