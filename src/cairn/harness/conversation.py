"""What an agent's log says was said: the fold of its records, and its two projections.

People see *entries*, in order of admission. The model sees the *context*, in order of turns: a message enters it when a
turn includes it, tool results enter it in the order of their calls, notes enter it at the tail. Both are views of the same
entries; the context is a list of references that only grows (until a rewind), so what was sent once is sent again byte for
byte and nothing is ever scanned twice.

Laws. Pure. `apply` is amortised O(1). Entries restored from a checkpoint stay encoded until somebody looks at them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cairn.errors import StoreCorrupt
from cairn.harness import records as h
from cairn.harness.conversation_fold import BEFORE, HANDLERS
from cairn.harness.entries import Entries, Entry, Ref, RefKind
from cairn.harness.head import Head, Told
from cairn.harness.messages import (
    AssistantMessage,
    Content,
    ContextMessage,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from cairn.harness.projection import message_id
from cairn.harness.render import delivery_message, missing_result, note_message
from cairn.harness.shown import Shown
from cairn.harness.submission import Control
from cairn.runtime import records as r


class _Saved(msgspec.Struct):
    control: Control
    entries: list[msgspec.Raw]
    refs: list[Ref]
    open_parts: list[tuple[int, str, str]]
    values: dict[str, msgspec.Raw]
    versions: dict[str, int]
    heads: list[Head]
    unanswered: int | None
    arguments: dict[str, msgspec.Raw]
    call_ids: list[str]
    has_images: bool
    shown: Shown | None = None
    asking: dict[str, h.ToolAwaiting] = {}
    remembered: dict[str, bytes] = {}
    before: dict[str, tuple[msgspec.Raw, ...]] = {}
    told: list[Told] = []


_encode = msgspec.json.Encoder().encode
_decode_saved = msgspec.json.Decoder(_Saved).decode


class Conversation:
    """The fold. Readers look, only `apply` changes."""

    def __init__(self) -> None:
        self.control = Control()
        self.entries = Entries()
        self.values: dict[str, msgspec.Raw] = {}
        """The agent's state, a JSON text a field."""
        self.versions: dict[str, int] = {}
        self.before: dict[str, tuple[msgspec.Raw, ...]] = {}
        """What was changed of the state since the open turn began: the value then, or nothing."""
        self.has_images = False
        self.shown = Shown()
        self.arguments: dict[str, msgspec.Raw] = {}
        """What the calls of the open turn were called with, by call."""
        self.asking: dict[str, h.ToolAwaiting] = {}
        """The calls of the open turn that wait for an answer, by call."""
        self.remembered: dict[str, bytes] = {}
        """What sandboxes want to find again, by their names. A rewind leaves it, as it leaves the files."""
        self.call_ids: list[str] = []
        """The ids of all calls of the submission at work."""
        self._heads: list[Head] = []
        self._told: list[Told] = []
        self._refs: list[Ref] = []
        self._context: list[ContextMessage] = []
        self._index: dict[str, int] = {}
        self._parts: list[tuple[int, str, list[str]]] = []
        self._unanswered: int | None = None

    @property
    def head(self) -> Head | None:
        """The head of the next request as the model knows it; None before the first turn."""
        return self._heads[-1] if self._heads else None

    @property
    def told(self) -> Told | None:
        """What the model was told of its sandbox; None: nothing yet, and the one it may have is the agent's own."""
        return self._told[-1] if self._told else None

    def values_at_turn(self) -> dict[str, msgspec.Raw]:
        """The state as the open turn was rendered with it."""
        now = {name: value for name, value in self.values.items() if name not in self.before}
        return now | {name: then[0] for name, then in self.before.items() if then}

    # --- the two projections

    def context(self) -> Sequence[ContextMessage]:
        """What the model is given, oldest first. The same list each time, extended: its elements keep their identity."""
        for ref in self._refs[len(self._context) :]:
            self._context.append(self._message(ref))
        return self._context

    def history(self) -> list[Entry]:
        """What people see, in order of admission."""
        return [self._shown(entry) for entry in self.entries if entry.kind != "note"]

    def entry(self, id: str) -> Entry:
        """The entry of that id. Raises StoreCorrupt when there is none: a record named it."""
        index = self._locate(id)
        if index is None:
            raise StoreCorrupt(f"a record names the message '{id}', which is not in the log (S14)")
        return self.entries[index]  # type: ignore[no-any-return]

    def open_content(self) -> tuple[Content, ...]:
        """What the open message holds so far."""
        texts = ((kind, "".join(parts)) for _, kind, parts in self._parts)
        return tuple(Text(text=text) if kind == "text" else Thinking(text=text) for kind, text in texts)

    def message_of(self, submission: str) -> UserMessage:
        """A submission's message as the model reads it."""
        return delivery_message(self.delivery_of(submission))

    def delivery_of(self, submission: str) -> h.Delivery:
        delivery: h.Delivery | None = self.entry(message_id(submission)).delivery
        assert delivery is not None
        return delivery

    def calls_of(self, submission: str) -> list[str]:
        """The names of the tools called in a submission, in order."""
        names: list[str] = []
        for index in range(len(self.entries) - 1, -1, -1):
            entry: Entry = self.entries[index]
            if entry.kind == "user" and entry.submission == submission:
                break
            if entry.kind == "assistant" and entry.submission == submission:
                names[:0] = [call.name for call in entry.calls]
        return names

    def said_before(self, message: str) -> str:
        """What was said in earlier parts of this message: those it was asked to continue, after an interruption or at the
        length limit. A person reads them as one answer."""
        submission, parts, is_continued = self.entry(message).submission, list[str](), False
        for index in range(self._index[message] - 1, -1, -1):
            entry: Entry = self.entries[index]
            if entry.note is not None:
                is_continued = is_continued or entry.note.kind in BEFORE
            elif entry.kind == "assistant":
                if entry.submission == submission and entry.state != "completed" and not entry.text:
                    continue  # a try that came to nothing: what it was asked to continue, the next one was too
                if entry.submission != submission or entry.calls or not is_continued:
                    break
                parts.append(entry.text)
                is_continued = False
        return "".join(reversed(parts))

    # --- folding

    def apply(self, record: r.Record, ordinal: int) -> None:
        self.control.apply(record)
        self.shown.apply(record)
        handler = HANDLERS.get(type(record))
        if handler is not None:
            handler(self, record, ordinal)

    def dump(self) -> bytes:
        parts = [(block, kind, "".join(texts)) for block, kind, texts in self._parts]
        return _encode(
            _Saved(
                control=self.control,
                entries=self.entries.encoded(),
                refs=self._refs,
                open_parts=parts,
                values=self.values,
                versions=self.versions,
                heads=self._heads,
                unanswered=self._unanswered,
                arguments=self.arguments,
                call_ids=self.call_ids,
                has_images=self.has_images,
                shown=self.shown,
                asking=self.asking,
                remembered=self.remembered,
                before=self.before,
                told=self._told,
            )
        )

    @classmethod
    def load(cls, data: bytes) -> Conversation:
        saved = _decode_saved(data)
        made = cls()
        made.control, made.entries, made._refs = saved.control, Entries(list(saved.entries)), saved.refs
        made._parts = [(block, kind, [text]) for block, kind, text in saved.open_parts]
        made.values, made.versions = saved.values, saved.versions
        made._heads, made._unanswered, made.has_images = saved.heads, saved.unanswered, saved.has_images
        made.arguments, made.call_ids = saved.arguments, saved.call_ids
        made.before, made._told = saved.before, saved.told
        made.shown, made.asking, made.remembered = saved.shown or Shown(), saved.asking, saved.remembered
        return made

    # --- inside

    def _add(self, entry: Entry) -> int:
        index = self.entries.append(entry)
        self._index[entry.id] = index
        return index

    def _locate(self, id: str) -> int | None:
        """Searched from the end, because what is named is recent and decoding all of a restored history would cost O(n)."""
        if id in self._index:
            return self._index[id]
        for index in range(len(self.entries) - 1, -1, -1):
            if self._index.setdefault(self.entries[index].id, index) == index and self.entries[index].id == id:
                return index
        return None

    def _shown(self, entry: Entry) -> Entry:
        if entry.state != "open" or not self._parts:
            return entry
        return msgspec.structs.replace(entry, content=self.open_content())

    def _message(self, ref: Ref) -> ContextMessage:
        entry: Entry = self.entries[ref.entry]
        if ref.kind == "t":
            return self._result_message(entry, entry.calls[ref.call])
        if entry.delivery is not None:
            return delivery_message(entry.delivery)
        if entry.note is not None:
            return note_message(entry.note)
        content = entry.content
        if entry.state == "interrupted":
            content = tuple(block for block in content if isinstance(block, Text))
        return AssistantMessage(content=content, model=entry.model, interrupted=entry.state == "interrupted")

    @staticmethod
    def _result_message(entry: Entry, call: ToolCall) -> ToolMessage:
        result = entry.results.get(call.id)
        if result is None:
            return missing_result(call)
        return ToolMessage(call=call.id, name=call.name, content=result.content, is_error=result.outcome != "ok")

    def _refer(self, kind: RefKind, entry: int, ordinal: int, call: int = 0) -> None:
        self._refs.append(Ref(kind, entry, ordinal, call))

    def _flush_results(self, ordinal: int) -> None:
        """The results of the last message enter the context, in the order of their calls (P4)."""
        if self._unanswered is None:
            return
        for number in range(len(self.entries[self._unanswered].calls)):
            self._refer("t", self._unanswered, ordinal, number)
        self._unanswered = None

    def _add_note(self, note: h.Note, ordinal: int, turn: str, at: float, number: int) -> None:
        index = self._add(Entry(kind="note", id=f"note_{turn}_{number}", ordinal=ordinal, at=at, turn=turn, note=note))
        self._refer("m", index, ordinal)
