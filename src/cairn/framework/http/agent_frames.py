"""The frames of the published client `agents@0.32`, read and written. Pure: bytes in, values out.

Laws. What is not a frame of this vocabulary is no error here: it is a message for the object, word for word. A frame that
names a type of ours and is not of its form is refused in words that are sent back, and closes nothing.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from cairn.framework.http.body import decode
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.problems import Problem

STATE: Final = "cf_agent_state"
STATE_ERROR: Final = "cf_agent_state_error"
IDENTITY: Final = "cf_agent_identity"
MCP_SERVERS: Final = "cf_agent_mcp_servers"
RPC: Final = "rpc"

#: Nothing of the object can be asked for by these words: the client shows them as they are.
READONLY = "Connection is readonly"
REJECTED = "State update rejected"

_encoder = msgspec.json.Encoder()
_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])

#: Agents here have no MCP servers of their own to show; the client wants the lists all the same.
NO_SERVERS = _encoder.encode(
    {"type": MCP_SERVERS, "mcp": {"servers": {}, "tools": [], "prompts": [], "resources": []}}
).decode()


# --- what a client says ---------------------------------------------------------------------------------------------


class SetState(msgspec.Struct, frozen=True):
    """The client has another state."""

    state: msgspec.Raw


class Call(msgspec.Struct, frozen=True):
    """A method is called; its answer has the same id."""

    id: str
    method: str
    args: tuple[msgspec.Raw, ...] = ()


class Malformed(msgspec.Struct, frozen=True):
    """A frame of ours that is not of its form. `id` is the call's, when it has one."""

    frame: Literal["rpc", "cf_agent_state"]
    why: str
    id: str | None = None


class Other(msgspec.Struct, frozen=True):
    """A JSON object of another type: perhaps somebody else's frame."""

    type: str
    text: str

    @property
    def fields(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.text)
        return found


Said = SetState | Call | Malformed | Other | None


def said(data: str | bytes, limits: HttpLimits) -> Said:
    """What a message says; None for one that is no frame at all. Pure."""
    if isinstance(data, bytes) or not data.lstrip().startswith("{"):
        return None
    try:
        fields = decode(data.encode(), dict[str, msgspec.Raw], limits)
        type_ = msgspec.json.decode(fields.get("type", msgspec.Raw(b"null")))
    except (Problem, UnicodeEncodeError):
        return None
    if type_ == STATE:
        if "state" not in fields:
            return Malformed(STATE, "the frame has no 'state'")
        return SetState(fields["state"])
    if type_ == RPC:
        return _call(fields)
    return Other(type_, data) if isinstance(type_, str) else None


def _call(fields: dict[str, msgspec.Raw]) -> Call | Malformed:
    id = _text(fields, "id")
    if id is None:
        return Malformed(RPC, "the call has no 'id'")
    method = _text(fields, "method")
    if method is None:
        return Malformed(RPC, "the call names no 'method'", id)
    try:
        args = msgspec.json.decode(fields.get("args", msgspec.Raw(b"[]")), type=list[msgspec.Raw])
    except msgspec.MsgspecError:
        return Malformed(RPC, "the call's 'args' are no list", id)
    return Call(id, method, tuple(args))


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    try:
        return msgspec.json.decode(fields[name], type=str)
    except (KeyError, msgspec.MsgspecError):
        return None


# --- what it is told ------------------------------------------------------------------------------------------------


def _said(value: dict[str, Any]) -> str:
    return _encoder.encode(value).decode()


def identity(name: str, kind: str, *, state_follows: bool) -> str:
    """Whom the client is connected to. `state_follows`: it is not ready before the state has come."""
    return _said({"type": IDENTITY, "name": name, "agent": kind, **({"stateFollows": True} if state_follows else {})})


def state(value: msgspec.Raw | bytes) -> str:
    return _said({"type": STATE, "state": msgspec.Raw(value)})


def state_error(why: str) -> str:
    return _said({"type": STATE_ERROR, "error": why})


def result(id: str, value: msgspec.Raw | bytes) -> str:
    return _said({"type": RPC, "id": id, "success": True, "done": True, "result": msgspec.Raw(value)})


def chunk(id: str, value: msgspec.Raw | bytes) -> str:
    return _said({"type": RPC, "id": id, "success": True, "done": False, "result": msgspec.Raw(value)})


def error(id: str, why: str) -> str:
    return _said({"type": RPC, "id": id, "success": False, "error": why})


def unknown_method(method: str) -> str:
    return f"Method {method} does not exist"
