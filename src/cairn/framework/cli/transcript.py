"""A run as people read it: what the model says, which tools it calls, what they return, and what it cost.

Laws. Few colours: the answer has none, reasoning and details are dim, a mark before a line says what it is. What is past is
told in a line; what is open is shown, so that one can read on. The whole is always in `cairn log`.
"""

from __future__ import annotations

from typing import Any, Literal, TextIO

import msgspec

from cairn.clock import SystemClock
from cairn.framework.cli.output import duration, redacted, shortened
from cairn.framework.cli.pen import Pen
from cairn.framework.cli.replay import Replay
from cairn.framework.cli.show import Beginning
from cairn.framework.cli.visible import visible
from cairn.harness import events as e
from cairn.harness.handle import Receipt
from cairn.harness.messages import Usage

#: Lines of a tool's result that are shown, and characters of each in a pipe; on a terminal a line is a line.
RESULT_LINES = 6
RESULT_COLUMNS = 200
#: Characters of the arguments of a call that are shown, and of those that tell two results apart.
ARGUMENT_CHARACTERS = 200
WHICH_CHARACTERS = 40

_Part = Literal["words", "work", "end"]

_BEGINNINGS = {"started": "started", "continuing": "continuing", "known": "this key was sent before"}


class Transcript:
    """Shows a run with `pen`; `answer` gets the final answer alone, when it is not the same screen."""

    def __init__(self, pen: Pen, answer: TextIO | None) -> None:
        self._pen = pen
        self._answer = answer
        self._totals = _Totals()
        self._past: Replay | None = None
        self._clock = SystemClock()
        self._began = self._clock.monotonic()
        self._opening: list[str] = []
        self._part: _Part | None = None
        self._calls: dict[str, str] = {}
        self._claims = 0

    def opened(self, receipt: Receipt, how: Beginning, *, attempts: int = 0, owner: str = "") -> None:
        self._opening = [str(receipt.conversation.address), _BEGINNINGS[how]]
        if attempts:
            self._opening.append(f"attempt {attempts if owner else attempts + 1}")
        if owner:
            self._claims = 1
            self._opening.append(f"run by {owner}")
        if how == "started":
            self._say_opening()
        else:
            self._past = Replay()

    def caught_up(self) -> None:
        past, self._past = self._past, None
        if past is None:
            return
        self._say_opening(past.summary())
        if past.text:
            self._enter("words")
            self._pen.flow(past.text, "text")
        for call in past.open_calls.values():
            self._tool_started(call)

    def note(self, text: str) -> None:
        self._pen.line(text, "yellow")

    def event(self, event: e.Event) -> None:
        if isinstance(event, e.MessageCompleted):
            self._totals.add(event.usage)
        if self._past is not None:
            self._past.feed(event)
            return
        handler = _SHOWN.get(type(event))
        if handler is not None:
            handler(self, event)

    def settled(self, event: e.SubmissionSettled, again: str) -> None:
        if self._past is not None:
            # It was over before anybody looked.
            self._say_opening(self._past.summary())
            self._past = None
            if self._answer is None and event.text:
                self._pen.line(event.text)
        self._pen.end_line()
        if self._answer is not None and event.text:
            self._answer.write(visible(event.text).rstrip("\n") + "\n")
            self._answer.flush()
        if event.outcome != "completed":
            why = event.error.message if event.error is not None else "no reason was recorded"
            self._pen.line(f"{event.outcome}: {shortened(why, 500)}", "red" if event.outcome == "failed" else "yellow")
        self._enter("end")
        took = duration(self._clock.monotonic() - self._began)
        self._pen.line(" · ".join([event.outcome, *self._totals.parts(), took]), "dim")
        if again:
            self._pen.line(f"go on with: {again}", "dim")

    def _say_opening(self, summary: str = "") -> None:
        self._pen.line(" · ".join([*self._opening, *([summary] if summary else [])]), "dim")

    def _enter(self, part: _Part) -> None:
        """An empty line where words become work, or work words."""
        if self._part is not None and self._part != part:
            self._pen.gap()
        self._part = part

    # --- events

    def _message_started(self, event: e.MessageStarted) -> None:
        self._pen.status(f"… {event.model}", "dim")

    def _delta(self, event: e.MessageDelta) -> None:
        self._enter("words")
        self._pen.flow(event.text, event.kind, "dim italic" if event.kind == "thinking" else "")

    def _interrupted(self, event: e.MessageInterrupted) -> None:
        after = "the fork begins here" if event.reason == "fork" else "it goes on" if event.kept else "this part is left out"
        self._pen.line(f"‖ cut off ({event.reason}); {after}", "yellow")

    def _asked(self, event: e.CallAsked) -> None:
        self._enter("work")
        self._calls[event.call] = _arguments(event.arguments)
        wanted = "an approval" if event.kind == "approval" else "its outcome from a client"
        self._pen.line(f"? {event.name} {self._calls[event.call]} waits for {wanted}", "yellow")
        if event.reason:
            self._pen.line(f"  {visible(event.reason)}", "dim")
        if event.kind == "approval":
            self._pen.line(f"  cairn approvals shows it; --approve {event.call} or --reject {event.call} answers", "dim")

    def _tool_started(self, event: e.ToolStarted) -> None:
        self._enter("work")
        arguments = self._calls[event.call] = _arguments(event.arguments)
        self._pen.line(f"→ {event.name} {arguments}", "cyan")

    def _tool_progress(self, event: e.ToolProgress) -> None:
        self._pen.status(f"  {visible(event.text).rstrip()}", "dim")

    def _tool_completed(self, event: e.ToolCompleted) -> None:
        self._enter("work")
        # Beside other calls it has to say which it was.
        which = shortened(self._calls.pop(event.call, ""), WHICH_CHARACTERS) if len(self._calls) > 1 else ""
        self._calls.pop(event.call, None)
        is_fine = event.outcome == "ok"
        took = duration(event.duration_ms / 1000) if event.duration_ms >= 100 else ""
        said = "" if is_fine else "outcome unknown" if event.outcome == "unknown" else event.outcome
        parts = ["←" if is_fine else "✗", event.name, which, said, took]
        self._pen.line(" ".join(part for part in parts if part), "green" if is_fine else "red")
        for each in _result_lines(event.text, (self._pen.columns or RESULT_COLUMNS) - 3):
            self._pen.line(f"  {each}", "dim")

    def _turn_failed(self, event: e.TurnFailed) -> None:
        if event.retry_at is None:
            # The settlement that follows says it all.
            return
        wait = duration(max(0.0, event.retry_at - self._clock.wall()))
        self._pen.line(f"✗ {shortened(event.error.message, 300)}; asking again in {wait}", "yellow")

    def _attempt(self, event: e.AttemptStarted) -> None:
        # The first claim is that of the run that was asked for; a later one says that somebody else had to go on with it.
        self._claims += 1
        if self._claims > 1:
            self._pen.line(f"↻ taken up by another process (epoch {event.epoch})", "yellow")

    def _state(self, event: e.StateChanged) -> None:
        self._pen.line(f"· state {_arguments(event.changes)}", "dim")


