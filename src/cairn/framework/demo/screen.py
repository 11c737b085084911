"""How a demo looks: what the agent says and does as it reaches the log, the kill between, and what came of it.

Laws. Everything about the conversation is an event of the log, whoever wrote it, so the picture does not change hands when the
worker does. Few lines: a call is one line, its result the end of that line. In a pipe the same text, without colours.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from cairn.framework.cli.output import shortened
from cairn.framework.cli.visible import visible
from cairn.framework.demo.report import Cost, Death, Report
from cairn.harness import events as e
from cairn.harness.messages import Usage

#: Text is wrapped here at the latest: longer lines are hard to read.
COLUMNS_MAX = 100
#: Where what the agent says and does begins.
INDENT = "  "
#: Lines of a change that are shown; a scripted one has four.
CHANGE_LINES_MAX = 12

_SPACES = re.compile(r"(\s+)")


class Screen:
    """One demo on one output."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._console = _console(self._out) if self._out.isatty() else None
        self._width = min(COLUMNS_MAX, shutil.get_terminal_size().columns)
        self._column = 0
        self._word = ""
        self._gap = False
        """A space stands before the next word, if that is on the same line."""
        self._call: str | None = None
        """The call whose line is still open."""
        self._calls: dict[str, e.ToolStarted] = {}
        self._is_parallel = False

    # --- the story

    def opening(self, *, model: str | None, project: str, seed: int, aim: str) -> None:
        """What is about to happen. The first line says whose words these are."""
        whose = "the model is scripted (no key, no network)" if model is None else f"the model is {model}"
        self.line(("cairn demo", "bold"), (f" · {whose}, every tool call is real", ""))
        self.line((f"{INDENT}a copy of a small project with a real bug: {project}", "dim"))
        self.line((f"{INDENT}seed {seed}: kill -9 {aim}", "dim"))

    def started(self, command: str, pid: int, *, again: bool = False) -> None:
        """A worker was started."""
        self.line()
        self.line((f"$ {'the same command again' if again else command}", "bold"), (f"   pid {pid}", "dim"))

    def batch(self, events: Sequence[e.Event]) -> None:
        """One append has reached the log."""
        # Calls that run side by side are shown as they return: their lines would interleave.
        self._is_parallel = sum(isinstance(event, e.ToolStarted) for event in events) > 1
        for event in events:
            handler = _SHOWN.get(type(event))
            if handler is not None:
                handler(self, event)
        self._out.flush()

    def killed(self, death: Death) -> None:
        """The worker is dead."""
        self._end_line()
        shell = f"; its command after {_milliseconds(death.children_seconds)}" if death.children else ""
        self.line((f"✗ kill -9 {death.pid}", "bold red"), (f" · dead after {_milliseconds(death.dead_seconds)}{shell}", "red"))
        self.paragraph("", f"{death.landed}; {_so_far(death)} in the log", "red")

    def resumed(self, seconds: float | None) -> None:
        """Another process owns the conversation."""
        if seconds is not None:
            self.line((f"↻ goes on {seconds:.2f} s after the kill", "bold yellow"))

    def closing(self, report: Report) -> None:
        """What came of it."""
        self._end_line()
        self.line()
        for mark, style, text in _findings(report):
            self.paragraph(mark, text, "" if mark == "✓" else style, mark_style=style)
        self.line()
        store = f"{report.folder}/.cairn/cairn.db"
        self.line((f"{INDENT}cairn log triage/login-plus --store {store}", ""))
        self.line((f"{INDENT}cairn demo --seed {report.seed}", ""), ("   aims at the same moment again", "dim"))

    def note(self, text: str) -> None:
        """An aside, on a line of its own."""
        self._end_line()
        self.line((text, "yellow"))

    # --- events

    def _said(self, event: e.MessageDelta) -> None:
        if event.kind != "text":
            return
        parts = _SPACES.split(self._word + visible(event.text))
        self._word = ""
        for part in parts:
            if part.isspace():
                self._space(part)
            else:
                self._word = part
        if len(self._word) > self._width:
            self._flush_word()

    def _message_ended(self, event: e.Event) -> None:
        self._end_line()

    def _cut_off(self, event: e.MessageInterrupted) -> None:
        self._end_line()
        what = "what it said is kept, it goes on after it" if event.kept else "what it said is left out"
        self.line((f"{INDENT}({what})", "yellow"))

    def _called(self, event: e.ToolStarted) -> None:
        self._end_line()
        self._calls[event.call] = event
        if self._is_parallel:
            return
        self._write(f"{INDENT}→ {event.name} {_arguments(event)}", "cyan")
        self._call = event.call

    def _returned(self, event: e.ToolCompleted) -> None:
        started = self._calls.pop(event.call, None)
        if self._call != event.call:
            self._end_line()
            what = _arguments(started) if started is not None else ""
            self._write(f"{INDENT}→ {event.name} {what}", "cyan")
        style = {"ok": "green", "unknown": "yellow"}.get(event.outcome, "red")
        self._write(f"  {_result(event)}", style)
        self._end_line()
        if event.name == "edit" and event.outcome == "ok" and started is not None:
            self._change(started.arguments)

    def _change(self, arguments: dict[str, Any]) -> None:
        edits = arguments.get("edits") or []
        lines = [(mark, text) for each in edits for mark, text in _changed(each.get("oldText", ""), each.get("newText", ""))]
        for mark, text in lines[:CHANGE_LINES_MAX]:
            self.line((f"{INDENT * 2}{mark} {visible(text)}", "red" if mark == "-" else "green"))

    def _provider_failed(self, event: e.TurnFailed) -> None:
        then = "it is asked again" if event.retry_at is not None else "it is not asked again"
        self.note(f"{INDENT}the provider failed: {visible(event.error.message)}; {then}")

    # --- writing

    def line(self, *parts: tuple[str, str]) -> None:
        """One whole line of (text, style) parts."""
        self._end_line()
        for text, style in parts:
            self._write(text, style)
        self._newline()

    def paragraph(self, mark: str, text: str, style: str, *, mark_style: str = "") -> None:
        """Wrapped text behind a mark of one character, or none."""
        for place, part in enumerate(textwrap.wrap(text, self._width - len(INDENT)) or [""]):
            self.line((f"{mark if place == 0 else '':<{len(INDENT)}}", mark_style), (part, style))

    def _space(self, space: str) -> None:
        self._flush_word()
        if "\n" in space:
            self._newline()
        else:
            self._gap = bool(self._column)

    def _flush_word(self) -> None:
        word, self._word = self._word, ""
        if not word:
            return
        if self._column and self._column + self._gap + len(word) > self._width:
            self._newline()
        lead = INDENT if not self._column else " " if self._gap else ""
        self._gap = False
        self._write(lead + word)

    def _end_line(self) -> None:
        self._flush_word()
        self._gap = False
        self._call = None
        if self._column:
            self._newline()

    def _newline(self) -> None:
        self._out.write("\n")
        self._out.flush()
        self._column, self._gap = 0, False

    def _write(self, text: str, style: str = "") -> None:
        self._column += len(text)
        if self._console is None:
            self._out.write(text)
        else:
            self._console.print(text, style=style, end="", markup=False, highlight=False, soft_wrap=True)


