"""Sending to a conversation, its history, its attachments, and stopping it.

Laws. A 202 is sent after the message is durable and readable (S1). What is refused leaves nothing behind. Nothing here owns a
conversation: any process of the store may answer.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from cairn.errors import Conflict, NotFound
from cairn.framework.http import offsets, problems
from cairn.framework.http.body import decode
from cairn.framework.http.request import Request
from cairn.framework.http.responses import HARDENING, JSON, NO_STORE, Send, send_bytes, send_empty, send_json
from cairn.framework.http.service import Service
from cairn.harness.handle import KEY_CHARACTERS_MAX, ConversationHandle, Receipt
from cairn.harness.messages import Image
from cairn.harness.records import Delivery
from cairn.harness.sniff import SHOWABLE, image_type
from cairn.runtime.storage.store import InstanceRow, UidCondition

#: Types of signals that this platform itself, or a client, gives a meaning.
RESERVED_SIGNALS = frozenset(
    (
        "resources",
        "instructions",
        "environment",
        "stream_interrupted",
        "stream_continued",
        "submission_aborted",
        "submission_interrupted",
        "compaction",
        "memory",
    )
)
#: Characters of one attachment's base64: above, no limit on the decoded bytes could hold.
ATTACHMENT_CHARACTERS_MAX = 14 * 1024 * 1024

_TAG = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_TRACESTATE_MAX = 512
_SHAPE = (
    'A message is an object such as {"kind": "user", "body": "text"} or {"kind": "signal", "type": "name", "body": "text"}, '
    "with attachments (user), attributes and tagName (signal), initialData, uid and idempotencyKey where they are wanted."
)


# --- sending --------------------------------------------------------------------------------------------------------


async def send_message(service: Service, request: Request, send: Send) -> None:
    """`POST /agents/{kind}/{id}`."""
    if request.values("wait"):
        raise problems.invalid_request("'wait' is not possible: the answer is read from the conversation.")
    given = decode(await _json_body(service, request), dict[str, Any], service.limits)
    delivery = _delivery(given, service.limits.attachment_bytes)
    key, uid = _key(given), _uid(given)
    conversation = service.handle(request)
    await check_room(service, conversation, key)
    try:
        receipt = await conversation.send(delivery, key=key, data=_initial_data(given), uid=uid, trace=_trace(request.headers))
    except NotFound:
        raise problems.instance_not_found(request.kind, request.conversation) from None
    except Conflict as error:
        raise _conflict(request, error, uid) from None
    await _accepted(request, receipt, send)


async def _accepted(request: Request, receipt: Receipt, send: Send) -> None:
    url, offset = request.own_url(), offsets.text(receipt.offset)
    answer: dict[str, Any] = {"streamUrl": url, "offset": offset, "submissionId": receipt.submission, "uid": receipt.uid}
    if receipt.deduplicated:
        answer["deduplicated"] = True
    await send_json(send, 202, answer, {"location": url, "stream-next-offset": offset})


async def _json_body(service: Service, request: Request) -> bytes:
    """The body, which has to be there and to be JSON."""
    length, type = request.headers.get("content-length"), request.headers.get("content-type")
    if length == "0" or (length is None and type is None and "transfer-encoding" not in request.headers):
        raise problems.invalid_request(_SHAPE)
    if "application/json" not in (type or "").lower():
        raise problems.unsupported_media_type("A message is sent with 'content-type: application/json'.")
    return await request.body.read(service.limits.send_body_bytes)


def _delivery(given: dict[str, Any], attachment_bytes: int) -> Delivery:
    kind, body = given.get("kind"), given.get("body")
    if kind not in ("user", "signal") or not isinstance(body, str):
        raise problems.invalid_request(_SHAPE)
    if kind == "user":
        return Delivery(body=body, attachments=attachments(given.get("attachments", []), attachment_bytes))
    return _signal(given, body)


def _signal(given: dict[str, Any], body: str) -> Delivery:
    type, attributes, tag = given.get("type"), given.get("attributes", {}), given.get("tagName", "signal")
    if isinstance(type, str) and type in RESERVED_SIGNALS:
        raise problems.invalid_request(f"Signal type '{type}' is reserved.")
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise problems.invalid_request("'tagName' has to match [A-Za-z_][A-Za-z0-9_.-]*.")
    if not isinstance(type, str) or not type or not isinstance(attributes, dict):
        raise problems.invalid_request(_SHAPE)
    if not all(isinstance(value, str) for value in attributes.values()):
        raise problems.invalid_request("The values of 'attributes' have to be texts.")
    return Delivery(kind="signal", body=body, type=type, attributes=attributes, tag=tag)


def attachments(given: Any, bytes_max: int) -> tuple[Image, ...]:
    """The images of a message. Pure. *Raises* Problem: 400 for what is none, 413 for too much of it."""
    if not isinstance(given, list):
        raise problems.invalid_request("'attachments' has to be a list.")
    images = tuple(_attachment(each, place) for place, each in enumerate(given))
    total = sum(len(image.data or b"") for image in images)
    if total > bytes_max:
        raise problems.payload_too_large(f"The attachments have {total} bytes together; at most {bytes_max} are accepted.")
    return images


def _attachment(given: Any, place: int) -> Image:
    if not isinstance(given, dict) or given.get("type") != "image" or not isinstance(given.get("data"), str):
        raise problems.invalid_request(
            f'Attachment {place} is no {{"type": "image", "data": "<base64>", "mimeType": "image/png"}}.'
        )
    name = given.get("filename")
    if not isinstance(given.get("mimeType"), str) or not (name is None or isinstance(name, str)):
        raise problems.invalid_request(f"Attachment {place}: 'mimeType' has to be a text, and 'filename' if it is given.")
    if len(given["data"]) > ATTACHMENT_CHARACTERS_MAX:
        raise problems.invalid_request(f"Attachment {place} has more than {ATTACHMENT_CHARACTERS_MAX} characters.")
    try:
        data = base64.b64decode(given["data"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise problems.invalid_request(f"Attachment {place} is not base64: {error}.") from None
    found = image_type(data)
    if found not in SHOWABLE:
        raise problems.invalid_request(f"Attachment {place} is no PNG, JPEG, GIF or WebP image, whatever its 'mimeType' says.")
    return Image(mime_type=found, data=data, filename=name)


def _initial_data(given: dict[str, Any]) -> Mapping[str, bytes] | None:
    data = given.get("initialData")
    if data is None:
        return None
    if isinstance(given.get("uid"), str):
        raise problems.invalid_request("'initialData' begins a conversation and a 'uid' continues one: send one of them.")
    if not isinstance(data, dict):
        raise problems.invalid_request("'initialData' has to be an object: the fields of the agent's state.")
    return {name: msgspec.json.encode(value) for name, value in data.items()}


def _key(given: dict[str, Any]) -> str | None:
    key = given.get("idempotencyKey")
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= KEY_CHARACTERS_MAX):
        raise problems.invalid_request(f"'idempotencyKey' has to be a text of 1 to {KEY_CHARACTERS_MAX} characters.")
    return key


def _uid(given: dict[str, Any]) -> str | UidCondition:
    if "uid" not in given:
        return UidCondition.ANY
    uid = given["uid"]
    if uid is None:
        return UidCondition.ABSENT
    if not isinstance(uid, str):
        raise problems.invalid_request("'uid' has to be a text, or null for a conversation that must not exist yet.")
    return uid


def _conflict(request: Request, error: Conflict, uid: str | UidCondition) -> problems.Problem:
    if error.fiber is not None:
        return problems.submission_conflict(error.fiber)
    if uid is UidCondition.ABSENT:
        return problems.instance_exists(request.kind, request.conversation, error.uid or "")
    return problems.instance_not_found(request.kind, request.conversation)


def _trace(headers: Mapping[str, str]) -> dict[str, str]:
    """The caller's trace context; what is none is ignored, as its specification says."""
    parent, state = headers.get("traceparent", ""), headers.get("tracestate", "")
    if not _TRACEPARENT.fullmatch(parent):
        return {}
    is_state = 0 < len(state) <= _TRACESTATE_MAX and all("=" in entry for entry in state.split(","))
    return {"traceparent": parent, "tracestate": state} if is_state else {"traceparent": parent}


