"""What a server offers beside the conversations themselves: lists, export, deletion, forks, and what they cost.

Laws. A list shows what its reader may see and nothing else. What may be large is sent page by page as it is read and is never
whole in memory; an export that was cut off lacks its last line. What is deleted is gone for every process at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from cairn.errors import Conflict, NotFound
from cairn.framework.http import offsets, problems
from cairn.framework.http.auth import Grant, permit
from cairn.framework.http.body import decode
from cairn.framework.http.pieces import send_pieces
from cairn.framework.http.request import Request
from cairn.framework.http.responses import JSON, NO_STORE, Send, send_json
from cairn.framework.http.service import Service
from cairn.harness.agent import Agent
from cairn.harness.times import iso
from cairn.harness.usage import Spent, UsageReport
from cairn.runtime.log import BEGINNING
from cairn.runtime.storage.store import InstanceRow, Row
from cairn.runtime.sub_objects import parent_of

NDJSON = "application/x-ndjson"

#: Conversations in a page, unless another number is asked for.
PAGE_DEFAULT = 50
#: Pages of the store that are searched for one page of a list. A reader that may see few of very many conversations gets a
#: short page and goes on from there; one request never reads everything.
SEARCH_PAGES_MAX = 20

_encode = msgspec.json.Encoder().encode


# --- lists ----------------------------------------------------------------------------------------------------------


async def agents(service: Service, request: Request, send: Send) -> None:
    """`GET /agents`."""
    found = [_agent(request, agent) for name, agent in service.agents.items() if request.identity.sees(name)]
    await send_json(send, 200, {"agents": found}, NO_STORE)


def _agent(request: Request, agent: Agent[Any]) -> dict[str, Any]:
    model = agent.model if isinstance(agent.model, str) or agent.model is None else agent.model.spec
    return {"name": agent.name, "description": agent.description, "model": model, "url": request.url("agents", agent.name)}


async def conversations(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}?limit=&cursor=`: conversations of an agent, or objects of a kind; newest first."""
    is_object = request.kind in service.app.classes
    kind = request.kind if is_object else service.agent(request).name
    limit = min(number(request, "limit", PAGE_DEFAULT), service.limits.conversations_page_max)
    found, next = await _page(service, request, kind, limit, number(request, "cursor", 0) or None)
    titles = [""] * len(found) if is_object else await service.titles.of(found)
    listed = [_conversation(request, row, title) for row, title in zip(found, titles, strict=True)]
    answer = {"conversations": listed, "next": None if next is None else str(next)}
    await send_json(send, 200, answer, NO_STORE)


async def _page(
    service: Service, request: Request, kind: str, limit: int, before: int | None
) -> tuple[list[InstanceRow], int | None]:
    """Conversations the caller may see, and where the next page begins, if there may be one."""
    identity, found, size = request.identity, list[InstanceRow](), limit + 1
    for _ in range(SEARCH_PAGES_MAX):
        rows = await service.store.instances(kind=kind, tenant=identity.tenant, limit=size, newest_first=True, before=before)
        for row in rows:
            if identity.sees(kind, row.address.id) and not _is_sub_object(service, row):
                if len(found) == limit:
                    return found, before
                found.append(row)
            before = row.n
        if len(rows) < size:
            return found, None
        size = service.limits.conversations_page_max  # most were somebody else's: search in larger steps
    return found, before


def _is_sub_object(service: Service, row: InstanceRow) -> bool:
    """Another object's: it has no address of its own."""
    parent = parent_of(row.address.id)
    return parent is not None and parent.kind in service.app.classes


def _conversation(request: Request, row: InstanceRow, title: str) -> dict[str, Any]:
    return {
        "id": row.address.id,
        "title": title,
        "uid": row.uid,
        "createdAt": iso(row.created_at),
        "offset": offsets.text(row.head),
        "url": _url(request, row.address.id),
    }


def _url(request: Request, id: str) -> str:
    return request.url("agents", quote(request.kind, safe=""), quote(id, safe=""))


