"""The frames a chat client is sent. Pure.

Laws. Every frame is one the published client knows; a chunk is JSON in a text, as it wants it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

Json = dict[str, Any]

# What a client says.
REQUEST: Final = "cf_agent_use_chat_request"
CANCEL: Final = "cf_agent_chat_request_cancel"
CLEAR: Final = "cf_agent_chat_clear"
MESSAGES: Final = "cf_agent_chat_messages"
TOOL_RESULT: Final = "cf_agent_tool_result"
TOOL_APPROVAL: Final = "cf_agent_tool_approval"
RESUME_REQUEST: Final = "cf_agent_stream_resume_request"
RESUME_ACK: Final = "cf_agent_stream_resume_ack"

# What it is told; CLEAR and MESSAGES too.
RESPONSE: Final = "cf_agent_use_chat_response"
MESSAGE_UPDATED: Final = "cf_agent_message_updated"
RESUMING: Final = "cf_agent_stream_resuming"
PENDING: Final = "cf_agent_stream_pending"
RESUME_NONE: Final = "cf_agent_stream_resume_none"
RECOVERING: Final = "cf_agent_chat_recovering"

_encode = msgspec.json.Encoder().encode


def _frame(type: str, **fields: Any) -> str:
    return _encode({"type": type, **{name: value for name, value in fields.items() if value is not None}}).decode()


def chunk(id: str, value: Json, *, replay: bool = False) -> str:
    """One chunk of an answer."""
    return _frame(RESPONSE, id=id, body=_encode(value).decode(), done=False, replay=replay or None)


def replayed(id: str) -> str:
    """All there is has been replayed; what follows is live."""
    return _frame(RESPONSE, id=id, body="", done=False, replay=True, replayComplete=True)


def over(id: str) -> str:
    """The stream somebody listened to is over."""
    return _frame(RESPONSE, id=id, body="", done=True, replay=True)


def ended(id: str, outcome: str, *, messages: list[str] | None = None) -> str:
    """The end of a request: `completed`, `aborted`, `skipped`."""
    return _frame(RESPONSE, id=id, body="", done=True, outcome=outcome, messageIds=messages or None)


def failed(id: str, why: str, *, messages: list[str] | None = None, replay: bool = False) -> str:
    """The end of a request that came to nothing, in words that are shown."""
    fields = {"outcome": "error", "messageIds": messages or None, "replay": replay or None}
    return _frame(RESPONSE, id=id, body=why, done=True, error=True, **fields)


def transcript(messages: bytes, *, connect: bool = False) -> str:
    """All messages, given as a JSON array."""
    return _frame(MESSAGES, messages=msgspec.Raw(messages), connect=connect or None)


def message_updated(message: Json) -> str:
    return _frame(MESSAGE_UPDATED, message=message)


def cleared() -> str:
    return _frame(CLEAR)


def resuming(id: str, probe: str | None) -> str:
    return _frame(RESUMING, id=id, probeId=probe)


def pending(probe: str | None) -> str:
    return _frame(PENDING, probeId=probe)


def idle(probe: str | None) -> str:
    return _frame(RESUME_NONE, reason="idle", probeId=probe)


def recovering(id: str, is_recovering: bool) -> str:
    return _frame(RECOVERING, id=id, recovering=is_recovering)
