"""What people's clients are shown of a batch: the wire chunks stored beside its records.

Laws. Pure, and computed once, when the batch is appended: a reader only ever scans a range. A stored chunk is one JSON object a
line, without `conversationId` and `position`: both are known only at commit, and differ in a fork; readers splice them in.
There are twelve types of chunks and there will never be another: clients refuse what they do not know, so what is new goes
into new fields. All steps of an answer are one message, the first step's. A text that was shown is never taken back, and one
that was cut off and goes on (a crash, a broken stream, the length limit) stays one part: the step ends when the words do.
What has to be remembered between batches is in `shown.py`.

    message-appended            a person's message at admission (again when it joins an answer), signals, advisories
    message-started … message-completed     one step of an answer; deltas and tool-input in between
    tool-output | -error        one a call, as soon as it is durable
    data-part, message-metadata what an agent shows beside its words; `question:<call>` is a call that waits for an answer,
                                of the model's or of a program's
    submission-settled          the one outcome, last
    conversation-reset          birth, and a rewind: the reader gets a snapshot for it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from cairn.harness import records as h
from cairn.harness import shown_questions as questions
from cairn.harness.messages import Image, Text, Thinking, ToolCall
from cairn.harness.shown import Chunk, Shown, is_continued, is_submission
from cairn.harness.times import iso
from cairn.runtime import records as r

#: The version of what is below, stored with each row. A change of meaning raises it (S15).
PROJECTION = 1

#: Finds the message of a submission that was admitted earlier.
Find = Callable[[str], h.Delivery]

_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode_delivery = msgspec.json.Decoder(h.Delivery).decode

_ABORTED = "Submission was aborted."
_INTERRUPTED = "The answer was interrupted."
_CONTINUED = "It continues from what was said."


def project(shown: Shown, find: Find, waiting: Sequence[str], records: Sequence[r.Record]) -> bytes:
    """The chunks of one batch. `shown` is as it was before it and is not changed; `waiting` are the submissions nobody has read
    yet, which a rewind keeps."""
    if not any(type(record) in _CHUNKS for record in records):
        return b""
    shown = shown.copy()
    lines: list[bytes] = []
    for record in _shown_order(records):
        handler = _CHUNKS.get(type(record))
        if handler is not None:
            lines.extend(_line(chunk) for chunk in handler(_Place(shown, find, waiting), record))
        shown.apply(record)
    return b"\n".join(lines)


def _line(chunk: Chunk) -> bytes:
    """The chunk as one line: JSON that came from elsewhere may be written over several."""
    line = _encode(chunk)
    return line if b"\n" not in line else _encode(msgspec.json.decode(line))


def _shown_order(records: Sequence[r.Record]) -> Sequence[r.Record]:
    """Messages that joined an answer settle before the one that it answers."""
    if sum(isinstance(record, r.FiberSettled) for record in records) < 2:
        return records
    return sorted(records, key=lambda record: isinstance(record, r.FiberSettled) and record.answered_by is None)


class _Place:
    """What a chunk's making may look at."""

    __slots__ = ("find", "shown", "waiting")

    def __init__(self, shown: Shown, find: Find, waiting: Sequence[str]) -> None:
        self.shown, self.find, self.waiting = shown, find, waiting


# --- messages -------------------------------------------------------------------------------------------------------


def message_id(submission: str) -> str:
    """The id of the message that was sent."""
    return f"msg_{submission}"


def attachment_id(submission: str, index: int) -> str:
    return f"att_{submission}_{index}"


def _sent(submission: str, delivery: h.Delivery, turn: str | None = None) -> Chunk:
    is_user = delivery.kind == "user"
    message: Chunk = {
        "id": message_id(submission),
        "role": "user" if is_user else "system",
        "purpose": "user" if is_user else "dispatch",
        "display": "visible" if is_user else "diagnostic",
        "submissionId": submission,
    }
    if delivery.client_id is not None:
        message["clientId"] = delivery.client_id
    if turn is not None:
        message["turnId"] = turn
    if not is_user and (signal := _signal(delivery)):
        message["signal"] = signal
    files = [_file(submission, index, image) for index, image in enumerate(delivery.attachments)]
    message["parts"] = [_text(delivery.body), *files]
    return {"type": "message-appended", "message": message}


