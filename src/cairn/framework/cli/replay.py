"""What was on the log before one came to look: counted, not scrolled by, except for what is still open.

Laws. Pure. Fed with the events up to the head, it can say in one line what need not be done again, and gives the text a
reader reads on from: all that was kept of the answer that is not finished.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cairn.harness import events as e


class Replay:
    """Events that are past."""

    def __init__(self) -> None:
        self.answers = 0
        self.calls = 0
        self.text = ""
        """The unfinished answer so far, with what earlier attempts kept of it."""
        self.open_calls: dict[str, e.ToolStarted] = {}
        self._kept = ""

    def feed(self, event: e.Event) -> None:
        handler = _FED.get(type(event))
        if handler is not None:
            handler(self, event)

    def summary(self) -> str:
        """`2 answers and 3 calls are on the log`; empty when there is nothing to tell."""
        parts = [_many(self.answers, "answer"), _many(self.calls, "call")]
        told = " and ".join(part for part in parts if part)
        return f"{told} {'is' if self.answers + self.calls == 1 else 'are'} on the log" if told else ""

    def _started(self, event: e.MessageStarted) -> None:
        self.text = self._kept

    def _delta(self, event: e.MessageDelta) -> None:
        if event.kind == "text":
            self.text += event.text

    def _completed(self, event: e.MessageCompleted) -> None:
        self.answers += 1
        self.text = self._kept = ""

    def _interrupted(self, event: e.MessageInterrupted) -> None:
        self._kept = self.text = self.text if event.kept else self._kept

    def _called(self, event: e.ToolStarted) -> None:
        self.open_calls[event.call] = event

    def _outcome(self, event: e.ToolCompleted) -> None:
        self.open_calls.pop(event.call, None)
        self.calls += 1


_FED: dict[type[e.Event], Callable[[Replay, Any], None]] = {
    e.MessageStarted: Replay._started,
    e.MessageDelta: Replay._delta,
    e.MessageCompleted: Replay._completed,
    e.MessageInterrupted: Replay._interrupted,
    e.ToolStarted: Replay._called,
    e.ToolCompleted: Replay._outcome,
}


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}" if count else ""
