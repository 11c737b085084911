"""Taking back what was said: rewinding a conversation, and having a message answered again.

Laws. Whoever may send may rewind: the log keeps everything, and what a client no longer shows is gone from nothing else.
"""

from __future__ import annotations

from typing import Any

from cairn.errors import Conflict, NotFound, UsageError
from cairn.framework.http import offsets, problems
from cairn.framework.http.body import decode
from cairn.framework.http.request import Request
from cairn.framework.http.responses import NO_STORE, Send, send_json
from cairn.framework.http.service import Service


async def rewind(service: Service, request: Request, send: Send) -> None:
    """`POST /agents/{kind}/{id}/rewind`: `{"to": message id}`, or null for nothing at all."""
    given = await _given(service, request, "to")
    if "to" not in given:
        raise problems.invalid_request("'to' is needed: the id of the last message that stays, or null for none.")
    await service.row(request)
    try:
        offset = await service.handle(request).rewind(given["to"], key=given.get("idempotencyKey"))
    except NotFound as error:
        raise problems.message_not_found(str(error)) from None
    except Conflict as error:
        raise problems.submission_conflict(error.fiber or "") from None
    except UsageError as error:
        raise problems.invalid_request(str(error)) from None
    await send_json(send, 200, {"offset": offsets.text(offset)}, NO_STORE)


async def regenerate(service: Service, request: Request, send: Send) -> None:
    """`POST /agents/{kind}/{id}/regenerate`: `{"message": id}` of what was sent, or of its answer; by default the last."""
    given = await _given(service, request, "message")
    await service.row(request)
    try:
        receipt = await service.handle(request).regenerate(given.get("message"), key=given.get("idempotencyKey"))
    except NotFound as error:
        raise problems.message_not_found(str(error)) from None
    except Conflict as error:
        raise problems.submission_conflict(error.fiber or "") from None
    except UsageError as error:
        raise problems.invalid_request(str(error)) from None
    url, offset = request.own_url(), offsets.text(receipt.offset)
    answer: dict[str, Any] = {"streamUrl": url, "offset": offset, "submissionId": receipt.submission, "uid": receipt.uid}
    if receipt.deduplicated:
        answer["deduplicated"] = True
    await send_json(send, 202, answer, {"location": url, "stream-next-offset": offset})


async def _given(service: Service, request: Request, field: str) -> dict[str, Any]:
    if "application/json" not in request.headers.get("content-type", "").lower():
        raise problems.unsupported_media_type("This is sent with 'content-type: application/json'.")
    given: dict[str, Any] = decode(await request.body.read(service.limits.other_body_bytes), dict[str, Any], service.limits)
    unknown = sorted(given.keys() - {field, "idempotencyKey"})
    if unknown:
        raise problems.invalid_request(f"'{unknown[0][:40]}' is no option; there are: {field}, idempotencyKey.")
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise problems.invalid_request(f"'{name}' has to be a text.")
    return given
