"""The Anthropic Messages protocol, from the server's side: reading a request, writing a stream."""

from __future__ import annotations

from typing import Any

from cairn.testing.providers.script import Call, Entry, Refuse, Reply, Say, Think
from cairn.testing.providers.vendor import errors, sequence
from cairn.testing.providers.wire import Facts, arguments_of, flat, fragments


def facts(body: dict[str, Any]) -> Facts:
    """What a request says, in the vocabulary all protocols share."""
    entries: list[Entry] = []
    for message in body.get("messages", []):
        content = message["content"]
        blocks: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if message["role"] == "assistant":
            calls = tuple((b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use")
            entries.append(Entry("assistant", flat(blocks), calls))
            continue
        for block in blocks:
            if block["type"] == "tool_result":
                entries.append(Entry("tool", flat(block.get("content", "")), call=block["tool_use_id"]))
        if any(block["type"] == "text" for block in blocks):
            entries.append(Entry("user", flat(blocks)))
    return Facts(
        model=body.get("model", ""),
        system=flat(body.get("system", "")),
        tools=tuple(tool["name"] for tool in body.get("tools", [])),
        entries=tuple(entries),
    )


def stream(reply: Reply, facts: Facts, number: int) -> list[bytes]:
    """The events of one reply."""
    events = sequence("anthropic_messages")
    usage = reply.usage
    counts = {"input": usage.input, "cache_write": usage.cache_write, "cache_read": usage.cache_read}
    made = events.events("start", model=facts.model, id=f"msg_{number:04}", **counts)
    for index, part in enumerate(reply.parts):
        made += _block(part, index, f"toolu_{number:04}_{index}")
        if index == 0:
            made += events.events("ping")
    return made + events.events("end", stop=_stop(reply), output=usage.output, **counts)


def _block(part: Say | Think | Call | Refuse, index: int, call: str) -> list[bytes]:
    events = sequence("anthropic_messages")
    made: list[bytes] = []
    if isinstance(part, Call):
        made += events.events("call.open", index=index, call=part.id or call, name=part.name)
        made += events.events("call.delta", index=index, text="")
        for text in fragments(arguments_of(part), part.fragments):
            made += events.events("call.delta", index=index, text=text)
    elif isinstance(part, Think) and part.redacted:
        made += events.events("redacted.open", index=index, signature=part.signature)
    elif isinstance(part, Think):
        made += events.events("thinking.open", index=index)
        for text in part.chunks:
            made += events.events("thinking.delta", index=index, text=text)
        made += events.events("thinking.signature", index=index, signature=part.signature)
    else:
        made += events.events("text.open", index=index)
        for text in part.chunks if isinstance(part, Say) else (part.text,):
            made += events.events("text.delta", index=index, text=text)
    return made + events.events("close", index=index)


def _stop(reply: Reply) -> str:
    if reply.stop == "length":
        return "max_tokens"
    if reply.stop == "refusal" or any(isinstance(part, Refuse) for part in reply.parts):
        return "refusal"
    return "tool_use" if any(isinstance(part, Call) for part in reply.parts) else "end_turn"


def error(kind: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and body of a documented error."""
    known = errors()["anthropic"][kind]
    body = {"type": "error", "error": {"type": known["type"], "message": known["message"]}, "request_id": "req_1"}
    return known["status"], body


def stream_error(kind: str) -> list[bytes]:
    """The same error inside a stream that had begun."""
    known = errors()["anthropic"][kind]
    return sequence("anthropic_messages").events("error", type=known["type"], message=known["message"], id="req_1")
