"""Golden histories: real logs, kept as JSON, each with what today's code must make of it for ever (S15).

A history is never changed once it is released: a later version folds it to the same conversation, or refuses it. After each
batch stands what a successor would do if the process had died there. `golden_scenes.py` writes the ones that are missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from cairn import Limits
from cairn.harness import records as h
from cairn.harness.conversation import Conversation
from cairn.harness.recovery import Given, decide, situate
from cairn.runtime import records as r
from cairn.runtime.state import RuntimeState

FOLDER = Path(__file__).parent / "histories"

decoder = r.decoder(h.HARNESS)


class Batch(msgspec.Struct):
    ordinal: int
    records: msgspec.Raw
    next: str
    """What is decided if the log ends here and another process takes over."""

    @property
    def decoded(self) -> list[r.Record]:
        return decoder.decode(self.records)


class Folded(msgspec.Struct):
    """What a log comes to, as plain JSON."""

    entries: list[Any]
    context: list[Any]
    head: Any
    values: dict[str, Any]
    fibers: dict[str, list[Any]]
    """Of each fiber: phase, outcome, attempt, and whose work settled it."""


class History(msgspec.Struct):
    about: str
    hears: bool
    """The agent has `on_message`."""
    stops: bool
    """The agent has `on_stop`."""
    batches: list[Batch]
    folded: Folded


class Folding:
    """Both folds of a log, batch by batch."""

    def __init__(self, hears: bool = False, stops: bool = False) -> None:
        self.conversation = Conversation()
        self.runtime = RuntimeState()
        self._hears, self._stops = hears, stops
        self._now = 0.0

    def apply(self, ordinal: int, records: list[r.Record]) -> None:
        for record in records:
            self.runtime.apply(record, ordinal)
            self.conversation.apply(record, ordinal)
            self._now = max(self._now, getattr(record, "at", 0.0))

    def next(self) -> str:
        """What somebody who takes the instance over now would do."""
        control = self.conversation.control
        if control.submission is None and control.queue:
            return "begin with the oldest message"
        given = Given(self._now, self.runtime.epoch + 1, Limits(), hears=self._hears, stops=self._stops)
        return decide(situate(control, self.runtime, given)).value

    def folded(self) -> Folded:
        runtime, conversation = self.runtime, self.conversation
        fibers = {
            fiber.id: [fiber.phase.value, fiber.outcome, fiber.attempt, fiber.answered_by]
            for fiber in (*runtime.settled.values(), *runtime.fibers.values())
        }
        plain = {
            "entries": conversation.history(),
            "context": list(conversation.context()),
            "head": conversation.head,
            "values": conversation.values,
            "fibers": fibers,
        }
        return msgspec.convert(json.loads(msgspec.json.encode(plain)), Folded)


def fold(history: History) -> Folding:
    folding = Folding(history.hears, history.stops)
    for batch in history.batches:
        folding.apply(batch.ordinal, batch.decoded)
    return folding


def load(path: Path) -> History:
    return msgspec.json.decode(path.read_bytes(), type=History)


def make(about: str, batches: list[tuple[int, bytes]], *, hears: bool = False, stops: bool = False) -> History:
    """A history of these batches, with what the present code makes of it."""
    folding, made = Folding(hears, stops), []
    for ordinal, records in batches:
        folding.apply(ordinal, decoder.decode(records))
        made.append(Batch(ordinal, msgspec.Raw(records), folding.next()))
    return History(about, hears, stops, made, folding.folded())


def write(path: Path, history: History) -> None:
    """One line for each record, so that a person can read it."""
    text = msgspec.json.format(msgspec.json.encode(history), indent=1)
    path.write_bytes(text + b"\n")