async def check_room(service: Service, conversation: ConversationHandle, key: str | None) -> None:
    """*Raises* the 429 or the 507 of a conversation that holds as much as it may. A key that was used adds nothing to it."""
    row = await service.store.find(conversation.address)
    if row is None:
        return
    problem = _too_large(service, row) or await _too_much_waits(service, row)
    if problem is not None and (key is None or not await conversation.knows(key)):
        raise problem


def _too_large(service: Service, row: InstanceRow) -> problems.Problem | None:
    most = service.limits.log_bytes_max
    if row.bytes < most:
        return None
    return problems.insufficient_storage(
        f"This conversation has {row.bytes:,} bytes, and one that has {most:,} takes no more messages (log_bytes_max). "
        "Fork it and go on in the fork, which counts anew; or begin a new conversation."
    )


async def _too_much_waits(service: Service, row: InstanceRow) -> problems.Problem | None:
    most = service.limits.queued_submissions_max
    if row.head < most:  # fewer batches than that cannot hold as many messages
        return None
    waiting = len((await service.snapshots.at_head(row)).unsettled)
    if waiting < most:
        return None
    return problems.too_many_requests(f"{waiting} messages of this conversation wait to be answered.", 5.0)


# --- reading --------------------------------------------------------------------------------------------------------


