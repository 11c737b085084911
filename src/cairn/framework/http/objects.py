"""Durable objects over HTTP: which object a URL means, and its requests.

Laws. An object runs wherever it runs: this file knows `Objects` and nothing below it. What leaves here was committed there
(S10). A sub-object is reached through its parents, hop by hop, and only where they lead. Credentials end here: an object sees
who asks, never what they proved it with, because what it is given may be written to its log.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from typing import TypeVar

import msgspec

from cairn.errors import ObjectGone
from cairn.framework.http import problems
from cairn.framework.http.auth import CREDENTIAL_HEADERS
from cairn.framework.http.limits import WRITE_BYTES
from cairn.framework.http.naming import Below, below, check_name
from cairn.framework.http.presence import while_present
from cairn.framework.http.request import Request, raw_path
from cairn.framework.http.responses import HARDENING, Send
from cairn.framework.http.service import Service
from cairn.runtime.request import Request as ObjectRequest
from cairn.runtime.request import Response as ObjectResponse
from cairn.runtime.storage.store import Address
from cairn.runtime.sub_objects import parent_of, sub_id

T = TypeVar("T")

#: A header's name (RFC 9110, 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: What an object is not given: credentials, and the subprotocols they may be in.
WITHHELD_HEADERS = frozenset({*CREDENTIAL_HEADERS, "sec-websocket-protocol"})
#: What an object's answer may not set: the connection is ours, and so is the id of the request.
RESERVED_HEADERS = frozenset(
    {"connection", "content-length", "date", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id"}
)
#: What an object says is shown as it is, in no origin of ours: its text may be anybody's. An object that serves a page of its
#: own says its own policy.
SANDBOX = {"content-security-policy": "sandbox", "cache-control": "no-store", "content-type": "application/octet-stream"}


# --- which object ---------------------------------------------------------------------------------------------------


class Target:
    """The object that is meant, and what it is asked for."""

    def __init__(self, address: Address, kind: str, name: str, request: ObjectRequest) -> None:
        self.address = address
        self.kind = kind
        self.name = name
        """Kind and name are its client's words for it."""
        self.request = request


async def target_of(service: Service, request: Request) -> Target:
    """What the URL means for this caller. Raises Problem 400, 404."""
    found = below(request.segments[3:])
    kind, id, said = request.kind, check_name(request.conversation), (request.segments[1], sent_name(request))
    parent = parent_of(id)
    if parent is not None and parent.kind in service.objects.applications:
        raise problems.stream_not_found(kind, id)  # a sub-object's own id: it is reached through its parent
    asked, tenant = await _asked(service, request, found), request.identity.tenant
    for hop in found.hops:
        child = service.object_kind(hop.kind)
        if child is None:
            raise problems.route_not_found("/".join(request.segments))
        said = (hop.kind, check_name(hop.name))
        if not await _answered(said, service.objects.opens(kind, id, child, hop.name, asked, tenant=tenant)):
            raise problems.stream_not_found(*said)
        kind, id = child, sub_id(kind, id, hop.name)
    return Target(Address(kind, id, tenant), *said, asked)


async def _answered(said: tuple[str, str], asking: Awaitable[T]) -> T:
    """What the object says. Raises Problem 404, 504."""
    try:
        return await asking
    except ObjectGone:
        raise problems.stream_not_found(*said) from None
    except TimeoutError:
        raise problems.handler_timeout(f"{'/'.join(said)} did not answer in time; nothing was changed.") from None


async def _asked(service: Service, request: Request, found: Below) -> ObjectRequest:
    """The request as the object gets it."""
    return ObjectRequest(
        method=request.method,
        path=found.path,
        url=request.own_url(),
        query=tuple(request.query),
        headers=tuple((name, value) for name, value in request.headers.items() if name not in WITHHELD_HEADERS),
        body=await request.body.read(service.limits.other_body_bytes) if request.scope["type"] == "http" else b"",
        by=request.identity.name,
    )


def sent_name(request: Request) -> str:
    """The id as the client wrote it in the URL: it takes that for the name from then on, and comes back with it."""
    depth = request.root.count("/")
    return raw_path(request.scope).decode("latin-1").split("/")[3 + depth]


# --- requests -------------------------------------------------------------------------------------------------------


async def answer(service: Service, request: Request, send: Send) -> None:
    """`… /agents/{kind}/{id}[/…]` of an object: its `on_request`."""
    target = await target_of(service, request)
    address, said = target.address, (target.kind, target.name)
    given = await _answered(said, service.objects.request(address.kind, address.id, target.request, tenant=address.tenant))
    lines = _headers(given)
    has_body = given.status not in (204, 304) and request.method != "HEAD"
    if given.stream and has_body:
        chunks = _chunks(service, address, given, request.identity.name)
        await while_present(_stream(service, send, given.status, lines, chunks, said), request.receive, service.stopping)
        return
    if given.status not in (204, 304) and not given.stream:
        lines.append((b"content-length", str(len(given.body)).encode()))
    await send({"type": "http.response.start", "status": given.status, "headers": lines})
    for start in range(0, len(given.body) if has_body else 0, WRITE_BYTES):  # as the client takes it
        await send({"type": "http.response.body", "body": given.body[start : start + WRITE_BYTES], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _headers(given: ObjectResponse) -> list[tuple[bytes, bytes]]:
    """The head of its answer. Raises ValueError for what HTTP has no form for."""
    wrong = next((name for name, value in given.headers if not _is_header(name, value)), None)
    if wrong is not None or not 200 <= given.status <= 599:
        raise ValueError(f"on_request answered what HTTP has no form for: status {given.status}, header {wrong!r}")
    sent = [(name.lower(), value) for name, value in given.headers]
    named = {name for name, _ in sent}
    defaults = [(name, value) for name, value in {**HARDENING, **SANDBOX}.items() if name not in named]
    lines = [*defaults, *((name, value) for name, value in sent if name not in RESERVED_HEADERS)]
    return [(name.encode("ascii"), value.encode("latin-1", "replace")) for name, value in lines]


def _is_header(name: str, value: str) -> bool:
    return _TOKEN.fullmatch(name) is not None and not any(character in value for character in "\r\n\0")


async def _chunks(service: Service, address: Address, given: ObjectResponse, by: str) -> AsyncGenerator[bytes]:
    """What its streaming callable yields: text as it is, anything else as a line of JSON."""
    arguments = msgspec.json.decode(given.arguments, type=list[msgspec.Raw])
    stream = service.objects.stream(address.kind, address.id, given.stream, arguments, by=by, tenant=address.tenant)
    async with aclosing(stream):
        async for chunk in stream:
            value = msgspec.json.decode(chunk)
            yield value.encode() if isinstance(value, str) else bytes(chunk) + b"\n"


async def _stream(
    service: Service,
    send: Send,
    status: int,
    lines: Sequence[tuple[bytes, bytes]],
    chunks: AsyncGenerator[bytes],
    said: tuple[str, str],
) -> None:
    """Begins with the first chunk: what goes wrong before is an answer, what goes wrong later cuts it off."""
    async with aclosing(chunks):
        first = await _answered(said, anext(chunks, b""))
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
