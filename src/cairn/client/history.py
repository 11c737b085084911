"""A conversation as it stands at one offset: messages, outcomes, and the answer to one message. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cairn.errors import FiberFailed, RemoteError


class Message(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One message, as pages show it: `parts` are texts, reasoning, tool calls, files and data, in their order."""

    id: str
    role: str
    purpose: str
    display: str = "visible"
    submission_id: str | None = None
    turn_id: str | None = None
    parts: tuple[dict[str, Any], ...] = ()
    metadata: dict[str, Any] | None = None
    signal: dict[str, Any] | None = None
    settlement: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """What was said, without reasoning and tool calls."""
        return "\n\n".join(part["text"] for part in self.parts if part["type"] == "text")


class Settlement(msgspec.Struct, frozen=True, rename="camel"):
    """The outcome of one submission."""

    submission_id: str
    outcome: str
    error: dict[str, Any] | None = None
    answered_by_submission_id: str | None = None


class History(msgspec.Struct, frozen=True, rename="camel"):
    """The whole conversation. Following after `offset` continues it without a gap."""

    conversation_id: str
    offset: str
    messages: tuple[Message, ...]
    settlements: tuple[Settlement, ...]
    incarnation: str = ""

    def settlement(self, submission: str) -> Settlement | None:
        return next((each for each in self.settlements if each.submission_id == submission), None)

    def reply(self, submission: str) -> Reply:
        """What the submission, which has settled, was answered. *Raises* FiberFailed when it failed or was aborted."""
        settled = self.settlement(submission)
        assert settled is not None, f"{submission} has not settled at {self.offset}"
        check(submission, settled.outcome, settled.error)
        answered_by = settled.answered_by_submission_id or submission
        message = next((each for each in reversed(self.messages) if _answers(each, answered_by)), None)
        parts = message.parts if message is not None else ()
        data = {part["type"].removeprefix("data-"): part["data"] for part in parts if part["type"].startswith("data-")}
        metadata = (message.metadata if message is not None else None) or {}
        return Reply(_final_text(parts), message.id if message is not None else "", submission, data, metadata)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a completed submission was answered."""

    text: str
    """The model's last words: what stands after its last tool call."""
    message: str
    submission: str
    data: Mapping[str, Any] = field(default_factory=dict)
    """What tools showed beside the words, by name."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attachment:
    """The bytes of an attachment."""

    data: bytes
    mime_type: str


def decode(body: bytes) -> History:
    """Raises RemoteError for what is no history."""
    try:
        return msgspec.json.decode(body, type=History)
    except msgspec.MsgspecError as error:
        raise RemoteError(f"the server sent a history that cannot be read: {error}", type="invalid_history") from None


def check(submission: str, outcome: str, error: Mapping[str, Any] | None) -> None:
    """Raises FiberFailed unless it completed."""
    if outcome == "completed":
        return
    why = (error or {}).get("message") or "no reason was recorded"
    details = (error or {}).get("details")
    raise FiberFailed(f"submission '{submission}' {outcome}: {why}{f' {details}' if details else ''}", outcome)


def _answers(message: Message, submission: str) -> bool:
    return message.purpose == "assistant" and message.submission_id == submission


def _final_text(parts: Sequence[dict[str, Any]]) -> str:
    calls = [place for place, part in enumerate(parts) if part["type"] == "dynamic-tool"]
    last = parts[calls[-1] + 1 :] if calls else parts
    return "".join(part["text"] for part in last if part["type"] == "text")