async def history(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}/{id}?view=history`."""
    for name in ("offset", "tail", "live"):
        if request.values(name):
            raise problems.invalid_request(f"'{name}' is not possible with view=history.")
    ordinal, body = await service.snapshots.history(await service.row(request))
    await send_bytes(send, 200, body, JSON, {**NO_STORE, **_head(ordinal)})


async def head(service: Service, request: Request, send: Send) -> None:
    """`HEAD /agents/{kind}/{id}`."""
    row = await service.row(request)
    await send_empty(send, 200, {"content-type": JSON, **NO_STORE, **_head(row.head)})


def _head(ordinal: int) -> dict[str, str]:
    return {"stream-next-offset": offsets.text(ordinal), "stream-up-to-date": "true"}


async def attachment(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}/{id}/attachments/{attachment}`."""
    row, id = await service.row(request), request.path["attachment"]
    part = _part(await service.snapshots.at_head(row), id)
    if part is None:
        raise problems.attachment_not_found(id)
    data = await service.store.get_blob(request.identity.tenant, part["blob"])
    headers = {
        "content-disposition": "inline",
        "cache-control": "private, max-age=31536000, immutable",
        "content-security-policy": "sandbox",
        **HARDENING,
    }
    await send_bytes(send, 200, data, part["mediaType"], headers)


def _part(snapshot: Any, id: str) -> dict[str, Any] | None:
    submission = id.removeprefix("att_").rpartition("_")[0]
    message = snapshot.message(f"msg_{submission}")
    parts = message["parts"] if message is not None else ()
    return next((part for part in parts if part["type"] == "file" and part["id"] == id), None)


# --- stopping -------------------------------------------------------------------------------------------------------


async def abort(service: Service, request: Request, send: Send) -> None:
    """`POST /agents/{kind}/{id}/abort`: everything unsettled is asked to stop; its settlement follows on the stream."""
    await send_json(send, 200, {"aborted": await service.handle(request).abort(reason="a client asked for it")})
