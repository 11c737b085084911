"""What each record does to the fold of a conversation: one function a kind of record, and the table of them.

Laws. Pure, amortised O(1). It is the other half of `conversation.py`, which says what the fold is; nobody else calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from cairn.errors import StoreCorrupt
from cairn.harness import records as h
from cairn.harness.entries import Answered, Entry, Result
from cairn.harness.head import changed, opened, told
from cairn.harness.messages import Image
from cairn.harness.projection import message_id
from cairn.runtime import records as r

if TYPE_CHECKING:
    from cairn.harness.conversation import Conversation

_decode_delivery = msgspec.json.Decoder(h.Delivery).decode

#: Notes the model reads before new messages (they are about what it said itself); the others it reads after them.
BEFORE = ("continue", "length")


def _accepted(self: Conversation, record: r.FiberAccepted, ordinal: int) -> None:
    if record.method == h.SUBMISSION:
        delivery = _decode_delivery(record.arguments)
        self.has_images = self.has_images or bool(delivery.attachments)
        self._add(
            Entry(
                kind="user",
                id=message_id(record.fiber),
                ordinal=ordinal,
                at=record.at,
                submission=record.fiber,
                delivery=delivery,
            )
        )


def _opened(self: Conversation, record: h.ContextOpened, ordinal: int) -> None:
    self._heads.append(opened(record, ordinal))
    if record.sandbox is not None:
        self._told.append(told(None, record.sandbox, ordinal))


def _changed(self: Conversation, record: h.ContextChanged, ordinal: int) -> None:
    if self.head is None:
        raise StoreCorrupt("the context changed before it was opened (S14)")
    self._heads.append(changed(self.head, record, ordinal))
    if record.sandbox is not None:
        self._told.append(told(self.told, record.sandbox, ordinal))


def _turn_started(self: Conversation, record: h.TurnStarted, ordinal: int) -> None:
    self._flush_results(ordinal)
    self.arguments, self.asking, self.before = {}, {}, {}
    if record.submission in record.includes:
        self.call_ids = []
    for number, note in enumerate(record.notes):
        if note.kind in BEFORE:
            self._add_note(note, ordinal, record.turn, record.at, number)
    for submission in record.includes:
        message = self.entry(message_id(submission))
        self._refer("m", self._index[message.id], ordinal)
    for number, note in enumerate(record.notes):
        if note.kind not in BEFORE:
            self._add_note(note, ordinal, record.turn, record.at, number)
    self._parts = []
    self._add(
        Entry(
            kind="assistant",
            id=record.message,
            ordinal=ordinal,
            at=record.at,
            submission=record.submission,
            turn=record.turn,
            state="open",
            model=record.model,
        )
    )


def _delta(self: Conversation, record: h.MessageDelta, ordinal: int) -> None:
    parts = self._parts
    if parts and parts[-1][0] == record.block and parts[-1][1] == record.kind:
        parts[-1][2].append(record.text)
    else:
        parts.append((record.block, record.kind, [record.text]))


def _completed(self: Conversation, record: h.MessageCompleted, ordinal: int) -> None:
    entry = self.entry(record.message)
    entry.content, entry.state, entry.usage, entry.model = record.content, "completed", record.usage, record.model
    entry.ended = ordinal
    self._parts = []
    self.call_ids.extend(call.id for call in entry.calls)
    index = self._index[record.message]
    if record.content:
        self._refer("m", index, ordinal)
    self._unanswered = index if entry.calls else None


def _interrupted(self: Conversation, record: h.MessageInterrupted, ordinal: int) -> None:
    entry = self.entry(record.message)
    entry.content, entry.ended, self._parts = self.open_content(), ordinal, []
    entry.state = "aborted" if record.reason == "abort" else "interrupted"
    if record.keep:
        self._refer("m", self._index[record.message], ordinal)


def _failed(self: Conversation, record: h.TurnFailed, ordinal: int) -> None:
    entry = self.entry(record.message)
    entry.error = record.error
    if entry.state == "open":
        entry.state = "failed"


def _awaiting(self: Conversation, record: h.ToolAwaiting, ordinal: int) -> None:
    kept = msgspec.structs.replace(record, arguments=record.arguments.copy(), output=record.output.copy())
    self.asking[record.call] = kept


def _answered(self: Conversation, call: str, by: str, answer: str) -> None:
    """What is remembered of an answer for as long as the conversation: who gave it, and which it was."""
    asking = self.asking.pop(call, None)
    if answer and asking is not None and self._unanswered is not None:
        self.entries[self._unanswered].answers[call] = Answered(by, answer, asking.digest, asking.by)


def _called(self: Conversation, record: h.ToolCalled, ordinal: int) -> None:
    self.arguments[record.call] = record.arguments.copy()
    _answered(self, record.call, record.by, record.answer)


def _outcome(self: Conversation, record: h.ToolOutcome, ordinal: int) -> None:
    if self._unanswered is None:
        raise StoreCorrupt(f"an outcome for call '{record.call}', but no message waits for one (S14)")
    _answered(self, record.call, record.by, record.answer)
    self.has_images = self.has_images or any(isinstance(block, Image) for block in record.content)
    self.entries[self._unanswered].results[record.call] = Result(
        outcome=record.outcome, content=record.content, details=record.details.copy(), duration_ms=record.duration_ms
    )


def _state(self: Conversation, record: r.StateChanged, ordinal: int) -> None:
    for name, value in record.changes.items():
        self.before.setdefault(name, (self.values[name],) if name in self.values else ())
        self.values[name] = value.copy()
        self.versions[name] = ordinal


def _remembered(self: Conversation, record: h.SandboxRemembered, ordinal: int) -> None:
    self.remembered[record.sandbox] = record.value


def _settled(self: Conversation, record: r.FiberSettled, ordinal: int) -> None:
    """Only what has its end when its submission has: a message that nobody closed is not open for ever."""
    index = self._locate(self.control.message) if self.control.message else None
    entry: Entry | None = None if index is None else self.entries[index]
    if entry is not None and entry.state == "open" and entry.submission == record.fiber:
        entry.content, entry.state, entry.ended, self._parts = self.open_content(), "failed", ordinal, []


def _rewound(self: Conversation, record: h.ConversationRewound, ordinal: int) -> None:
    """What came after `to` is gone from both projections, but for messages nobody has read yet. A call whose outcome came
    after it keeps it: it did happen."""
    read = {ref.entry for ref in self._refs if ref.kind == "m" and ref.ordinal > record.to and record.keep_read}
    self._refs = [ref for ref in self._refs if ref.ordinal <= record.to]
    self._heads = [head for head in self._heads if head.ordinal <= record.to]
    self._told = [told for told in self._told if told.ordinal <= record.to]
    keep = next((i for i, entry in enumerate(self.entries) if entry.ordinal > record.to), len(self.entries))
    unread = [entry for entry in self.entries[keep:] if entry.kind == "user" and entry.submission in self.control.queue]
    self.entries.truncate(keep)
    self._context, self._index, self._parts, self._unanswered = [], {}, [], None
    last: Entry | None = self.entries[-1] if self.entries else None
    if last is not None and last.kind == "assistant" and last.ended > record.to:
        last.content, last.state, last.results = (), "interrupted", {}
    said = self._refs[-1] if self._refs else None
    if said is not None and said.kind == "m" and self.entries[said.entry].calls:
        self._unanswered = said.entry
    for index in sorted(index for index in read if index < keep and self.entries[index].kind == "user"):
        # The message stays and the answer that had read it goes: it has been read all the same.
        self._flush_results(ordinal)
        self._refer("m", index, ordinal)
    for entry in unread:
        self._add(entry)


HANDLERS: dict[type[r.Record], Callable[[Conversation, Any, int], None]] = {
    r.FiberAccepted: _accepted,
    r.FiberSettled: _settled,
    r.StateChanged: _state,
    h.SandboxRemembered: _remembered,
    h.ContextOpened: _opened,
    h.ContextChanged: _changed,
    h.TurnStarted: _turn_started,
    h.MessageDelta: _delta,
    h.MessageCompleted: _completed,
    h.MessageInterrupted: _interrupted,
    h.TurnFailed: _failed,
    h.ToolAwaiting: _awaiting,
    h.ToolCalled: _called,
    h.ToolOutcome: _outcome,
    h.ConversationRewound: _rewound,
}
