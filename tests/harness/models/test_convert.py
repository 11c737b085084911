"""From our messages to the provider library's, and what a handover to another model changes (P22, P23)."""

from __future__ import annotations

import gc

import pytest

from cairn.errors import ModelError
from cairn.harness.messages import (
    AssistantMessage,
    ContextMessage,
    Image,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)

pytestmark = pytest.mark.slow

A, B = "anthropic:claude-sonnet-4-5", "openai:gpt-5"


def user(text: str) -> UserMessage:
    return UserMessage(content=(Text(text=text),))


def result(call: str, text: str = "ok", **more: bool) -> ToolMessage:
    return ToolMessage(call=call, name="look", content=(Text(text=text),), **more)


def calls(*ids: str, model: str = A) -> AssistantMessage:
    return AssistantMessage(content=tuple(ToolCall(id=call, name="look", arguments={}) for call in ids), model=model)


def converter(spec: str = A, keeps_unsigned_thinking: bool = False):  # type: ignore[no-untyped-def]
    from cairn.harness.models.convert import Converter

    return Converter(spec, spec.partition(":")[0], keeps_unsigned_thinking=keeps_unsigned_thinking)


def parts(converted: object) -> list[tuple[str, object]]:
    """Kind and content of every part, flat."""
    found: list[tuple[str, object]] = []
    for message in converted:  # type: ignore[attr-defined]
        for part in message.parts:
            key = getattr(part, "tool_call_id", None) or getattr(part, "content", None)
            found.append((part.part_kind, key))
    return found


def test_a_grown_conversation_converts_only_what_is_new() -> None:
    """P26: a turn costs what it adds, counted; the earlier messages are the same objects as before."""
    target = converter()
    history: list[ContextMessage] = [user("0")]
    counts = []

    for turn in range(50):
        before = target.converted
        target.messages(history)
        counts.append(target.converted - before)
        call = f"call_{turn}"
        history += [calls(call), result(call)]

    assert counts == [1] + [2] * 49


def test_what_was_converted_is_forgotten_with_its_message() -> None:
    """L3: the cache holds no conversation alive."""
    target = converter()
    history = [user("a"), calls("x"), result("x")]
    target.messages(history)
    assert len(target._cache) == 3

    history.clear()
    gc.collect()

    assert len(target._cache) == 0


def foreign() -> list[ContextMessage]:
    """A conversation model A had: thinking, signatures, ids no other provider takes."""
    long = "call|" + "x" * 70
    return [
        user("hi"),
        AssistantMessage(
            content=(
                Thinking(text="secret thoughts", signature="U0lH"),
                Text(text="Looking.", signature='{"id": "msg_1"}'),
                ToolCall(id=long + "1", name="look", arguments={"a": 1}, signature='{"id": "fc_1"}'),
                ToolCall(id=long + "2", name="look", arguments={"a": 2}),
                ToolCall(id="fine-1", name="look", arguments={"a": 3}),
            ),
            model=A,
        ),
        result(long + "1", "one"),
        result(long + "2", "two"),
        result("fine-1", "three"),
        user("and?"),
    ]


def test_another_model_gets_no_thinking_no_signatures_and_legal_unique_ids() -> None:
    """P22: what only the first model can read is left out; results still match their calls."""
    history = foreign()

    sent = converter(B).messages(history)

    response = sent[1]
    assert [part.part_kind for part in response.parts] == ["text", "tool-call", "tool-call", "tool-call"]
    assert all(part.id is None and part.provider_name is None for part in response.parts)
    ids = [part.tool_call_id for part in response.parts[1:]]
    assert ids[2] == "fine-1"
    assert len(set(ids)) == 3
    assert all(len(call) <= 40 and call.replace("_", "").replace("-", "").isalnum() for call in ids)
    answers = {part.tool_call_id: part.content for part in sent[2].parts if part.part_kind == "tool-return"}
    assert answers == dict(zip(ids, ["one", "two", "three"], strict=True))


def test_back_on_the_first_model_the_original_is_intact() -> None:
    """P22: a handover changes what is sent, never what is kept."""
    history = foreign()
    first = converter(A)
    before = first.messages(history)

    converter(B).messages(history)
    after = converter(A).messages(history)

    assert parts(after) == parts(before)
    thinking = after[1].parts[0]
    assert (thinking.content, thinking.signature, thinking.provider_name) == ("secret thoughts", "U0lH", "anthropic")
    assert after[1].parts[1].id == "msg_1"
    assert after[1].parts[2].tool_call_id.startswith("call|")