_SHOWN: dict[type[e.Event], Callable[[Screen, Any], None]] = {
    e.MessageDelta: Screen._said,
    e.MessageCompleted: Screen._message_ended,
    e.MessageInterrupted: Screen._cut_off,
    e.ToolStarted: Screen._called,
    e.ToolCompleted: Screen._returned,
    e.TurnFailed: Screen._provider_failed,
}


def _console(out: TextIO) -> Any:
    from rich.console import Console

    return Console(file=out, soft_wrap=True)


# --- words ----------------------------------------------------------------------------------------------------------


def _arguments(event: e.ToolStarted) -> str:
    given = event.arguments
    text = given.get("command") or given.get("path") or given.get("pattern") or ""
    return shortened(visible(str(text)), 60)


def _result(event: e.ToolCompleted) -> str:
    """The result in a few words."""
    lines = visible(event.text).strip().splitlines() or [""]
    if event.outcome == "unknown":
        return "? its process died: the outcome is unknown, and the model is told so"
    if event.name == "bash":
        telling = [line for line in lines if line.strip() and not line.startswith("[")]
        return f"← {telling[-1].strip() if telling else lines[-1]} · {event.duration_ms / 1000:.1f} s"
    if event.outcome != "ok":
        return f"← {event.outcome}: {shortened(lines[-1], 60)}"
    if event.name == "edit":
        made = re.search(r"\d+ edits?", lines[0])
        return f"← {made[0]}" if made else "←"
    noun = {"read": "line", "grep": "match", "glob": "file", "ls": "entry"}.get(event.name)
    return f"← {_many(len(lines), noun)}" if noun else "←"


