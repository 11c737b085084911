"""Folding a stream: what each delta costs, and what is read from a call's arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def streamed(text: str, pieces: int) -> tuple[int, int, str]:
    """Characters examined, deltas made, and the text of the folded response."""
    from pydantic_ai.messages import ModelResponse, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

    from cairn.harness.models.fold import Fold
    from cairn.harness.models.protocol import TextDelta

    fold = Fold()
    size = len(text) // pieces
    cut = [text[start : start + size] for start in range(0, len(text), size)]
    events: list[Any] = [PartStartEvent(index=0, part=TextPart(content=cut[0]))]
    events += [PartDeltaEvent(index=0, delta=TextPartDelta(content_delta=piece)) for piece in cut[1:]]
    made = [fold.apply(event) for event in events]
    snapshot = ModelResponse(parts=[TextPart(content=text)], finish_reason="stop", provider_details={"finish_reason": "stop"})
    completed = fold.completed(snapshot, taken=())
    return fold.examined, sum(isinstance(event, TextDelta) for event in made), completed.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("pieces", [1, 10, 1000, 50_000])
def test_the_cost_of_a_delta_does_not_depend_on_the_text_before_it(pieces: int) -> None:
    """L3: however often a text is cut, each character is looked at once (counted, not timed)."""
    text = "0123456789" * 5000

    assert streamed(text, pieces) == (len(text), pieces, text)


def test_the_snapshot_of_the_library_is_asked_for_once_per_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: its cost grows with the text, so a stream of 500 deltas must not ask 500 times."""
    from pydantic_ai.models import StreamedResponse
    from tests.harness.models.asking import Setup, served

    from cairn.testing.providers import Reply, Say

    asked: list[int] = []
    original = StreamedResponse.get

    def counted(self: StreamedResponse) -> Any:
        asked.append(1)
        return original(self)

    monkeypatch.setattr(StreamedResponse, "get", counted)

    async def body(setup: Setup) -> None:
        answer = await setup.ask()
        assert answer.text == "x" * 500

    served("anthropic", [Reply.of(Say(*["x"] * 500))], body)
    assert asked == [1]


@pytest.mark.parametrize(
    ("raw", "arguments", "wrong"),
    [
        ('{"a": 1}', {"a": 1}, False),
        ({"a": 1}, {"a": 1}, False),
        ("", {}, False),
        ("  \n", {}, False),
        (None, {}, False),
        ('{"a": 1', {}, True),
        ("[1]", {}, True),
        ("null", {}, True),
        ("x" * 5000, {}, True),
    ],
)
def test_arguments_are_an_object_or_a_reason(raw: Any, arguments: dict[str, Any], wrong: bool) -> None:
    """P6: the model is told what it wrote and why it could not be read, within bounds."""
    from cairn.harness.models.fold import read_arguments

    read, error = read_arguments(raw)

    assert read == arguments
    assert (error is not None) == wrong
    assert error is None or len(error) < 400


def test_a_call_whose_name_comes_late_does_not_mix_up_the_texts() -> None:
    """L3: blocks are matched by kind and rank, not by position."""
    from pydantic_ai.messages import ModelResponse, PartStartEvent, TextPart, ToolCallPart

    from cairn.harness.messages import Text, ToolCall
    from cairn.harness.models.fold import Fold

    fold = Fold()
    fold.apply(PartStartEvent(index=1, part=TextPart(content="first seen")))
    fold.apply(PartStartEvent(index=0, part=ToolCallPart("add", "{}", "c1")))
    fold.apply(PartStartEvent(index=2, part=TextPart(content="last")))

    snapshot = ModelResponse(
        parts=[ToolCallPart("add", json.dumps({"a": 1}), "c1"), TextPart(content="first seen"), TextPart(content="last")],
        provider_details={"finish_reason": "stop"},
    )
    content = fold.completed(snapshot, taken=()).content

    assert content == (
        Text(text="first seen"),
        ToolCall(id="c1", name="add", arguments={"a": 1}),
        Text(text="last"),
    )
