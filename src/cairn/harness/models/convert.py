"""Our messages in the form the provider library takes, and back: the only file that knows both vocabularies.

Laws. Nothing of theirs is ever durable: parts are made from our frozen messages for one model and thrown away. What is
derived from a message is kept by the message's identity, so a conversation that grew by one message converts one.
A message of another model is *handed over* (P22): its thinking and signatures are left out and its call ids made legal
and unique, on the way out only, so the first model finds its own words intact when it is used again.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_ai.messages import (
    BinaryContent,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
    repair_messages,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from cairn.errors import ModelError
from cairn.harness.messages import (
    AssistantMessage,
    Content,
    ContextMessage,
    Image,
    Message,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)

#: Characters every provider accepts in a call id, and the smallest of their length limits (OpenAI Chat: 40).
_ILLEGAL: Final = re.compile(r"[^a-zA-Z0-9_-]")
CALL_ID_CHARS_MAX: Final = 40

#: Requests carry no meaningful time of ours; a fixed one keeps equal messages equal.
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class Converter:
    """Converts the messages of any number of conversations for one model.

    `spec` is that model's durable name, `system` the library's name of its provider: parts stamped with it are replayed
    with their signatures.
    """

    def __init__(self, spec: str, system: str, *, keeps_unsigned_thinking: bool) -> None:
        self.spec = spec
        self.converted = 0
        """How many messages were converted so far: the cost of a turn, countable in a test."""
        self._system = system
        self._keeps_unsigned_thinking = keeps_unsigned_thinking
        # By id() with a weak reference, not a WeakKeyDictionary: hashing a message would hash its whole text.
        self._cache: dict[int, tuple[weakref.ref[Message], ModelMessage | None]] = {}

    def messages(self, messages: Sequence[ContextMessage]) -> list[ModelMessage]:
        """The request's history, valid for the provider: every call answered once, no orphaned result (P23).

        A call without a result gets the library's synthetic one, before the next user message.
        """
        renamed = _handed_over_ids(messages, self.spec)
        converted = [self._convert(message, renamed) for message in messages]
        return repair_messages([message for message in converted if message is not None])

    def _convert(self, message: ContextMessage, renamed: Mapping[str, str]) -> ModelMessage | None:
        # A renamed id depends on the messages before it, so what mentions one is not kept.
        if renamed and _mentions(message, renamed):
            return self._fresh(message, renamed)
        known = self._cache.get(id(message))
        if known is not None and known[0]() is message:
            return known[1]
        converted = self._fresh(message, {})
        key = id(message)
        self._cache[key] = (weakref.ref(message, lambda _: self._cache.pop(key, None)), converted)
        return converted

    def _fresh(self, message: ContextMessage, renamed: Mapping[str, str]) -> ModelMessage | None:
        self.converted += 1
        if isinstance(message, UserMessage):
            return ModelRequest(parts=[UserPromptPart(_user_content(message.content), timestamp=_EPOCH)])
        if isinstance(message, ToolMessage):
            return ModelRequest(parts=_result_parts(message, renamed))
        same = message.model == self.spec
        parts = [part for block in message.content if (part := self._part(block, same, renamed)) is not None]
        if not parts:
            return None
        return ModelResponse(parts=parts, timestamp=_EPOCH, provider_name=self._system if same else None)

    def _part(self, block: Content, same: bool, renamed: Mapping[str, str]) -> ModelResponsePart | None:
        if isinstance(block, Text):
            extra = self._unsigned(block.signature) if same else {}
            return TextPart(block.text, **extra) if block.text else None
        if isinstance(block, Thinking):
            return self._thinking(block) if same else None
        if isinstance(block, ToolCall):
            extra = self._unsigned(block.signature) if same else {}
            return ToolCallPart(block.name, block.arguments, renamed.get(block.id, block.id), **extra)
        return None

    def _thinking(self, block: Thinking) -> ThinkingPart | None:
        # Thinking that was cut off before its signature came is refused by providers that sign.
        if not block.signature and not (self._keeps_unsigned_thinking and block.text):
            return None
        details = block.details or {}
        return ThinkingPart(
            block.text,
            id=details.get("id"),
            signature=block.signature,
            provider_name=self._system,
            provider_details=details.get("details"),
        )

    def _unsigned(self, signature: str | None) -> dict[str, Any]:
        """What `signature_of` folded into one opaque string, as the library's keyword arguments."""
        if not signature:
            return {}
        opened = json.loads(signature)
        return {"id": opened.get("id"), "provider_details": opened.get("details"), "provider_name": self._system}


