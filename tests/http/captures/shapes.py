"""What of an answer has to be as it was recorded, and the list of what may differ: by name, and nothing else.

A shape keeps every key, type, order and enum-like value. Ids are named by their first appearance, so that the same id stays the
same; times, texts, counts and places in the log are not compared. `DIFFERENCES` are taken out of both sides before that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.http.calling import Answer
from tests.http.captures.recording import Exchange

Json = dict[str, Any]

#: Headers that HTTP or the server program adds, which are nobody's promise.
_TRANSPORT = frozenset({"date", "connection", "keep-alive", "content-length", "transfer-encoding", "server"})
#: Headers whose value is a place or an address: that they are there is compared.
_PLACES = frozenset({"location", "stream-next-offset"})
#: Headers of ours beside those of the recordings.
_OUR_HEADERS = frozenset({"x-request-id", "x-accel-buffering", "vary"})

#: Keys whose text is one of a few, or is the program's own.
_WORDS = frozenset(
    {"type", "role", "purpose", "display", "outcome", "state", "kind", "reason", "toolName", "toolCallId", "name", "resource"}
)
#: Keys whose text is an id.
_IDS = frozenset(
    {"id", "messageId", "submissionId", "turnId", "answeredBySubmissionId", "conversationId", "incarnation", "uid"}
)
#: Keys whose value the scripted agent decides: compared as it is.
_VALUES = frozenset({"input", "output", "data"})


@dataclass
class Form:
    """An answer, opened. `chunks` of updates and streams; `value` of other JSON."""

    status: int
    headers: dict[str, str]
    chunks: list[Json] | None = None
    value: Any = None

    @property
    def messages(self) -> list[Json]:
        """The messages of a history; empty for anything else."""
        return self.value["messages"] if isinstance(self.value, dict) and "messages" in self.value else []


def form_of(exchange: Exchange, answer: Answer) -> Form:
    """Raises AssertionError for a stream that is not framed as clients expect it."""
    form = Form(answer.status, dict(answer.headers))
    if exchange.is_stream and answer.status == 200:
        form.chunks = _framed(Exchange(exchange.method, exchange.target, answer=answer))
    elif answer.body.strip():
        value = answer.json()
        form.chunks, form.value = (value, None) if isinstance(value, list) else (None, value)
    if form.chunks is not None:
        _check_places(form.chunks)
    return form


def _framed(exchange: Exchange) -> list[Json]:
    """The chunks of a stream: the checkpoint alone and first, then in each cycle at most one data frame, and one control."""
    events = [event for event in exchange.events if event.kind != "heartbeat"]
    assert events[0].kind == "data" and [chunk["type"] for chunk in events[0].value] == ["stream-checkpoint"]
    kinds = [event.kind for event in events[1:]]
    assert kinds[-1] == "control"
    assert all(after == "control" for before, after in pairwise(kinds) if before == "data")
    return [chunk for event in events if event.kind == "data" for chunk in event.value]


def _check_places(chunks: list[Json]) -> None:
    assert chunks[0]["type"] == "stream-checkpoint"
    places = [(chunk["position"]["batch"], chunk["position"]["index"]) for chunk in chunks[1:]]
    assert places == sorted(set(places))
    for before, chunk in pairwise(chunks[1:]):
        is_both = before["type"] == chunk["type"] == "tool-output"
        if is_both and before["position"]["batch"] == chunk["position"]["batch"]:
            chunk["isBesideTheLast"] = True


# --- what may differ ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """`without` takes it out of a form; it is told whether the form is ours."""

    name: str
    why: str
    without: Callable[[Form, bool], None]


def _flushes(form: Form, is_ours: bool) -> None:
    merged: list[Json] = []
    for chunk in form.chunks or ():
        same = merged and merged[-1]["type"] == chunk["type"] == "message-delta" and merged[-1]["kind"] == chunk["kind"]
        if not same:
            merged.append(chunk)
    form.chunks = merged if form.chunks is not None else None


def _admitted(form: Form, is_ours: bool) -> None:
    """People's messages first, as often as they are shown with a turn or without one; none that was aborted unread."""
    unread = _unread(form)
    if form.chunks is not None:
        sent = [chunk for chunk in form.chunks if _is_sent(chunk.get("message"))]
        last = {chunk["message"]["id"]: chunk for chunk in sent}
        kept = [chunk for chunk in last.values() if chunk["message"]["submissionId"] not in unread]
        form.chunks = form.chunks[:1] + kept + [chunk for chunk in form.chunks[1:] if chunk not in sent]
    elif form.messages:
        sent = [message for message in form.messages if _is_sent(message) and message["submissionId"] not in unread]
        form.value["messages"] = sent + [message for message in form.messages if not _is_sent(message)]


def _unread(form: Form) -> set[str]:
    """Submissions that were aborted while they waited."""
    aborted = [each for each in _settlements(form) if each["outcome"] == "aborted"]
    return {each["submissionId"] for each in aborted if "answeredBySubmissionId" not in each}


def _unread_last(form: Form, is_ours: bool) -> None:
    unread = _unread(form)

    def is_end(each: Json) -> bool:
        """Whether a chunk, a message or a settlement is about such an end."""
        message = each.get("message", each)
        if "settlement" in message:
            return message["signal"]["attributes"]["submissionId"] in unread
        return each.get("submissionId") in unread and "outcome" in each

    lists = [form.chunks] if form.chunks is not None else [form.messages, form.value.get("settlements", [])] if unread else []
    for each in lists:
        each.sort(key=is_end)


def _settlements(form: Form) -> list[Json]:
    if form.chunks is not None:
        return [chunk for chunk in form.chunks if chunk["type"] == "submission-settled"]
    return form.value.get("settlements", []) if isinstance(form.value, dict) else []


