"""Everything a request can be refused with: one constructor a kind, and the envelope clients read.

Laws. Pure. `type` is a stable word for programs, `message` a sentence without the particulars, `details` the particulars: what
is wrong with *this* request and what to do. An unexpected exception shows nothing of itself; its `ref` finds it in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Problem(Exception):
    """A refusal on its way to the client."""

    def __init__(
        self,
        type: str,
        status: int,
        message: str,
        details: str = "",
        *,
        meta: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        ref: str | None = None,
    ) -> None:
        super().__init__(f"{type}: {details or message}")
        self.type = type
        self.status = status
        self.message = message
        self.details = details
        self.meta = meta
        self.headers = dict(headers or {})
        self.ref = ref

    def body(self) -> bytes:
        error: dict[str, Any] = {"type": self.type, "message": self.message, "details": self.details}
        if self.meta is not None:
            error["meta"] = self.meta
        if self.ref is not None:
            error["ref"] = self.ref
        return msgspec.json.encode({"error": error})


# --- what the client sent -------------------------------------------------------------------------------------------


def invalid_request(details: str) -> Problem:
    return Problem("invalid_request", 400, "Request is malformed.", details)


def invalid_json(details: str) -> Problem:
    return Problem("invalid_json", 400, "Request body is not valid JSON.", details)


def unsupported_media_type(details: str) -> Problem:
    return Problem("unsupported_media_type", 415, "Request body has a type that is not accepted here.", details)


def payload_too_large(details: str) -> Problem:
    return Problem("payload_too_large", 413, "Request body is too large.", details)


def request_timeout(details: str) -> Problem:
    return Problem("request_timeout", 408, "Request body did not arrive in time.", details, headers={"connection": "close"})


def method_not_allowed(method: str, allowed: str) -> Problem:
    details = f"{method} is not possible here; possible: {allowed}."
    return Problem("method_not_allowed", 405, "Method is not allowed.", details, headers={"allow": allowed})


# --- who sent it ----------------------------------------------------------------------------------------------------


def unauthorized(details: str) -> Problem:
    headers = {"www-authenticate": "Bearer"}
    return Problem("unauthorized", 401, "A valid credential is needed.", details, headers=headers)


def forbidden(details: str) -> Problem:
    return Problem("forbidden", 403, "This credential does not allow that.", details)


def origin_not_allowed(details: str) -> Problem:
    return Problem("origin_not_allowed", 403, "Requests from this origin are not accepted.", details)


def host_not_allowed(details: str) -> Problem:
    return Problem("host_not_allowed", 421, "This server does not answer for that host.", details)


def too_many_requests(details: str, retry_after_seconds: float = 1.0) -> Problem:
    headers = {"retry-after": str(max(1, round(retry_after_seconds)))}
    return Problem("too_many_requests", 429, "Too many requests.", details, headers=headers)


# --- what it is about -----------------------------------------------------------------------------------------------


def route_not_found(path: str) -> Problem:
    return Problem("route_not_found", 404, "There is nothing here.", f"No route matches {path[:200]}.")


def stream_not_found(kind: str, id: str) -> Problem:
    message = f"Conversation agents/{kind}/{id} does not exist."
    return Problem("stream_not_found", 404, message, "It begins with the first message sent to it.")


def attachment_not_found(id: str) -> Problem:
    return Problem(
        "attachment_not_found", 404, "Attachment does not exist.", f"The conversation has no attachment '{id[:200]}'."
    )


def instance_not_found(kind: str, id: str) -> Problem:
    message = "Agent instance does not exist."
    return Problem("agent_instance_not_found", 404, message, f"agents/{kind}/{id} is absent, or has another uid.")


def instance_exists(kind: str, id: str, uid: str) -> Problem:
    details = f"agents/{kind}/{id} exists already; send without `uid` to continue it."
    return Problem("agent_instance_exists", 409, "Agent instance exists.", details, meta={"uid": uid})


def submission_conflict(submission: str) -> Problem:
    details = "This idempotency key was used with another message; use a new key for a new message."
    meta = {"submissionId": submission}
    return Problem("submission_conflict", 409, "Idempotency key belongs to another message.", details, meta=meta)


def question_not_found(details: str) -> Problem:
    return Problem("question_not_found", 404, "There is no such question.", details)


def message_not_found(details: str) -> Problem:
    return Problem("message_not_found", 404, "There is no such message.", details)


def answer_conflict(details: str) -> Problem:
    return Problem("answer_conflict", 409, "The answer does not count.", details)


def offset_gone(offset: str, next_offset: str) -> Problem:
    details = f"Offset {offset} is beyond the end of this conversation, {next_offset}; read its history again."
    meta = {"offset": offset, "nextOffset": next_offset}
    return Problem("stream_offset_gone", 416, "Offset is beyond the end.", details, meta=meta)


def handler_timeout(details: str) -> Problem:
    return Problem("handler_timeout", 504, "The object did not answer in time.", details)


# --- how the server is doing ----------------------------------------------------------------------------------------


def unavailable(state: str, details: str) -> Problem:
    return Problem(
        "runtime_unavailable", 503, "The server is not available.", details, meta={"state": state}, headers={"retry-after": "1"}
    )


def insufficient_storage(details: str) -> Problem:
    return Problem("insufficient_storage", 507, "There is no room left.", details)


def internal(ref: str) -> Problem:
    details = f"It was logged under {ref}."
    return Problem("internal_error", 500, "Something went wrong.", details, ref=ref, headers={"flue-error-ref": ref})
