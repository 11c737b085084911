"""The frames a chat client sends, read. Pure: JSON in, values out.

Laws. A client sends its whole transcript with every request; of it counts what the person said last, and what it says of
others is never believed. What cannot be read is refused in words that are shown to the person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from cairn.errors import UsageError
from cairn.framework.http import problems
from cairn.framework.http.body import decode
from cairn.framework.http.conversation import attachments
from cairn.framework.http.limits import HttpLimits
from cairn.harness.asking import client_spec
from cairn.harness.client_tool import client_tool
from cairn.harness.messages import ToolSpec
from cairn.harness.records import Delivery

Json = dict[str, Any]

#: Characters of an id that a client chose, of a request or a message: with what stands before it, it is an idempotency key.
CLIENT_ID_CHARACTERS_MAX = 128
#: Tools that one request may declare (providers: 128).
CLIENT_TOOLS_MAX = 128
#: Bytes of what a client says beside a message: it is stored with it.
EXTRA_BYTES_MAX = 64 * 1024

#: What a request's body holds beside what an application put there.
_OWN = ("messages", "trigger", "clientTools", "id", "messageId")


class Said(msgspec.Struct, frozen=True):
    """One message as its client holds it."""

    id: str
    role: str
    parts: tuple[Json, ...]

    @property
    def text(self) -> str:
        return "\n".join(
            part["text"] for part in self.parts if part.get("type") == "text" and isinstance(part.get("text"), str)
        )


class ChatRequest(msgspec.Struct, frozen=True):
    """A message to be answered, or an answer to be given anew."""

    id: str
    is_regenerate: bool
    last: tuple[Said, ...]
    """What the person said since the last answer, oldest first; empty when the transcript ends with an answer."""
    person: Said | None
    """The last thing the person said."""
    tools: tuple[ToolSpec, ...]
    extra: Json


def chat_request(frame: Mapping[str, Any], limits: HttpLimits) -> ChatRequest:
    """*Raises* Problem."""
    body = _body(frame, limits)
    trigger = body.get("trigger", "submit-message")
    if trigger not in ("submit-message", "regenerate-message"):
        raise problems.invalid_request("'trigger' is none of submit-message, regenerate-message.")
    messages = [_said(each) for each in _list(body, "messages")]
    people = [said for said in messages if said.role == "user"]
    last: list[Said] = []
    for said in reversed(messages):
        if said.role == "assistant":
            break
        if said.role == "user":
            last.insert(0, said)
    extra = {name: value for name, value in body.items() if name not in _OWN}
    if len(msgspec.json.encode(extra)) > EXTRA_BYTES_MAX:
        raise problems.payload_too_large(f"What is sent beside the messages has at most {EXTRA_BYTES_MAX:,} bytes.")
    person = people[-1] if people else None
    tools = client_tools(body.get("clientTools"))
    return ChatRequest(client_id(frame.get("id")), trigger != "submit-message", tuple(last), person, tools, extra)


def client_id(given: Any) -> str:
    """An id a client chose. *Raises* Problem 400."""
    if not isinstance(given, str) or not 0 < len(given) <= CLIENT_ID_CHARACTERS_MAX or not given.isprintable():
        raise problems.invalid_request(f"An 'id' is a text of 1 to {CLIENT_ID_CHARACTERS_MAX} printable characters.")
    return given


def _body(frame: Mapping[str, Any], limits: HttpLimits) -> Json:
    init = frame.get("init")
    body = init.get("body") if isinstance(init, dict) else None
    if not isinstance(body, str):
        raise problems.invalid_request("A chat request has its JSON as a text in 'init.body'.")
    try:
        return decode(body.encode(), Json, limits)
    except UnicodeEncodeError:
        raise problems.invalid_json("It is not UTF-8.") from None


def _list(body: Json, name: str) -> list[Any]:
    found = body.get(name, [])
    if not isinstance(found, list):
        raise problems.invalid_request(f"'{name}' has to be a list.")
    return found


def _said(given: Any) -> Said:
    if not isinstance(given, dict) or not isinstance(given.get("role"), str) or not isinstance(given.get("parts"), list):
        raise problems.invalid_request("A message is an object with 'id', 'role' and 'parts'.")
    parts = tuple(part for part in given["parts"] if isinstance(part, dict))
    return Said(client_id(given.get("id")), given["role"], parts)


def client_tools(given: Any) -> tuple[ToolSpec, ...]:
    """The tools a client carries out itself. *Raises* Problem 400."""
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > CLIENT_TOOLS_MAX:
        raise problems.invalid_request(f"'clientTools' has to be a list of at most {CLIENT_TOOLS_MAX} tools.")
    return tuple(_tool(each) for each in given)


def _tool(given: Any) -> ToolSpec:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise problems.invalid_request("A client's tool is an object with 'name', and 'description' and 'parameters'.")
    description, parameters = given.get("description"), given.get("parameters")
    description = "" if description is None else description
    if not isinstance(description, str):
        raise problems.invalid_request("The description of a client's tool has to be a text.")
    if isinstance(parameters, dict) and isinstance(parameters.get("jsonSchema"), dict):
        parameters = parameters["jsonSchema"]  # made with the AI SDK's jsonSchema()
    try:
        # As strict as for a tool of the server: its name, and a schema that can be checked.
        client_tool(given["name"], description, parameters)
        return client_spec(given["name"], description, parameters)
    except (UsageError, TypeError, ValueError) as error:
        raise problems.invalid_request(f"The client's tool '{given['name'][:64]}': {error}.") from None


def delivery(said: Said, request: ChatRequest, limits: HttpLimits) -> Delivery:
    """What is sent for a message. *Raises* Problem."""
    files = [_file(part) for part in said.parts if part.get("type") == "file"]
    images = attachments(files, limits.attachment_bytes)
    if not said.text.strip() and not images:
        raise problems.invalid_request("The message is empty: it needs words, or an image.")
    return Delivery(body=said.text, attachments=images, client_tools=request.tools, client_id=said.id, extra=request.extra)


def _file(part: Json) -> Json:
    """A file part in the words of our own attachments, whose limits hold for it."""
    url = part.get("url")
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise problems.invalid_request("A file is sent inside of its message, as a base64 data URL.")
    named = {"filename": part["filename"]} if isinstance(part.get("filename"), str) else {}
    return {"type": "image", "data": data, "mimeType": str(part.get("mediaType", "")), **named}


# --- answers to calls -----------------------------------------------------------------------------------------------


class ToolAnswer(msgspec.Struct, frozen=True):
    """What a person or a program in a tab says of a call."""

    call: str
    kind: Literal["approve", "reject", "output", "error"]
    output: Any = None
    text: str = ""


def tool_result(frame: Mapping[str, Any]) -> ToolAnswer | None:
    call, state = frame.get("toolCallId"), frame.get("state")
    if not isinstance(call, str):
        return None
    if state == "output-error":
        return ToolAnswer(call, "error", text=str(frame.get("errorText") or "The tool failed."))
    if state == "output-denied":
        return ToolAnswer(call, "reject", text=str(frame.get("errorText") or ""))
    return ToolAnswer(call, "output", output=frame.get("output"))


def tool_approval(frame: Mapping[str, Any]) -> ToolAnswer | None:
    call, approved = frame.get("toolCallId"), frame.get("approved")
    if not isinstance(call, str) or not isinstance(approved, bool):
        return None
    reason = frame.get("reason")
    return ToolAnswer(call, "approve" if approved else "reject", text=reason if isinstance(reason, str) else "")


def is_same(said: Said, stored: Sequence[Json]) -> bool:
    """Whether a message says what is stored under its id: the same words, as many files."""
    text = "".join(part["text"] for part in stored if part["type"] == "text")
    files = sum(part["type"] == "file" for part in stored)
    return said.text == text and sum(part.get("type") == "file" for part in said.parts) == files