def signature_of(part: TextPart | ToolCallPart) -> str | None:
    """What must go back to the same model with a text or a call, as one opaque string; None when there is nothing."""
    found = {"id": part.id, "details": plain(part.provider_details)}
    kept = {name: value for name, value in found.items() if value}
    return json.dumps(kept, sort_keys=True) if kept else None


def thinking_of(part: ThinkingPart, text: str) -> Thinking:
    """Our block for their thinking part, with `text` as it was streamed."""
    found = {"id": part.id, "details": plain(part.provider_details)}
    kept = {name: value for name, value in found.items() if value}
    redacted = part.id == "redacted_thinking"
    return Thinking(text=text, signature=part.signature or None, redacted=redacted, details=kept or None)


def plain(value: Any) -> Any:
    """`value` as plain JSON data, so that a library's object can never reach a record."""
    return None if value is None else json.loads(json.dumps(value, default=str))


def parameters(system: str, tools: Iterable[ToolSpec]) -> ModelRequestParameters:
    """The system text and the tools, in their declared order: their bytes are the head of the cached prefix."""
    return ModelRequestParameters(
        function_tools=[
            ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=tool.parameters)
            for tool in tools
        ],
        instruction_parts=[InstructionPart(content=system)] if system else [],
    )


def legal_id(call: str, taken: Iterable[str] = ()) -> str:
    """`call` with only characters and a length every provider accepts, different from all `taken`. Deterministic."""
    legal = _ILLEGAL.sub("_", call)[:CALL_ID_CHARS_MAX] or "call"
    used = set(taken)
    count = 1
    candidate = legal
    while candidate in used:
        count += 1
        suffix = f"_{count}"
        candidate = legal[: CALL_ID_CHARS_MAX - len(suffix)] + suffix
    return candidate


def _handed_over_ids(messages: Sequence[ContextMessage], spec: str) -> dict[str, str]:
    """New ids for calls another model made whose ids this one may refuse; its own calls keep theirs."""
    foreign: list[str] = []
    taken: set[str] = set()
    for message in messages:
        if not isinstance(message, AssistantMessage):
            continue
        ids = [block.id for block in message.content if isinstance(block, ToolCall)]
        taken.update(ids)
        if message.model != spec:
            foreign += [call for call in ids if _ILLEGAL.search(call) or len(call) > CALL_ID_CHARS_MAX or not call]
    renamed: dict[str, str] = {}
    for call in foreign:
        renamed[call] = legal_id(call, taken)
        taken.add(renamed[call])
    return renamed


def _mentions(message: ContextMessage, renamed: Mapping[str, str]) -> bool:
    if isinstance(message, ToolMessage):
        return message.call in renamed
    if isinstance(message, AssistantMessage):
        return any(isinstance(block, ToolCall) and block.id in renamed for block in message.content)
    return False


def _result_parts(message: ToolMessage, renamed: Mapping[str, str]) -> list[ToolReturnPart | UserPromptPart]:
    """The result of a call. Providers refuse images inside an error result, so there they follow as the user's."""
    texts = [block.text for block in message.content if isinstance(block, Text)]
    images = [_image(block) for block in message.content if isinstance(block, Image)]
    inside: list[BinaryContent] = [] if message.is_error else images
    content: Any = [*texts, *inside] if inside else "\n".join(texts)
    result = ToolReturnPart(
        message.name,
        content,
        renamed.get(message.call, message.call),
        timestamp=_EPOCH,
        outcome="failed" if message.is_error else "success",
    )
    return [result] if not images or inside else [result, UserPromptPart(images, timestamp=_EPOCH)]


def _user_content(content: Sequence[Text | Image]) -> str | list[str | BinaryContent]:
    if len(content) == 1 and isinstance(content[0], Text):
        return content[0].text
    return [block.text if isinstance(block, Text) else _image(block) for block in content]


def _image(block: Image) -> BinaryContent:
    if block.data is None:
        raise ModelError(
            f"image {block.filename or block.blob!r} has no bytes here; load its blob before asking the model",
            kind="invalid_request",
        )
    return BinaryContent(data=block.data, media_type=block.mime_type)