def test_handed_over_ids_are_the_same_every_time() -> None:
    """P26: a renamed id that changed between requests would throw the provider's cache away."""
    history = foreign()

    sent = [parts(converter(B).messages(history)) for _ in range(2)]
    longer = parts(converter(B).messages([*history, calls("new|id", model=A), result("new|id")]))

    assert sent[0] == sent[1]
    assert longer[: len(sent[0])] == sent[0]


def test_a_call_without_a_result_gets_an_error_before_the_next_user_message() -> None:
    """P23: providers refuse a history with an open call; each gets one synthetic answer."""
    sent = converter().messages([user("hi"), calls("a", "b"), result("a"), user("next")])

    assert parts(sent) == [
        ("user-prompt", "hi"),
        ("tool-call", "a"),
        ("tool-call", "b"),
        ("tool-return", "a"),
        ("tool-return", "b"),
        ("user-prompt", "next"),
    ]
    assert sent[2].parts[1].outcome == "interrupted"


def test_calls_left_open_at_the_end_are_answered_too() -> None:
    """P23: a request may end there after an abort."""
    sent = converter().messages([user("hi"), calls("a")])

    assert parts(sent)[-1] == ("tool-return", "a")


def test_no_result_is_made_up_for_a_call_that_has_one_and_none_is_left_without_a_call() -> None:
    """P23: repairing is only for what is broken."""
    whole = converter().messages([user("hi"), calls("a"), result("a"), user("next")])
    orphan = converter().messages([user("hi"), result("gone"), user("next")])

    assert [kind for kind, _ in parts(whole)] == ["user-prompt", "tool-call", "tool-return", "user-prompt"]
    assert "gone" not in [key for _, key in parts(orphan)]


def test_an_interrupted_message_keeps_its_text_and_loses_its_unfinished_thinking() -> None:
    """P19: what the reader saw stays in the model's view; a signature that never came cannot be replayed."""
    cut = AssistantMessage(content=(Thinking(text="half"), Text(text="So f")), model=A, interrupted=True)

    sent = converter().messages([user("hi"), cut, user("go on")])

    assert parts(sent) == [("user-prompt", "hi"), ("text", "So f"), ("user-prompt", "go on")]


def test_thinking_without_a_signature_goes_back_only_where_nobody_signs() -> None:
    """P22: Chat Completions servers take their reasoning back as text; signing providers refuse it."""
    message = AssistantMessage(content=(Thinking(text="hm", details={"id": "reasoning_content"}), Text(text="x")), model=A)

    assert "thinking" not in dict(parts(converter().messages([user("a"), message])))
    assert "thinking" in dict(parts(converter(keeps_unsigned_thinking=True).messages([user("a"), message])))


def test_a_message_with_nothing_to_say_is_left_out() -> None:
    """P22: providers refuse empty content."""
    empty = AssistantMessage(content=(Text(text=""),), model=A)
    thought = AssistantMessage(content=(Thinking(text="x", signature="s"),), model=B)

    assert parts(converter().messages([user("a"), empty, thought, user("b")])) == [
        ("user-prompt", "a"),
        ("user-prompt", "b"),
    ]


def test_an_image_whose_bytes_were_not_loaded_is_named() -> None:
    """S14: a request is never sent without what it refers to."""
    message = UserMessage(content=(Image(mime_type="image/png", blob="sha256-1", filename="a.png"),))

    with pytest.raises(ModelError, match=r"a\.png"):
        converter().messages([message])


def test_tools_keep_their_declared_order() -> None:
    """P26: the order of the tools is part of the cached head."""
    from cairn.harness.models.convert import parameters

    tools = [ToolSpec(name=name, description=name, parameters={"type": "object"}) for name in ("z", "a", "m")]

    assert [tool.name for tool in parameters("", tools).function_tools] == ["z", "a", "m"]


@pytest.mark.parametrize("call", ["", "a b", "ünï", "x" * 100, "call|fc_1", "ok_1"])
def test_a_legal_id_is_legal_unique_and_stable(call: str) -> None:
    """P22: for any id any provider may have made."""
    from cairn.harness.models.convert import CALL_ID_CHARS_MAX, legal_id

    first = legal_id(call)
    taken = {first}
    for _ in range(12):
        taken.add(legal_id(call, taken))

    assert first == legal_id(call)
    assert len(taken) == 13
    assert all(0 < len(made) <= CALL_ID_CHARS_MAX for made in taken)
    assert all(character.isascii() and (character.isalnum() or character in "_-") for made in taken for character in made)
