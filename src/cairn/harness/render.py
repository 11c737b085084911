"""The words a model is given for things that are not plain messages: signals, notes, missing results. Pure."""

from __future__ import annotations

from cairn.harness.messages import Image, Text, ToolCall, ToolMessage, UserMessage
from cairn.harness.records import Delivery, Note

#: Providers refuse a message without words.
EMPTY = "(an empty message)"
CONTINUE = (
    "Your last message was cut off by an interruption on our side; what the user has received of it stands above. "
    "Go on exactly after its last character. Do not repeat or rephrase any of it, and do not mention the interruption."
)
LENGTH = (
    "Your last message reached the maximum length and was cut off there. Go on exactly after its last character, "
    "without repeating any of it."
)
UNKNOWN_OUTCOME = (
    "The outcome of this call is unknown: the process that ran it stopped before it could be recorded, and the tool does not "
    "say that it may be repeated. It may or may not have taken effect. Find out before you call it again."
)
NOT_RUN_ABORTED = "This call was not run: the work was stopped first."
STOPPED_ABORTED = "This call was stopped before it finished. It may have taken effect in part."
UNANSWERED_ABORTED = (
    "The work was stopped before the outcome of this call arrived. It may or may not have taken effect where it was to be made."
)
REJECTED = "This call was not run: it was rejected."
EXPIRED = {
    "approval": "This call was not run: nobody approved it in time.",
    "client_tool": "The outcome of this call did not arrive in time. It may or may not have taken effect.",
    "program": "This program was stopped: its time was over. What its calls did stands.",
}
WITHDRAWN = {
    "approval": "This call was not run; it was withdrawn: the user wrote instead of approving it.",
    "client_tool": "This call was withdrawn: the user wrote before its outcome arrived. It may or may not have taken effect.",
    "program": "This program was withdrawn: the user wrote before it ended. What its calls did stands.",
}
CUT_CALL = (
    "This call was not run: your message reached its maximum length, so the call may be incomplete. Make it again, in a "
    "shorter message."
)


def delivery_message(delivery: Delivery) -> UserMessage:
    """A delivery as the model reads it: a person's words as they are, a signal in a tag with its escaped body."""
    images: tuple[Text | Image, ...] = delivery.attachments
    if delivery.kind == "user":
        words = delivery.body if delivery.body.strip() or images else EMPTY
        return UserMessage(content=(Text(text=words), *images))
    # Imported here: it brings urllib and http.client, a tenth of what starting an agent costs.
    from xml.sax.saxutils import escape, quoteattr

    attributes = {"type": delivery.type or "signal", **delivery.attributes}
    head = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    return UserMessage(content=(Text(text=f"<{delivery.tag} {head}>\n{escape(delivery.body)}\n</{delivery.tag}>"), *images))


def note_message(note: Note) -> UserMessage:
    return UserMessage(content=(Text(text=f'<note kind="{note.kind}">\n{note.text}\n</note>'),))


def missing_result(call: ToolCall) -> ToolMessage:
    """For a call nothing was recorded of: providers refuse a history in which a call has no result (P23)."""
    text = "No result was recorded for this call."
    return ToolMessage(call=call.id, name=call.name, content=(Text(text=text),), is_error=True)
