"""What a conversation or an object asks, and answering it: approvals, rejections, and what clients carried out.

Laws. Whoever answers is whoever the credential says: no body names a person. A 200 is sent after the answer is durable; a
refused one leaves nothing behind. Nothing here owns a conversation: any process of the store may be asked.
"""

from __future__ import annotations

from typing import Any

from cairn.errors import Conflict, Denied, NotFound, UsageError
from cairn.framework.http import object_answers, offsets, problems
from cairn.framework.http.body import decode
from cairn.framework.http.request import Request
from cairn.framework.http.responses import NO_STORE, Send, send_json
from cairn.framework.http.service import Service
from cairn.harness.answers import AnswerReceipt, PendingCall
from cairn.harness.handle import ConversationHandle
from cairn.harness.times import iso

#: The fields of an answer, by its kind, beside `call`, `digest` and `answer`.
_FIELDS = {"approve": (), "reject": ("reason",), "output": ("output",), "error": ("error",)}

_SHAPE = (
    'An answer is an object such as {"call": "…", "digest": "sha256:…", "answer": "approve"}; or "answer": "reject" with a '
    '"reason", "output" with an "output", "error" with an "error". Call and digest stand in the conversation\'s questions.'
)


async def questions(service: Service, request: Request, send: Send) -> None:
    """`GET /agents/{kind}/{id}/questions`."""
    if request.kind in service.app.classes:
        found = await object_answers.asked(service, request)
    else:
        await service.row(request)
        found = [as_json(each) for each in await service.handle(request).questions()]
    await send_json(send, 200, {"questions": found}, NO_STORE)


def as_json(asked: PendingCall) -> dict[str, Any]:
    """A question for programs."""
    shown: dict[str, Any] = {
        "call": asked.call,
        "tool": asked.tool,
        "kind": asked.kind,
        "input": asked.arguments,
        "digest": asked.digest,
        "submissionId": asked.submission,
        "askedAt": iso(asked.asked_at),
        "expiresAt": None if asked.expires_at is None else iso(asked.expires_at),
    }
    if asked.reason:
        shown["reason"] = asked.reason
    if asked.by:
        shown["by"] = list(asked.by)
    return shown


async def answer(service: Service, request: Request, send: Send) -> None:
    """`POST /agents/{kind}/{id}/answers`."""
    if "application/json" not in request.headers.get("content-type", "").lower():
        raise problems.unsupported_media_type("An answer is sent with 'content-type: application/json'.")
    is_object = request.kind in service.app.classes
    given = decode(await request.body.read(service.limits.other_body_bytes), dict[str, Any], service.limits)
    if not is_object:
        await service.row(request)
    _check(given, (object_answers.FIBER,) if is_object else ())
    try:
        if is_object:
            shown = await object_answers.answer(service, request, given)
        else:
            shown = _told(await _give(service.handle(request), given, request.identity.name))
    except NotFound as error:
        raise problems.question_not_found(str(error)) from None
    except Conflict as error:
        raise problems.answer_conflict(str(error)) from None
    except Denied as error:
        raise problems.forbidden(str(error)) from None
    except UsageError as error:
        raise problems.invalid_request(str(error)) from None
    await send_json(send, 200, shown, NO_STORE)


def _told(receipt: AnswerReceipt) -> dict[str, Any]:
    shown: dict[str, Any] = {"call": receipt.call, "offset": offsets.text(receipt.offset)}
    return {**shown, "deduplicated": True} if receipt.duplicate else shown


def _check(given: dict[str, Any], more: tuple[str, ...]) -> None:
    kind = given.get("answer")
    if not all(isinstance(given.get(name), str) for name in ("call", "digest", "answer")) or kind not in _FIELDS:
        raise problems.invalid_request(_SHAPE)
    unknown = sorted(given.keys() - {"call", "digest", "answer", *_FIELDS[kind], *more})
    if unknown:
        raise problems.invalid_request(f"'{unknown[0][:40]}' is no field of this answer. {_SHAPE}")
    if kind == "output" and "output" not in given:
        raise problems.invalid_request(_SHAPE)
    texts = ("reason", *more, *(("error",) if kind == "error" else ()))
    if not all(isinstance(given.get(name, None if name == "error" else ""), str) for name in texts):
        raise problems.invalid_request(_SHAPE)


async def _give(conversation: ConversationHandle, given: dict[str, Any], by: str) -> AnswerReceipt:
    call, digest = given["call"], given["digest"]
    match given["answer"]:
        case "approve":
            return await conversation.approve(call, digest=digest, by=by)
        case "reject":
            return await conversation.reject(call, given.get("reason", ""), digest=digest, by=by)
        case "error":
            return await conversation.answer(call, error=given["error"], digest=digest, by=by)
        case _:
            return await conversation.answer(call, given["output"], digest=digest, by=by)
