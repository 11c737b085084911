"""Entries: what was said in a conversation, one by one, in the order in which people see it.

Laws. Pure. Entries restored from a checkpoint stay encoded until somebody looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from cairn.harness import records as h
from cairn.harness.messages import Content, ResultContent, Text, ToolCall, Usage
from cairn.runtime import records as r

EntryState = Literal["open", "completed", "interrupted", "failed", "aborted"]
RefKind = Literal["m", "t"]


class Result(msgspec.Struct, omit_defaults=True):
    """The outcome of one call."""

    outcome: h.CallOutcome
    content: tuple[ResultContent, ...]
    details: msgspec.Raw = r.NULL
    duration_ms: int = 0


class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer one call was given from outside."""

    by: str
    answer: str
    """Its digest."""
    digest: str = ""
    """Of the question, and …"""
    may: tuple[str, ...] = ()
    """… who might have answered it."""


class Entry(msgspec.Struct, omit_defaults=True):
    """One thing in the conversation. An assistant entry is one message of the model with the results of its calls."""

    kind: Literal["user", "assistant", "note"]
    id: str
    ordinal: int
    at: float
    submission: str = ""
    turn: str = ""
    delivery: h.Delivery | None = None
    note: h.Note | None = None
    content: tuple[Content, ...] = ()
    state: EntryState = "completed"
    model: str = ""
    results: dict[str, Result] = {}
    answers: dict[str, Answered] = {}
    """Of calls that waited for one: what they were answered."""
    usage: Usage | None = None
    error: r.ErrorInfo | None = None
    ended: int = -1
    """The ordinal at which an assistant entry was completed or interrupted."""

    @property
    def text(self) -> str:
        """What was said, without reasoning and calls."""
        if self.delivery is not None:
            return self.delivery.body
        return "".join(block.text for block in self.content if isinstance(block, Text))

    @property
    def calls(self) -> list[ToolCall]:
        return [block for block in self.content if isinstance(block, ToolCall)]


class Ref(msgspec.Struct, frozen=True, array_like=True):
    """A place in the context: message or note `entry` ("m"), or the result of its call number `call` ("t")."""

    kind: RefKind
    entry: int
    ordinal: int
    call: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


class Entries(Sequence[Entry]):
    """A list of entries of which some are still encoded."""

    def __init__(self, items: list[Entry | msgspec.Raw] | None = None) -> None:
        self._items: list[Entry | msgspec.Raw] = items or []

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        item = self._items[index]
        if isinstance(item, msgspec.Raw):
            item = self._items[index] = _decode(item)
        return item

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self._items)))

    def append(self, entry: Entry) -> int:
        self._items.append(entry)
        return len(self._items) - 1

    def truncate(self, keep: int) -> None:
        del self._items[keep:]

    def encoded(self) -> list[msgspec.Raw]:
        return [item if isinstance(item, msgspec.Raw) else msgspec.Raw(_encode(item)) for item in self._items]

    @property
    def still_encoded(self) -> int:
        """How many nobody has looked at since they were restored."""
        return sum(isinstance(item, msgspec.Raw) for item in self._items)
