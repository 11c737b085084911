"""The vocabulary of a conversation: every record an agent's log may contain beside the runtime's own.

Laws. Pure. A record is frozen; its tag is its durable name and never changes meaning; new fields are optional (S15).
Intents come before effects (`tool.called`, `turn.started`), outcomes after (`tool.outcome`, `message.completed`, …).
A *fact* is synced when its append returns; `message.delta`, `tool.progress`, `tool.process`, `data.shown` and
`metadata.shown` are deltas.

One submission, sequential tool step, as it stands in the log (`|` separates synced commits):

    fiber.accepted | fiber.started turn.started | delta… message.completed tool.called | tool.outcome turn.started | …
        | delta… message.completed fiber.settled

and of a call that waits for an approval:

    … | delta… message.completed tool.awaiting fiber.waiting fiber.parked | answer.given | fiber.started tool.called | …
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cairn.harness.asking import AskKind, OnMessage
from cairn.harness.messages import Content, Image, ResultContent, StopReason, ToolSpec, Usage
from cairn.harness.sandbox.protocol import ProcessInfo
from cairn.runtime.records import NULL, ErrorInfo, Record

#: The fiber method of a submission; `fiber.accepted.arguments` is then a `Delivery`.
SUBMISSION = "submission"
#: The fiber method that runs `on_settled`; its argument is the submission's id.
SETTLED_HOOK = "on_settled"
#: The fiber method that rewinds the conversation; its argument is the id of the message that will be the last, or null.
REWIND = "rewind"
#: The method of a fiber that runs the program of a call.
PROGRAM = "program"

Repeat = Literal["never", "keyed", "safe", "resume"]
CallOutcome = Literal["ok", "error", "unknown", "aborted", "timeout", "rejected", "expired", "withdrawn"]


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was sent: a person's message, or a signal (a timer, a webhook) that only programs send."""

    kind: Literal["user", "signal"] = "user"
    body: str
    attachments: tuple[Image, ...] = ()
    type: str | None = None
    attributes: dict[str, str] = {}
    tag: str = "signal"
    client_tools: tuple[ToolSpec, ...] = ()
    """Tools that the client which sent it carries out itself."""
    client_id: str | None = None
    """What the client which sent it calls the message."""
    extra: dict[str, Any] = {}
    """What that client said beside the message (JSON): for tools and hooks, never for the model."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something the model is told at the tail, from the user's side, that no person wrote."""

    kind: Literal["continue", "length", "hook", "tools", "instructions", "environment"]
    text: str