def _changed(old: str, new: str) -> list[tuple[str, str]]:
    before, after = old.splitlines(), new.splitlines()
    return [*(("-", line) for line in before if line not in after), *(("+", line) for line in after if line not in before)]


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))} ms"


def _so_far(death: Death) -> str:
    return f"{_many(len(death.finished), 'finished call')} and {_many(death.answers, 'finished answer')} are"


def _findings(report: Report) -> list[tuple[str, str, str]]:
    """(mark, style, sentence) of everything the demo has found out by itself."""
    good = _kept(report.cost) if report.cost is not None else []
    tests, standing = report.verdict.tests, report.standing
    if tests.passed:
        sources = ", ".join(report.verdict.changed) or "nothing"
        good.append(f"all {tests.count} tests pass, run by the demo itself; changed: {sources}")
    if standing.settlements == ["completed"] and not report.verdict.problems:
        good.append(f"one settlement in the log; its {standing.appends} appends are whole")
    bad = [
        *report.failures,
        *([] if report.death is not None else ["the work was done before the moment came: nothing was killed"]),
    ]
    return [
        *(("✓", "bold green", text) for text in good),
        *(("✗", "bold red", text) for text in bad),
        ("·", "dim", _tokens(report)),
    ]


def _kept(cost: Cost) -> list[str]:
    found = []
    if cost.calls_kept and not cost.calls_repeated:
        found.append(f"{_many(cost.calls_kept, 'finished call')}: none ran again")
    if cost.answers_kept and not cost.answers_repeated:
        found.append(f"{_many(cost.answers_kept, 'finished answer')}: none was asked for again")
    if cost.characters_kept:
        found.append(f"{_many(cost.characters_kept, 'character')} of an unfinished answer were kept")
    if cost.characters_lost:
        found.append(f"{_many(cost.characters_lost, 'character')} of an unfinished answer were left out")
    if cost.run_again:
        found.append(f"{' and '.join(cost.run_again)} had not finished and ran once more: it is safe to repeat")
    if cost.unknown:
        found.append(f"{' and '.join(cost.unknown)} had not finished: its outcome is unknown, and the model was told so")
    return found


def _tokens(report: Report) -> str:
    usage: Usage = report.standing.usage
    requests = report.cost.requests if report.cost is not None else None
    asked = f"{_many(requests, 'request')} · " if requests is not None else ""
    cost = f" · ${usage.cost:.4f}" if usage.cost is not None else ""
    estimated = " (estimated)" if report.is_scripted else ""
    return f"{asked}{usage.input:,} tokens in · {usage.output:,} out{cost}{estimated} · {report.seconds:.1f} s"


def _many(count: int, noun: str) -> str:
    plural = {"match": "matches", "entry": "entries"}.get(noun, f"{noun}s")
    return f"{count} {noun if count == 1 else plural}"