def _is_sent(message: Json | None) -> bool:
    return message is not None and message["role"] == "user"


def _remove_messages(form: Form, is_it: Callable[[Json], bool]) -> None:
    if form.chunks is not None:
        form.chunks = [chunk for chunk in form.chunks if "message" not in chunk or not is_it(chunk["message"])]
    elif form.messages:
        form.value["messages"] = [message for message in form.messages if not is_it(message)]


def _failed_advisory(form: Form, is_ours: bool) -> None:
    if is_ours:
        _remove_messages(form, lambda message: message.get("settlement") == {"outcome": "failed"})


def _continuation(form: Form, is_ours: bool) -> None:
    if is_ours:
        _remove_messages(form, lambda message: message["display"] == "hidden" and message["id"].startswith("note_"))
    else:
        _remove_messages(form, lambda message: message["display"] == "hidden" and message["id"].endswith("_continued"))
        form.chunks = _unbroken(form.chunks) if form.chunks is not None else None
        for message in form.messages:
            message["parts"] = _joined(message["parts"])


def _unbroken(chunks: list[Json]) -> list[Json]:
    """Without the end of a step that was in the middle of a text and is followed by another step."""
    kept: list[Json] = []
    for place, chunk in enumerate(chunks):
        is_end = chunk["type"] == "message-completed" and kept[-1]["type"] == "message-delta"
        after = (each["type"] for each in chunks[place + 1 :] if each["type"] != "message-appended")
        if not (is_end and next(after, "") == "message-started"):
            kept.append(chunk)
    return kept


def _joined(parts: list[Json]) -> list[Json]:
    """With texts that follow each other as one."""
    kept: list[Json] = []
    for part in parts:
        if kept and kept[-1]["type"] == part["type"] == "text":
            kept[-1]["state"] = part["state"]
        else:
            kept.append(part)
    return kept


def _step_after_abort(form: Form, is_ours: bool) -> None:
    chunks = form.chunks or []
    for place in range(len(chunks) - 2):
        types = [chunk["type"] for chunk in chunks[place : place + 4]]
        if types == ["tool-output-error", "message-started", "message-completed", "message-appended"]:
            assert not is_ours
            del chunks[place + 1 : place + 3]
            return


def _outputs(form: Form, is_ours: bool) -> None:
    for chunk in form.chunks or ():
        chunk.pop("isBesideTheLast", None)


def _extra_fields(form: Form, is_ours: bool) -> None:
    for chunk in (form.chunks or ()) if is_ours else ():
        chunk.pop("attempt", None)
        if chunk["type"] == "message-appended":
            chunk.pop("timestamp", None)
        if chunk["type"] in ("tool-output", "tool-output-error"):
            chunk.pop("outcome", None)
            chunk.pop("details", None)


def _extra_headers(form: Form, is_ours: bool) -> None:
    if is_ours:
        form.headers = {name: value for name, value in form.headers.items() if name not in _OUR_HEADERS}


def _error_kinds(form: Form, is_ours: bool) -> None:
    for settlement in _settlements(form):
        error = settlement.get("error", {})
        error.pop("meta", None)
        if "name" in error:
            error["name"] = "a name"
        if settlement["outcome"] == "failed":
            error["type"] = "a kind"


DIFFERENCES = (
    Difference("flush sizes", "text is shown within 50 ms, not in lumps of a second", _flushes),
    Difference(
        "user message at admission",
        "what was sent is shown at once, also what waits or was aborted unread; what joins is shown again with its turn",
        _admitted,
    ),
    Difference("one tool-output per batch", "each is shown as soon as it is durable, so it has a batch of its own", _outputs),
    Difference("advisory after a provider failure", "people see why there is no answer", _failed_advisory),
    Difference(
        "continuation after a cut",
        "a text that was cut off goes on in the same part, and that it was is noted; the recorded server begins another",
        _continuation,
    ),
    Difference("order of aborts", "what waits is aborted at once, not after what runs", _unread_last),
    Difference(
        "no step after an abort", "the recorded server opens one more, empty step when a tool was stopped", _step_after_abort
    ),
    Difference("extra fields", "attempt, timestamp, outcome and details, which clients do not read", _extra_fields),
    Difference("extra headers", "for logs and for proxies", _extra_headers),
    Difference("error texts and kinds", "errors have names of ours, and no `meta` with their text in it again", _error_kinds),
)


# --- shapes ---------------------------------------------------------------------------------------------------------


def shapes(recorded: Form, ours: Form, differences: tuple[Difference, ...] = DIFFERENCES) -> tuple[Any, Any]:
    """Both shapes, without the differences. Equal, or the promise is broken."""
    pair = copy.deepcopy(recorded), copy.deepcopy(ours)
    for difference in differences:
        for form, is_ours in zip(pair, (False, True), strict=True):
            difference.without(form, is_ours)
    return _shape_of(pair[0]), _shape_of(pair[1])


def _shape_of(form: Form) -> Any:
    headers = {
        name: "a place" if name in _PLACES else value for name, value in sorted(form.headers.items()) if name not in _TRANSPORT
    }
    body = _shape(form.chunks if form.chunks is not None else form.value, "", {})
    return {"status": form.status, "headers": headers, "body": body}


def _shape(value: Any, key: str, names: dict[str, str]) -> Any:
    if key in _VALUES or value is None or isinstance(value, bool) or key in _WORDS:
        return value
    if isinstance(value, dict):
        return {name: _shape(each, name, names) for name, each in sorted(value.items())}
    if isinstance(value, list):
        return [_shape(each, "", names) for each in value]
    if isinstance(value, str):
        return names.setdefault(value, f"#{len(names)}") if key in _IDS else "a text"
    return "a number"
