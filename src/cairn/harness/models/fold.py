"""From the library's stream events to ours, and from a finished stream to one completed response.

Laws. Each event costs what it brings: the text so far is never looked at again until the end (the library's own
snapshot is asked for once, when the stream is over). What was yielded as deltas *is* the text of the response: the
blocks are built from the deltas, and only ids, signatures and arguments are taken from the snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
)

from cairn.errors import ModelError
from cairn.harness.messages import Content, StopReason, Text, ToolCall, Usage
from cairn.harness.models.convert import legal_id, plain, signature_of, thinking_of
from cairn.harness.models.protocol import Activity, Completed, ModelEvent, TextDelta, ThinkingDelta

#: Tokens of thinking, under each vendor's name; they are part of the output.
_REASONING_KEYS: Final = ("reasoning_tokens", "thinking_tokens", "thoughts_tokens")

#: The library gives calls that came without an id (Gemini's) a random one; ours must not depend on chance.
_INVENTED_ID: Final = "pyd_ai_"

#: How much of unreadable arguments the model is shown back, in characters.
_ARGUMENTS_SHOWN: Final = 200

ALIVE: Final = Activity()


class Fold:
    """The blocks of one response while it streams. One object per response."""

    def __init__(self) -> None:
        self.examined = 0
        """Characters looked at so far: equal to the characters received, whatever their number of deltas."""
        self._opened: dict[int, _Open] = {}

    def apply(self, event: ModelResponseStreamEvent) -> ModelEvent | None:
        """Our event for theirs; None for those the library derives from others and the wire never carried."""
        if isinstance(event, PartDeltaEvent):
            delta = event.delta
            if isinstance(delta, TextPartDelta | ThinkingPartDelta):
                return self._grow(event.index, delta.content_delta)
            return ALIVE
        if isinstance(event, PartStartEvent):
            part = event.part
            if isinstance(part, TextPart | ThinkingPart):
                self._opened.setdefault(event.index, _Open(len(self._opened), type(part)))
                return self._grow(event.index, part.content)
            if isinstance(part, ToolCallPart):
                self._opened.setdefault(event.index, _Open(len(self._opened), ToolCallPart))
            return ALIVE
        return None

    def refusal(self, text: str) -> TextDelta:
        """A refusal some providers report beside the content: shown as one more block of text."""
        opened = _Open(len(self._opened), TextPart)
        self._opened[max(self._opened, default=-1) + 1] = opened
        opened.texts.append(text)
        return TextDelta(opened.block, text)

    def completed(self, response: ModelResponse, *, taken: Iterable[str]) -> Completed:
        """The whole response, once the stream has ended. `taken` are the call ids the conversation already used."""
        # A block is found again by its rank among its kind: a call whose name came late has another position in the
        # snapshot than in the stream.
        ranks = {kind: iter(self._of(kind)) for kind in (TextPart, ThinkingPart, ToolCallPart)}
        blocks: dict[int, Content] = {}
        used = set(taken)
        for part in response.parts:
            kind = next((kind for kind in ranks if isinstance(part, kind)), None)
            opened = next(ranks[kind], None) if kind is not None else None
            if opened is not None:
                blocks[opened.block] = _block(part, "".join(opened.texts), used)
        for opened in self._opened.values():
            if opened.block not in blocks and opened.texts:
                blocks[opened.block] = Text(text="".join(opened.texts))
        content = tuple(blocks[number] for number in sorted(blocks))
        return Completed(
            content=content,
            stop=_stop(response, content),
            usage=usage_of(response),
            response_model=response.model_name or "",
            response_id=response.provider_response_id or "",
        )

    def _of(self, kind: type) -> list[_Open]:
        return [opened for _, opened in sorted(self._opened.items()) if opened.kind is kind]

    def _grow(self, index: int, text: str | None) -> ModelEvent:
        if not text:
            return ALIVE
        self.examined += len(text)
        opened = self._opened[index]
        opened.texts.append(text)
        made = TextDelta if opened.kind is TextPart else ThinkingDelta
        return made(opened.block, text)


@dataclass(slots=True)
class _Open:
    """One block that has begun: its number among ours, the kind of part it comes from, what it has said."""

    block: int
    kind: type
    texts: list[str] = field(default_factory=list)


def usage_of(response: ModelResponse) -> Usage:
    """Tokens with the cached parts taken out of the input, where the library counts them in."""
    usage = response.usage
    details = usage.details or {}
    return Usage(
        input=max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens),
        output=usage.output_tokens,
        cache_read=usage.cache_read_tokens,
        cache_write=usage.cache_write_tokens,
        reasoning=next((details[key] for key in _REASONING_KEYS if details.get(key)), 0),
    )


def _stop(response: ModelResponse, content: Iterable[Content]) -> StopReason:
    reason = response.finish_reason
    details = response.provider_details or {}
    # The library invents `stop` for a chat stream that merely ended; the provider's own word is in the details.
    if response.state == "incomplete" or not details.keys() & {"finish_reason", "refusal"}:
        raise ModelError(
            "the stream ended before the response was complete: no finish reason arrived",
            kind="network",
            details={"transport": "broken"},
        )
    if reason == "error":
        raise ModelError(f"the provider ended the response with an error: {plain(details)}", kind="server")
    if reason == "content_filter":
        return "refusal"
    if reason == "length":
        return "length"
    # Providers disagree about the word when calls are present, so the content decides.
    return "tools" if any(isinstance(block, ToolCall) for block in content) else "stop"


def _block(part: Any, text: str, used: set[str]) -> Content:
    if isinstance(part, TextPart):
        return Text(text=text, signature=signature_of(part))
    if isinstance(part, ThinkingPart):
        return thinking_of(part, text)
    return _call(part, used)


def _call(part: ToolCallPart, used: set[str]) -> ToolCall:
    call = part.tool_call_id
    if call.startswith(_INVENTED_ID):
        call = "call"
    if not call or call == "call" or call in used:
        call = legal_id(call, used)
    used.add(call)
    arguments, error = read_arguments(part.args)
    return ToolCall(id=call, name=part.tool_name, arguments=arguments, arguments_error=error, signature=signature_of(part))


def read_arguments(raw: str | dict[str, Any] | None) -> tuple[dict[str, Any], str | None]:
    """What the model wrote, as an object; or an empty one and why it is none. No arguments at all are an empty object."""
    if isinstance(raw, dict):
        return raw, None
    if not raw or not raw.strip():
        return {}, None
    try:
        value = json.loads(raw)
    except ValueError as error:
        return {}, f"the arguments are not valid JSON ({error}): {_shown(raw)}"
    if not isinstance(value, dict):
        return {}, f"the arguments must be a JSON object, not {type(value).__name__}: {_shown(raw)}"
    return value, None


def _shown(raw: str) -> str:
    return raw if len(raw) <= _ARGUMENTS_SHOWN else raw[:_ARGUMENTS_SHOWN] + "…"