def _signal(delivery: h.Delivery) -> Chunk:
    signal: Chunk = {}
    if delivery.tag != "signal":
        signal["tagName"] = delivery.tag
    if delivery.attributes:
        signal["attributes"] = delivery.attributes
    return signal


def _file(submission: str, index: int, image: Image) -> Chunk:
    part: Chunk = {"type": "file", "mediaType": image.mime_type, "id": attachment_id(submission, index)}
    if image.size is not None:
        part["size"] = image.size
    if image.filename is not None:
        part["filename"] = image.filename
    if image.blob is not None:
        part["blob"] = image.blob
    return part


def _text(text: str) -> Chunk:
    return {"type": "text", "text": text, "state": "done"}


def _advisory(id: str, text: str, display: str, **more: Any) -> Chunk:
    message = {"id": id, "role": "system", "purpose": "advisory", "display": display, **more, "parts": [_text(text)]}
    return {"type": "message-appended", "message": message}


# --- what a record shows --------------------------------------------------------------------------------------------


def _created(place: _Place, record: r.InstanceCreated) -> Iterator[Chunk]:
    yield {"type": "conversation-reset"}


def _rewound(place: _Place, record: h.ConversationRewound) -> Iterator[Chunk]:
    yield {"type": "conversation-reset", "to": record.to, "keep": [message_id(id) for id in place.waiting]}


def _accepted(place: _Place, record: r.FiberAccepted) -> Iterator[Chunk]:
    if record.method == h.SUBMISSION:
        yield {**_sent(record.fiber, _decode_delivery(record.arguments)), "timestamp": iso(record.at)}


def _turn_started(place: _Place, record: h.TurnStarted) -> Iterator[Chunk]:
    shown = place.shown
    is_first = shown.submission != record.submission
    answer = record.message if is_first else shown.answer
    for submission in record.includes:
        if submission != record.submission:
            yield _sent(submission, place.find(submission), shown.turn or record.turn)
    for number, note in enumerate(record.notes):
        yield _note(f"note_{record.turn}_{number}", note, record.submission)
    chunk: Chunk = {"type": "message-started", "messageId": answer, "submissionId": record.submission, "turnId": record.turn}
    held = shown.held if is_first or not shown.answer else []
    metadata: Chunk = {}
    for early in held:
        if early["type"] == "message-metadata":
            _merge(metadata, early["metadata"])
    if metadata:
        chunk["metadata"] = metadata
    yield {**chunk, "attempt": record.attempt, "timestamp": iso(record.at)}
    for early in held:
        if early["type"] == "data-part":
            yield {**early, "messageId": answer}


def _note(id: str, note: h.Note, submission: str) -> Chunk:
    """What the model was told at the tail. That it continues itself is nobody's business; that its tools changed is."""
    if note.kind in ("continue", "length"):
        return _advisory(id, _CONTINUED, "hidden", submissionId=submission)
    if note.kind == "tools":
        return _advisory(id, note.text, "diagnostic", submissionId=submission, signal={"attributes": {"resource": "tool"}})
    return _advisory(id, note.text, "diagnostic", submissionId=submission)


def _merge(into: Chunk, values: Chunk) -> None:
    """Deep: objects are merged, anything else is replaced."""
    for name, value in values.items():
        present = into.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        else:
            into[name] = value


def _delta(place: _Place, record: h.MessageDelta) -> Iterator[Chunk]:
    yield _said(place.shown, record.kind, record.text)


def _said(shown: Shown, kind: str, text: str) -> Chunk:
    wire = "text" if kind == "text" else "reasoning"
    return {"type": "message-delta", "messageId": shown.answer, "kind": wire, "delta": text, "attempt": shown.attempt}


