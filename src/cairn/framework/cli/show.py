"""How a running conversation looks: rich on a terminal, plain text in a pipe, JSON lines for programs.

Laws. The answer goes to stdout, everything about how it came to be to stderr when stdout is a pipe, so that
`cairn run … > answer.txt` holds the answer. On a terminal both share the screen. Nothing a model or a tool wrote can move
the cursor or colour the screen: control characters are shown, not sent.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

import msgspec

from cairn.framework.cli.output import redacted, shortened
from cairn.harness import events as e
from cairn.harness.handle import Receipt

#: Lines of a tool's result that are shown; the whole is in `cairn log`.
RESULT_LINES = 6
#: Characters of the arguments of a call that are shown.
ARGUMENT_CHARACTERS = 200


class Show(Protocol):
    """Where a run is shown."""

    def opened(self, address: str, receipt: Receipt, *, continuing: bool = False) -> None: ...

    def event(self, event: e.Event) -> None: ...

    def settled(self, event: e.SubmissionSettled, again: str) -> None: ...

    def note(self, text: str) -> None: ...


def make_show(*, json: bool) -> Show:
    """The way to show a run that fits where stdout goes."""
    if json:
        return JsonShow(sys.stdout)
    return TextShow(sys.stdout, sys.stdout if sys.stdout.isatty() else sys.stderr, colour=sys.stdout.isatty())


class JsonShow:
    """One JSON object a line, each with an `event`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def _line(self, value: Any) -> None:
        self._out.write(msgspec.json.encode(redacted(msgspec.to_builtins(value))).decode() + "\n")
        self._out.flush()

    def opened(self, address: str, receipt: Receipt, *, continuing: bool = False) -> None:
        self._line(
            {
                "event": "run.opened",
                "conversation": address,
                "submission": receipt.submission,
                "offset": receipt.offset,
                "continuing": continuing,
                "deduplicated": receipt.deduplicated,
            }
        )

    def event(self, event: e.Event) -> None:
        self._line(event)

    def settled(self, event: e.SubmissionSettled, again: str) -> None:
        return None

    def note(self, text: str) -> None:
        sys.stderr.write(f"cairn: {text}\n")


