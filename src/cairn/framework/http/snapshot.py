"""A conversation as clients hold it: the fold of the stored chunks, message by message.

Laws. Pure. It is what the published clients compute from the same chunks, so a history and a followed stream never disagree (a
test folds both). A message nobody changes stays encoded; a batch costs what it touches, never the length of the conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

#: The version of what `dump` writes, as a cache. Another one is folded again.
SNAPSHOT = 1

Message = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_OPEN = msgspec.Raw()


class _Entry(msgspec.Struct, array_like=True):
    """One message, encoded or decoded: whichever was needed last."""

    id: str
    at: int
    """The ordinal it began at."""
    encoded: msgspec.Raw
    """Empty while `message` is what counts."""
    message: Message | None = None

    def open(self) -> Message:
        if self.message is None:
            self.message = _decode(self.encoded)
            self.encoded = _OPEN
        return self.message

    def close(self) -> bytes:
        if self.message is not None:
            self.encoded, self.message = msgspec.Raw(_encode(self.message)), None
        return bytes(self.encoded)

    def look(self) -> Message:
        """The message, not to be changed."""
        message: Message = self.message if self.message is not None else _decode(self.encoded)
        return message


class _Saved(msgspec.Struct):
    ordinal: int
    entries: list[_Entry]
    settlements: dict[str, msgspec.Raw]
    calls: dict[str, str]
    unsettled: list[str]


class Snapshot:
    """The fold, at `ordinal`."""

    def __init__(self) -> None:
        self.ordinal = -1
        self.unsettled: dict[str, None] = {}
        """Submissions without an outcome, in order of admission."""
        self._entries: list[_Entry] = []
        self._index: dict[str, int] = {}
        self._settlements: dict[str, msgspec.Raw] = {}
        self._calls: dict[str, str] = {}
        """The message of each call that has no output yet."""
        self._touched: set[str] = set()

    @classmethod
    def of(cls, message: Message) -> Snapshot:
        """The fold of a conversation that holds a copy of this one message."""
        made = cls()
        made._put(_decode(_encode(message)))
        made._calls = {part["toolCallId"]: message["id"] for part in message["parts"] if part.get("state") == "input-available"}
        return made

    # --- looking

    def messages(self) -> bytes:
        """The messages as a JSON array."""
        self.rest()
        return b"[" + b",".join([entry.close() for entry in self._entries]) + b"]"

    def settlements(self) -> bytes:
        """The settlements as a JSON array."""
        return b"[" + b",".join([bytes(raw) for raw in self._settlements.values()]) + b"]"

    def message(self, id: str) -> Message | None:
        """One message, not to be changed."""
        index = self._index.get(id)
        return None if index is None else self._entries[index].look()

    def __len__(self) -> int:
        return len(self._entries)

    # --- folding

    def feed(self, chunks: bytes, ordinal: int) -> None:
        """Fold one batch's stored chunks."""
        self.ordinal = ordinal
        if chunks:
            for line in chunks.split(b"\n"):
                self.apply(_decode(line), ordinal)

    def apply(self, chunk: Message, ordinal: int) -> None:
        """Fold one chunk of the batch at `ordinal`."""
        self.ordinal = ordinal
        _HANDLERS[chunk["type"]](self, chunk)

    def rest(self) -> None:
        """Encode what was touched: now and not all at once for whoever asks next."""
        for id in self._touched:
            self._entries[self._index[id]].close()
        self._touched.clear()

    def dump(self) -> bytes:
        self.rest()
        entries = [_Entry(entry.id, entry.at, entry.encoded) for entry in self._entries]
        return _encode(_Saved(self.ordinal, entries, self._settlements, self._calls, list(self.unsettled)))

    @classmethod
    def load(cls, data: bytes) -> Snapshot:
        """Raises msgspec.MsgspecError for what this code did not write."""
        saved = msgspec.json.decode(data, type=_Saved)
        made = cls()
        made.ordinal, made._entries, made._calls = saved.ordinal, saved.entries, saved.calls
        made._settlements, made.unsettled = saved.settlements, dict.fromkeys(saved.unsettled)
        made._reindex()
        return made

    # --- inside

    def _reindex(self) -> None:
        self._index = {entry.id: place for place, entry in enumerate(self._entries)}
        self._touched = {entry.id for entry in self._entries if entry.message is not None}

    def _put(self, message: Message) -> None:
        id = message["id"]
        place = self._index.get(id)
        if place is None:
            self._index[id] = len(self._entries)
            self._entries.append(_Entry(id, self.ordinal, _OPEN, message))
        else:
            entry = self._entries[place]
            entry.encoded, entry.message = _OPEN, message
        self._touched.add(id)

    def _open(self, id: str) -> Message | None:
        place = self._index.get(id)
        if place is None:
            return None
        self._touched.add(id)
        return self._entries[place].open()


