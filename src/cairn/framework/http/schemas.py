"""The shapes of what is sent and answered, as JSON Schema. Written by hand: they promise what the wire promises, not what the
code happens to hold, and a test compares them with real answers.

Laws. Pure data. An object that may get further fields says so by saying nothing; one that refuses them says it.
"""

from __future__ import annotations

from typing import Any

from cairn.harness.handle import ID_CHARACTERS_MAX, KEY_CHARACTERS_MAX

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
BOOL: Schema = {"type": "boolean"}
OFFSET: Schema = {
    "type": "string",
    "pattern": "^(-1|[0-9]{1,32}_[0-9]{1,32})$",
    "examples": ["-1", "0000000000000000_0000000000000018"],
    "description": "A place in a conversation's log. Opaque, but for -1: before everything. Reads are exclusive.",
}
TIME: Schema = {"type": "string", "format": "date-time"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def either(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def maybe(schema: Schema) -> Schema:
    """That, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    """An object with these fields."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}, **more}


# --- what clients send ----------------------------------------------------------------------------------------------

_ATTACHMENT = record(
    {
        "type": {"const": "image"},
        "data": {"type": "string", "contentEncoding": "base64", "description": "A PNG, JPEG, GIF or WebP image."},
        "mimeType": TEXT,
    },
    {"filename": maybe(TEXT)},
)

_SEND: dict[str, Schema] = {
    "uid": {
        **maybe(TEXT),
        "description": "The life of the conversation that is meant, as an ETag: another one is 404. null: it must not exist.",
    },
    "idempotencyKey": {
        **maybe({"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS_MAX}),
        "description": "The same key with the same message is admitted once.",
    },
    "initialData": {
        **maybe({"type": "object"}),
        "description": "The state that a new conversation begins with; an existing one ignores it. Not together with a uid.",
    },
}

#: `initialData` begins a conversation and a `uid` continues one.
_NOT_BOTH = {
    "not": {"required": ["uid", "initialData"], "properties": {"uid": TEXT, "initialData": {"type": "object"}}},
}

_ANSWER: dict[str, Schema] = {"call": TEXT, "digest": {**TEXT, "description": "Of the arguments that were seen."}}
#: Of an object's question, and refused for a conversation's.
_FIBER: dict[str, Schema] = {"fiber": {**TEXT, "description": "Of an object: whose question it is; for one that several ask."}}

REQUESTS: dict[str, Schema] = {
    "UserMessage": record(
        {"kind": {"const": "user"}, "body": TEXT},
        {"attachments": array(_ATTACHMENT), **_SEND},
        description="What a person says.",
        **_NOT_BOTH,
    ),
    "Signal": record(
        {"kind": {"const": "signal"}, "type": {"type": "string", "minLength": 1}, "body": TEXT},
        {
            "attributes": {"type": "object", "additionalProperties": TEXT},
            "tagName": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.-]*$"},
            **_SEND,
        },
        description="What a program says: a timer, a webhook. Some types are reserved.",
        **_NOT_BOTH,
    ),
    "ForkOptions": record(
        {},
        {
            "id": {
                "type": "string",
                "minLength": 1,
                "maxLength": ID_CHARACTERS_MAX,
                "description": "What the new conversation is called; by default the old name and something of its own.",
            },
            "offset": {**OFFSET, "description": "Where they part: the fork has everything up to it. By default the head."},
        },
        additionalProperties=False,
    ),
    "Rewind": record(
        {"to": {**maybe(TEXT), "description": "The id of the last message that stays; null: none does."}},
        {"idempotencyKey": _SEND["idempotencyKey"]},
        additionalProperties=False,
    ),
    "Regenerate": record({}, {"message": maybe(TEXT), "idempotencyKey": _SEND["idempotencyKey"]}, additionalProperties=False),
    "Answer": {
        "oneOf": [
            record({**_ANSWER, "answer": {"const": "approve"}}, _FIBER, additionalProperties=False),
            record({**_ANSWER, "answer": {"const": "reject"}}, {"reason": TEXT, **_FIBER}, additionalProperties=False),
            record({**_ANSWER, "answer": {"const": "output"}, "output": {}}, _FIBER, additionalProperties=False),
            record({**_ANSWER, "answer": {"const": "error"}, "error": TEXT}, additionalProperties=False),
        ],
        "description": "Leave to run or not, for an `approval`; what came of it, or why it failed, for a `client_tool`; the "
        "value, as `output`, for a `question`.",
    },
}

# --- what a conversation looks like ---------------------------------------------------------------------------------

_OUTCOME = either("completed", "failed", "aborted")

_ERROR_OF_SUBMISSION = record({"name": TEXT, "message": TEXT}, {"type": TEXT, "details": TEXT})

_PARTS: dict[str, Schema] = {
    "TextPart": record({"type": either("text", "reasoning"), "text": TEXT, "state": either("streaming", "done")}),
    "FilePart": record({"type": {"const": "file"}, "mediaType": TEXT}, {"id": TEXT, "size": WHOLE, "filename": TEXT}),
    "ToolPart": record(
        {
            "type": {"const": "dynamic-tool"},
            "toolName": TEXT,
            "toolCallId": TEXT,
            "state": either("input-available", "output-available", "output-error"),
            "input": {},
        },
        {"output": {}, "errorText": TEXT, "durationMs": WHOLE},
    ),
    "DataPart": record({"type": {"type": "string", "pattern": "^data-"}, "data": {}}),
}

_MESSAGE = record(
    {
        "id": TEXT,
        "role": either("user", "assistant", "system"),
        "purpose": either("user", "assistant", "dispatch", "advisory"),
        "display": either("visible", "hidden", "diagnostic"),
        "parts": array({"anyOf": [ref(name) for name in _PARTS]}),
    },
    {
        "submissionId": TEXT,
        "clientId": {"type": "string", "description": "What the chat client that sent it calls it."},
        "turnId": TEXT,
        "metadata": {"type": "object"},
        "signal": record({}, {"tagName": TEXT, "attributes": {"type": "object"}}),
        "settlement": record({"outcome": either("failed", "aborted")}),
    },
)

_SETTLEMENT = record(
    {"submissionId": TEXT, "outcome": _OUTCOME}, {"error": ref("SubmissionError"), "answeredBySubmissionId": TEXT}
)

_SNAPSHOT: dict[str, Schema] = {
    "v": {"const": 1},
    "conversationId": TEXT,
    "offset": OFFSET,
    "messages": array(ref("Message")),
    "settlements": array(ref("Settlement")),
}


def _chunk(type: str, required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    position = record({"batch": WHOLE, "index": WHOLE})
    placed = {"type": {"const": type}, "conversationId": TEXT, "position": position}
    return record({**placed, **required}, {"timestamp": TIME, **(optional or {})})


_ATTEMPT = {"attempt": {"type": "integer", "minimum": 1}}
_CALL_ENDED: dict[str, Schema] = {"durationMs": WHOLE}

#: The twelve, and there will never be another: clients refuse what they do not know.
CHUNKS: dict[str, Schema] = {
    "stream-checkpoint": record({"type": {"const": "stream-checkpoint"}, "incarnation": TEXT}),
    "conversation-reset": _chunk("conversation-reset", {"snapshot": ref("Snapshot")}),
    "message-appended": _chunk("message-appended", {"message": ref("Message")}),
    "message-started": _chunk(
        "message-started",
        {"messageId": TEXT},
        {"submissionId": TEXT, "turnId": TEXT, "metadata": {"type": "object"}, **_ATTEMPT},
    ),
    "message-delta": _chunk("message-delta", {"messageId": TEXT, "kind": either("text", "reasoning"), "delta": TEXT}, _ATTEMPT),
    "tool-input": _chunk("tool-input", {"messageId": TEXT, "toolCallId": TEXT, "toolName": TEXT, "input": {}}),
    "tool-output": _chunk("tool-output", {"toolCallId": TEXT, "output": {}}, _CALL_ENDED),
    "tool-output-error": _chunk("tool-output-error", {"toolCallId": TEXT, "errorText": TEXT}, _CALL_ENDED),
    "data-part": _chunk("data-part", {"messageId": TEXT, "name": TEXT, "data": {}}),
    "message-metadata": _chunk("message-metadata", {"messageId": TEXT, "metadata": {"type": "object"}}),
    "message-completed": _chunk("message-completed", {"messageId": TEXT}, _ATTEMPT),
    "submission-settled": _chunk(
        "submission-settled",
        {"submissionId": TEXT, "outcome": _OUTCOME},
        {"error": ref("SubmissionError"), "answeredBySubmissionId": TEXT},
    ),
}

# --- what is answered -----------------------------------------------------------------------------------------------

_TOKENS = record({"input": WHOLE, "output": WHOLE, "cacheRead": WHOLE, "cacheWrite": WHOLE, "reasoning": WHOLE})

_SPENT: dict[str, Schema] = {
    "turns": {**WHOLE, "description": "Requests to a model."},
    "responses": {**WHOLE, "description": "Those that were answered; of the others no tokens are known."},
    "toolCalls": WHOLE,
    "tokens": _TOKENS,
    "costUsd": {**maybe({"type": "number", "minimum": 0}), "description": "Of what has a known price; null: nothing has."},
    "unpriced": {**WHOLE, "description": "Responses without a known price: above 0 the cost is a lower bound."},
}

_AGENT = record({"name": TEXT, "description": TEXT, "model": maybe(TEXT), "url": TEXT})
_LISTED = record(
    {
        "id": TEXT,
        "title": {**TEXT, "description": "The first words of the first message; empty when it has none."},
        "uid": TEXT,
        "createdAt": TIME,
        "offset": OFFSET,
        "url": TEXT,
    }
)

_ASKED: dict[str, Schema] = {
    "call": TEXT,
    "tool": {**TEXT, "description": "The tool or function that would be called; of another question its name."},
    "kind": either("approval", "client_tool", "question"),
    "input": {"description": "The arguments, an object; of an object's question whatever is asked."},
    "digest": TEXT,
    "askedAt": TIME,
    "expiresAt": maybe(TIME),
}
_ASKED_MORE: dict[str, Schema] = {
    "submissionId": {**TEXT, "description": "Of a conversation: what is held up."},
    "fiber": {**TEXT, "description": "Of an object: the fiber that asks."},
    "reason": TEXT,
    "by": {**array(TEXT), "description": "Who may answer; absent: whoever may send."},
}
_QUESTION = record(_ASKED, _ASKED_MORE)

ANSWERS: dict[str, Schema] = {
    **_PARTS,
    "Message": _MESSAGE,
    "SubmissionError": _ERROR_OF_SUBMISSION,
    "Settlement": _SETTLEMENT,
    "Snapshot": record(_SNAPSHOT),
    "History": record({**_SNAPSHOT, "incarnation": TEXT}, description="The conversation as people see it, at its head."),
    "Chunk": {
        "oneOf": [ref(f"chunk.{name}") for name in CHUNKS],
        "description": "What changes in the conversation that a client holds.",
    },
    **{f"chunk.{name}": schema for name, schema in CHUNKS.items()},
    "Admission": record(
        {"streamUrl": TEXT, "offset": OFFSET, "submissionId": TEXT, "uid": TEXT},
        {"deduplicated": {"const": True}},
        description="The message is durable. Updates after `offset` show it and everything that comes of it.",
        examples=[
            {
                "streamUrl": "https://example.com/agents/support/ann",
                "offset": "0000000000000000_0000000000000000",
                "submissionId": "sub_01JXT21Q00M4H4CCFVGTHFQHZG",
                "uid": "inst_01JXT21Q00JR2JBH4WQ0R8PQCB",
            }
        ],
    ),
    "Agents": record({"agents": array(_AGENT)}),
    "Conversations": record(
        {"conversations": array(_LISTED), "next": {**maybe(TEXT), "description": "The cursor of the next page."}}
    ),
    "Fork": record({"url": TEXT, "id": TEXT, "uid": TEXT, "offset": {**OFFSET, "description": "Where they part."}}),
    "Deleted": record({"deleted": {"const": True}}),
    "Questions": record({"questions": array(_QUESTION)}),
    "Inbox": record(
        {
            "questions": array(record({**_ASKED, "instance": record({"kind": TEXT, "id": TEXT, "url": TEXT})}, _ASKED_MORE)),
            "next": {**maybe(TEXT), "description": "The cursor of the next page."},
        }
    ),
    "Answered": record(
        {"call": TEXT, "offset": {**OFFSET, "description": "Updates after it show what comes of the answer."}},
        {"deduplicated": {"const": True, "description": "It was given before: nothing happened twice."}},
    ),
    "Rewound": record({"offset": {**OFFSET, "description": "Of the request; the reset comes after it."}}),
    "Aborted": record({"aborted": {**BOOL, "description": "There was something to abort."}}),
    "Usage": record(
        {
            "id": TEXT,
            "uid": TEXT,
            "offset": OFFSET,
            "logBytes": {**WHOLE, "description": "What is stored of the conversation; in a fork, since it was forked."},
            "totals": record({"submissions": WHOLE, **_SPENT}),
            "models": array(record({"model": TEXT, **_SPENT})),
            "submissions": array(
                record({"submissionId": TEXT, "outcome": maybe(_OUTCOME), **_SPENT}, {"answeredBySubmissionId": TEXT})
            ),
        },
        description="What was spent up to `offset`; in a fork, since it was forked.",
    ),
    "Status": record({"status": TEXT}),
    "Info": record(
        {
            "name": {"const": "cairn"},
            "version": TEXT,
            "agents": array(TEXT),
            "objects": {**array(TEXT), "description": "Kinds of durable objects."},
            "identity": TEXT,
            "grants": array(either("read", "send", "abort", "manage")),
            "worker": maybe(TEXT),
        }
    ),
    "ErrorBody": record(
        {"type": TEXT, "message": TEXT, "details": TEXT},
        {"meta": {"type": "object"}, "ref": {**TEXT, "description": "Finds it in the server's log."}},
        description="`type` is for programs and never changes; `message` and `details` are for people.",
        examples=[
            {
                "type": "stream_not_found",
                "message": "Conversation agents/support/bob does not exist.",
                "details": "It begins with the first message sent to it.",
            }
        ],
    ),
}
