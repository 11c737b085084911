"""What the AI SDK's clients are shown of a conversation: its messages as `UIMessage`s, and the chunks that bring a client from
what it was told of an answer to what there is of it now.

Laws. Pure. A client is told by difference: words only grow, parts are only added, a call only goes on, so whatever a client
holds of an answer, `Telling` says the rest and nothing twice. What a client puts together from chunks is what `ui_message`
says of the same answer, part by part; a step begins where words follow calls. Only what people are meant to see is said:
signals, advisories and notes are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

Json = dict[str, Any]

#: The address of a file, by the id of its part.
FileUrl = Callable[[str], str]

#: The stored name of what a running call shows: `data-tool-progress:<call>`.
_PROGRESS = "data-tool-progress:"
#: … and of what a call asks: `data-question:<call>`.
_QUESTION = "data-question:"

_WORDS = ("text", "reasoning")
#: What a call that is over holds, by its state. One that was denied holds why in its approval.
_OUTCOMES = {"output-available": "output", "output-error": "errorText"}


# --- whole messages -------------------------------------------------------------------------------------------------


def ui_messages(messages: Sequence[Json], url: FileUrl) -> list[Json]:
    """The transcript as these clients hold it. A message that is sent again under its id, before what it was answered first
    has been rewound, is there once."""
    found: dict[str, Json] = {}
    for message in messages:
        if is_shown(message):
            found.setdefault(ui_id(message), ui_message(message, url))
    return list(found.values())


def is_shown(message: Json) -> bool:
    """Whether people are shown this message: what they said, and what they were answered."""
    is_shown: bool = message["role"] == "assistant" or message["purpose"] == "user"
    return is_shown


def ui_message(message: Json, url: FileUrl) -> Json:
    found: Json = {"id": ui_id(message), "role": message["role"], "parts": list(_parts(message, url))}
    if "metadata" in message:
        found["metadata"] = message["metadata"]
    return found


def ui_id(message: Json) -> str:
    """What clients call the message: by the id that the one which sent it gave it, if it gave one."""
    id: str = message.get("clientId") or message["id"]
    return id


def _parts(message: Json, url: FileUrl) -> Iterator[Json]:
    is_answer = message["role"] == "assistant"
    before = ""
    for _, part in _said(message):
        if is_answer and _begins_step(before, part):
            yield {"type": "step-start"}
        before = _before(before, part)
        yield _part(part, url)


def _said(message: Json) -> Iterator[tuple[int, Json]]:
    """The parts that are said, with their places. What is known of a question stands with the call that asks it."""
    asked = _questions(message)
    for place, part in enumerate(message["parts"]):
        if part["type"] == "dynamic-tool" and part["toolCallId"] in asked:
            yield place, {**part, "asked": asked[part["toolCallId"]]}
        elif not part["type"].startswith(_QUESTION):
            yield place, part


def _questions(message: Json) -> dict[str, Json]:
    return {
        part["type"].removeprefix(_QUESTION): part["data"] for part in message["parts"] if part["type"].startswith(_QUESTION)
    }


def _part(part: Json, url: FileUrl) -> Json:
    type: str = part["type"]
    if type in _WORDS:
        return {"type": type, "text": part["text"], "state": part["state"]}
    if type == "dynamic-tool":
        return _tool(part)
    if type == "file":
        named = {"filename": part["filename"]} if "filename" in part else {}
        return {"type": "file", "mediaType": part["mediaType"], "url": url(part["id"]), **named}
    return _data(part)


def _tool(part: Json) -> Json:
    found: Json = {"type": f"tool-{part['toolName']}", "toolCallId": part["toolCallId"], "state": _state(part)}
    found["input"] = part["input"]
    if found["state"] in _OUTCOMES:
        name = _OUTCOMES[found["state"]]
        found[name] = part[name]
    if (approval := _approval(part)) is not None:
        found["approval"] = approval
    return found


def _data(part: Json) -> Json:
    """A data part has an id, so that the next value of that name replaces it."""
    type: str = part["type"]
    if type.startswith(_PROGRESS):
        return {"type": "data-tool-progress", "id": type.removeprefix(_PROGRESS), "data": part["data"]}
    return {"type": type, "id": type.removeprefix("data-"), "data": part["data"]}


def _begins_step(before: str, part: Json) -> bool:
    """Whether a step begins with this part. `before` is the type of the part before it, empty at the beginning."""
    return not before or (part["type"] in _WORDS and before == "dynamic-tool")


def _before(before: str, part: Json) -> str:
    """What stands for this part when the next one is looked at: data between calls and words is neither."""
    type: str = part["type"]
    return before if before and type.startswith("data-") else type


# --- calls ----------------------------------------------------------------------------------------------------------


def _state(part: Json) -> str:
    """How far a call is, in the AI SDK's words."""
    state: str = part["state"]
    asked = part.get("asked")
    if asked is None or asked["kind"] != "approval":
        return state
    if state == "input-available":
        return "approval-requested" if asked["state"] == "waiting" else "approval-responded"
    return "output-denied" if asked["state"] == "rejected" else state


def _approval(part: Json) -> Json | None:
    asked, state = part.get("asked"), _state(part)
    if asked is None or asked["kind"] != "approval":
        return None
    approval: Json = {"id": part["toolCallId"]}
    if state != "approval-requested":
        approval["approved"] = asked["state"] == "approved"
    if state == "output-denied":
        approval["reason"] = part["errorText"]
    return {**approval, **_descriptor(asked, "descriptor")}


