"""What a chat client says, read: whatever it says is understood or refused in words, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cairn.framework.http.chat_request import (
    CLIENT_TOOLS_MAX,
    ChatRequest,
    Said,
    chat_request,
    delivery,
    is_same,
    tool_approval,
    tool_result,
)
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.problems import Problem
from cairn.harness.records import Delivery

Json = dict[str, Any]
LIMITS = HttpLimits()

WORDS = st.sampled_from(
    ["id", "role", "user", "assistant", "parts", "type", "text", "file", "url", "name", "parameters", "x", ""]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
PARTS = st.fixed_dictionaries({"type": st.sampled_from(["text", "file"])}, optional={
    "text": st.text(max_size=5) | VALUES,
    "url": st.sampled_from(["data:image/png;base64,aGk=", "data:,x", "http://a/b"]) | VALUES,
    "filename": VALUES, "mediaType": VALUES,
})  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=4) | VALUES, "role": st.sampled_from(["user", "assistant"]) | VALUES,
     "parts": st.lists(PARTS | VALUES, max_size=3) | VALUES}
)  # fmt: skip
TOOLS = st.fixed_dictionaries({"name": st.just("where") | VALUES}, optional={"description": VALUES, "parameters": VALUES})
BODIES = st.fixed_dictionaries(
    {}, optional={"messages": st.lists(MESSAGES | VALUES, max_size=3) | VALUES,
                  "trigger": st.just("regenerate-message") | VALUES,
                  "clientTools": st.lists(TOOLS, max_size=2) | VALUES, "more": VALUES},
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(BODIES | VALUES, st.text(max_size=5) | VALUES)
def test_whatever_a_request_holds_is_read_or_refused_in_words(body: Any, id: Any) -> None:
    """T5: and what is read can be stored, and reads back as it was."""
    try:
        request = chat_request({"id": id, "init": {"body": json.dumps(body)}}, LIMITS)
        deliveries = [delivery(said, request, LIMITS) for said in request.last]
    except Problem as problem:
        assert problem.status in (400, 413) and problem.details
        return
    assert request.id == id and all(said.role == "user" for said in request.last)
    for each in deliveries:
        assert msgspec.json.decode(msgspec.json.encode(each), type=Delivery) == each


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["toolCallId", "approved", "state", "output", "errorText", "reason"]), VALUES))
def test_whatever_an_answer_holds_is_read_or_ignored(frame: Json) -> None:
    """T5."""
    for read in (tool_result, tool_approval):
        found = read(frame)
        assert found is None or (found.call == frame["toolCallId"] and isinstance(found.text, str))


def said(*parts: Json) -> Said:
    return Said("m", "user", parts)


def request(**body: Any) -> ChatRequest:
    given = {"messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}], **body}
    return chat_request({"id": "r", "init": {"body": json.dumps(given)}}, LIMITS)


def test_a_schema_made_by_the_sdk_is_taken_for_what_it_holds() -> None:
    """`jsonSchema(…)` puts its schema into a field."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    (tool,) = request(clientTools=[{"name": "where", "parameters": {"jsonSchema": schema}}]).tools
    assert tool.parameters == schema


@pytest.mark.parametrize(
    "tools", [[{"name": "a b"}], [{"name": "a", "description": 3}], [{"name": "a"}] * (CLIENT_TOOLS_MAX + 1)]
)
def test_tools_that_could_be_none_are_refused(tools: list[Json]) -> None:
    with pytest.raises(Problem):
        request(clientTools=tools)


def test_two_messages_are_the_same_by_their_words_and_files() -> None:
    """A picture has another address at each of its places."""
    stored = [{"type": "text", "text": "a\nb"}, {"type": "file"}]
    text = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert is_same(said(*text, {"type": "file", "url": "x"}), stored)
    assert not is_same(said(*text), stored) and not is_same(said({"type": "text", "text": "a"}, {"type": "file"}), stored)
