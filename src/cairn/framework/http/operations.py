"""What each route does, takes and answers: one entry a route, for the OpenAPI document. Pure data.

Laws. An entry stands for one line of `routes.py`, and a test holds them together. Every status a route can answer stands in its
entry, with the error types that come with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cairn.framework.http.schemas import OFFSET, TEXT, Schema, either, ref

#: Every error type: its status, and when it is answered.
ERRORS: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "The request is malformed; `details` says what is wrong with it."),
    "invalid_json": (400, "The body is not JSON."),
    "unauthorized": (401, "No valid credential came with it."),
    "forbidden": (403, "The credential does not allow that."),
    "origin_not_allowed": (403, "A page of another site asked."),
    "route_not_found": (404, "There is no such route, or no such agent."),
    "stream_not_found": (404, "There is no such conversation, or the caller may not see it."),
    "attachment_not_found": (404, "The conversation has no such attachment."),
    "agent_instance_not_found": (404, "The conversation is absent, or has another uid than the one that was given."),
    "method_not_allowed": (405, "The path takes other methods; `Allow` names them."),
    "request_timeout": (408, "The request did not arrive in time."),
    "message_not_found": (404, "The conversation has no such message."),
    "question_not_found": (404, "The conversation has no such call."),
    "agent_instance_exists": (409, "The conversation exists, and was to be created."),
    "submission_conflict": (409, "The idempotency key was used with another message."),
    "answer_conflict": (409, "The answer is to other arguments, comes too late, or another one was given."),
    "payload_too_large": (413, "The body is larger than is accepted."),
    "unsupported_media_type": (415, "The body has another type than JSON."),
    "stream_offset_gone": (416, "The offset is beyond the end: the log was replaced. Read the history again."),
    "host_not_allowed": (421, "The server does not answer for that host."),
    "too_many_requests": (429, "Too much at once; `Retry-After` says when to try again."),
    "headers_too_large": (431, "The head of the request is larger than is accepted."),
    "internal_error": (500, "Something went wrong here; `ref` finds it in the log."),
    "runtime_unavailable": (503, "The server starts or stops, or its store is held; try again."),
    "handler_timeout": (504, "The object did not answer in time; nothing of it was changed."),
    "insufficient_storage": (507, "There is no room left; nothing was kept."),
}

#: What any request may be answered, whatever it asks for.
ALWAYS = (
    "invalid_request",
    "origin_not_allowed",
    "request_timeout",
    "host_not_allowed",
    "headers_too_large",
    "internal_error",
    "runtime_unavailable",
)
#: … when it needs a grant.
GRANTED = ("unauthorized", "forbidden", "stream_not_found", "too_many_requests")
#: … when it has a body.
WITH_BODY = ("invalid_json", "payload_too_large", "unsupported_media_type", "insufficient_storage")
#: … below an agent.
BELOW_AGENT = ("route_not_found",)


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    schema: Schema
    what: str
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """A good answer. `content`: the schema of each media type."""

    what: str
    content: dict[str, Schema]
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    summary: str
    responses: dict[int, Response]
    description: str = ""
    tag: str = "conversations"
    query: tuple[Parameter, ...] = ()
    body: Schema | None = None
    body_is_required: bool = True
    example: Any = None
    errors: tuple[str, ...] = ()


HEADERS: dict[str, Schema] = {
    "Location": TEXT,
    "Stream-Next-Offset": OFFSET,
    "Stream-Up-To-Date": {"const": "true", "description": "There is nothing after this. Absent: ask again at once."},
}

PATH: dict[str, Parameter] = {
    "kind": Parameter("kind", {"type": "string", "minLength": 1}, "The agent's name."),
    "id": Parameter(
        "id",
        {"type": "string", "minLength": 1, "maxLength": 512},
        "The conversation: any text, percent-encoded as one segment (`a%2Fb` is the id `a/b`).",
    ),
    "attachment": Parameter("attachment", {"type": "string", "minLength": 1}, "The `id` of a file part."),
    "rest": Parameter("rest", TEXT, "The rest of the path."),
}


def _json(name: str) -> dict[str, Schema]:
    return {"application/json": ref(name)}


#: Objects stand below kinds of their own, so an agent's conversation has none of their routes.
_OBJECT = "/agents/{kind}/{id}/{rest…}"


def _asked(id: str, summary: str, *, has_body: bool = False) -> Operation:
    """A request that an object answers itself."""
    return Operation(
        id,
        summary,
        {200: Response("What its `on_request` answers: any status, any type.", {"*/*": {}})},
        "`{rest}` may be empty. Below `sub/{kind}/{name}` it is one of the object's sub-objects. Authorization and cookies end "
        "here; the object is told who asks. Pages get `Content-Security-Policy: sandbox` unless the object says another.",
        tag="objects",
        body={} if has_body else None,
        body_is_required=False,
        errors=(*BELOW_AGENT, "method_not_allowed", *(WITH_BODY if has_body else ()), "handler_timeout"),
    )


_PAGE = Response("The page.", {"text/html": TEXT})
_FILE = Response("The file.", {"*/*": {}})

_UI_MESSAGES: dict[str, Schema] = {
    "application/json": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["id", "role", "parts"],
            "properties": {"id": TEXT, "role": either("user", "assistant"), "parts": {"type": "array"}, "metadata": {}},
        },
    }
}

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/agents/{kind}/{id}"): Operation(
        "send",
        "Send a message",
        {202: Response("The message is durable and will be answered.", _json("Admission"), ("Location", "Stream-Next-Offset"))},
        "Always answered at admission, never with the reply: that is read from `updates` after the answer's `offset`, until "
        "`submission-settled`. The first message begins the conversation. With an `idempotencyKey` a retry is safe.",
        body={"oneOf": [ref("UserMessage"), ref("Signal")]},
        example={"kind": "user", "body": "Any update?", "idempotencyKey": "evt-1"},
        errors=(*BELOW_AGENT, *WITH_BODY, "agent_instance_not_found", "agent_instance_exists", "submission_conflict"),
    ),
    ("GET", "/agents/{kind}/{id}"): Operation(
        "read",
        "Read a conversation",
        {
            200: Response(
                "`view=history`: the conversation; `view=updates`: chunks, a checkpoint first; `live=sse`: a stream of them.",
                {
                    "application/json": {"oneOf": [ref("History"), {"type": "array", "items": ref("Chunk"), "minItems": 1}]},
                    "text/event-stream": {
                        "description": "`data` events hold arrays of chunks, `control` events the offset to come back with: "
                        '`{"streamNextOffset":"…","upToDate":true}`. It does not end by itself.',
                    },
                },
                ("Stream-Next-Offset", "Stream-Up-To-Date"),
            )
        },
        "Read the history once, then follow the updates from its offset. A client that comes back with its last offset misses "
        "nothing and gets nothing twice. A history whose `incarnation` is another one is another conversation.",
        query=(
            Parameter("view", either("history", "updates"), "What is wanted; `history` by default."),
            Parameter("offset", OFFSET, "With `view=updates`, and needed there: after which place."),
            Parameter(
                "live",
                either("long-poll", "sse"),
                "With `view=updates`: `long-poll` waits up to 30 s when there is nothing; `sse` stays.",
            ),
        ),
        errors=(*BELOW_AGENT, "stream_offset_gone"),
    ),
    ("HEAD", "/agents/{kind}/{id}"): Operation(
        "head",
        "Where a conversation ends",
        {200: Response("It exists.", {}, ("Stream-Next-Offset", "Stream-Up-To-Date"))},
        errors=BELOW_AGENT,
    ),
    ("DELETE", "/agents/{kind}/{id}"): Operation(
        "delete",
        "Delete a conversation",
        {200: Response("It is gone for everybody at once; what worked on it stops. Its id is free.", _json("Deleted"))},
        "Forks keep what they share with it.",
        errors=BELOW_AGENT,
    ),
    ("POST", "/agents/{kind}/{id}/abort"): Operation(
        "abort",
        "Stop what is unsettled",
        {200: Response("It was asked to stop; the settlements follow on the stream.", _json("Aborted"))},
        errors=BELOW_AGENT,
    ),
    ("GET", "/questions"): Operation(
        "all_questions",
        "What waits for an answer everywhere",
        {200: Response("The questions of a page of conversations and objects, each with its `instance`.", _json("Inbox"))},
        "Of those the caller may read; the conversations and objects in the order in which they were made. Sub-objects are "
        "asked one by one.",
        query=(
            Parameter("limit", {"type": "integer", "minimum": 1}, "How many conversations and objects at most; 50 by default."),
            Parameter("cursor", {"type": "integer", "minimum": 1}, "`next` of the page before."),
        ),
        tag="server",
    ),
    ("GET", "/agents/{kind}/{id}/questions"): Operation(
        "questions",
        "What a conversation or an object asks",
        {200: Response("What waits for an answer, the oldest first.", _json("Questions"))},
        "A call waits for leave to run (`approval`) or for what came of it at a client (`client_tool`). The same stands in the "
        "conversation as a data part `question:<call>`. A fiber of an object, such as a step of a workflow, waits for leave "
        "or, as a `question`, for a value.",
        errors=BELOW_AGENT,
    ),
    ("POST", "/agents/{kind}/{id}/answers"): Operation(
        "answer",
        "Answer a question",
        {200: Response("The answer is durable and counts; the run goes on.", _json("Answered"))},
        "Bound to the call and, by the digest, to the arguments that were shown. Who answers is whoever the credential names. "
        "The same answer again changes nothing; another one is refused.",
        body=ref("Answer"),
        example={"call": "call_1", "digest": "sha256:9f86d081", "answer": "reject", "reason": "Too dear."},
        errors=(*BELOW_AGENT, *WITH_BODY, "question_not_found", "answer_conflict"),
    ),
    ("POST", "/agents/{kind}/{id}/rewind"): Operation(
        "rewind",
        "Take back what was said",
        {200: Response("It is durable; a `conversation-reset` follows when a worker has done it.", _json("Rewound"))},
        "The conversation goes on as if nothing had been said after the message `to`; with null, nothing at all. What runs or "
        "is queued is aborted first. The log keeps everything; state and files are not turned back.",
        body=ref("Rewind"),
        example={"to": None},
        errors=(*BELOW_AGENT, *WITH_BODY, "message_not_found", "submission_conflict"),
    ),
    ("POST", "/agents/{kind}/{id}/regenerate"): Operation(
        "regenerate",
        "Have a message answered again",
        {202: Response("It is durable and will be answered.", _json("Admission"), ("Location", "Stream-Next-Offset"))},
        "The conversation is rewound to before the message (by default the last one; an answer's id will do), which is sent "
        "once more.",
        body=ref("Regenerate"),
        example={"message": "msg_sub_01JXT21Q00M4H4CCFVGTHFQHZG"},
        errors=(*BELOW_AGENT, *WITH_BODY, "message_not_found", "submission_conflict"),
    ),
    ("GET", "/agents/{kind}/{id}/attachments/{attachment}"): Operation(
        "attachment",
        "Read an attachment",
        {200: Response("The image, as it was sent.", {"image/*": {}})},
        errors=(*BELOW_AGENT, "attachment_not_found"),
    ),
    ("GET", "/agents/{kind}/{id}/export"): Operation(
        "export",
        "Export a conversation",
        {
            200: Response(
                "JSON lines: `{instance}` first, a line for each batch (`ordinal`, `prev`, `epoch`, `records`), `{end}` last. "
                "Without the last line it was cut off. A line with `mergedFrom` replaces the lines from that ordinal on.",
                {"application/x-ndjson": TEXT},
            )
        },
        query=(Parameter("chunks", either("true", "false"), "Also the chunks of each batch, as they are stored."),),
        errors=BELOW_AGENT,
    ),
    ("POST", "/agents/{kind}/{id}/fork"): Operation(
        "fork",
        "Fork a conversation",
        {201: Response("The new conversation.", _json("Fork"), ("Location", "Stream-Next-Offset"))},
        "It has everything up to the offset and goes its own way. What was unsettled there is aborted in the fork and goes on "
        "in the source. Among deltas that were merged it parts behind them; the answer says where.",
        body=ref("ForkOptions"),
        body_is_required=False,
        example={"id": "what-if", "offset": "0000000000000000_0000000000000018"},
        errors=(*BELOW_AGENT, *WITH_BODY, "agent_instance_exists", "stream_offset_gone"),
    ),
    ("GET", "/agents/{kind}/{id}/usage"): Operation(
        "usage",
        "What a conversation has cost",
        {200: Response("Tokens, turns, calls and dollars: in all, by model, by submission.", _json("Usage"))},
        errors=BELOW_AGENT,
    ),
    ("GET", "/agents/{kind}/{id}/get-messages"): Operation(
        "get_messages",
        "The conversation as `useAgentChat` wants it",
        {200: Response("The messages as the AI SDK's `UIMessage`s; none when nothing was ever sent.", _UI_MESSAGES)},
        "What the published client `@cloudflare/ai-chat` reads before it connects.",
        errors=BELOW_AGENT,
    ),
    ("GET", _OBJECT): _asked("object_get", "Ask an object"),
    ("HEAD", _OBJECT): _asked("object_head", "Ask an object for the head of its answer"),
    ("POST", _OBJECT): _asked("object_post", "Send an object something", has_body=True),
    ("PUT", _OBJECT): _asked("object_put", "Put something into an object", has_body=True),
    ("PATCH", _OBJECT): _asked("object_patch", "Change something in an object", has_body=True),
    ("DELETE", _OBJECT): _asked("object_delete", "Delete something in an object"),
    ("GET", "/agents/{kind}"): Operation(
        "list",
        "List an agent's conversations, or the objects of a kind",
        {200: Response("Those the caller may see, newest first.", _json("Conversations"))},
        query=(
            Parameter("limit", {"type": "integer", "minimum": 1}, "How many at most; 50 by default."),
            Parameter("cursor", {"type": "integer", "minimum": 1}, "`next` of the page before."),
        ),
        errors=BELOW_AGENT,
    ),
    ("GET", "/agents"): Operation(
        "agents", "List the agents", {200: Response("Those the caller may see.", _json("Agents"))}, tag="server"
    ),
    ("GET", "/info"): Operation(
        "info", "What this server is", {200: Response("And who the caller is to it.", _json("Info"))}, tag="server"
    ),
    ("GET", "/health"): Operation("health", "The process answers", {200: Response("It does.", _json("Status"))}, tag="server"),
    ("GET", "/ready"): Operation(
        "ready", "Messages are taken", {200: Response("They are; 503 while it starts or stops.", _json("Status"))}, tag="server"
    ),
    ("GET", "/openapi.json"): Operation(
        "openapi", "This document", {200: Response("OpenAPI 3.1.", {"application/json": {"type": "object"}})}, tag="server"
    ),
    ("GET", "/docs"): Operation("docs", "This document, for people", {200: _PAGE}, tag="server"),
    ("GET", "/"): Operation("page", "The chat page", {200: _PAGE}, tag="page"),
    ("GET", "/chat"): Operation("chat", "The chat page", {200: _PAGE}, tag="page"),
    ("GET", "/chat/{rest…}"): Operation("chat_below", "The chat page", {200: _PAGE}, tag="page"),
    ("GET", "/assets/{rest…}"): Operation(
        "assets", "Files of the chat page", {200: _FILE}, tag="page", errors=("route_not_found",)
    ),
}