def number(request: Request, name: str, default: int) -> int:
    given = request.value(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdecimal() or not 0 < int(given[:20]) < 1 << 62:
        raise problems.invalid_request(f"'{name}' has to be a whole number above 0, not '{given[:40]}'.")
    return int(given[:20])


# --- one conversation -----------------------------------------------------------------------------------------------


async def delete(service: Service, request: Request, send: Send) -> None:
    """`DELETE /agents/{kind}/{id}`: whoever works on it or reads it, in any process, stops."""
    row = await service.row(request)
    if not await service.handle(request).delete():
        raise problems.stream_not_found(request.kind, request.conversation)
    service.snapshots.forget(row.n)
    await send_json(send, 200, {"deleted": True}, NO_STORE)


async def fork(service: Service, request: Request, send: Send) -> None:
    """`POST /agents/{kind}/{id}/fork`: a new conversation with everything up to an offset."""
    given = await _options(service, request)
    row = await service.row(request)
    at, id = _fork_offset(given, row), given.get("id")
    if not (id is None or isinstance(id, str)):
        raise problems.invalid_request("'id' has to be a text: what the new conversation is to be called.")
    if id is not None:
        permit(request.identity, Grant.MANAGE, request.kind, id)
    try:
        forked = await service.handle(request).fork(at, id)
        made = await service.store.find(forked.address)
    except Conflict:
        raise _exists(request.kind, str(id)) from None
    except NotFound:
        raise problems.stream_not_found(request.kind, request.conversation) from None
    if made is None:
        raise problems.stream_not_found(request.kind, forked.id)
    offset = offsets.text(made.fork_offset if made.fork_offset is not None else BEGINNING)
    url = _url(request, forked.id)
    answer = {"url": url, "id": forked.id, "uid": made.uid, "offset": offset}
    await send_json(send, 201, answer, {**NO_STORE, "location": url, "stream-next-offset": offset})


def _exists(kind: str, id: str) -> problems.Problem:
    details = f"agents/{kind}/{id} exists already; fork to another id, or leave 'id' out."
    return problems.Problem("agent_instance_exists", 409, "Agent instance exists.", details)


async def _options(service: Service, request: Request) -> dict[str, Any]:
    """The body, which may be left out."""
    body = await request.body.read(service.limits.other_body_bytes)
    if not body:
        return {}
    if "application/json" not in request.headers.get("content-type", "").lower():
        raise problems.unsupported_media_type("Options are sent with 'content-type: application/json'.")
    given: dict[str, Any] = decode(body, dict[str, Any], service.limits)
    unknown = sorted(given.keys() - {"id", "offset"})
    if unknown:
        raise problems.invalid_request(f"'{unknown[0][:40]}' is no option; there are: id, offset.")
    return given


def _fork_offset(given: dict[str, Any], row: InstanceRow) -> int:
    text = given.get("offset")
    if text is None:
        return row.head
    if not isinstance(text, str):
        raise problems.invalid_request("'offset' has to be a text, as this server gives them.")
    at = offsets.ordinal(text)
    if at == BEGINNING:
        raise problems.invalid_request("Before everything there is nothing to fork: send a message to a new id instead.")
    if at > row.head:
        raise problems.offset_gone(text, offsets.text(row.head))
    return at


# --- what it cost ---------------------------------------------------------------------------------------------------


async def usage(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}/{id}/usage`."""
    row = await service.row(request)
    report = await service.handle(request).usage()
    parts = _usage_parts(row, report)

    async def pieces() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    await send_pieces(send, request.receive, pieces(), JSON, NO_STORE, stall_seconds=service.limits.write_stall_seconds)


def _usage_parts(row: InstanceRow, report: UsageReport) -> Iterator[bytes]:
    head = {
        "id": row.address.id,
        "uid": row.uid,
        "offset": offsets.text(report.ordinal if report.ordinal != BEGINNING else row.head),
        "logBytes": row.bytes,
        "totals": {"submissions": len(report.submissions), **_spent(report.total)},
        "models": [{"model": model, **_spent(spent)} for model, spent in report.by_model.items()],
    }
    yield _encode(head)[:-1] + b',"submissions":['
    for number, (id, share) in enumerate(report.submissions.items()):
        line = {"submissionId": id, "outcome": share.outcome, **_spent(share.spent)}
        if share.answered_by is not None:
            line["answeredBySubmissionId"] = share.answered_by
        yield (b"," if number else b"") + _encode(line)
    yield b"]}"


def _spent(spent: Spent) -> dict[str, Any]:
    """Sums as clients read them. The cost is null when no price is known, and a lower bound while `unpriced` is not 0."""
    return {
        "turns": spent.turns,
        "responses": spent.responses,
        "toolCalls": spent.tool_calls,
        "tokens": {
            "input": spent.input,
            "output": spent.output,
            "cacheRead": spent.cache_read,
            "cacheWrite": spent.cache_write,
            "reasoning": spent.reasoning,
        },
        "costUsd": None if spent.unpriced and spent.unpriced == spent.responses else spent.cost_usd,
        "unpriced": spent.unpriced,
    }


# --- all of it ------------------------------------------------------------------------------------------------------


async def export(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}/{id}/export`: the conversation, a line a batch of records, and a last line that says it is whole."""
    chunks = request.value("chunks")
    if chunks not in (None, "true", "false"):
        raise problems.invalid_request(f"chunks='{chunks[:40]}' is none of true, false.")
    row = await service.row(request)
    name = quote(f"{row.address.kind}-{row.address.id}.jsonl", safe="")
    headers = {**NO_STORE, "content-disposition": f"attachment; filename*=UTF-8''{name}"}
    lines = _exported(service, row, with_chunks=chunks == "true")
    await send_pieces(send, request.receive, lines, NDJSON, headers, stall_seconds=service.limits.write_stall_seconds)


async def _exported(service: Service, row: InstanceRow, *, with_chunks: bool) -> AsyncIterator[bytes]:
    """The conversation up to its head at the call."""
    yield _line({"instance": _instance(row)})
    limits, after = service.limits, BEGINNING
    while after < row.head:
        page = await service.store.read(row.n, after, limit=limits.page_batches, bytes_max=limits.page_bytes)
        if not page:
            return  # deleted meanwhile: the last line is not there
        for found in page:
            yield _batch_line(found, with_chunks=with_chunks)
            after = found.ordinal
            if after >= row.head:
                break
    yield _line({"end": offsets.text(after)})


def _instance(row: InstanceRow) -> dict[str, Any]:
    address, forked = row.address, row.forked_from is not None
    told = {"kind": address.kind, "id": address.id, "uid": row.uid, "createdAt": iso(row.created_at)}
    return {**told, "offset": offsets.text(row.head)} | ({"forkOffset": offsets.text(row.fork_offset or 0)} if forked else {})


def _batch_line(row: Row, *, with_chunks: bool) -> bytes:
    line: dict[str, Any] = {"ordinal": row.ordinal, "prev": row.prev, "epoch": row.epoch}
    if row.merged_from is not None:
        line["mergedFrom"] = row.merged_from
    line["records"] = msgspec.Raw(row.batch.records)
    if with_chunks:
        line["chunks"] = [msgspec.Raw(chunk) for chunk in row.batch.chunks.split(b"\n") if chunk]
    return _line(line)


def _line(value: Any) -> bytes:
    return _encode(value) + b"\n"
