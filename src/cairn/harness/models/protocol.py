"""What the loop asks of a model: one request in, a stream of deltas out, ended by one completed response.

Laws for implementations. No retries of their own: each attempt is the loop's, logged. A failure is a `ModelError` with a
structured kind, raised from the iterator at any point; what had been yielded before stays valid. Closing the iterator
(`aclose`) or cancelling its task drops the connection at once. Nothing heavy is imported before `warm` or the first request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cairn.harness.messages import Content, ContextMessage, StopReason, ThinkingLevel, ToolSpec, Usage


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request. `messages` only ever grows at its end within one run of turns, and its elements keep their identity,
    so an implementation can keep the converted prefix."""

    model: str
    system: str
    messages: Sequence[ContextMessage]
    tools: Sequence[ToolSpec] = ()
    thinking: ThinkingLevel | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    cache: bool = True
    """Ask the provider to cache the prefix."""
    affinity: str = ""
    """Stable per conversation: cache routing key."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Passed through to the provider library untouched."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of block `block` (0-based, in order of appearance among all blocks of the response)."""

    block: int
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    block: int
    text: str


@dataclass(frozen=True, slots=True)
class Activity:
    """Something arrived that shows nothing yet (the start of a response, a fragment of a call's arguments, a ping):
    it only proves that the stream lives."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The whole response; always the last event. Its text equals the concatenated deltas."""

    content: tuple[Content, ...]
    stop: StopReason
    usage: Usage = field(default_factory=Usage)
    response_model: str = ""
    response_id: str = ""


ModelEvent = TextDelta | ThinkingDelta | Activity | Completed


class Model(Protocol):
    """A way to get responses. One object serves many conversations at once."""

    @property
    def spec(self) -> str:
        """Its durable name, `provider:model`."""
        ...

    @property
    def context_window(self) -> int | None:
        """Tokens, when known."""
        ...

    async def warm(self) -> None:
        """Import and build whatever the first request would have to wait for. Raises UsageError (a missing key, an
        unknown model) or MissingExtra."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Ask once. Raises ModelError from the iterator."""
        ...