def _descriptor(asked: Json, name: str) -> Json:
    """Why it is asked, until when, and who may answer."""
    found = {key: asked[key] for key in ("reason", "expiresAt", "by") if key in asked}
    return {name: found} if found else {}


def asking(message: Json) -> set[str]:
    """The calls of an answer that wait for somebody."""
    return {call for call, asked in _questions(message).items() if asked["state"] == "waiting"}


def waits(message: Json) -> bool:
    """Whether an answer goes on only when somebody outside has answered: nothing of it runs."""
    parts, asked = message["parts"], _questions(message)
    if any(part.get("state") == "streaming" for part in parts):
        return False
    open = [part["toolCallId"] for part in parts if part["type"] == "dynamic-tool" and part["state"] == "input-available"]
    # One that was answered and not approved is as good as over: its outcome comes in the same breath.
    runs = any(call not in asked or asked[call]["state"] == "approved" for call in open)
    return not runs and any(asked[call]["state"] == "waiting" for call in open)


# --- chunks ---------------------------------------------------------------------------------------------------------


class Telling:
    """What one client has been told of one answer."""

    def __init__(self) -> None:
        self.message: str | None = None
        """The id of the answer, once anything of it was told."""
        self._parts: dict[int, _Told] = {}
        self._before = ""
        self._in_step = False
        self._metadata: Any = None

    def tell(self, message: Json, url: FileUrl) -> Iterator[Json]:
        """The chunks after which the client holds what `message` says. Nothing, when it does already."""
        metadata = message.get("metadata")
        if self.message is None or metadata != self._metadata:
            # A copy: what is folded is merged into the same object.
            self._metadata = msgspec.json.decode(msgspec.json.encode(metadata))
            said = {"messageMetadata": self._metadata} if metadata is not None else {}
            if self.message is None:
                self.message = message["id"]
                yield {"type": "start", "messageId": self.message, **said}
            else:
                yield {"type": "message-metadata", **said}
        for place, part in _said(message):
            if place not in self._parts:
                yield from self._step(part)
                self._parts[place] = _told(place, part)
            yield from self._parts[place].tell(part, url)

    def finish(self, reason: str) -> Iterator[Json]:
        """The chunks that end what was told. Nothing, when nothing was."""
        if self.message is None:
            return
        for told in self._parts.values():
            yield from told.end()
        if self._in_step:
            self._in_step = False
            yield {"type": "finish-step"}
        yield {"type": "finish", "finishReason": reason}

    def _step(self, part: Json) -> Iterator[Json]:
        if _begins_step(self._before, part):
            if self._in_step:
                yield {"type": "finish-step"}
            self._in_step = True
            yield {"type": "start-step"}
        self._before = _before(self._before, part)


class _Told:
    """What was told of one part."""

    def __init__(self, place: int) -> None:
        self.place = place

    def tell(self, part: Json, url: FileUrl) -> Iterator[Json]:
        raise NotImplementedError

    def end(self) -> Iterator[Json]:
        return iter(())


class _Words(_Told):
    """Words: they begin, grow, and end once."""

    def __init__(self, place: int, kind: str) -> None:
        super().__init__(place)
        self._kind, self._id = kind, f"{kind}-{place}"
        self._characters = -1
        self._is_ended = False

    def tell(self, part: Json, url: FileUrl) -> Iterator[Json]:
        if self._characters < 0:
            self._characters = 0
            yield {"type": f"{self._kind}-start", "id": self._id}
        if rest := part["text"][self._characters :]:
            self._characters = len(part["text"])
            yield {"type": f"{self._kind}-delta", "id": self._id, "delta": rest}
        if part["state"] == "done":
            yield from self.end()

    def end(self) -> Iterator[Json]:
        if not self._is_ended:
            self._is_ended = True
            yield {"type": f"{self._kind}-end", "id": self._id}


class _Call(_Told):
    """A call: its input, perhaps a question, its outcome."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self._state = ""

    def tell(self, part: Json, url: FileUrl) -> Iterator[Json]:
        state, before = _state(part), self._state
        if state == before:
            return
        self._state = state
        call = {"toolCallId": part["toolCallId"]}
        if not before:
            yield {"type": "tool-input-available", **call, "toolName": part["toolName"], "input": part["input"]}
        # A denial denies what was asked: whoever did not hear the question hears it first.
        if state == "approval-requested" or (state == "output-denied" and before != "approval-requested"):
            more = _descriptor(part["asked"], "approvalDescriptor")
            yield {"type": "tool-approval-request", **call, "approvalId": part["toolCallId"], **more}
        if state == "output-available":
            yield {"type": "tool-output-available", **call, "output": part["output"]}
        elif state == "output-error":
            yield {"type": "tool-output-error", **call, "errorText": part["errorText"]}
        elif state == "output-denied":
            yield {"type": "tool-output-denied", **call}


class _Value(_Told):
    """Data, a file: said whole whenever it is another."""

    _said: bytes = b""
    _seen: Any = None

    def tell(self, part: Json, url: FileUrl) -> Iterator[Json]:
        if self._said and part.get("data") is self._seen:
            return  # the very object that was said
        self._seen, value = part.get("data"), _part(part, url)
        said = msgspec.json.encode(value)
        if said != self._said:
            self._said = said
            yield value


def _told(place: int, part: Json) -> _Told:
    type = part["type"]
    if type in _WORDS:
        return _Words(place, type)
    return _Call(place) if type == "dynamic-tool" else _Value(place)