class Attached(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which sandbox the model was told that it has."""

    key: str = ""
    """Those with one key have the same files. Empty: there is none."""
    is_workspace: bool = False
    """Its files are the instance's workspace."""


class ContextOpened(Record, frozen=True, tag="context.opened"):
    """The head of every request from here on, frozen: system prompt and tools."""

    system: str
    tools: tuple[ToolSpec, ...]
    guidance: str = ""
    """What the project in the working directory says, as it was read then; follows the system prompt."""
    sandbox: Attached | None = None
    """None: none, and the agent has none by itself."""


class ContextChanged(Record, frozen=True, tag="context.changed"):
    """What changed in instructions, tools or the sandbox. New tools are declared after the old ones; notes tell the model."""

    instructions: str | None = None
    tools_added: tuple[ToolSpec, ...] = ()
    tools_removed: tuple[str, ...] = ()
    tools_back: tuple[str, ...] = ()
    sandbox: Attached | None = None
    """The one there is from now on."""


class TurnStarted(Record, frozen=True, tag="turn.started"):
    """A model request is about to be made: the intent. `includes` are the submissions whose messages the model sees from
    this turn on (the first turn of a submission includes it; a later one may join others)."""

    submission: str
    turn: str
    message: str
    epoch: int
    at: float
    model: str
    attempt: int = 1
    """Of the submission: a reader never mistakes a second try for the first."""
    includes: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()


class MessageDelta(Record, frozen=True, tag="message.delta"):
    """More of the open message; consecutive deltas of a block are one record per flush."""

    message: str
    block: int
    kind: Literal["text", "thinking"]
    text: str
    lengths: tuple[int, ...] = ()
    """In a merged row: how many characters each of the rows had that it was merged from, ordinal by ordinal."""


class MessageCompleted(Record, frozen=True, tag="message.completed"):
    """The model's whole response: paid for, never requested again."""

    submission: str
    turn: str
    message: str
    content: tuple[Content, ...]
    stop: StopReason
    at: float
    model: str
    usage: Usage = Usage()
    response_id: str = ""
    duration_ms: int = 0


class MessageInterrupted(Record, frozen=True, tag="message.interrupted"):
    """The open message ends here. `keep`: its text stays in the model's context and it will be asked to continue."""

    submission: str
    turn: str
    message: str
    reason: Literal["crash", "cut", "stall", "abort", "timeout", "limit", "fork"]
    keep: bool
    at: float


class TurnFailed(Record, frozen=True, tag="turn.failed"):
    """The request failed. `retry_at`: it is made again then; None: the submission fails with this error."""

    submission: str
    turn: str
    message: str
    error: ErrorInfo
    at: float
    retry_at: float | None = None


class ToolAwaiting(Record, frozen=True, tag="tool.awaiting"):
    """A call waits for an answer from outside. In its batch stands the fiber's wait, which has the call's id for its name."""

    submission: str
    turn: str
    call: str
    name: str
    arguments: msgspec.Raw
    """Coerced and validated; what is run when it is approved, and nothing else."""
    digest: str
    """Of the name and the arguments: what an answer is bound to."""
    kind: AskKind
    at: float
    until: float | None = None
    """When it expires, wall seconds."""
    reason: str = ""
    by: tuple[str, ...] = ()
    """Who may answer. Empty: whoever may write to the conversation."""
    on_message: OnMessage = "queue"
    output: msgspec.Raw = NULL
    """JSON Schema of what a client may give as the output."""


class ToolCalled(Record, frozen=True, tag="tool.called"):
    """The intent of a call, durable before the tool runs (S8). `arguments` are coerced and validated."""

    submission: str
    turn: str
    call: str
    name: str
    arguments: msgspec.Raw
    repeat: Repeat
    epoch: int
    at: float
    by: str = ""
    """Who approved it."""
    answer: str = ""
    """The digest of the answer that approved it; empty when nobody was asked."""


class ToolProcess(Record, frozen=True, tag="tool.process"):
    """The process tree a call runs in: a successor on the same host ends what is left of it before it decides."""

    call: str
    process: ProcessInfo


class ToolProgress(Record, frozen=True, tag="tool.progress"):
    """The last of what a running call shows; replaced by the next one, cleared by the outcome."""

    call: str
    text: str


class ToolOutcome(Record, frozen=True, tag="tool.outcome"):
    """The one outcome of a call. Called or not: a refused call (unknown tool, bad arguments) has only this."""

    submission: str
    turn: str
    call: str
    name: str
    outcome: CallOutcome
    content: tuple[ResultContent, ...]
    at: float
    terminate: bool = False
    details: msgspec.Raw = NULL
    duration_ms: int = 0
    is_value: bool = False
    """The content is one text, the JSON of what the tool returned."""
    by: str = ""
    """Who gave it: rejected the call, or carried it out."""
    answer: str = ""
    """The digest of the answer that it comes from; empty when it comes from none."""


class DataShown(Record, frozen=True, tag="data.shown"):
    """Something people are shown beside the words of an answer, and the model never; the next of that name replaces it."""

    submission: str
    name: str
    value: msgspec.Raw


class MetadataShown(Record, frozen=True, tag="metadata.shown"):
    """A JSON object that is merged, deeply, into what clients are told about the answer."""

    submission: str
    value: msgspec.Raw


class HookCompleted(Record, frozen=True, tag="hook.completed"):
    """A lifecycle seam has run: `on_message` for the submission `of`, or `on_stop` after `turn`. A text sends the model
    (back) to work with it."""

    submission: str
    hook: Literal["on_message", "on_stop"]
    of: str
    at: float
    text: str | None = None


class ConversationRewound(Record, frozen=True, tag="conversation.rewound"):
    """The conversation continues as it stood at ordinal `to`; what came after stays in the log."""

    to: int
    at: float
    keep_read: bool = False
    """Messages that stay and had been read after `to` are read still: the answer goes, what it answered does not."""


class SandboxRemembered(Record, frozen=True, tag="sandbox.remembered"):
    """What a sandbox wants to find again, in its own words: a shell's state, a hosted machine's id. The next replaces it."""

    sandbox: str
    value: bytes


#: Everything above, for the decoder.
HARNESS: tuple[type[Record], ...] = (
    ContextOpened,
    ContextChanged,
    TurnStarted,
    MessageDelta,
    MessageCompleted,
    MessageInterrupted,
    TurnFailed,
    ToolAwaiting,
    ToolCalled,
    ToolProcess,
    ToolProgress,
    ToolOutcome,
    DataShown,
    MetadataShown,
    HookCompleted,
    ConversationRewound,
    SandboxRemembered,
)