def _completed(place: _Place, record: h.MessageCompleted) -> Iterator[Chunk]:
    yield from _unsaid(place.shown, record)
    for block in record.content:
        if isinstance(block, ToolCall):
            yield {
                "type": "tool-input",
                "messageId": place.shown.answer,
                "toolCallId": block.id,
                "toolName": block.name,
                "input": block.arguments,
                "timestamp": iso(record.at),
            }
    if not is_continued(record):
        yield _ended(place.shown, record.at)


def _unsaid(shown: Shown, record: h.MessageCompleted) -> Iterator[Chunk]:
    """What the message holds and no delta had brought: all of it, from a provider that does not stream."""
    streamed = sorted(shown.streamed)
    for block in record.content:
        if not isinstance(block, Text | Thinking) or not block.text:
            continue
        kind = "text" if isinstance(block, Text) else "thinking"
        said = 0
        if streamed and streamed[0][1] == kind:
            said = streamed.pop(0)[2]
        if rest := block.text[said:]:
            yield _said(shown, kind, rest)


def _ended(shown: Shown, at: float) -> Chunk:
    return {"type": "message-completed", "messageId": shown.answer, "attempt": shown.attempt, "timestamp": iso(at)}


def _interrupted(place: _Place, record: h.MessageInterrupted) -> Iterator[Chunk]:
    if not record.keep:
        yield _ended(place.shown, record.at)
    if record.reason == "crash" and record.keep:
        id = f"adv_{record.turn}_interrupted"
        yield _advisory(id, _INTERRUPTED, "hidden", submissionId=record.submission)


def _failed(place: _Place, record: h.TurnFailed) -> Iterator[Chunk]:
    if place.shown.is_open and not place.shown.is_cut:
        yield _ended(place.shown, record.at)


def _asked(place: _Place, record: h.ToolAwaiting) -> Iterator[Chunk]:
    if record.kind != "program":  # of which nobody is asked
        yield _data(place.shown.answer, question_name(record.call), questions.question(record))


def _called(place: _Place, record: h.ToolCalled) -> Iterator[Chunk]:
    yield from _resolved(place.shown, record)


def _resolved(shown: Shown, record: h.ToolCalled | h.ToolOutcome) -> Iterator[Chunk]:
    asked = shown.asked.get(record.call)
    if asked is not None:
        yield _data(shown.answer, question_name(record.call), questions.resolved(asked, record))


def question_name(call: str) -> str:
    """The data part that shows the question of a call, and what became of it."""
    return f"question:{call}"


def _asked_by_program(place: _Place, record: r.FiberWaiting) -> Iterator[Chunk]:
    if (asked := questions.begun(record)) is not None and place.shown.answer:
        yield _data(place.shown.answer, question_name(record.name), asked)


def _decided(place: _Place, record: questions.Step) -> Iterator[Chunk]:
    if place.shown.asked and (asked := questions.decided(place.shown.asked, record)) is not None:
        yield _data(place.shown.answer, question_name(asked["toolCallId"]), asked)


def _outcome(place: _Place, record: h.ToolOutcome) -> Iterator[Chunk]:
    shown = place.shown
    yield from _resolved(shown, record)
    chunk: Chunk = {"type": "tool-output", "toolCallId": record.call}
    if record.outcome == "ok":
        chunk["output"] = _output(record)
    else:
        chunk["type"] = "tool-output-error"
        chunk["errorText"] = "\n".join(block.text for block in record.content if isinstance(block, Text))
        chunk["outcome"] = record.outcome
    if record.outcome != "unknown":
        chunk["durationMs"] = record.duration_ms
    if record.details != r.NULL:
        chunk["details"] = record.details
    yield {**chunk, "timestamp": iso(record.at)}
    if record.call in shown.progress:
        yield _data(shown.answer, _progress_name(record.call), None)