_SHOWN: dict[type[e.Event], Any] = {
    e.AttemptStarted: Transcript._attempt,
    e.MessageStarted: Transcript._message_started,
    e.MessageDelta: Transcript._delta,
    e.MessageInterrupted: Transcript._interrupted,
    e.CallAsked: Transcript._asked,
    e.ToolStarted: Transcript._tool_started,
    e.ToolProgress: Transcript._tool_progress,
    e.ToolCompleted: Transcript._tool_completed,
    e.TurnFailed: Transcript._turn_failed,
    e.StateChanged: Transcript._state,
}


class _Totals:
    """Tokens, cost and requests of a run."""

    def __init__(self) -> None:
        self.requests = self.input = self.output = self.cached = 0
        self.cost: float | None = None

    def add(self, usage: Usage) -> None:
        self.requests += 1
        self.input += usage.input
        self.output += usage.output
        self.cached += usage.cache_read
        if usage.cost is not None:
            self.cost = (self.cost or 0.0) + usage.cost

    def parts(self) -> list[str]:
        requests = f"{self.requests} request{'' if self.requests == 1 else 's'}"
        cached = f" ({self.cached:,} cached)" if self.cached else ""
        tokens = f"{self.input:,} tokens in{cached}, {self.output:,} out"
        return [requests, tokens, *([f"${self.cost:.4f}"] if self.cost is not None else [])]


def _arguments(values: dict[str, Any]) -> str:
    """`path=src/app.py limit=20`, or the only value there is; JSON only where it is needed to read it right."""
    hidden: dict[str, Any] = redacted(values)
    if len(hidden) == 1 and isinstance(value := next(iter(hidden.values())), str):
        return shortened(value, ARGUMENT_CHARACTERS)
    return shortened(" ".join(f"{name}={_value(value)}" for name, value in hidden.items()), ARGUMENT_CHARACTERS)


def _value(value: Any) -> str:
    if isinstance(value, str) and value and not any(character.isspace() or character == '"' for character in value):
        return value
    return msgspec.json.encode(value).decode()


def _result_lines(text: str, columns: int) -> list[str]:
    lines = visible(redacted(text)).expandtabs(4).rstrip().splitlines()
    shown = [line if len(line) <= columns else f"{line[: columns - 1]}…" for line in lines[:RESULT_LINES]]
    if len(lines) > RESULT_LINES:
        shown.append(f"… {len(lines) - RESULT_LINES} more lines")
    return shown
