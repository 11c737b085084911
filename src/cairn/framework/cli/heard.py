"""What a server says of a conversation, as the events a transcript shows. Pure.

Laws. A chunk that has nothing to show gives no event. What the wire leaves out (tokens, models) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from cairn.client import Chunk
from cairn.harness import events as e
from cairn.harness.messages import Text
from cairn.runtime.records import ErrorInfo

#: How the names begin of data parts that say how a tool gets on.
PROGRESS = "tool-progress:"


class Heard:
    """Turns chunks into events, in order."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._attempts: dict[str, int] = {}

    def feed(self, chunk: Chunk) -> Iterator[e.Event]:
        handler = _HEARD.get(chunk.type)
        if handler is not None:
            yield from handler(self, chunk)

    def _started(self, chunk: Chunk) -> Iterator[e.Event]:
        submission, attempt = chunk.get("submissionId", ""), int(chunk.get("attempt", 1))
        before = self._attempts.setdefault(submission, attempt)
        if attempt > before:
            self._attempts[submission] = attempt
            yield e.AttemptStarted(offset=0, submission=submission, epoch=attempt)
        yield e.MessageStarted(offset=0, submission=submission, message=chunk["messageId"], model="")

    def _delta(self, chunk: Chunk) -> Iterator[e.Event]:
        kind = "text" if chunk["kind"] == "text" else "thinking"
        yield e.MessageDelta(offset=0, message=chunk["messageId"], kind=kind, text=chunk["delta"])

    def _called(self, chunk: Chunk) -> Iterator[e.Event]:
        call, name, given = chunk["toolCallId"], chunk["toolName"], chunk["input"]
        self._names[call] = name
        yield e.ToolStarted(offset=0, call=call, name=name, arguments=given if isinstance(given, dict) else {"input": given})

    def _returned(self, chunk: Chunk) -> Iterator[e.Event]:
        is_fine = chunk.type == "tool-output"
        text = _text(chunk["output"]) if is_fine else chunk["errorText"]
        yield e.ToolCompleted(
            offset=0,
            call=chunk["toolCallId"],
            name=self._names.pop(chunk["toolCallId"], "a tool"),
            outcome="ok" if is_fine else chunk.get("outcome", "error"),
            content=(Text(text=text),),
            duration_ms=int(chunk.get("durationMs") or 0),
        )

    def _data(self, chunk: Chunk) -> Iterator[e.Event]:
        name, data = chunk["name"], chunk["data"]
        if not name.startswith(PROGRESS):
            yield e.StateChanged(offset=0, changes={name: data})
        elif isinstance(data, dict):
            yield e.ToolProgress(offset=0, call=name.removeprefix(PROGRESS), text=str(data.get("text", "")))

    def _settled(self, chunk: Chunk) -> Iterator[e.Event]:
        told = chunk.get("error") or {}
        error = ErrorInfo(kind=str(told.get("type", "")), message=str(told.get("message", ""))) if told else None
        yield e.SubmissionSettled(offset=0, submission=chunk["submissionId"], outcome=chunk["outcome"], error=error)


_HEARD: dict[str, Callable[[Heard, Chunk], Iterator[e.Event]]] = {
    "message-started": Heard._started,
    "message-delta": Heard._delta,
    "tool-input": Heard._called,
    "tool-output": Heard._returned,
    "tool-output-error": Heard._returned,
    "data-part": Heard._data,
    "submission-settled": Heard._settled,
}


def _text(output: Any) -> str:
    """A tool's output as the model was shown it: texts as they are, blocks by their texts, anything else as JSON."""
    if isinstance(output, str):
        return output
    if isinstance(output, list) and output and all(isinstance(each, dict) and "text" in each for each in output):
        return "\n".join(str(each["text"]) for each in output)
    return msgspec.json.encode(output).decode()
