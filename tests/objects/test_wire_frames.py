"""The frames of the published client, read: whatever is sent is one of five things, and nothing is an exception."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.framework.http import agent_frames as frames
from cairn.framework.http.limits import HttpLimits

LIMITS = HttpLimits()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["type", "id", "method", "args", "state"])


def said(value: Any) -> frames.Said:
    return frames.said(value if isinstance(value, str | bytes) else json.dumps(value), LIMITS)


@given(state=JSON)
def test_a_state_is_taken_as_it_is(state: Any) -> None:
    """Its JSON is handed on, not understood: what an object's state may be is the object's word."""
    found = said({"type": "cf_agent_state", "state": state, "more": 1})
    assert isinstance(found, frames.SetState)
    assert msgspec.json.decode(found.state) == msgspec.json.decode(json.dumps(state))


@given(id=st.text(), method=st.text(), args=st.lists(JSON, max_size=4))
def test_a_call_is_its_id_its_method_and_its_arguments(id: str, method: str, args: list[Any]) -> None:
    found = said({"type": "rpc", "id": id, "method": method, "args": args})
    assert isinstance(found, frames.Call)
    assert (found.id, found.method) == (id, method)
    assert [msgspec.json.decode(arg) for arg in found.args] == msgspec.json.decode(json.dumps(args))


@given(frame=st.dictionaries(NAMES, JSON) | st.dictionaries(NAMES, st.sampled_from(["rpc", "cf_agent_state", 1, None, [], {}])))
def test_a_frame_of_any_form_is_one_of_five_things(frame: dict[str, Any]) -> None:
    """And what is answered is answered by an id that was given."""
    match said(frame):
        case frames.Malformed(frame="rpc", id=id):
            assert id == frame.get("id") or (id is None and not isinstance(frame.get("id"), str))
        case frames.Call(id=id):
            assert id == frame["id"] and frame["type"] == "rpc"
        case frames.SetState() | frames.Malformed():
            assert frame["type"] == "cf_agent_state"
        case frames.Other(type=type):
            assert type == frame["type"] not in ("rpc", "cf_agent_state")
        case None:
            assert not isinstance(frame.get("type"), str)


@given(data=st.text() | st.binary())
def test_what_is_no_json_object_is_no_frame(data: str | bytes) -> None:
    """Text and bytes of any kind are for the object."""
    try:
        is_object = isinstance(data, str) and isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        is_object = False
    assert is_object or said(data) is None


@pytest.mark.parametrize(
    "data", ['{"type":"rpc","id":' + "[" * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000, '{"type":"rpc","id":"\ud800"}']
)
def test_what_is_too_deep_or_no_text_is_no_frame(data: str) -> None:
    """X7: it is not decoded; the object gets it as it is, if it is text."""
    assert said(data) is None


@given(value=JSON)
def test_answers_are_what_the_client_reads(value: Any) -> None:
    """Byte for byte JSON, the fields in the client's names."""
    raw = msgspec.Raw(json.dumps(value).encode())
    wanted = msgspec.json.decode(raw)
    assert msgspec.json.decode(frames.result("1", raw)) == {
        "type": "rpc",
        "id": "1",
        "success": True,
        "done": True,
        "result": wanted,
    }
    assert msgspec.json.decode(frames.chunk("1", raw))["done"] is False
    assert msgspec.json.decode(frames.state(raw)) == {"type": "cf_agent_state", "state": wanted}
    assert msgspec.json.decode(frames.error("1", "why")) == {"type": "rpc", "id": "1", "success": False, "error": "why"}
