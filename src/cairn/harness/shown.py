"""Where the open answer stands, for clients: the little of it that has to be remembered between batches.

Laws. Pure. It is part of the conversation's fold, and costs the log nothing: a checkpoint holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cairn.harness import records as h
from cairn.harness import shown_questions as questions
from cairn.harness.messages import ToolCall
from cairn.runtime import records as r

Chunk = dict[str, Any]


class Shown(msgspec.Struct, omit_defaults=True):
    """Where the open answer stands, for clients."""

    submission: str = ""
    answer: str = ""
    """The id of the message all its steps are shown as."""
    turn: str = ""
    """The turn that began last: what joins the answer after it has joined this one."""
    attempt: int = 0
    is_open: bool = False
    """A step has begun and not ended."""
    is_cut: bool = False
    """Its words broke off and will go on: in the same part, whatever step says them."""
    streamed: list[tuple[int, str, int]] = []
    """Block, kind and length of what was shown of the open step."""
    progress: list[str] = []
    """Calls whose progress is shown."""
    held: list[Chunk] = []
    """What was shown before the answer had a message to hang it on."""
    asked: dict[str, Chunk] = {}
    """What is shown of the calls of the open turn that asked, by call; of those that its programs make, by their wait."""

    def copy(self) -> Shown:
        twin = msgspec.structs.replace(self)
        twin.streamed, twin.progress, twin.held = self.streamed[:], self.progress[:], self.held[:]
        twin.asked = dict(self.asked)
        return twin

    def apply(self, record: r.Record) -> None:
        """Remember that this record was shown."""
        handler = _MEMORY.get(type(record))
        if handler is not None:
            handler(self, record)


def is_early(shown: Shown, fiber: str) -> bool:
    """Whether the answer that it belongs to has no message yet. What a hook shows after a submission has settled, when others
    have been answered since, is shown to nobody: there is no telling which message it would belong to."""
    return is_submission(fiber) and shown.submission != fiber


def is_submission(fiber: str) -> bool:
    """Whether a fiber of an agent is a message's (the others run hooks)."""
    return fiber.startswith("sub_")


def is_continued(record: h.MessageCompleted) -> bool:
    """Whether the model will be asked to go on after the last character of this message."""
    return record.stop == "length" and not any(isinstance(block, ToolCall) for block in record.content)


# --- what is remembered of a record ----------------------------------------------------------------------------------


def _remember_turn(shown: Shown, record: h.TurnStarted) -> None:
    if shown.submission != record.submission:
        shown.submission, shown.answer = record.submission, record.message
    shown.turn, shown.attempt, shown.is_open, shown.is_cut = record.turn, record.attempt, True, False
    shown.streamed, shown.progress, shown.held, shown.asked = [], [], [], {}


def _remember_delta(shown: Shown, record: h.MessageDelta) -> None:
    for place in range(len(shown.streamed) - 1, -1, -1):
        block, kind, length = shown.streamed[place]
        if (block, kind) == (record.block, record.kind):
            shown.streamed[place] = (block, kind, length + len(record.text))
            return
    shown.streamed.append((record.block, record.kind, len(record.text)))


def _remember_end(shown: Shown, record: r.Record) -> None:
    shown.is_open, shown.is_cut, shown.streamed = False, False, []


def _remember_failed(shown: Shown, record: h.TurnFailed) -> None:
    if not shown.is_cut:
        _remember_end(shown, record)


def _remember_pause(shown: Shown, goes_on: bool) -> None:
    shown.is_open, shown.is_cut, shown.streamed = goes_on, goes_on, []


def _remember_completed(shown: Shown, record: h.MessageCompleted) -> None:
    _remember_pause(shown, is_continued(record))


def _remember_interrupted(shown: Shown, record: h.MessageInterrupted) -> None:
    _remember_pause(shown, record.keep)


def _remember_progress(shown: Shown, record: h.ToolProgress) -> None:
    if record.call not in shown.progress:
        shown.progress.append(record.call)


def _remember_asked(shown: Shown, record: h.ToolAwaiting) -> None:
    if record.kind != "program":
        shown.asked[record.call] = questions.question(record)


def _remember_called(shown: Shown, record: h.ToolCalled) -> None:
    shown.asked.pop(record.call, None)


def _remember_outcome(shown: Shown, record: h.ToolOutcome) -> None:
    shown.asked.pop(record.call, None)
    if record.call in shown.progress:
        shown.progress.remove(record.call)


def _remember_data(shown: Shown, record: h.DataShown) -> None:
    if is_early(shown, record.submission):
        value = msgspec.json.decode(record.value)
        shown.held.append({"type": "data-part", "name": record.name, "data": value})


def _remember_metadata(shown: Shown, record: h.MetadataShown) -> None:
    if is_early(shown, record.submission):
        shown.held.append({"type": "message-metadata", "metadata": msgspec.json.decode(record.value)})


def _remember_settled(shown: Shown, record: r.FiberSettled) -> None:
    for name in questions.of_fiber(shown.asked, record.fiber):
        del shown.asked[name]
    if record.fiber == shown.submission:
        _remember_end(shown, record)
    if is_submission(record.fiber):
        shown.held = []


_MEMORY: dict[type[r.Record], Callable[[Shown, Any], None]] = {
    h.TurnStarted: _remember_turn,
    h.MessageDelta: _remember_delta,
    h.MessageCompleted: _remember_completed,
    h.MessageInterrupted: _remember_interrupted,
    h.TurnFailed: _remember_failed,
    h.ToolAwaiting: _remember_asked,
    h.ToolCalled: _remember_called,
    h.ToolOutcome: _remember_outcome,
    h.ToolProgress: _remember_progress,
    h.DataShown: _remember_data,
    h.MetadataShown: _remember_metadata,
    r.FiberSettled: _remember_settled,
    r.FiberWaiting: lambda shown, record: questions.remember(shown.asked, record),
    r.AnswerGiven: lambda shown, record: questions.remember_answer(shown.asked, record),
    r.StepStarted: lambda shown, record: questions.forget(shown.asked, record),
    r.StepCompleted: lambda shown, record: questions.forget(shown.asked, record),
}