def _output(record: h.ToolOutcome) -> Any:
    """The value the tool returned; a text as a text; content that is more than text as its blocks."""
    if len(record.content) == 1 and isinstance(record.content[0], Text):
        text = record.content[0].text
        return msgspec.Raw(text.encode()) if record.is_value else text
    return record.content


def _progress_name(call: str) -> str:
    return f"tool-progress:{call}"


def _data(message: str, name: str, value: Any) -> Chunk:
    return {"type": "data-part", "messageId": message, "name": name, "data": value}


def _progress(place: _Place, record: h.ToolProgress) -> Iterator[Chunk]:
    if place.shown.answer:
        yield _data(place.shown.answer, _progress_name(record.call), {"text": record.text})


def _data_shown(place: _Place, record: h.DataShown) -> Iterator[Chunk]:
    if _is_present(place.shown, record.submission):
        yield _data(place.shown.answer, record.name, record.value)


def _metadata_shown(place: _Place, record: h.MetadataShown) -> Iterator[Chunk]:
    if _is_present(place.shown, record.submission):
        yield {"type": "message-metadata", "messageId": place.shown.answer, "metadata": record.value}


def _is_present(shown: Shown, fiber: str) -> bool:
    """Whether the answer that it belongs to is the last one there is: of the submission at work, or (from a hook that runs
    when it has settled) of the last one that was."""
    return shown.submission == fiber.removeprefix("after_") and bool(shown.answer)


def _settled(place: _Place, record: r.FiberSettled) -> Iterator[Chunk]:
    for name in questions.of_fiber(place.shown.asked, record.fiber):
        yield _data(place.shown.answer, question_name(name), {**place.shown.asked[name], "state": "aborted"})
    if not is_submission(record.fiber):
        return
    shown = place.shown
    is_host = record.answered_by is None and shown.submission == record.fiber
    if is_host and shown.is_open:
        yield _ended(shown, record.at)
    if record.outcome != "completed":
        yield _outcome_advisory(record)
    chunk: Chunk = {"type": "submission-settled", "submissionId": record.fiber, "outcome": record.outcome}
    if record.outcome == "aborted":
        why = record.error.message if record.error is not None else ""
        details = why or "It was stopped before an answer was complete."
        chunk["error"] = {"name": "Error", "message": _ABORTED, "type": "submission_aborted", "details": details}
    elif record.error is not None:
        error = record.error
        chunk["error"] = {"name": "Error", "message": error.message, "type": error.kind, "details": ""}
    answered_by = record.answered_by or (record.fiber if is_host and shown.answer else None)
    if answered_by is not None:
        chunk["answeredBySubmissionId"] = answered_by
    yield {**chunk, "timestamp": iso(record.at)}


def _outcome_advisory(record: r.FiberSettled) -> Chunk:
    outcome = record.outcome
    about = {"submissionId": record.fiber, "kind": "direct", "reason": outcome}
    more = {"signal": {"attributes": about}, "settlement": {"outcome": outcome}}
    if outcome == "aborted":
        return _advisory(f"adv_{record.fiber}_aborted", _ABORTED, "diagnostic", **more)
    text = record.error.message if record.error is not None else "The answer failed."
    return _advisory(f"adv_{record.fiber}_failed", text, "visible", **more)


_CHUNKS: dict[type[r.Record], Callable[[_Place, Any], Iterator[Chunk]]] = {
    r.InstanceCreated: _created,
    r.FiberAccepted: _accepted,
    r.FiberSettled: _settled,
    r.FiberWaiting: _asked_by_program,
    r.StepStarted: _decided,
    r.StepCompleted: _decided,
    h.TurnStarted: _turn_started,
    h.MessageDelta: _delta,
    h.MessageCompleted: _completed,
    h.MessageInterrupted: _interrupted,
    h.TurnFailed: _failed,
    h.ToolAwaiting: _asked,
    h.ToolCalled: _called,
    h.ToolOutcome: _outcome,
    h.ToolProgress: _progress,
    h.DataShown: _data_shown,
    h.MetadataShown: _metadata_shown,
    h.ConversationRewound: _rewound,
}
