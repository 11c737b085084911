"""What a conversation asks, as a server tells it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from cairn.client.chunks import BEGINNING


class PendingCall(msgspec.Struct, frozen=True, rename="camel"):
    """A call that waits for an answer. `digest` says which arguments were seen: an answer has to name it."""

    call: str
    tool: str
    arguments: dict[str, Any] = msgspec.field(name="input")
    digest: str
    kind: Literal["approval", "client_tool"]
    submission: str = msgspec.field(name="submissionId")
    asked_at: datetime
    expires_at: datetime | None = None
    reason: str = ""
    by: tuple[str, ...] = ()
    """Who may answer, by the names of tokens. Empty: whoever may send."""


class AnswerReceipt(msgspec.Struct, frozen=True):
    """Proof that the answer is durable and was the one."""

    call: str
    offset: str = BEGINNING
    """Updates after it show what comes of the answer."""
    duplicate: bool = msgspec.field(name="deduplicated", default=False)
    """The same answer had been given before: this one changed nothing."""


class Questions(msgspec.Struct):
    questions: list[PendingCall]
