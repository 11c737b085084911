"""How a chat is shown: to people as a dialogue, to programs as the server's own chunks, one JSON object a line.

Laws. The answer has no colour, what stands around it is dim. In a pipe stdout is the answers and nothing else, each once it is
final; everything else goes to stderr. Nothing a model, a tool or another writer wrote can drive the terminal.
"""

from __future__ import annotations

import sys
from typing import Protocol, TextIO

from cairn.client import Chunk, History, Message
from cairn.framework.cli.heard import Heard
from cairn.framework.cli.output import duration, json_text, redacted, shortened
from cairn.framework.cli.pen import Pen
from cairn.framework.cli.transcript import Transcript
from cairn.framework.cli.visible import visible, visible_json
from cairn.harness import events as e

#: Messages of an earlier conversation that are shown when it goes on; `/history` shows all.
RECENT_MESSAGES = 6
#: Characters of each of them.
RECENT_CHARACTERS = 2_000


class Dialogue(Protocol):
    """Where a chat is shown."""

    def opened(self, agent: str, id: str, where: str) -> None:
        """This conversation is talked in."""
        ...

    def recent(self, history: History, *, everything: bool = False) -> None:
        """What was said before."""
        ...

    def began(self, submission: str) -> None:
        """A message was sent, or one is found unanswered: what follows is its answer."""
        ...

    def chunk(self, chunk: Chunk) -> None: ...

    def ended(self, settled: Chunk, answer: str, seconds: float) -> None:
        """It has its outcome; `answer` is the whole of it."""
        ...

    def note(self, text: str) -> None:
        """Something about the chat itself."""
        ...


def make_dialogue(*, json: bool) -> Dialogue:
    """The way to show a chat that fits where stdout goes."""
    if json:
        return JsonDialogue(sys.stdout)
    if sys.stdout.isatty():
        return Shown(Pen(sys.stdout), None)
    return Shown(Pen(sys.stderr), sys.stdout)


class Shown:
    """For people."""

    def __init__(self, pen: Pen, answers: TextIO | None) -> None:
        self._pen = pen
        self._answers = answers
        self._submission = ""
        self._heard = Heard()
        self._transcript = Transcript(pen, None)

    def opened(self, agent: str, id: str, where: str) -> None:
        self._pen.line(f"{agent}/{id} · {where} · /help shows what else can be typed", "dim")

    def recent(self, history: History, *, everything: bool = False) -> None:
        messages = [message for message in history.messages if _is_shown(message)]
        left_out = 0 if everything else max(0, len(messages) - RECENT_MESSAGES)
        if left_out:
            self._pen.line(f"… {left_out} earlier messages: /history shows them", "dim")
        for message in messages[left_out:]:
            self._message(message)

    def _message(self, message: Message) -> None:
        if message.purpose in ("user", "dispatch"):
            self._said(message.text)
            return
        for part in message.parts:
            if part["type"] == "text":
                self._pen.line(_cut(part["text"]), "" if message.purpose == "assistant" else "dim")
            elif part["type"] == "dynamic-tool":
                self._pen.line(f"→ {part['toolName']}", "cyan")

    def _said(self, text: str) -> None:
        self._pen.line(f"› {_cut(text)}", "bold")

    def began(self, submission: str) -> None:
        self._submission = submission
        self._heard, self._transcript = Heard(), Transcript(self._pen, None)

    def chunk(self, chunk: Chunk) -> None:
        if chunk.type == "message-appended":
            message = chunk["message"]
            is_ours = message.get("submissionId") == self._submission
            if message["purpose"] in ("user", "dispatch") and not is_ours:
                self._said("".join(part.get("text", "") for part in message["parts"]))
            return
        for event in self._heard.feed(chunk):
            if not isinstance(event, e.SubmissionSettled):
                self._transcript.event(event)

    def ended(self, settled: Chunk, answer: str, seconds: float) -> None:
        self._pen.end_line()
        if self._answers is not None and answer:
            self._answers.write(visible(answer).rstrip("\n") + "\n")
            self._answers.flush()
        outcome = settled["outcome"]
        if outcome != "completed":
            error = settled.get("error") or {}
            why = error.get("message") or "no reason was recorded"
            self._pen.line(f"{outcome}: {shortened(str(why), 500)}", "red" if outcome == "failed" else "yellow")
        elif self._pen.is_terminal:
            self._pen.line(duration(seconds), "dim")

    def note(self, text: str) -> None:
        self._pen.line(text, "yellow")


class JsonDialogue:
    """For programs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def _line(self, **fields: object) -> None:
        self._out.write(visible_json(json_text(redacted(fields))) + "\n")
        self._out.flush()

    def opened(self, agent: str, id: str, where: str) -> None:
        self._line(type="chat.opened", agent=agent, id=id, where=where)

    def recent(self, history: History, *, everything: bool = False) -> None: ...

    def began(self, submission: str) -> None:
        self._line(type="chat.sent", submissionId=submission)

    def chunk(self, chunk: Chunk) -> None:
        self._line(**chunk.fields)

    def ended(self, settled: Chunk, answer: str, seconds: float) -> None:
        self._line(type="chat.answered", submissionId=settled["submissionId"], outcome=settled["outcome"], text=answer)

    def note(self, text: str) -> None:
        sys.stderr.write(f"cairn: {text}\n")


def _is_shown(message: Message) -> bool:
    return message.display == "visible" and (message.purpose in ("user", "dispatch") or bool(message.parts))


def _cut(text: str) -> str:
    return text if len(text) <= RECENT_CHARACTERS else f"{text[:RECENT_CHARACTERS]} … ({len(text):,} characters)"
