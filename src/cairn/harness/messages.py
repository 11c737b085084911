"""What models read and write, as data: content blocks, messages, tool declarations, usage.

Laws. Pure and provider-free: these structs are part of durable records, so a provider library's types never appear in them
and a field's meaning never changes. A message is frozen once made; `models/*` may cache what it derives from one by identity.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

StopReason = Literal["stop", "tools", "length", "refusal"]
ThinkingLevel = Literal["off", "minimal", "low", "medium", "high", "xhigh", "max"]


class Block(msgspec.Struct, frozen=True, tag_field="type", kw_only=True, omit_defaults=True):
    """A piece of a message's content."""


class Text(Block, frozen=True, tag="text"):
    """Words."""

    text: str
    signature: str | None = None


class Thinking(Block, frozen=True, tag="thinking"):
    """Reasoning. `signature` is opaque and only means something to the model named on the message."""

    text: str
    signature: str | None = None
    redacted: bool = False
    details: dict[str, Any] | None = None


class ToolCall(Block, frozen=True, tag="tool_call"):
    """A request to call a tool. `arguments` is what the model wrote, parsed; when that was not a JSON object,
    `arguments_error` says why and `arguments` is empty."""

    id: str
    name: str
    arguments: dict[str, Any]
    arguments_error: str | None = None
    signature: str | None = None


class Image(Block, frozen=True, tag="image"):
    """An image, by reference (`blob`) once stored, inline (`data`) on the way in."""

    mime_type: str
    blob: str | None = None
    data: bytes | None = None
    filename: str | None = None
    size: int | None = None
    """In bytes, once stored."""


Content = Text | Thinking | ToolCall | Image
ResultContent = Text | Image


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one response, and what it cost in US dollars (None: the price is not known)."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cost: float | None = None


class Message(msgspec.Struct, frozen=True, tag_field="role", kw_only=True, omit_defaults=True, weakref=True):
    """One entry of the context a model is given."""


class UserMessage(Message, frozen=True, tag="user"):
    content: tuple[Text | Image, ...]


class AssistantMessage(Message, frozen=True, tag="assistant"):
    """`model` is the spec that produced it (`anthropic:claude-…`): thinking and signatures only go back to it."""

    content: tuple[Content, ...]
    model: str = ""
    interrupted: bool = False
    """The text was cut off (a crash or a broken stream) and kept; it carries no calls."""


class ToolMessage(Message, frozen=True, tag="tool"):
    """The answer to one call. Every call of an assistant message has exactly one before the next user message."""

    call: str
    name: str
    content: tuple[ResultContent, ...]
    is_error: bool = False


ContextMessage = UserMessage | AssistantMessage | ToolMessage


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as the model sees it."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema of an object."""