def _end_text(message: Message) -> None:
    """The words at the end of the message are complete: what follows is another part."""
    parts = message["parts"]
    if parts and parts[-1].get("state") == "streaming":
        parts[-1]["state"] = "done"


def merge(into: Message, values: Message) -> None:
    """Deep: objects are merged, anything else is replaced."""
    for name, value in values.items():
        if name in ("__proto__", "constructor", "prototype"):
            continue
        present = into.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            merge(present, value)
        else:
            into[name] = value


def _reset(self: Snapshot, chunk: Message) -> None:
    if "to" not in chunk:
        return  # birth
    keep = set(chunk["keep"])
    self._entries = [entry for entry in self._entries if entry.at <= chunk["to"] or entry.id in keep]
    self._reindex()


def _appended(self: Snapshot, chunk: Message) -> None:
    message = chunk["message"]
    if message["purpose"] in ("user", "dispatch") and "turnId" not in message:
        self.unsettled[message["submissionId"]] = None
    self._put(message)


def _started(self: Snapshot, chunk: Message) -> None:
    id = chunk["messageId"]
    if id in self._index:
        return
    message: Message = {"id": id, "role": "assistant", "purpose": "assistant", "display": "visible"}
    message.update((name, chunk[name]) for name in ("submissionId", "turnId") if name in chunk)
    message["parts"] = []
    if "metadata" in chunk:
        message["metadata"] = chunk["metadata"]
    self._put(message)


def _delta(self: Snapshot, chunk: Message) -> None:
    message = self._open(chunk["messageId"])
    if message is None:
        return
    parts, kind = message["parts"], chunk["kind"]
    if parts and parts[-1]["type"] == kind and parts[-1]["state"] == "streaming":
        parts[-1]["text"] += chunk["delta"]
        return
    _end_text(message)
    parts.append({"type": kind, "text": chunk["delta"], "state": "streaming"})


def _input(self: Snapshot, chunk: Message) -> None:
    message, call = self._open(chunk["messageId"]), chunk["toolCallId"]
    if message is None or any(part.get("toolCallId") == call for part in message["parts"]):
        return
    _end_text(message)
    part = {"type": "dynamic-tool", "toolName": chunk["toolName"], "toolCallId": call, "state": "input-available"}
    message["parts"].append({**part, "input": chunk["input"]})
    self._calls[call] = chunk["messageId"]


def _output(self: Snapshot, chunk: Message) -> None:
    call = chunk["toolCallId"]
    message = self._open(self._calls.pop(call, ""))
    for part in message["parts"] if message is not None else ():
        if part.get("toolCallId") == call:
            name = "output" if "output" in chunk else "errorText"
            part["state"] = "output-available" if name == "output" else "output-error"
            part[name] = chunk[name]
            if "durationMs" in chunk:
                part["durationMs"] = chunk["durationMs"]


def _data(self: Snapshot, chunk: Message) -> None:
    message = self._open(chunk["messageId"])
    if message is None:
        return
    type = f"data-{chunk['name']}"
    for part in message["parts"]:
        if part["type"] == type:
            part["data"] = chunk["data"]
            return
    message["parts"].append({"type": type, "data": chunk["data"]})


def _metadata(self: Snapshot, chunk: Message) -> None:
    message = self._open(chunk["messageId"])
    if message is not None:
        merge(message.setdefault("metadata", {}), chunk["metadata"])


def _completed(self: Snapshot, chunk: Message) -> None:
    message = self._open(chunk["messageId"])
    for part in message["parts"] if message is not None else ():
        if part["type"] in ("text", "reasoning"):
            part["state"] = "done"


def _settled(self: Snapshot, chunk: Message) -> None:
    names = ("submissionId", "outcome", "error", "answeredBySubmissionId")
    settlement = {name: chunk[name] for name in names if name in chunk}
    self._settlements[chunk["submissionId"]] = msgspec.Raw(_encode(settlement))
    self.unsettled.pop(chunk["submissionId"], None)


_HANDLERS: dict[str, Callable[[Snapshot, Message], None]] = {
    "conversation-reset": _reset,
    "message-appended": _appended,
    "message-started": _started,
    "message-delta": _delta,
    "tool-input": _input,
    "tool-output": _output,
    "tool-output-error": _output,
    "data-part": _data,
    "message-metadata": _metadata,
    "message-completed": _completed,
    "submission-settled": _settled,
}