class TextShow:
    """For people. `out` gets the answer, `aside` everything else."""

    def __init__(self, out: TextIO, aside: TextIO, *, colour: bool) -> None:
        self._out = out
        self._aside = aside
        self._console = _console(aside) if colour else None
        self._line_open = False
        self._kind = ""
        self._usage = _Totals()
        self._replaying: int | None = None

    def opened(self, address: str, receipt: Receipt, *, continuing: bool = False) -> None:
        word = "continuing" if continuing else "answered before" if receipt.deduplicated else "started"
        self._say(f"{address} · {receipt.submission} · {word}", "dim")

    def note(self, text: str) -> None:
        self._say(text, "yellow")

    def event(self, event: e.Event) -> None:
        handler = _SHOWN.get(type(event))
        if handler is not None:
            handler(self, event)
        self._out.flush()
        self._aside.flush()

    def settled(self, event: e.SubmissionSettled, again: str) -> None:
        self._end_line()
        if event.outcome != "completed":
            why = event.error.message if event.error is not None else "no reason was recorded"
            self._say(f"{event.outcome}: {why}", "red")
        self._say(self._usage.text(), "dim")

    # --- writing

    def _say(self, text: str, style: str = "") -> None:
        self._end_line()
        if self._console is not None:
            self._console.print(text, style=style, markup=False, highlight=False)
        else:
            self._aside.write(text + "\n")
        self._aside.flush()

    def _stream(self, text: str, kind: str) -> None:
        """Text as it comes. Reasoning is an aside, the answer is the answer."""
        if kind != self._kind:
            self._end_line()
        self._kind, self._line_open = kind, not text.endswith("\n")
        if kind == "text" and self._console is None:
            self._out.write(visible(text))
        elif self._console is not None:
            style = "dim italic" if kind == "thinking" else ""
            self._console.print(visible(text), style=style, end="", markup=False, highlight=False, soft_wrap=True)
        else:
            self._aside.write(visible(text))

    def _end_line(self) -> None:
        if self._line_open:
            to_out = self._kind == "text" and self._console is None
            (self._out if to_out or self._console is not None else self._aside).write("\n")
        self._line_open = False

    # --- events

    def _delta(self, event: e.MessageDelta) -> None:
        self._stream(event.text, event.kind)

    def _completed(self, event: e.MessageCompleted) -> None:
        self._usage.add(event)

    def _interrupted(self, event: e.MessageInterrupted) -> None:
        kept = "what was said is kept" if event.kept else "it is left out"
        self._say(f"⏸ the answer was cut off ({event.reason}); {kept}", "yellow")

    def _tool_started(self, event: e.ToolStarted) -> None:
        arguments = shortened(msgspec.json.encode(redacted(event.arguments)).decode(), ARGUMENT_CHARACTERS)
        self._say(f"→ {event.name} {arguments}", "cyan")

    def _tool_completed(self, event: e.ToolCompleted) -> None:
        mark, style = ("←", "green") if event.outcome == "ok" else ("✗", "red")
        lines = visible(event.text).splitlines() or [""]
        more = f"\n  … {len(lines) - RESULT_LINES} more lines" if len(lines) > RESULT_LINES else ""
        shown = "\n  ".join(line[:ARGUMENT_CHARACTERS] for line in lines[:RESULT_LINES])
        self._say(f"{mark} {event.name} {event.outcome} in {event.duration_ms / 1000:.1f} s\n  {shown}{more}", style)

    def _turn_failed(self, event: e.TurnFailed) -> None:
        status = f" (HTTP {event.error.status})" if event.error.status else ""
        then = "it is asked again" if event.retry_at is not None else "it is not asked again"
        self._say(f"✗ the model's provider failed: {event.error.message}{status}; {then}", "yellow")

    def _attempt(self, event: e.AttemptStarted) -> None:
        if self._usage.any or self._line_open:
            self._say(f"↻ taken up by another process (epoch {event.epoch})", "yellow")

    def _state(self, event: e.StateChanged) -> None:
        self._say(f"· state: {shortened(msgspec.json.encode(redacted(event.changes)).decode())}", "dim")


_SHOWN: dict[type[e.Event], Any] = {
    e.AttemptStarted: TextShow._attempt,
    e.MessageDelta: TextShow._delta,
    e.MessageCompleted: TextShow._completed,
    e.MessageInterrupted: TextShow._interrupted,
    e.ToolStarted: TextShow._tool_started,
    e.ToolCompleted: TextShow._tool_completed,
    e.TurnFailed: TextShow._turn_failed,
    e.StateChanged: TextShow._state,
}


class _Totals:
    """Tokens, cost and requests of a run."""

    def __init__(self) -> None:
        self.requests = self.input = self.output = self.cached = 0
        self.cost: float | None = None

    @property
    def any(self) -> bool:
        return self.requests > 0

    def add(self, event: e.MessageCompleted) -> None:
        usage = event.usage
        self.requests += 1
        self.input += usage.input
        self.output += usage.output
        self.cached += usage.cache_read
        if usage.cost is not None:
            self.cost = (self.cost or 0.0) + usage.cost

    def text(self) -> str:
        cost = f" · ${self.cost:.4f}" if self.cost is not None else ""
        cached = f" ({self.cached:,} cached)" if self.cached else ""
        return f"{self.requests} requests · {self.input:,} tokens in{cached} · {self.output:,} out{cost}"


def visible(text: str) -> str:
    """The text with control characters made visible: a model's or a tool's output cannot drive the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def _console(out: TextIO) -> Any:
    from rich.console import Console

    return Console(file=out, soft_wrap=True)
