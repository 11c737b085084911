"""A chat client's view of a log without a socket: what it would be told, stream by stream, and what it puts together of that.

Laws. Pure. `assembled` follows the rules by which the AI SDK and the agents package fold chunks, written down once more; a test
holds them against both packages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.harness.test_projection import Log, chunks

from cairn.framework.http.chat_parts import Telling, ui_message
from cairn.framework.http.chat_scene import Began, Happening, Paused, Scene, Settled

Json = dict[str, Any]


def url(id: str) -> str:
    return f"https://here/{id}"


@dataclass
class Stream:
    """One stream: what was told, and the answer as it was at its end."""

    submission: str
    chunks: list[Json] = field(default_factory=list)
    message: Json | None = None
    replay: list[Json] = field(default_factory=list)
    """What somebody is told who comes at its end."""


class Watcher:
    """Told of every page as it comes; a page is as many chunks as were appended together, or more."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.streams: list[Stream] = []
        self.happened: list[Happening] = []
        self._telling = Telling()
        self._open: Stream | None = None

    def page(self, rows: Iterable[bytes]) -> None:
        for row in rows:
            for chunk in chunks(row):
                if chunk["type"] != "conversation-reset":
                    for happening in self.scene.feed(chunk):
                        self._happen(happening)
        if self._open is not None:
            self._tell(self.scene.message)

    def _happen(self, happening: Happening) -> None:
        self.happened.append(happening)
        match happening:
            case Began(submission):
                assert self._open is None, "one stream at a time"
                self._telling, self._open = Telling(), Stream(submission)
                self.streams.append(self._open)
            case Paused(submission, message) | Settled(submission, _, _, message):
                if self._open is not None and self._open.submission == submission and message is not None:
                    self._end(message)

    def _tell(self, message: Json | None) -> None:
        if message is not None and self._open is not None:
            self._open.chunks += json.loads(json.dumps(list(self._telling.tell(message, url))))

    def _end(self, message: Json) -> None:
        self._tell(message)
        assert self._open is not None
        self._open.chunks += self._telling.finish("stop")
        self._open.message = json.loads(json.dumps(message))
        late = Telling()
        self._open.replay = json.loads(json.dumps([*late.tell(message, url), *late.finish("stop")]))
        self._open = None


def watched(batches: Sequence[Sequence[Any]], page: int = 1) -> Watcher:
    """A log of these batches, watched in pages of so many."""
    log, watcher = Log(), Watcher()
    for batch in batches:
        log.add(batch)
    for start in range(0, len(log.rows), page):
        watcher.page(log.rows[start : start + page])
    return watcher


def shown(message: Json) -> Json:
    """The message as a client has it in its transcript, without what chunks do not carry."""
    return plain(ui_message(message, url))


def plain(message: Json) -> Json:
    """Without what differs between a transcript, the AI SDK and the agents package, and means nothing: which approval it was
    once it is decided, ids of reasoning, the name of a tool beside its type, empty metadata."""
    parts = []
    for part in message["parts"]:
        left = {name: value for name, value in part.items() if name not in ("toolName", "providerMetadata", "id")}
        if part["type"].startswith("data-"):
            left["id"] = part["id"]
        if message["role"] == "user":
            left.pop("state", None)
        if left.get("state") not in ("approval-requested",):
            left.pop("approval", None)
        parts.append(left)
    found = {"id": message["id"], "role": message["role"], "parts": parts}
    return {**found, "metadata": message["metadata"]} if message.get("metadata") else found


def assembled(told: Sequence[Json]) -> Json:
    """What a client makes of chunks; raises KeyError or AssertionError for chunks that a client could not fold."""
    message: Json = {"role": "assistant", "parts": []}
    parts: list[Json] = message["parts"]
    open: dict[str, Json] = {}
    calls: dict[str, Json] = {}
    for chunk in told:
        type: str = chunk["type"]
        kind, _, verb = type.partition("-")
        if type == "start":
            message["id"] = chunk["messageId"]
            merge(message, chunk)
        elif kind in ("text", "reasoning"):
            if verb == "start":
                assert chunk["id"] not in open
                open[chunk["id"]] = {"type": kind, "text": "", "state": "streaming"}
                parts.append(open[chunk["id"]])
            elif verb == "delta":
                # Other tabs take the last part of that kind, whatever its id.
                assert [part for part in parts if part["type"] == kind][-1] is open[chunk["id"]]
                open[chunk["id"]]["text"] += chunk["delta"]
            else:
                open.pop(chunk["id"])["state"] = "done"
        elif type == "start-step":
            parts.append({"type": "step-start"})
        elif type == "finish-step":
            assert not open, "words go on beyond their step"
        elif type == "tool-input-available":
            assert chunk["toolCallId"] not in calls
            call = {"type": f"tool-{chunk['toolName']}", "toolCallId": chunk["toolCallId"], "state": "input-available"}
            calls[chunk["toolCallId"]] = {**call, "input": chunk["input"]}
            parts.append(calls[chunk["toolCallId"]])
        elif type == "tool-approval-request":
            asked = {"approval": {"id": chunk["approvalId"]}, "state": "approval-requested"}
            if "approvalDescriptor" in chunk:
                asked["approval"]["descriptor"] = chunk["approvalDescriptor"]
            calls[chunk["toolCallId"]].update(asked)
        elif type.startswith("tool-output-"):
            more = {name: chunk[name] for name in ("output", "errorText") if name in chunk}
            state = {"tool-output-available": "output-available", "tool-output-error": "output-error"}.get(
                type, "output-denied"
            )
            calls[chunk["toolCallId"]].update(state=state, **more)
        elif type.startswith("data-"):
            known = next((part for part in parts if part["type"] == type and part["id"] == chunk["id"]), None)
            if known is None:
                parts.append(dict(chunk))
            else:
                known["data"] = chunk["data"]
        elif type == "message-metadata":
            merge(message, chunk)
        else:
            assert type == "finish", type
    return plain(message)


def merge(message: Json, chunk: Json) -> None:
    if chunk.get("messageMetadata") is not None:
        message.setdefault("metadata", {}).update(chunk["messageMetadata"])
