"""The rules by which the published clients fold chunks, written down once more, independently of the server's own fold.

It is what the server's own fold is held against. Where a client drops something in silence, this one says so: `dropped` is what
a user would have lost, and is empty for every stream that a correct server sends.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

#: Everything a client knows; another type kills its stream.
TYPES = frozenset(
    {
        "stream-checkpoint",
        "conversation-reset",
        "message-appended",
        "message-started",
        "message-delta",
        "tool-input",
        "message-completed",
        "tool-output",
        "tool-output-error",
        "data-part",
        "message-metadata",
        "submission-settled",
    }
)

_WORDS = ("text", "reasoning")


class Client:
    """What a client holds of one conversation."""

    def __init__(self) -> None:
        self.conversation: str | None = None
        self.messages: list[Json] = []
        self.settlements: list[Json] = []
        self.position: tuple[int, int] = (-1, -1)
        self.incarnation: str | None = None
        self.dropped: list[str] = []
        """What a client would have lost without a word."""
        self.resets = 0

    @classmethod
    def seeded(cls, history: Json) -> Client:
        """From an answer to `view=history`."""
        client = cls()
        client.incarnation = history["incarnation"]
        client._take(history)
        client.position = (int(history["offset"].rpartition("_")[2]), 1 << 30)
        return client

    @property
    def state(self) -> Json:
        return {"messages": self.messages, "settlements": self.settlements}

    def feed(self, chunks: Iterable[Json]) -> None:
        """One answer, or the data frames up to a control frame."""
        for chunk in chunks:
            self.apply(chunk)

    def apply(self, chunk: Json) -> None:
        """Raises AssertionError for what ends a client's stream: an unknown type, no conversation, no position."""
        kind = chunk["type"]
        assert kind in TYPES, f"a chunk of the type {kind}, which no client knows"
        if kind == "stream-checkpoint":
            assert self.incarnation in (None, chunk["incarnation"]), "another life of the log"
            self.incarnation = chunk["incarnation"]
            return
        assert isinstance(chunk["conversationId"], str), chunk
        position = (chunk["position"]["batch"], chunk["position"]["index"])
        assert all(isinstance(number, int) for number in position), chunk
        if position <= self.position:
            return
        self.position = position
        _RULES[kind](self, chunk)

    # --- the rules

    def _take(self, snapshot: Json) -> None:
        self.conversation = snapshot["conversationId"]
        self.messages = copy.deepcopy(snapshot["messages"])
        self.settlements = copy.deepcopy(snapshot["settlements"])

    def _reset(self, chunk: Json) -> None:
        self.resets += 1
        self._take(chunk["snapshot"])

    def _find(self, id: str, chunk: Json) -> Json | None:
        for message in self.messages:
            if message["id"] == id:
                return message
        self.dropped.append(f"{chunk['type']} for the unknown message {id}")
        return None

    def _appended(self, chunk: Json) -> None:
        message = copy.deepcopy(chunk["message"])
        for place, present in enumerate(self.messages):
            if present["id"] == message["id"]:
                self.messages[place] = message
                return
        self.messages.append(message)

    def _started(self, chunk: Json) -> None:
        if any(message["id"] == chunk["messageId"] for message in self.messages):
            return
        message: Json = {"id": chunk["messageId"], "role": "assistant", "purpose": "assistant", "display": "visible"}
        message |= {name: chunk[name] for name in ("submissionId", "turnId") if name in chunk}
        message["parts"] = []
        if "metadata" in chunk:
            message["metadata"] = copy.deepcopy(chunk["metadata"])
        self.messages.append(message)

    def _delta(self, chunk: Json) -> None:
        message = self._find(chunk["messageId"], chunk)
        if message is None:
            return
        last = message["parts"][-1] if message["parts"] else {"type": None}
        if last["type"] == chunk["kind"] and last["state"] == "streaming":
            last["text"] += chunk["delta"]
            return
        _close(last)
        message["parts"].append({"type": chunk["kind"], "text": chunk["delta"], "state": "streaming"})

    def _input(self, chunk: Json) -> None:
        message = self._find(chunk["messageId"], chunk)
        if message is None:
            return
        if any(part.get("toolCallId") == chunk["toolCallId"] for part in message["parts"]):
            self.dropped.append(f"a second call {chunk['toolCallId']} in one message")
            return
        if message["parts"]:
            _close(message["parts"][-1])
        part = {"type": "dynamic-tool", "toolName": chunk["toolName"], "toolCallId": chunk["toolCallId"]}
        message["parts"].append(part | {"state": "input-available", "input": copy.deepcopy(chunk["input"])})

    def _output(self, chunk: Json) -> None:
        failed = chunk["type"] == "tool-output-error"
        for message in reversed(self.messages):
            found = [part for part in message["parts"] if part.get("toolCallId") == chunk["toolCallId"]]
            for part in found:
                part["state"] = "output-error" if failed else "output-available"
                name = "errorText" if failed else "output"
                part[name] = copy.deepcopy(chunk[name])
                if "durationMs" in chunk:
                    part["durationMs"] = chunk["durationMs"]
            if found:
                return
        self.dropped.append(f"the outcome of the unknown call {chunk['toolCallId']}")

    def _data(self, chunk: Json) -> None:
        message = self._find(chunk["messageId"], chunk)
        if message is None:
            return
        kind = f"data-{chunk['name']}"
        for part in message["parts"]:
            if part["type"] == kind:
                part["data"] = copy.deepcopy(chunk["data"])
                return
        message["parts"].append({"type": kind, "data": copy.deepcopy(chunk["data"])})

    def _metadata(self, chunk: Json) -> None:
        message = self._find(chunk["messageId"], chunk)
        if message is not None:
            message["metadata"] = _merged(message.get("metadata", {}), chunk["metadata"])

    def _completed(self, chunk: Json) -> None:
        message = self._find(chunk["messageId"], chunk)
        for part in message["parts"] if message is not None else ():
            if part["type"] in _WORDS:
                part["state"] = "done"

    def _settled(self, chunk: Json) -> None:
        names = ("submissionId", "outcome", "error", "answeredBySubmissionId")
        settlement = {name: copy.deepcopy(chunk[name]) for name in names if name in chunk}
        for place, present in enumerate(self.settlements):
            if present["submissionId"] == settlement["submissionId"]:
                self.settlements[place] = settlement
                return
        self.settlements.append(settlement)


def _close(part: Json) -> None:
    if part["type"] in _WORDS and part["state"] == "streaming":
        part["state"] = "done"


def _merged(into: Json, values: Json) -> Json:
    merged = dict(into)
    for name, value in values.items():
        if name in ("__proto__", "constructor", "prototype"):
            continue
        present = merged.get(name)
        both = isinstance(present, dict) and isinstance(value, dict)
        merged[name] = _merged(present, value) if both else copy.deepcopy(value)
    return merged


_RULES = {
    "conversation-reset": Client._reset,
    "message-appended": Client._appended,
    "message-started": Client._started,
    "message-delta": Client._delta,
    "tool-input": Client._input,
    "tool-output": Client._output,
    "tool-output-error": Client._output,
    "data-part": Client._data,
    "message-metadata": Client._metadata,
    "message-completed": Client._completed,
    "submission-settled": Client._settled,
}
