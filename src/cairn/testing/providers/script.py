"""What a loopback provider is told to answer, in one vocabulary for all protocols.

Laws. Data only. A script is a list of replies, one per request in order, or a function of the request. Nothing here
knows a wire format.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Wire = Literal["anthropic", "openai", "openai-chat", "google"]
ErrorKind = Literal["rate_limit", "server", "overload", "overflow", "quota", "auth", "not_found", "invalid_request"]


@dataclass(frozen=True, slots=True)
class Say:
    """A block of text, streamed in these pieces."""

    chunks: tuple[str, ...]

    def __init__(self, *chunks: str) -> None:
        object.__setattr__(self, "chunks", chunks)


@dataclass(frozen=True, slots=True)
class Think:
    """A block of reasoning with the provider's signature."""

    chunks: tuple[str, ...]
    signature: str
    redacted: bool

    def __init__(self, *chunks: str, signature: str = "c2lnbmVk", redacted: bool = False) -> None:
        object.__setattr__(self, "chunks", chunks)
        object.__setattr__(self, "signature", signature)
        object.__setattr__(self, "redacted", redacted)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `arguments` as text is sent as it is, valid JSON or not. Without an `id` the server makes one."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict)
    id: str | None = None
    fragments: int = 2


@dataclass(frozen=True, slots=True)
class Refuse:
    """The provider declines; with OpenAI the text travels as a refusal, elsewhere only the stop reason says it."""

    text: str = "I can't help with that."


@dataclass(frozen=True, slots=True)
class Tokens:
    """Usage to report. `input` is what was not cached; `reasoning` is part of `output`."""

    input: int = 100
    output: int = 20
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Fail:
    """An HTTP error instead of a stream, with the body the vendor documents for it."""

    kind: ErrorKind
    retry_after: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Hang:
    """The request is read and never answered."""


@dataclass(frozen=True, slots=True)
class Break:
    """After `after` events of the stream: the connection is reset or closed, nothing more comes, garbage comes, or the
    vendor's error event does."""

    how: Literal["reset", "close", "stall", "garbage", "error"]
    after: int
    kind: ErrorKind = "overload"


Part = Say | Think | Call | Refuse
Fault = Fail | Hang | Break


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: its blocks in order, its usage, and what goes wrong with it.

    `stop` overrides the reason (`length`). `bytes_per_write` cuts the stream into writes of that size with
    `seconds_between` them.
    """

    parts: tuple[Part, ...] = ()
    usage: Tokens = Tokens()
    stop: Literal["length", "refusal"] | None = None
    fault: Fault | None = None
    bytes_per_write: int = 0
    seconds_between: float = 0.0

    @staticmethod
    def of(*parts: Part | str, usage: Tokens | None = None, fault: Fault | None = None, **more: Any) -> Reply:
        """A reply of these blocks; a plain string is a block of text in one piece."""
        blocks = tuple(Say(part) if isinstance(part, str) else part for part in parts)
        return Reply(blocks, usage or Tokens(), fault=fault, **more)


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a request, whatever the protocol: who said what, which calls, which result."""

    role: Literal["user", "assistant", "tool"]
    text: str = ""
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    """Per call: id, tool, arguments."""
    call: str = ""
    """For a result: the id of the call it answers."""


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One recorded request. `headers` keeps every line as it came, names in lower case."""

    wire: Wire
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes
    body: dict[str, Any]
    model: str
    system: str
    tools: tuple[str, ...]
    entries: tuple[Entry, ...]

    def header(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def said(self) -> str:
        """The text of the last user message."""
        return next((entry.text for entry in reversed(self.entries) if entry.role == "user"), "")

    @property
    def results(self) -> tuple[Entry, ...]:
        """The tool results since the last message of the model: what a reacting script looks at."""
        found: list[Entry] = []
        for entry in reversed(self.entries):
            if entry.role == "assistant":
                break
            if entry.role == "tool":
                found.append(entry)
        return tuple(reversed(found))


Script = Sequence[Reply] | Callable[[ProviderRequest], Reply | Awaitable[Reply]]
